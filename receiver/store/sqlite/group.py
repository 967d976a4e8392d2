"""A group of arrivals, written into SQLite.

Under load the time goes by between the statements, not in them: Python gives its lock away at each,
gets it back only after other threads had their turn, and meanwhile no other process can write. So
what is known is read before, without any lock of SQLite's; the new events are written by a single
statement, which is a transaction by itself and fails if something that was read is no longer so;
and only then, or where there is more to write, a transaction is opened before reading.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain
from operator import attrgetter
from typing import Any

from receiver.event import Incoming, Rejected
from receiver.mirror import Cell, Summary
from receiver.store.contract import Outcome, Report
from receiver.store.forgetting import Door, as_stored, ids_of, redact
from receiver.store.group import (
    Decision,
    Known,
    Look,
    MirroredMessage,
    decide,
    expired_by_provider,
    set_apart,
    undated_mark,
    unread,
)
from receiver.store.sqlite import forgetting
from receiver.store.sqlite.connections import Connections, item_of, patiently
from receiver.times import DAY, RELEASED

Items = Sequence[Incoming | Rejected]
Wanting = Callable[[str], Sequence[str]]


class Ingest(Connections):
    """See `receiver.store.contract.Ingest`."""

    committers = 1
    one_writer = True

    def ingest(
        self,
        items: Items,
        wanting: Wanting,
        patience: float,
        reading_done: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        deadline = time.monotonic() + patience
        if self._writing.locked():
            reading_done()  # another thread of this process writes, and may do so for long
        # The schema is looked at by the statement that writes: each more would hold the group up,
        # for at each Python gives its own lock away, and gets it back late under load.
        known_schema = self._verified is not None
        with self._exclusive_writer(deadline, any_schema=known_schema) as connection:
            assert self._verified is not None
            group = Group(connection, items, wanting, self._verified, self._door)
            reading_done()
            if group.is_one_statement:
                with suppress(sqlite3.IntegrityError):
                    patiently(lambda: group.write(connection), deadline)
                    return group.outcomes
        with self._transaction(deadline - time.monotonic()) as connection:
            group = Group(connection, items, wanting, self._verified, self._door)
            group.write(connection)
        return group.outcomes

    def try_ingest(self, items: Items, wanting: Wanting, patience: float) -> None:
        with self._transaction(patience) as connection:
            connection.execute("SAVEPOINT trial")
            assert self._verified is not None
            Group(connection, items, wanting, self._verified, self._door).write(connection)
            connection.execute("ROLLBACK TO trial")


class Group:
    """What to write of a group of arrivals, by what was known of them when it was made."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        came: Items,
        wanting: Wanting,
        schema: int,
        door: Door,
    ) -> None:
        """
        :param schema: SQLite's count of schema changes at which the schema is ours.
        :param door: who is redacted.
        """
        whom = door.whom
        while True:
            items = redact(whom, came)
            known, seen, version = _known(connection, items)
            if version == whom.version:
                break
            whom = forgetting.read(connection, door, version)
        items = as_stored(items, known, whom)
        apart, read = set_apart(items, known), items
        while apart is not items and (more := unread(apart, read)):  # ids that collide: rare
            read = [*read, *more]
            known, seen, _ = _known(connection, read)
            apart = set_apart(items, known)
        self._decision = decision = decide(apart, known, partial(_look, connection), wanting)
        self._events = list(_arrivals(decision, seen, schema))
        self.outcomes = decision.outcomes
        self._is_undated = decision.is_undated

    @property
    def is_one_statement(self) -> bool:
        """Whether `write` is a transaction by itself: there are new events, not too many for one
        statement, and nothing else."""
        decision = self._decision
        return len(self._events) == 1 and not (
            decision.again or decision.quarantined or self._is_undated
        )

    def write(self, connection: sqlite3.Connection) -> None:
        """
        :raises sqlite3.IntegrityError: if what was known has changed; not where a transaction has
            held the write lock since before that was read.
        """
        for statement, values in self._events:
            connection.execute(statement, values)
        if again := self._decision.again:
            connection.executemany(_RECEIVED_AGAIN, [(a.received_at, a.id) for a in again])
        if self._is_undated:
            connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", undated_mark())
            connection.execute(_DUE_AT_ONCE, (RELEASED,))
        if quarantined := self._decision.quarantined:
            connection.executemany(
                _QUARANTINE,
                [
                    (q.digest, q.received_at, q.received_at, q.length, q.reason, q.body)
                    for q in quarantined
                ],
            )


# --- reading


def _known(connection: sqlite3.Connection, items: Items) -> tuple[Known, tuple[int, int], int]:
    """What is known of the arrivals; what tells later whether that has changed; and the version of
    the list of whom to redact."""
    event_ids, message_ids = ids_of(items)
    ids, messages, learnt, expired, *seen, version = connection.execute(
        _KNOWN,
        {"ids": json.dumps(list(event_ids)), "messages": json.dumps(list(message_ids))},
    ).fetchone()
    known = Known(
        {event_id: (kind, message_id) for event_id, kind, message_id in json.loads(ids)},
        {
            message_id: MirroredMessage.stored(registers, Cell(at // DAY, *cell), *rest)
            for message_id, registers, at, cell, *rest in json.loads(messages)
        },
        expired_by_provider(json.loads(expired)),
        set(json.loads(learnt)),
    )
    return known, (seen[0], seen[1]), version


def _look(connection: sqlite3.Connection, looks: list[Look]) -> Iterator[tuple[str, Report]]:
    (found,) = connection.execute(_LOOK, (json.dumps(looks),)).fetchone()
    for message_id, kind, at, has_error, source in filter(None, chain(*json.loads(found))):
        yield message_id, Report(kind, at, bool(has_error), source)


# --- writing

# The columns of the view `arrivals`, which `schema` explains, in the order of their values. What
# `_ITEM` and `_MESSAGE` name are attributes, too.
_ITEM = (
    *("id", "type", "message_id", "occurred_at", "received_at", "timestamp", "reported_at"),
    *("has_error", "source", "redacted", "body"),
)
_DECIDED = ("loose", "late", "repeat", "handlers")
_MESSAGE = ("first_received_at", "touched_at", "indexed", "registers")
_BEFORE = (*(f"{name}_before" for name in Cell._fields), "counts_before")
_CELL = (*Summary._fields, "day", "counts", *_BEFORE)
_READ = ("latest", "expiries", "concerned")
_COLUMNS = (*_ITEM, *_DECIDED, *_MESSAGE, *_CELL, *_READ)

_values_of_item = attrgetter(*_ITEM)
_values_of_message = attrgetter(*_MESSAGE)

_INSERT = f"INSERT INTO arrivals ({', '.join(_COLUMNS)}) VALUES "
_ROW = f"({', '.join('?' * len(_COLUMNS))})"
# No number of expiries fits where a migration has come in between.
_FIRST_ROW = f"""({", ".join("?" * (len(_COLUMNS) - len(_READ)))}, ?,
    CASE (SELECT schema_version FROM pragma_schema_version) WHEN ? THEN ? ELSE -1 END, ?)"""

_NO_MESSAGE = (None,) * len(_MESSAGE + _CELL)
_NO_CELL = (None,) * len(_BEFORE)
_NOTHING_READ = (None,) * len(_READ)

#: Rows of one statement. SQLite takes 32,766 values in one, unless it was built for more.
_MOST_ROWS = 32_000 // len(_COLUMNS)


def _arrivals(
    decision: Decision, seen: tuple[int, int], schema: int
) -> Iterator[tuple[str, list[Any]]]:
    """The statements that write what was accepted, and their values."""
    messages = dict(decision.messages)
    concerned = json.dumps([a.item.message_id for a in decision.accepted if a.item.message_id])
    # A message's row goes with the first of its events; and what was read with the first of all.
    latest, expiries = seen
    first = _FIRST_ROW
    read: tuple[Any, ...] = (latest, schema, expiries, concerned)
    for start in range(0, len(decision.accepted), _MOST_ROWS):
        rows = decision.accepted[start : start + _MOST_ROWS]
        values: list[Any] = []
        for item, late, repeat, handlers in rows:
            loose, message = True, None
            if item.message_id is not None and item.says is not None:
                loose, message = False, messages.pop(item.message_id, None)
            values += _values_of_item(item)
            values += (loose, late, repeat, _names(tuple(handlers)) if handlers else None)
            values += _row_and_cell(message)
            values += read
            read = _NOTHING_READ
        yield _INSERT + ", ".join([first, *[_ROW] * (len(rows) - 1)]), values
        first = _ROW


@lru_cache(maxsize=256)
def _names(handlers: tuple[str, ...]) -> str:
    return json.dumps(handlers)


def _row_and_cell(message: MirroredMessage | None) -> tuple[Any, ...]:
    if message is None or message.summary is None:
        return _NO_MESSAGE
    summary, before = message.summary, message.before
    cell = summary.cell
    is_test, was_test = message.is_test, message.was_test
    if cell == before and is_test == was_test:  # the numbers stay as they are
        counted: tuple[Any, ...] = (None, None, *_NO_CELL)
    else:
        counted = (
            *(cell.day, not is_test),
            *(_NO_CELL if before is None else (*before, not was_test)),
        )
    return (*_values_of_message(message), *summary, *counted)


# --- SQL

_KNOWN = """
SELECT (SELECT json_group_array(json_array(id, type, message_id)) FROM events
        WHERE id IN (SELECT value FROM json_each(:ids))),
       (SELECT json_group_array(json_array(
            id, registers, at, json_array(provider, device_id, status, code),
            first_received_at, touched_at, indexed))
        FROM messages WHERE id IN (SELECT value FROM json_each(:messages))),
       (SELECT json_group_array(value) FROM json_each(:messages)
        WHERE EXISTS (SELECT 1 FROM events WHERE message_id = value AND source <> 'webhook')),
       (SELECT json_group_array(json_array(name, value)) FROM marks
        WHERE name >= 'timestamp' AND name < 'timestamp;'),
       (SELECT coalesce(max(seq), 0) FROM events),
       (SELECT value FROM marks WHERE name = 'expiries'),
       (SELECT value FROM marks WHERE name = 'forgotten')
"""


def _closest(has_error: int, order: str) -> str:
    """One report. Those that leave the mirror alone are found by the message's id, the others by
    its key, and those that did not come by webhook, which are few, by an index of their own."""
    message_id, kind, since, until, _, learnt = (item_of("l.value", number) for number in range(6))
    report = f"SELECT json_array({message_id}, e.type, e.reported_at, e.has_error, e.source)"
    within = f"""e.type = {kind} AND e.has_error = {has_error}
             AND e.reported_at BETWEEN {since} AND {until}
             ORDER BY e.reported_at {order} LIMIT 1"""
    return f"""
        CASE WHEN {learnt} THEN
            ({report} FROM events AS e
             WHERE e.message_id = {message_id} AND e.source <> 'webhook' AND {within})
        ELSE coalesce(
            ({report} FROM events AS e WHERE e.message_key = m.key AND {within}),
            ({report} FROM events AS e
             WHERE e.loose = 1 AND e.message_id = {message_id} AND {within}))
        END"""


# The values of a question are the fields of a `Look`.
_LOOK = f"""
SELECT json_group_array(json_array({
    ", ".join(
        f"json(CASE WHEN {item_of('l.value', 4)} THEN {_closest(has_error, 'DESC')}"
        f" ELSE {_closest(has_error, 'ASC')} END)"
        for has_error in (0, 1)
    )
}))
FROM json_each(?) AS l LEFT JOIN messages AS m ON m.id = {item_of("l.value", 0)}
"""

# What has just come again is kept for as long as what has just come.
_RECEIVED_AGAIN = """
UPDATE events SET receipts = receipts + 1, last_received_at = max(last_received_at, ?)
WHERE id = ?
"""

# By the clock of now, `RELEASED` may be years away.
_DUE_AT_ONCE = "UPDATE deliveries SET due_at = 0 WHERE due_at = ? AND state = 'pending'"

_QUARANTINE = """
INSERT INTO quarantine (digest, received_at, last_received_at, length, reason, body)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET
    receipts = receipts + 1, last_received_at = max(last_received_at, excluded.last_received_at)
"""
