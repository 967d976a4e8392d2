"""A group of arrivals, written into SQLite inside one transaction.

The number of statements does not depend on the size of the group. Python gives its lock away at
every statement and every row fetched, and under load gets it back only after other threads had
their turn; so reading what is known and writing what is new are one statement each.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, NamedTuple

from receiver import mirror, status
from receiver.event import Incoming, Rejected, reject_expired
from receiver.mirror import Cell, Summary
from receiver.store import Outcome
from receiver.times import DAY, SECOND

#: Two reports of one thing lie less than this apart: the provider tells two webhooks.
_SAME_REPORT = 2 * SECOND
#: Rows in one INSERT at most; SQLite takes 32,766 parameters.
_ROWS = 500

_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

Report = tuple[str, str]  # message id and event type


def write_group(
    connection: sqlite3.Connection,
    items: Sequence[Incoming | Rejected],
    wanting: Callable[[str], Sequence[str]],
) -> list[Outcome]:
    """See `receiver.store.Store.ingest`. The transaction is open, and holds the write lock: what
    is read here stays true until it is committed."""
    arrivals = [item for item in items if isinstance(item, Incoming)]
    known = _known(connection, arrivals)
    stored, messages, seq = known.ids, known.messages, known.seq
    repeats = _Repeats(connection, [a for a in arrivals if a.id not in stored], messages.keys())
    outcomes: list[Outcome] = []
    events: list[tuple[Any, ...]] = []
    deliveries: list[tuple[Any, ...]] = []
    quarantined = [item for item in items if isinstance(item, Rejected)]
    again: list[Incoming] = []
    for item in items:
        if isinstance(item, Rejected):
            outcomes.append("quarantined")
            continue
        if item.id in stored:
            again.append(item)
            outcomes.append("duplicate")
            continue
        if item.timestamp is not None and item.timestamp <= known.expired:
            quarantined.append(reject_expired(item))
            outcomes.append("quarantined")
            continue
        stored.add(item.id)
        outcomes.append("accepted")
        seq += 1
        late = False
        if item.message_id is not None and item.says is not None:
            message = messages.setdefault(item.message_id, _Message(item.received_at))
            late = message.take(item, item.says)
        repeat, dispatched = repeats.judge(item)
        events.append(
            (
                seq,
                item.id,
                item.type,
                item.message_id,
                item.occurred_at,
                item.received_at,
                item.timestamp,
                item.received_at,
                item.reported_at,
                item.has_error,
                item.source,
                late,
                repeat,
                item.redacted,
                item.says is None or item.message_id is None,
                item.body,
            )
        )
        if dispatched:
            deliveries += [
                (seq, name, item.message_id, item.occurred_at, item.received_at)
                for name in wanting(item.type)
            ]
    changed = {name: message for name, message in messages.items() if message.changed}
    _insert(connection, _EVENTS, events)
    _insert(
        connection,
        _MESSAGES,
        [(name, *message.columns()) for name, message in changed.items()],
        _MESSAGES_AGAIN,
    )
    _count(connection, changed.values())
    _insert(connection, _DELIVERIES, deliveries)
    if again:
        connection.executemany(_RECEIVED_AGAIN, [(a.received_at, a.id) for a in again])
    if quarantined:
        connection.executemany(
            _QUARANTINE,
            [
                (q.digest, q.received_at, q.received_at, q.length, q.reason, q.body)
                for q in quarantined
            ],
        )
    return outcomes


class _Message:
    """A message's row in the mirror, as this group finds it and changes it."""

    __slots__ = (
        "before",
        "changed",
        "first_received_at",
        "indexed",
        "row",
        "summary",
        "touched_at",
    )

    def __init__(self, received_at: int) -> None:
        self.row: status.Row = {}
        #: The cell that it counts in so far; `None` for a new message.
        self.before: Cell | None = None
        self.summary: Summary | None = None
        self.first_received_at = received_at
        self.touched_at = 0
        self.indexed = True
        self.changed = False

    @classmethod
    def stored(
        cls,
        registers: str,
        cell: Cell,
        first_received_at: int,
        touched_at: int,
        indexed: int,
    ) -> _Message:
        message = cls(first_received_at)
        message.row = json.loads(registers)
        message.before = cell
        message.touched_at = touched_at
        message.indexed = bool(indexed)
        return message

    def take(self, item: Incoming, says: status.Row) -> bool:
        """Merge what an event says; returns whether the event is late."""
        before, after = self.row, status.merge(self.row, says)
        text = after.get("message")
        if text is not None and ("message" not in before or text[2] != before["message"][2]):
            self.indexed = False
        self.row = after
        self.first_received_at = min(self.first_received_at, item.received_at)
        self.touched_at = max(
            self.touched_at, item.received_at, item.occurred_at, mirror.latest_time(says)
        )
        self.changed = True
        return status.is_late(before, after, status.STATE_OF_TYPE[item.type])

    def columns(self) -> tuple[Any, ...]:
        self.summary = mirror.summarize(self.row, self.first_received_at)
        return (
            *self.summary,
            self.first_received_at,
            self.touched_at,
            self.indexed,
            _ENCODE(self.row),
        )


def _count(connection: sqlite3.Connection, messages: Iterable[_Message]) -> None:
    """Move the messages of a group from the cells that they counted in to those of now."""
    moves: Counter[Cell] = Counter()
    for message in messages:
        assert message.summary is not None
        moves[message.summary.cell] += 1
        if message.before is not None:
            moves[message.before] -= 1
    _insert(
        connection,
        _STATISTICS,
        [(*cell, count, count) for cell, count in moves.items() if count],
        _STATISTICS_AGAIN,
    )


class _Known(NamedTuple):
    """What the store knows of a group's arrivals."""

    ids: set[str]
    messages: dict[str, _Message]
    #: The greatest ever given to an event.
    seq: int
    #: Events with this `timestamp` or an earlier one may have been forgotten.
    expired: int


def _known(connection: sqlite3.Connection, arrivals: Sequence[Incoming]) -> _Known:
    ids, messages, seq, forgotten_seq, expired = connection.execute(
        _KNOWN,
        (
            json.dumps([arrival.id for arrival in arrivals]),
            json.dumps([a.message_id for a in arrivals if a.says is not None]),
        ),
    ).fetchone()
    return _Known(
        set(json.loads(ids)),
        {
            message_id: _Message.stored(registers, Cell(at // DAY, device_id, state), *rest)
            for message_id, registers, at, device_id, state, *rest in json.loads(messages)
        },
        max(seq, forgotten_seq),
        expired,
    )


class _Repeats:
    """Which arrivals report what an event of their message has reported already."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        arrivals: Sequence[Incoming],
        messages: Container[str],
    ) -> None:
        # A message without a row cannot have had an event of a type that makes one.
        asked = [
            a
            for a in arrivals
            if a.message_id is not None
            and a.reported_at is not None
            and (a.says is None or a.message_id in messages)
        ]
        #: For each id: has such a report been stored, without and with an error?
        self._stored: dict[str, tuple[int, int]] = {}
        #: The reports of this group so far: when, and whether with an error.
        self._here: dict[Report, list[tuple[int, bool]]] = {}
        if asked:
            (found,) = connection.execute(
                _REPORTED,
                (json.dumps([(a.id, a.message_id, a.type, a.reported_at) for a in asked]),),
            ).fetchone()
            self._stored = {event_id: (mute, why) for event_id, mute, why in json.loads(found)}

    def judge(self, item: Incoming) -> tuple[bool, bool]:
        """Whether it is a repeat, and whether it is dispatched all the same: it is if it is the
        first that says why."""
        if item.message_id is None or item.reported_at is None:
            return False, True
        here = self._here.setdefault((item.message_id, item.type), [])
        near = [why for at, why in here if abs(at - item.reported_at) < _SAME_REPORT]
        here.append((item.reported_at, item.has_error))
        mute, explained = self._stored.get(item.id, (0, 0))
        repeat = bool(mute or explained or near)
        return repeat, not repeat or (item.has_error and not explained and not any(near))


def _insert(
    connection: sqlite3.Connection, head: str, rows: Iterable[tuple[Any, ...]], tail: str = ""
) -> None:
    left = list(rows)
    while left:
        some, left = left[:_ROWS], left[_ROWS:]
        marks = f"({', '.join('?' * len(some[0]))})"
        connection.execute(
            f"{head} VALUES {', '.join([marks] * len(some))} {tail}",
            [value for row in some for value in row],
        )


_KNOWN = """
SELECT (SELECT json_group_array(id) FROM events WHERE id IN (SELECT value FROM json_each(?))),
       (SELECT json_group_array(json_array(id, registers, at, device_id, status,
                                           first_received_at, touched_at, indexed))
        FROM messages WHERE id IN (SELECT value FROM json_each(?))),
       (SELECT coalesce(max(seq), 0) FROM events),
       (SELECT value FROM marks WHERE name = 'seq'),
       (SELECT value FROM marks WHERE name = 'timestamp')
"""

_REPORTED = f"""
SELECT json_group_array(json_array(
    value ->> 0,
    EXISTS (SELECT 1 FROM events AS e
            WHERE e.message_id = (asked.value ->> 1) AND e.type = (asked.value ->> 2)
              AND e.has_error = 0
              AND e.reported_at > (asked.value ->> 3) - {_SAME_REPORT}
              AND e.reported_at < (asked.value ->> 3) + {_SAME_REPORT}),
    EXISTS (SELECT 1 FROM events AS e
            WHERE e.message_id = (asked.value ->> 1) AND e.type = (asked.value ->> 2)
              AND e.has_error = 1
              AND e.reported_at > (asked.value ->> 3) - {_SAME_REPORT}
              AND e.reported_at < (asked.value ->> 3) + {_SAME_REPORT})))
FROM json_each(?) AS asked
"""

_EVENTS = """
INSERT INTO events (seq, id, type, message_id, occurred_at, received_at, timestamp,
                    last_received_at, reported_at, has_error, source, late, repeat, redacted,
                    loose, body)
"""

_MESSAGES = """
INSERT INTO messages (id, status, at, device_id, number, first_received_at, touched_at, indexed,
                      registers)
"""
_MESSAGES_AGAIN = """
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, at = excluded.at, device_id = excluded.device_id,
    number = excluded.number, first_received_at = excluded.first_received_at,
    touched_at = excluded.touched_at, indexed = excluded.indexed, registers = excluded.registers
"""

_STATISTICS = "INSERT INTO statistics (day, device_id, status, total, live)"
_STATISTICS_AGAIN = """
ON CONFLICT (day, device_id, status) DO UPDATE SET
    total = total + excluded.total, live = live + excluded.live
"""

_DELIVERIES = "INSERT INTO deliveries (event_seq, handler, message_id, occurred_at, due_at)"

# What has just come again is kept for as long as what has just come.
_RECEIVED_AGAIN = """
UPDATE events SET receipts = receipts + 1, last_received_at = max(last_received_at, ?)
WHERE id = ?
"""

_QUARANTINE = """
INSERT INTO quarantine (digest, received_at, last_received_at, length, reason, body)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET
    receipts = receipts + 1, last_received_at = max(last_received_at, excluded.last_received_at)
"""
