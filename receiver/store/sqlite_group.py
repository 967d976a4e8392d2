"""A group of arrivals, written into SQLite inside one transaction.

The number of statements does not depend on the size of the group. Python gives its lock away at
every statement and every row fetched, and under load gets it back only after other threads had
their turn; so reading what is known and writing what is new are one statement each.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from receiver import status
from receiver.event import Incoming, Rejected
from receiver.store import Outcome
from receiver.times import SECOND

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
    stored, rows, seq = _known(connection, arrivals)
    repeats = _Repeats(connection, [a for a in arrivals if a.id not in stored], rows)
    outcomes: list[Outcome] = []
    events: list[tuple[Any, ...]] = []
    deliveries: list[tuple[Any, ...]] = []
    messages: dict[str, tuple[Any, ...]] = {}
    again: Counter[str] = Counter()
    for item in items:
        if isinstance(item, Rejected):
            outcomes.append("quarantined")
            continue
        if item.id in stored:
            again[item.id] += 1
            outcomes.append("duplicate")
            continue
        stored.add(item.id)
        outcomes.append("accepted")
        seq += 1
        late = False
        if item.says is not None and item.message_id is not None:
            before = rows.get(item.message_id, {})
            after = rows[item.message_id] = status.merge(before, item.says)
            late = status.is_late(before, after, status.STATE_OF_TYPE[item.type])
            messages[item.message_id] = (
                item.message_id,
                status.status(after),
                max(item.received_at, messages.get(item.message_id, (0, 0, 0))[2]),
                _ENCODE(after),
            )
        repeat, dispatched = repeats.judge(item)
        events.append(
            (
                seq,
                item.id,
                item.type,
                item.message_id,
                item.occurred_at,
                item.received_at,
                item.reported_at,
                item.has_error,
                item.source,
                late,
                repeat,
                item.redacted,
                item.body,
            )
        )
        if dispatched:
            deliveries += [
                (seq, name, item.message_id, item.occurred_at, item.received_at)
                for name in wanting(item.type)
            ]
    _insert(connection, _EVENTS, events)
    _insert(connection, _MESSAGES, messages.values(), _MESSAGES_AGAIN)
    _insert(connection, _DELIVERIES, deliveries)
    if again:
        connection.executemany(
            "UPDATE events SET receipts = receipts + ? WHERE id = ?",
            [(count, event_id) for event_id, count in again.items()],
        )
    if len(arrivals) < len(items):
        connection.executemany(
            _QUARANTINE,
            [
                (item.digest, item.received_at, item.length, item.reason, item.body)
                for item in items
                if isinstance(item, Rejected)
            ],
        )
    return outcomes


def _known(
    connection: sqlite3.Connection, arrivals: Sequence[Incoming]
) -> tuple[set[str], dict[str, status.Row], int]:
    """Which of the ids are stored, the rows of their messages, and the last `seq`."""
    ids, registers, seq = connection.execute(
        _KNOWN,
        (
            json.dumps([arrival.id for arrival in arrivals]),
            json.dumps([a.message_id for a in arrivals if a.says is not None]),
        ),
    ).fetchone()
    rows = {message_id: json.loads(row) for message_id, row in json.loads(registers)}
    return set(json.loads(ids)), rows, seq


class _Repeats:
    """Which arrivals report what an event of their message has reported already."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        arrivals: Sequence[Incoming],
        rows: dict[str, status.Row],
    ) -> None:
        # A message without a row cannot have had an event of a type that makes one.
        asked = [
            a
            for a in arrivals
            if a.message_id is not None
            and a.reported_at is not None
            and (a.says is None or a.message_id in rows)
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
       (SELECT json_group_array(json_array(id, registers)) FROM messages
        WHERE id IN (SELECT value FROM json_each(?))),
       (SELECT coalesce(max(seq), 0) FROM events)
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
INSERT INTO events (seq, id, type, message_id, occurred_at, received_at, reported_at, has_error,
                    source, late, repeat, redacted, body)
"""

_MESSAGES = "INSERT INTO messages (id, status, received_at, registers)"
_MESSAGES_AGAIN = """
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status,
    received_at = max(received_at, excluded.received_at),
    registers = excluded.registers
"""

_DELIVERIES = "INSERT INTO deliveries (event_seq, handler, message_id, occurred_at, due_at)"

_QUARANTINE = """
INSERT INTO quarantine (digest, received_at, length, reason, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET receipts = receipts + 1
"""
