"""Forgetting in PostgreSQL: one small batch of what has expired, in one transaction.

What may go is looked for, then locked as ingest locks it (what somebody else has is left for
another time), and then looked at again: from there on nobody can change it.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from receiver import metrics
from receiver.store.contract import Expired
from receiver.store.group import UNDATED, spared
from receiver.store.postgres import counters
from receiver.store.postgres.codes import Codes, Move, cell, count
from receiver.store.postgres.pool import Connection

#: Messages and events in one batch: it bounds what a webhook may have to wait for.
_BATCH = 64
_MOST_EVENTS = 512


def expire_batch(connection: Connection, before: int, spread: int, codes: Codes) -> Expired:
    """See `receiver.store.Store.expire`.

    :param spread, codes: as in `receiver.store.postgres.codes.count`.
    """
    messages = _locked(connection, _MESSAGES, _MESSAGES_AGAIN, before)
    events = _column(connection, _EVENTS_OF, {"ids": messages, "limit": _MOST_EVENTS})
    if len(events) == _MOST_EVENTS:
        messages = []  # one of them has very many: they go with the last of their events
    if not events:
        loose = _locked(connection, _LOOSE, _LOOSE_AGAIN, before)
        events = _column(
            connection, "SELECT seq FROM events WHERE id = ANY (%(ids)s)", {"ids": loose}
        )
    asked = {"before": before, "limit": _BATCH, "spared": _spared(connection, before)}
    quarantined = connection.execute(_DELETE_QUARANTINE, asked)
    # What must be known of the rows when they are gone.
    connection.execute(_MARK_TIMESTAMP, (events,))
    connection.execute("DELETE FROM deliveries WHERE event_seq = ANY (%s)", (events,))
    connection.execute("DELETE FROM events WHERE seq = ANY (%s)", (events,))
    connection.execute("DELETE FROM texts WHERE message_id = ANY (%s)", (messages,))
    connection.execute("DELETE FROM metadata WHERE message_id = ANY (%s)", (messages,))
    gone = Counter(cell(*counted) for counted in connection.execute(_DELETE_MESSAGES, (messages,)))
    # They count on in the totals.
    count(connection, {one: Move(live=-number) for one, number in gone.items()}, spread, codes)
    expired = Expired(len(messages), len(events), quarantined.rowcount)
    if messages:
        counters.add(connection, {(metrics.EXPIRED,): len(messages)})
    if not any(expired):
        connection.execute(_OLD_QUESTIONS, (before,))
    return expired


def _locked(connection: Connection, candidates: str, again: str, before: int) -> list[str]:
    """The ids of a batch, locked, of what may go."""
    asked = {"before": before, "limit": _BATCH, "spared": _spared(connection, before)}
    ids = _column(connection, candidates, asked)
    key = {"ids": json.dumps(ids), "seed": connection.place.seed}
    free = _column(connection, _LOCK_WHAT_IS_FREE, key) if ids else []
    return _column(connection, again, {**asked, "ids": free}) if free else []


def _column(connection: Connection, query: str, values: Any) -> list[Any]:
    return [value for (value,) in connection.execute(query, values)]


def expirable(connection: Connection, before: int) -> Expired:
    """How much `expire_batch`, called until it finds nothing, would delete."""
    counts: list[int] = []
    asked = {"before": before, "limit": None, "spared": _spared(connection, before)}
    for query in (_MESSAGES, _EVENTS_OF_ALL, _LOOSE, _QUARANTINE):
        found = connection.execute(f"SELECT count(*) FROM ({query}) AS found", asked)
        counts += found.fetchone() or (0,)
    messages, events, loose, quarantined = counts
    return Expired(messages, events + loose, quarantined)


def _spared(connection: Connection, before: int) -> list[int]:
    """See `receiver.store.group.spared`."""
    return spared(connection.execute(_UNDATED, (UNDATED,)), before)


_UNDATED = "SELECT name, value FROM marks WHERE starts_with(name, %s)"

# The locks are those of `receiver.store.postgres.transactions._LOCK`.
_LOCK_WHAT_IS_FREE = """
SELECT id FROM jsonb_array_elements_text(%(ids)s::jsonb) AS id
WHERE pg_try_advisory_xact_lock(hashtextextended(id, %(seed)s))
"""

# A message's `at` is one of the times that `touched_at` is the latest of, so those that have
# expired are at the old end of the index by time; few others are among them. Its events may have
# been received again since, or say later times; and those that leave the mirror alone count, too.
_EXPIRED_MESSAGE = """
m.at < %(before)s AND m.touched_at < %(before)s AND m.touched_at <> ALL (%(spared)s::bigint[])
  AND NOT EXISTS (
    SELECT 1 FROM events AS e WHERE e.message_id = m.id
      AND greatest(e.last_received_at, e.occurred_at, e.timestamp) >= %(before)s)
  AND NOT EXISTS (
    SELECT 1 FROM deliveries AS d WHERE d.message_id = m.id AND d.state = 'pending')
"""

_MESSAGES = f"SELECT m.id FROM messages AS m WHERE {_EXPIRED_MESSAGE} ORDER BY m.at LIMIT %(limit)s"

_MESSAGES_AGAIN = (
    f"SELECT m.id FROM messages AS m WHERE m.id = ANY (%(ids)s) AND {_EXPIRED_MESSAGE}"
)

_EVENTS_OF = "SELECT seq FROM events WHERE message_id = ANY (%(ids)s) LIMIT %(limit)s"

_EVENTS_OF_ALL = f"SELECT seq FROM events WHERE message_id IN ({_MESSAGES})"

# One that leaves the mirror alone and belongs to a message all the same goes with it.
_EXPIRED_LOOSE = """
e.loose AND e.last_received_at < %(before)s AND e.occurred_at < %(before)s
  AND coalesce(e.timestamp, 0) < %(before)s
  AND e.last_received_at <> ALL (%(spared)s::bigint[])
  AND NOT EXISTS (
    SELECT 1 FROM deliveries AS d WHERE d.event_seq = e.seq AND d.state = 'pending')
  AND NOT EXISTS (SELECT 1 FROM messages AS m WHERE m.id = e.message_id)
"""

_LOOSE = f"""
SELECT e.id FROM events AS e WHERE {_EXPIRED_LOOSE}
ORDER BY e.last_received_at LIMIT %(limit)s
"""

_LOOSE_AGAIN = f"SELECT e.id FROM events AS e WHERE e.id = ANY (%(ids)s) AND {_EXPIRED_LOOSE}"

_QUARANTINE = """
SELECT digest FROM quarantine
WHERE last_received_at < %(before)s AND last_received_at <> ALL (%(spared)s::bigint[])
ORDER BY last_received_at LIMIT %(limit)s
"""

_DELETE_QUARANTINE = f"""
DELETE FROM quarantine WHERE digest IN ({_QUARANTINE} FOR UPDATE SKIP LOCKED)
"""

# When ZimSend was asked about a message.
_OLD_QUESTIONS = "DELETE FROM marks WHERE starts_with(name, 'asked:') AND value < %s"

_MARK_TIMESTAMP = """
INSERT INTO marks AS m (name, value)
SELECT CASE WHEN strpos(id, chr(31)) > 0 THEN 'timestamp:' || split_part(id, chr(31), 1)
            ELSE 'timestamp' END, max(timestamp)
FROM events WHERE seq = ANY (%s) AND timestamp IS NOT NULL GROUP BY 1
ON CONFLICT (name) DO UPDATE SET value = greatest(m.value, excluded.value)
"""
_DELETE_MESSAGES = """
DELETE FROM messages WHERE id = ANY (%s) RETURNING at, provider, device_id, status, code
"""
