"""Forgetting a number in PostgreSQL: its rows, and what the tables and indexes still hold.

What may hold the number is looked for, then locked as whoever writes it locks it, and then looked
at again. Whoever adds to the list has `SCHEMA` alone, which each writing transaction shares: so
all that went by the older list has been committed, and is found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import psycopg

from receiver import mirror, status
from receiver.forgetting import Entry, Forgotten
from receiver.mirror import Cell
from receiver.store.erasing import RowKey
from receiver.store.forgetting import (
    CHANGED,
    CHANGED_BYTES,
    LOOKED_AT,
    ROWS,
    Door,
    Message,
    cell,
    message,
)
from receiver.store.postgres import codes
from receiver.store.postgres.codes import Codes, Move, count, pairs_of
from receiver.store.postgres.place import SCHEMA
from receiver.store.postgres.pool import Connection
from receiver.store.postgres.transactions import LOCK_OF_QUEUE, Transactions, as_unavailable

#: Seconds that one waits to have `SCHEMA` alone: meanwhile nobody else begins to write.
_ALONE_WITHIN = 1.0

#: What holds numbers. Of the indexes, those that keep the values of rows that are gone.
_TABLES = (
    *("messages", "events", "deliveries", "quarantine", "texts", "metadata"),
    *("notes", "marks", "codes", "cells", "statistics"),
)
_INDEXES = ("messages_by_number", "metadata_by_pair", "texts_by_trigrams")


def whom(connection: Connection, door: Door) -> Forgotten:
    """Who is to be redacted, as a transaction sees it."""
    ((version,),) = connection.execute(_VERSION)
    return read(connection, door, version)


def read(connection: Connection, door: Door, version: int) -> Forgotten:
    """The same by a version that was read."""
    known = door.whom
    if version == known.version:
        return known
    return door.read(version, connection.execute(_LIST).fetchall())


def stored_name(connection: Connection, door: Door, message_id: str) -> str:
    """The id under which a message is stored that others know by this one."""
    name = whom(connection, door).id(message_id)
    if name == message_id:
        return name
    query = "SELECT 1 FROM messages WHERE id = %s"  # until it has been swept
    return message_id if connection.execute(query, (message_id,)).fetchone() else name


class Forgetting(Transactions):
    """See `receiver.store.erasing.Forgetting`."""

    #: What a wipe has done, and after which transaction nobody sees the rows as they were.
    _wiped = 0
    _changed_by = "0"

    def forgotten(self) -> list[Entry]:
        with self._reader() as connection:
            return [Entry(*entry) for entry in connection.execute(_LIST)]

    def forget(self, entries: Sequence[Entry], patience: float) -> None:
        with self._transaction(patience, lock_patience=_ALONE_WITHIN) as connection:
            connection.execute(f"SELECT pg_advisory_xact_lock({connection.place.lock(SCHEMA)})")
            rows = json.dumps([entry._asdict() for entry in entries])
            connection.execute(_REMEMBER, {"entries": rows})

    def sweep(
        self, part: str, after: RowKey | None, whom: Forgotten, patience: float, *, dry_run: bool
    ) -> tuple[int, RowKey | None]:
        if part in ("codes", "cells"):
            if not dry_run:
                with self._transaction(patience) as connection:
                    if part == "codes":
                        _follow_codes(connection, whom)
                    else:
                        _move_cells(connection, whom, self._spread, self._codes)
            return 0, None
        with self._reading() as connection:
            keys, names, last = _holding(connection, part, after, whom)
        if dry_run or not keys:
            return len(keys), last
        locked = names | {whom.id(name) for name in names}
        with self._transaction(patience, ids=locked) as connection:
            if part == "messages":
                changed = _change_messages(connection, keys, whom, self._spread, self._codes)
                return changed, last
            changed, is_whole = _change(connection, part, keys, whom)
        return changed, last if is_whole else after or ()

    def wipe(self, begin: bool, patience: float) -> bool:
        with as_unavailable(), psycopg.connect(
            autocommit=True, prepare_threshold=None, **self._pool.settings
        ) as connection:  # fmt: skip
            if begin:
                self._wiped = 0
                ((self._changed_by,),) = connection.execute("SELECT pg_current_xact_id()::text")
            ((readers,),) = connection.execute(_WHO_SEES, (self._changed_by,))
            if readers:
                return True
            own = self._pool.place.prefix  # none of this may be in a transaction
            what = [*(f"VACUUM (TRUNCATE FALSE) {own}{table}" for table in _TABLES)]
            for index in (own + name for name in _INDEXES):
                # What is left where this was killed.
                what.append(f"DROP INDEX CONCURRENTLY IF EXISTS {index}_ccnew")
                ((there,),) = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (index,))
                if there:
                    what.append(f"REINDEX INDEX CONCURRENTLY {index}")
            if self._wiped < len(what):
                connection.execute(what[self._wiped])
                self._wiped += 1
        return self._wiped < len(what)

    def leaves_traces(self) -> bool:
        return False

    def rewrite(self) -> None:
        """The tables are vacuumed by `wipe`."""

    def scrub(self, whom: Forgotten, digits: Sequence[str]) -> None:
        """Nothing is found in files that are the server's."""

    def traces(self, whom: Forgotten, digits: Sequence[str]) -> list[str]:
        return []

    def proof(self) -> str:
        return "no row and no index entry of the database holds it"


# --- rows


def _holding(
    connection: Connection, part: str, after: RowKey | None, whom: Forgotten
) -> tuple[list[RowKey], set[str], RowKey | None]:
    """The keys of some rows that hold a number, the ids in them, and where to go on."""
    keys: list[RowKey] = []
    names: set[str] = set()
    size = 0
    for looked, (key, values) in enumerate(_rows(connection, part, after), 1):
        if _is_held(part, whom, key, values):
            keys.append(key)
            names |= _ids(part, key, values)
            size += sum(len(value) for value in values if isinstance(value, str | bytes))
        if len(keys) == CHANGED or size >= CHANGED_BYTES or looked == LOOKED_AT:
            return keys, names, key
    return keys, names, None


def _rows(
    connection: Connection, part: str, after: RowKey | None
) -> Iterator[tuple[RowKey, RowKey]]:
    """Rows of a part: their keys, and what may hold a number."""
    key = ("id",) if part == "messages" else ROWS[part].key
    columns = ("registers", "first_received_at") if part == "messages" else ROWS[part].columns
    where = f"WHERE ({', '.join(key)}) > ({', '.join(['%s'] * len(key))})" if after else ""
    found = connection.execute(
        f"SELECT {', '.join((*key, *columns))} FROM {part} {where} ORDER BY {', '.join(key)}"
        f" LIMIT {LOOKED_AT}",
        after or (),
    )
    for row in found:
        yield row[: len(key)], row[len(key) :]


def _is_held(part: str, whom: Forgotten, key: RowKey, values: RowKey) -> bool:
    if part == "messages":
        return message(whom, *key, *values) is not None
    return ROWS[part].change(whom, values) != values


def _ids(part: str, key: RowKey, values: RowKey) -> set[str]:
    """Whose writers must not be in between."""
    if part == "messages":
        return {*key}
    if part == "events":
        event_id, _, message_id, *_ = values
        return {event_id, message_id} - {None}
    return set()


def _change(
    connection: Connection, part: str, keys: list[RowKey], whom: Forgotten
) -> tuple[int, bool]:
    """
    :returns: how many rows were changed, and whether none was in somebody else's hands.
    """
    table = ROWS[part]
    which = " AND ".join(f"{column} = %s" for column in table.key)
    sets = ", ".join(f"{column} = %s" for column in table.columns)
    changed, is_whole = 0, True
    for key in keys:
        found = connection.execute(
            f"SELECT {', '.join(table.columns)} FROM {part} WHERE {which} FOR UPDATE SKIP LOCKED",
            key,
        ).fetchone()
        if found is None:
            exists = connection.execute(f"SELECT 1 FROM {part} WHERE {which}", key).fetchone()
            is_whole = is_whole and exists is None
        elif (values := table.change(whom, found)) != found:
            connection.execute(f"UPDATE {part} SET {sets} WHERE {which}", (*values, *key))
            changed += 1
    return changed, is_whole


def _change_messages(
    connection: Connection, keys: list[RowKey], whom: Forgotten, spread: int, codes_: Codes
) -> int:
    moves: dict[Cell, Move] = {}
    changed = 0
    ids = [message_id for (message_id,) in keys]
    renamed = [message_id for message_id in ids if whom.id(message_id) != message_id]
    if renamed:
        connection.execute(_LOCK_QUEUES, {"ids": renamed, "seed": connection.place.seed})
    found = connection.execute(_MESSAGES, (ids,)).fetchall()
    for message_id, registers, first_received_at, at, provider, device_id, state, code in found:
        new = message(whom, message_id, registers, first_received_at)
        if new is None:
            continue
        changed += 1
        _write_message(connection, message_id, new, code)
        before = codes.cell(at, provider, device_id, state, code)
        after = before._replace(
            device_id=new.summary.device_id, code=before.code and new.summary.code
        )
        if after != before:
            total = int(not status.is_test(json.loads(new.registers)))
            moves[before] = moves.get(before, Move()).plus(-total, -1)
            moves[after] = moves.get(after, Move()).plus(total, 1)
    count(connection, moves, spread, codes_)
    return changed


def _write_message(connection: Connection, message_id: str, new: Message, code: str | None) -> None:
    row: status.Row = json.loads(new.registers)
    if new.id != message_id:
        for table, column in _RENAMED:
            connection.execute(
                f"UPDATE {table} SET {column} = %s WHERE {column} = %s", (new.id, message_id)
            )
    summary = new.summary
    connection.execute(
        "UPDATE messages SET registers = %s, number = %s, device_id = %s, code = %s WHERE id = %s",
        (new.registers, summary.number, summary.device_id, code and summary.code, new.id),
    )
    if "message" in row:
        folded = mirror.fold(row["message"][2])
        connection.execute("UPDATE texts SET folded = %s WHERE message_id = %s", (folded, new.id))
    connection.execute(
        "UPDATE metadata SET pairs = %s WHERE message_id = %s", (pairs_of(row), new.id)
    )


def _follow_codes(connection: Connection, whom: Forgotten) -> None:
    """What follows a code that holds a number has a cell of its own where that one has."""
    for day, provider, code in connection.execute("SELECT day, provider, code FROM codes"):
        if (shown := whom.text(code)) != code:
            connection.execute(
                "INSERT INTO codes VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (day, provider, shown),
            )


def _move_cells(connection: Connection, whom: Forgotten, spread: int, codes_: Codes) -> None:
    """What has expired, and counts under a device or a code that holds a number."""
    moves: dict[Cell, Move] = {}
    for provider, code, table in (
        ("provider", "code", "cells"),
        (f"'{mirror.PROVIDER}'", "''", "statistics"),
    ):
        found = connection.execute(
            f"SELECT DISTINCT day, {provider}, device_id, status, {code} FROM {table}"
        ).fetchall()
        for day, named, device_id, state, why in found:
            new = cell(whom, device_id, why)
            if new == (device_id, why):
                continue
            own = "AND provider = %s AND code = %s" if table == "cells" else ""
            gone = connection.execute(
                f"DELETE FROM {table} WHERE day = %s AND device_id = %s AND status = %s {own}"
                " RETURNING total, live",
                (day, device_id, state, *((named, why) if own else ())),
            ).fetchall()
            there = Cell(day, named, new[0], state, new[1])
            for total, live in gone:
                moves[there] = moves.get(there, Move()).plus(total, live)
    for (code,) in connection.execute("SELECT DISTINCT code FROM codes").fetchall():
        if whom.text(code) != code:
            connection.execute("DELETE FROM codes WHERE code = %s", (code,))
    count(connection, moves, spread, codes_)


# --- SQL

_VERSION = "SELECT value FROM marks WHERE name = 'forgotten'"
_LIST = "SELECT digest, key, length, inside FROM forgotten ORDER BY digest"

_REMEMBER = """
WITH new AS (
    INSERT INTO forgotten (digest, key, length, inside)
    SELECT digest, key, length, inside FROM jsonb_to_recordset(%(entries)s::jsonb) AS e (
        digest text, key text, length integer, inside integer)
    ON CONFLICT (digest) DO NOTHING RETURNING 1)
UPDATE marks SET value = value + 1 WHERE name = 'forgotten' AND EXISTS (SELECT 1 FROM new)
"""

# Whose snapshot may be from before a transaction: for them the rows stay as they were.
_WHO_SEES = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND greatest(age(backend_xmin), age(backend_xid)) > age(%s::xid8::xid)
"""

_MESSAGES = """
SELECT id, registers, first_received_at, at, provider, device_id, status, code FROM messages
WHERE id = ANY (%s) ORDER BY id
"""

# A new id is written into work that others settle: they wait for this lock, and for no row.
_LOCK_QUEUES = f"""
SELECT count(pg_advisory_xact_lock(key)) FROM (
    SELECT DISTINCT {LOCK_OF_QUEUE.format(handler="m.handler")} AS key FROM deliveries AS m
    WHERE message_id = ANY (%(ids)s) AND state = 'pending' ORDER BY key) AS keys
"""

# All that has a message's id, in the order in which all who write take the tables.
_RENAMED = (
    ("events", "message_id"),
    ("deliveries", "message_id"),
    ("texts", "message_id"),
    ("metadata", "message_id"),
    ("messages", "id"),
)
