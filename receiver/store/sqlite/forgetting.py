"""Forgetting a number in SQLite: its rows, the index of texts, and what the files still hold."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from receiver import status
from receiver.forgetting import Entry, Forgotten
from receiver.store.erasing import RowKey
from receiver.store.forgetting import (
    CHANGED,
    CHANGED_BYTES,
    LOOKED_AT,
    ROWS,
    Door,
    cell,
    message,
)
from receiver.store.sqlite import queues
from receiver.store.sqlite.codes import DAY_OF_AT, counted_code
from receiver.store.sqlite.connections import (
    PATIENCE,
    Connections,
    as_unavailable,
    placeholders,
)
from receiver.store.sqlite.scrubbing import scrub

#: Pages of the index that are merged in one transaction.
_MERGED = 16
#: Milliseconds that emptying the log waits for those who read.
_BRIEFLY = 20
#: Bytes of a file that are read at once; and those of them that are read again with the next.
_READ = 1 << 20
_AGAIN = 256
#: A number's last digits, by which it is looked for first.
_END = 6
#: The mark: whether all that was ever deleted from the file has been overwritten.
_WIPED = "wiped"


def whom(connection: sqlite3.Connection, door: Door) -> Forgotten:
    """Who is to be redacted, as a transaction sees it."""
    (version,) = connection.execute(_VERSION).fetchone()
    return read(connection, door, version)


def read(connection: sqlite3.Connection, door: Door, version: int) -> Forgotten:
    """The same by a version that was read."""
    known = door.whom
    if version == known.version:
        return known
    return door.read(version, connection.execute(_LIST).fetchall())


def stored_name(connection: sqlite3.Connection, door: Door, message_id: str) -> str:
    """The id under which a message is stored that others know by this one."""
    name = whom(connection, door).id(message_id)
    if name == message_id:
        return name
    query = "SELECT 1 FROM messages WHERE id = ?"  # until it has been swept
    return message_id if connection.execute(query, (message_id,)).fetchone() else name


class Forgetting(Connections):
    """See `receiver.store.erasing.Forgetting`."""

    def forgotten(self) -> list[Entry]:
        with self._reading() as connection:
            return [Entry(*entry) for entry in connection.execute(_LIST)]

    def forget(self, entries: Sequence[Entry], patience: float) -> None:
        with self._transaction(patience) as connection:
            before = connection.total_changes
            connection.executemany(_REMEMBER, entries)
            if connection.total_changes != before:
                connection.execute("UPDATE marks SET value = value + 1 WHERE name = 'forgotten'")
                # Whoever has read and not yet written reads again.
                connection.execute(_HAS_CHANGED)

    def sweep(
        self, part: str, after: RowKey | None, whom: Forgotten, patience: float, *, dry_run: bool
    ) -> tuple[int, RowKey | None]:
        if part in ("codes", "cells"):
            with self._transaction(patience) as connection:
                if part == "codes":
                    _follow_codes(connection, whom, dry_run)
                else:
                    _move_cells(connection, whom, dry_run)
            return 0, None
        with self._reading() as connection:
            keys, last = _holding(connection, part, after, whom)
        if dry_run or not keys:
            return len(keys), last
        with self._transaction(patience) as connection:
            if part == "messages":
                return _change_messages(connection, [key for (key,) in keys], whom), last
            return _change(connection, part, keys, whom), last

    def wipe(self, begin: bool, patience: float) -> bool:
        with self._transaction(patience) as connection:
            before = connection.total_changes
            # A negative number begins with all that there is, as `optimize` does.
            pages = -_MERGED if begin else _MERGED
            connection.execute("INSERT INTO search (search, rank) VALUES ('merge', ?)", (pages,))
            if connection.total_changes - before >= 2:
                return True
        with as_unavailable():
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            # What is left is little. Webhooks wait for it, and for those who read meanwhile.
            self._reader.execute(f"PRAGMA busy_timeout = {_BRIEFLY}")
            busy, *_ = self._reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._reader.execute(f"PRAGMA busy_timeout = {PATIENCE * 1000:.0f}")
        return bool(busy)

    def leaves_traces(self) -> bool:
        with self._reading() as connection:
            found = connection.execute("SELECT value FROM marks WHERE name = ?", (_WIPED,))
            return not any(value for (value,) in found)

    def rewrite(self) -> None:
        with self._transaction():
            pass  # connects
        with self._writing, as_unavailable():
            assert self._writer is not None
            self._writer.execute("VACUUM")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO marks VALUES (?, 1)", (_WIPED,))

    def scrub(self, whom: Forgotten, digits: Sequence[str]) -> None:
        self.close()
        with as_unavailable():
            scrub(self.path, self._log, _finder(whom, digits))

    def traces(self, whom: Forgotten, digits: Sequence[str]) -> list[str]:
        holds = _finder(whom, digits)
        found = []
        self.close()  # closing a file ends the locks that SQLite has on it
        for ending in ("", "-wal", "-shm"):
            path = Path(self.path + ending)
            with suppress(FileNotFoundError):
                if any(map(holds, _chunks(path))):
                    found.append(str(path))
        return found

    def proof(self) -> str:
        return f"{self.path}, its -wal and its -shm were read: no digits of it are in them"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        before = b""
        while chunk := file.read(_READ):
            yield before + chunk
            before = chunk[-_AGAIN:]


def _finder(whom: Forgotten, digits: Sequence[str]) -> Callable[[bytes], bool]:
    """Whether bytes hold a number. Quick where not even its last digits are in them."""
    inside = [one.encode() for one in digits]
    ends = {one[-_END:] for one in digits}
    gap = r"(?:[^0-9]|\\u[0-9a-f]{4}){0,8}"
    may_be = re.compile("|".join(gap.join(end) for end in sorted(ends)).encode(), re.IGNORECASE)

    def holds(chunk: bytes) -> bool:
        if may_be.search(chunk) is None:
            return False
        if any(one in chunk for one in inside):
            return True
        return whom.holds(chunk.decode("utf-8", "surrogateescape"))

    return holds


# --- rows


def _holding(
    connection: sqlite3.Connection, part: str, after: RowKey | None, whom: Forgotten
) -> tuple[list[RowKey], RowKey | None]:
    """The keys of some rows that hold a number, and where to go on."""
    keys: list[RowKey] = []
    size = 0
    for looked, (key, values) in enumerate(_rows(connection, part, after), 1):
        if _is_held(part, whom, values):
            keys.append(key)
            size += sum(len(value) for value in values if isinstance(value, str | bytes))
        if len(keys) == CHANGED or size >= CHANGED_BYTES or looked == LOOKED_AT:
            return keys, key
    return keys, None


def _rows(
    connection: sqlite3.Connection, part: str, after: RowKey | None
) -> Iterator[tuple[RowKey, RowKey]]:
    """Rows of a part: their keys, and what may hold a number."""
    key = ("key",) if part == "messages" else ROWS[part].key
    columns = ("id", "registers", "first_received_at") if part == "messages" else ROWS[part].columns
    where = "" if after is None else f"WHERE ({', '.join(key)}) > ({placeholders(after)})"
    found = connection.execute(
        f"SELECT {', '.join((*key, *columns))} FROM {part} {where} ORDER BY {', '.join(key)}",
        after or (),
    )
    for row in found:
        yield row[: len(key)], row[len(key) :]


def _is_held(part: str, whom: Forgotten, values: RowKey) -> bool:
    if part == "messages":
        return message(whom, *values) is not None
    return ROWS[part].change(whom, values) != values


def _change(connection: sqlite3.Connection, part: str, keys: list[RowKey], whom: Forgotten) -> int:
    """Needs the write lock: what a row holds is what was read."""
    table = ROWS[part]
    which = " AND ".join(f"{column} = ?" for column in table.key)
    changed = 0
    renamed: set[str] = set()
    for key in keys:
        found = connection.execute(
            f"SELECT {', '.join(table.columns)} FROM {part} WHERE {which}", key
        ).fetchone()
        if found is None or (values := table.change(whom, found)) == found:
            continue
        sets = ", ".join(f"{column} = ?" for column in table.columns)
        connection.execute(f"UPDATE {part} SET {sets} WHERE {which}", (*values, *key))
        changed += 1
        if part == "deliveries" and values[0] is not None:
            renamed.add(values[0])  # what has come since has the new id
    queues.join(connection, renamed)
    connection.execute(_HAS_CHANGED)
    return changed


def _change_messages(connection: sqlite3.Connection, keys: list[int], whom: Forgotten) -> int:
    changed = 0
    for key in keys:
        found = connection.execute(_MESSAGE, (key,)).fetchone()
        if found is None:
            continue
        message_id, registers, first_received_at, *counted = found
        new = message(whom, message_id, registers, first_received_at)
        if new is None:
            continue
        changed += 1
        if new.id != message_id:
            ids = {"new": new.id, "old": message_id, "key": key}
            for query in _RENAMED:
                connection.execute(query, ids)
        summary = new.summary
        connection.execute(
            "UPDATE messages SET id = ?, registers = ?, number = ?, device_id = ?, code = ?,"
            " indexed = 0 WHERE key = ?",
            (new.id, new.registers, summary.number, summary.device_id, summary.code, key),
        )
        connection.execute("DELETE FROM search WHERE rowid = ?", (key,))
        connection.execute("DELETE FROM metadata WHERE message_key = ?", (key,))
        day, provider, device_id, state, code = counted
        if (summary.device_id, summary.code) != (device_id, code):
            cells = {"day": day, "provider": provider, "status": state}
            total = int(not status.is_test(json.loads(new.registers)))
            _move(connection, {**cells, "device_id": device_id, "code": code}, -total, -1)
            there = {"device_id": summary.device_id, "code": summary.code}
            _move(connection, cells | there, total, 1)
    connection.execute(_HAS_CHANGED)
    return changed


def _move(connection: sqlite3.Connection, cell: dict[str, Any], total: int, live: int) -> None:
    connection.execute(_COUNT, {**cell, "total": total, "live": live})


def _follow_codes(connection: sqlite3.Connection, whom: Forgotten, dry_run: bool) -> None:
    """What follows a code that holds a number has a cell of its own where that one has."""
    found = connection.execute("SELECT day, provider, code FROM codes").fetchall()
    new = [
        (day, provider, shown)
        for day, provider, code in found
        if (shown := whom.text(code)) != code
    ]
    if new and not dry_run:
        connection.executemany("INSERT OR IGNORE INTO codes VALUES (?, ?, ?)", new)


def _move_cells(connection: sqlite3.Connection, whom: Forgotten, dry_run: bool) -> None:
    """What has expired, and counts under a device or a code that holds a number."""
    if dry_run:
        return
    for row in connection.execute(_CELLS).fetchall():
        day, provider, device_id, state, code, total, live = row
        new = cell(whom, device_id, code)
        if new == (device_id, code):
            continue
        connection.execute(_DELETE_CELL, row[:5])
        connection.execute(_ADD_CELL, (day, provider, new[0], state, new[1], total, live))
    gone = [
        (code,)
        for (code,) in connection.execute("SELECT DISTINCT code FROM codes").fetchall()
        if whom.text(code) != code
    ]
    connection.executemany("DELETE FROM codes WHERE code = ?", gone)
    connection.execute(_HAS_CHANGED)


# --- SQL

_VERSION = "SELECT value FROM marks WHERE name = 'forgotten'"
_LIST = "SELECT digest, key, length, inside FROM forgotten ORDER BY digest"
_REMEMBER = "INSERT OR IGNORE INTO forgotten VALUES (?, ?, ?, ?)"

# A group of events that was read before is read again.
_HAS_CHANGED = "UPDATE marks SET value = value + 1 WHERE name = 'expiries'"

_MESSAGE = f"""
SELECT id, registers, first_received_at, {DAY_OF_AT}, provider, device_id, status, code
FROM messages WHERE key = ?
"""

# All that refers to a message by its id.
_RENAMED = (
    "UPDATE deliveries SET message_id = :new WHERE event_seq IN ("
    "SELECT seq FROM events WHERE message_key = :key"
    " UNION ALL SELECT seq FROM events WHERE loose = 1 AND message_id = :old)",
    "UPDATE events SET message_id = :new WHERE message_key = :key",
    "UPDATE events SET message_id = :new WHERE loose = 1 AND message_id = :old",
)

_COUNT = f"""
INSERT INTO statistics (day, provider, device_id, status, code, total, live)
VALUES (:day, :provider, :device_id, :status, {counted_code(":day", ":provider", ":code")},
        :total, :live)
ON CONFLICT (day, provider, device_id, status, code) DO UPDATE
    SET total = total + excluded.total, live = live + excluded.live
"""

_CELLS = "SELECT day, provider, device_id, status, code, total, live FROM statistics"
_DELETE_CELL = """
DELETE FROM statistics
WHERE day = ? AND provider = ? AND device_id = ? AND status = ? AND code = ?
"""
_ADD_CELL = """
INSERT INTO statistics (day, provider, device_id, status, code, total, live)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, provider, device_id, status, code) DO UPDATE
    SET total = total + excluded.total, live = live + excluded.live
"""
