"""A group of arrivals, read and written in PostgreSQL inside one transaction.

The connection is in pipeline mode: what is known comes with the first round trip, and what is new
goes with the second. Rows travel as two JSON documents, of the events and of their messages, and
bodies beside them: that is half the work of a parameter for each value.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from receiver import mirror
from receiver.event import Incoming, Rejected
from receiver.store.contract import Outcome, Report
from receiver.store.forgetting import FORGOTTEN, as_stored, ids_of, redact
from receiver.store.group import (
    EXPIRED,
    SEARCHED,
    Decision,
    Known,
    Look,
    MirroredMessage,
    decide,
    expired_by_provider,
    near,
    set_apart,
    undated_mark,
    unread,
)
from receiver.store.postgres import forgetting
from receiver.store.postgres.codes import Codes, cell, count, moves, pairs_of
from receiver.store.postgres.pool import Connection
from receiver.store.postgres.transactions import Transactions
from receiver.times import RELEASED

Items = Sequence[Incoming | Rejected]
Wanting = Callable[[str], Sequence[str]]
#: Questions, and all reports that answer them, each with its message's id.
Found = tuple[set[Look], list[tuple[str, Report]]]

_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Ingest(Transactions):
    """See `receiver.store.contract.Ingest`."""

    #: To prepare a group, and to wait for the server, takes a half of its time each.
    committers = 2
    one_writer = False

    def ingest(
        self,
        items: Items,
        wanting: Wanting,
        patience: float,
        reading_done: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        reading_done()  # all that follows waits for the server
        deadline = time.monotonic() + patience
        whom = self._door.whom
        read = redacted = redact(whom, items)
        while True:
            left = deadline - time.monotonic()
            with self._transaction(left, ids=_ids_of(read), first=True) as connection:
                found, version = _known(connection, [i for i in read if isinstance(i, Incoming)])
                if version != whom.version:  # somebody was forgotten
                    whom = forgetting.read(connection, self._door, version)
                    read = redacted = redact(whom, items)
                    continue
                stored = as_stored(redacted, found[0], whom)
                apart = set_apart(stored, found[0])
                more = unread(apart, read) if apart is not stored else ()
                if not more:
                    # Two groups at once of one process do not wait for each other's numbers.
                    spread = self._spread if connection.is_ingests else self._other_spread
                    outcomes = _write_group(connection, apart, found, wanting, spread, self._codes)
                    break
            # Ids that collide, which is rare. Their own ones are locked in order with the others.
            read = [*read, *more]
        self._commits += 1
        return outcomes

    def try_ingest(self, items: Items, wanting: Wanting, patience: float) -> None:
        with self._transaction(patience, ids=_ids_of(items)) as connection:
            connection.execute("SAVEPOINT trial")
            read, _ = _known(connection, [i for i in items if isinstance(i, Incoming)])
            _write_group(connection, items, read, wanting, self._spread, self._codes)
            connection.execute("ROLLBACK TO trial")


def _write_group(
    connection: Connection,
    items: Items,
    read: tuple[Known, list[int], Found],
    wanting: Wanting,
    spread: int,
    codes: Codes,
) -> list[Outcome]:
    """Write what is new. The transaction is open, the ids are locked.

    :param read: what is known, as `_known` has it.
    :param spread: which row of each cell of the statistics is written.
    :param codes: which codes have cells of their own.
    """
    known, seqs, found = read
    decision = decide(items, known, partial(_look, connection, found=found), wanting)
    # One order of the tables, and of the rows in each, for all who write: nobody waits in a circle.
    if decision.accepted:
        _write_accepted(connection, decision, seqs)
    if decision.again:
        rows = [{"id": item.id, "received_at": item.received_at} for item in decision.again]
        connection.execute(_RECEIVED_AGAIN, (_ENCODE(rows),))
    if decision.quarantined:
        _write_quarantine(connection, decision.quarantined)
    if decision.is_undated:
        connection.execute(_UNDATED, undated_mark())
        connection.execute(_DUE_AT_ONCE, (RELEASED,))
    count(connection, moves(decision.messages.values()), spread, codes)
    return decision.outcomes


def _ids_of(items: Items) -> set[str]:
    """All that other transactions must not change between our reading and our writing."""
    event_ids, message_ids = ids_of(items)
    return event_ids | message_ids


def _known(
    connection: Connection, arrivals: Sequence[Incoming]
) -> tuple[tuple[Known, list[int], Found], int]:
    """What is known of the arrivals, a number for each, and what has their moments; and the version
    of the list of whom to redact."""
    looks = [
        None
        if a.message_id is None or a.reported_at is None
        else near(a.message_id, a.type, a.reported_at)
        for a in arrivals
    ]
    asked = [
        {
            "id": a.id,
            "message_id": a.message_id,
            "type": a.type,
            "since": look and look.since,
            "until": look and look.until,
        }
        for a, look in zip(arrivals, looks, strict=True)
    ]
    asked += [{"id": a.came.id, "message_id": a.came.message_id} for a in arrivals if a.came]
    found = connection.execute(_KNOWN, {"asked": _ENCODE(asked), "number": len(arrivals)})
    ids, messages, learnt, told, seqs, marks = found.fetchone() or ()
    version = dict(marks)[FORGOTTEN]
    expired = [mark for mark in marks if mark[0] != FORGOTTEN]
    known = (
        Known(
            {event_id: (kind, message_id) for event_id, kind, message_id in ids},
            {
                message_id: MirroredMessage.stored(
                    registers, cell(*counted), first, touched, indexed=True
                )
                for message_id, registers, counted, first, touched in messages
            },
            expired_by_provider(expired),
            set(learnt),
        ),
        seqs,
        (set(filter(None, looks)), [(message_id, Report(*rest)) for message_id, *rest in told]),
    )
    return known, version


def _look(connection: Connection, looks: list[Look], found: Found) -> Iterator[tuple[str, Report]]:
    """Answer from what has been found, and ask for the rest."""
    asked, told = found
    yield from told
    if rest := [one._asdict() for one in looks if one not in asked]:
        for message_id, *report in connection.execute(_LOOK, (_ENCODE(rest),)):
            yield message_id, Report(*report)


def _write_accepted(connection: Connection, decision: Decision, seqs: list[int]) -> None:
    numbered = sorted(zip(seqs, decision.accepted, strict=False), key=lambda pair: pair[1].item.id)
    events = [
        {
            "seq": seq,
            "id": item.id,
            "type": item.type,
            "message_id": item.message_id,
            "occurred_at": item.occurred_at,
            "received_at": item.received_at,
            "timestamp": item.timestamp,
            "reported_at": item.reported_at,
            "has_error": item.has_error,
            "source": item.source,
            "late": late,
            "repeat": repeat,
            "redacted": item.redacted,
            "loose": item.says is None or item.message_id is None,
            "handlers": handlers,
        }
        for seq, (item, late, repeat, handlers) in numbered
    ]
    messages = []
    for message_id, message in sorted(decision.messages.items()):
        assert message.summary is not None
        row = {
            "id": message_id,
            **message.summary._asdict(),
            "first_received_at": message.first_received_at,
            "touched_at": message.touched_at,
            "registers": message.registers,
        }
        if not message.changed.isdisjoint(SEARCHED):
            if "message" in message.row:
                row["folded"] = mirror.fold(message.row["message"][2])
            if (pairs := pairs_of(message.row)) or message.before is not None:
                row["pairs"] = pairs
        messages.append(row)
    connection.execute(
        _ACCEPTED,
        {
            "events": _ENCODE(events),
            "bodies": [one.item.body for _, one in numbered],
            "messages": _ENCODE(messages),
        },
    )


def _write_quarantine(connection: Connection, quarantined: list[Rejected]) -> None:
    copies: dict[str, list[Rejected]] = {}
    for rejected in quarantined:
        copies.setdefault(rejected.digest, []).append(rejected)
    rows = [
        {
            "digest": digest,
            "received_at": same[0].received_at,
            "last_received_at": max(rejected.received_at for rejected in same),
            "receipts": len(same),
            "length": same[0].length,
            "reason": same[0].reason,
        }
        for digest, same in sorted(copies.items())
    ]
    bodies = [same[0].body for _, same in sorted(copies.items())]
    connection.execute(_QUARANTINE, (_ENCODE(rows), bodies))


# --- SQL

# Numbers for the events, too: that saves asking for them later. Reports of the same moment are
# looked up for all; `decide` knows for which of them it matters.
_KNOWN = f"""
WITH asked AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(asked)s::jsonb) AS a (
        id text, message_id text, type text, since bigint, until bigint))
SELECT
    (SELECT coalesce(jsonb_agg(jsonb_build_array(id, type, message_id)), '[]')
     FROM events WHERE id = ANY (ARRAY(SELECT id FROM asked))),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(
        id, registers, jsonb_build_array(at, provider, device_id, status, code),
        first_received_at, touched_at)), '[]')
     FROM messages WHERE id = ANY (ARRAY(SELECT message_id FROM asked))),
    ARRAY(SELECT DISTINCT message_id FROM events
          WHERE source <> 'webhook' AND message_id = ANY (ARRAY(SELECT message_id FROM asked))),
    (SELECT coalesce(jsonb_agg(jsonb_build_array(
        message_id, near.type, reported_at, has_error, source)), '[]')
     FROM asked CROSS JOIN LATERAL (
        (SELECT e.type, e.reported_at, e.has_error, e.source FROM events AS e
         WHERE e.message_id = asked.message_id AND e.type = asked.type AND NOT e.has_error
           AND e.reported_at BETWEEN asked.since AND asked.until
         ORDER BY e.reported_at DESC LIMIT 1)
        UNION ALL
        (SELECT e.type, e.reported_at, e.has_error, e.source FROM events AS e
         WHERE e.message_id = asked.message_id AND e.type = asked.type AND e.has_error
           AND e.reported_at BETWEEN asked.since AND asked.until
         ORDER BY e.reported_at DESC LIMIT 1)) AS near),
    ARRAY(SELECT nextval('event_seqs') FROM generate_series(1, %(number)s)),
    (SELECT jsonb_agg(jsonb_build_array(name, value)) FROM marks
     WHERE name IN ({", ".join(f"'{name}'" for name in (*EXPIRED, FORGOTTEN))}))
"""


def _closest(order: str, has_error: str, condition: str, events: str) -> str:
    return f"""(
        SELECT e.type, e.reported_at, e.has_error, e.source FROM {events} AS e
        WHERE {condition} AND e.message_id = l.message_id AND e.type = l.type AND {has_error}
          AND e.reported_at BETWEEN l.since AND l.until ORDER BY e.reported_at {order} LIMIT 1)"""


# What did not come by webhook is few, and has an index of its own.
_LEARNT = """(
            SELECT * FROM events
            WHERE message_id = l.message_id AND source <> 'webhook' OFFSET 0)"""

_LOOK = f"""
SELECT DISTINCT l.message_id, closest.*
FROM jsonb_to_recordset(%s::jsonb) AS l (
    message_id text, type text, since bigint, until bigint, latest boolean, learnt boolean)
CROSS JOIN LATERAL ({
    " UNION ALL ".join(
        _closest(order, has_error, f"{latest} AND {learnt}", events)
        for order, latest in (("DESC", "l.latest"), ("ASC", "NOT l.latest"))
        for has_error in ("NOT e.has_error", "e.has_error")
        for learnt, events in (("NOT l.learnt", "events"), ("l.learnt", _LEARNT))
    )
}) AS closest
"""

# All that is new in one statement: each costs a good deal, however little it does.
_ACCEPTED = """
WITH arrived AS MATERIALIZED (
    SELECT *
    FROM ROWS FROM (
        jsonb_to_recordset(%(events)s::jsonb) AS (
            seq bigint, id text, type text, message_id text, occurred_at bigint,
            received_at bigint, timestamp bigint, reported_at bigint, has_error boolean,
            source text, late boolean, repeat boolean, redacted boolean, loose boolean,
            handlers text[]),
        unnest(%(bodies)b::bytea[])
    ) AS e (seq, id, type, message_id, occurred_at, received_at, timestamp, reported_at,
            has_error, source, late, repeat, redacted, loose, handlers, body)
),
new_events AS (
    INSERT INTO events (seq, id, type, message_id, occurred_at, received_at, timestamp,
                        reported_at, has_error, source, late, repeat, redacted, loose,
                        last_received_at, body)
    SELECT seq, id, type, message_id, occurred_at, received_at, timestamp,
           reported_at, has_error, source, late, repeat, redacted, loose, received_at, body
    FROM arrived
),
new_deliveries AS (
    INSERT INTO deliveries (event_seq, handler, message_id, occurred_at, due_at)
    SELECT seq, handler, message_id, occurred_at, received_at
    FROM arrived CROSS JOIN unnest(handlers) AS handler
),
told AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(messages)s::jsonb) AS m (
        id text, status text, at bigint, device_id text, number text, code text, provider text,
        first_received_at bigint, touched_at bigint, registers text, folded text, pairs text[])
),
new_texts AS (
    INSERT INTO texts (message_id, folded) SELECT id, folded FROM told WHERE folded IS NOT NULL
    ON CONFLICT (message_id) DO UPDATE SET folded = excluded.folded
),
new_metadata AS (
    INSERT INTO metadata (message_id, pairs) SELECT id, pairs FROM told WHERE pairs IS NOT NULL
    ON CONFLICT (message_id) DO UPDATE SET pairs = excluded.pairs
)
INSERT INTO messages (id, status, at, device_id, number, code, provider, first_received_at,
                      touched_at, registers)
SELECT id, status, at, device_id, number, code, provider, first_received_at, touched_at, registers
FROM told
ON CONFLICT (id) DO UPDATE SET
    status = excluded.status, at = excluded.at, device_id = excluded.device_id,
    number = excluded.number, code = excluded.code,
    first_received_at = excluded.first_received_at, touched_at = excluded.touched_at,
    registers = excluded.registers
"""

# What has just come again is kept for as long as what has just come.
_RECEIVED_AGAIN = """
UPDATE events AS e SET
    receipts = e.receipts + again.receipts,
    last_received_at = greatest(e.last_received_at, again.received_at)
FROM (SELECT id, count(*) AS receipts, max(received_at) AS received_at
      FROM jsonb_to_recordset(%s::jsonb) AS copy (id text, received_at bigint)
      GROUP BY id) AS again
WHERE e.id = again.id
"""

_UNDATED = """
INSERT INTO marks VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""

# By the clock of now, `RELEASED` may be years away.
_DUE_AT_ONCE = "UPDATE deliveries SET due_at = 0 WHERE due_at = %s AND state = 'pending'"

_QUARANTINE = """
INSERT INTO quarantine AS q (digest, received_at, last_received_at, receipts, length, reason, body)
SELECT digest, received_at, last_received_at, receipts, length, reason, body
FROM ROWS FROM (
    jsonb_to_recordset(%s::jsonb) AS (
        digest text, received_at bigint, last_received_at bigint, receipts integer,
        length bigint, reason text),
    unnest(%b::bytea[])
) AS r (digest, received_at, last_received_at, receipts, length, reason, body)
ON CONFLICT (digest) DO UPDATE SET
    receipts = q.receipts + excluded.receipts,
    last_received_at = greatest(q.last_received_at, excluded.last_received_at)
"""
