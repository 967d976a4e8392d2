"""Forgetting in SQLite: one small batch of what has expired, in one transaction."""

from __future__ import annotations

import json
import sqlite3

from receiver import metrics
from receiver.store.contract import Expired
from receiver.store.group import UNDATED, spared
from receiver.store.sqlite import counters
from receiver.store.sqlite.codes import COUNTED_CODE, DAY_OF_AT

#: Messages and events in one batch: it bounds what a webhook may have to wait for.
_BATCH = 64
_MOST_EVENTS = 512


def expire_batch(connection: sqlite3.Connection, before: int) -> Expired:
    """See `receiver.store.Store.expire`. Needs the write lock."""
    spare = _spared(connection, before)
    messages = connection.execute(_MESSAGES, (before, before, spare, before, _BATCH)).fetchall()
    keys = json.dumps([key for key, _ in messages])
    events = connection.execute(_EVENTS_OF, (keys, _MOST_EVENTS)).fetchall()
    if len(events) == _MOST_EVENTS:
        messages = []  # one of them has very many: they go with the last of their events
    if not events:
        events = connection.execute(_LOOSE, (before, before, before, spare, _BATCH)).fetchall()
    quarantined = connection.execute(_QUARANTINE, (before, spare, _BATCH)).fetchall()

    seqs = json.dumps([seq for (seq,) in events])
    keys = json.dumps([key for key, _ in messages])
    # What must be known of the rows when they are gone.
    connection.execute("UPDATE marks SET value = value + 1 WHERE name = 'expiries'")
    connection.execute(_MARK_SEQ)
    connection.execute(_MARK_TIMESTAMP, (seqs,))
    connection.execute(_UNCOUNT, (keys,))
    # Its work goes with an event, by the foreign key.
    connection.execute("DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?))", (seqs,))
    connection.execute(
        "DELETE FROM search WHERE rowid IN (SELECT value FROM json_each(?))", (keys,)
    )
    connection.execute(
        "DELETE FROM metadata WHERE message_key IN (SELECT value FROM json_each(?))", (keys,)
    )
    connection.execute(
        "DELETE FROM messages WHERE key IN (SELECT value FROM json_each(?))", (keys,)
    )
    connection.executemany("DELETE FROM quarantine WHERE digest = ?", quarantined)
    expired = Expired(len(messages), len(events), len(quarantined))
    if messages:
        counters.add(connection, {(metrics.EXPIRED,): len(messages)})
    if not any(expired):
        connection.execute(_OLD_QUESTIONS, (before,))
    return expired


def expirable(connection: sqlite3.Connection, before: int) -> Expired:
    """How much `expire_batch`, called until it finds nothing, would delete."""
    counts = []
    spare = _spared(connection, before)
    for query, values in (
        (_MESSAGES, (before, before, spare, before, -1)),
        (_EVENTS_OF_ALL, (before, before, spare, before, -1)),
        (_LOOSE, (before, before, before, spare, -1)),
        (_QUARANTINE, (before, spare, -1)),
    ):
        found = connection.execute(f"SELECT count(*) FROM ({query})", values)
        counts.append(found.fetchone()[0])
    messages, events, loose, quarantined = counts
    return Expired(messages, events + loose, quarantined)


def _spared(connection: sqlite3.Connection, before: int) -> str:
    """As JSON; see `receiver.store.group.spared`."""
    return json.dumps(spared(connection.execute(_UNDATED, (UNDATED,)), before))


_UNDATED = "SELECT name, value FROM marks WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1"

# A message's `at` is one of the times that `touched_at` is the latest of, so those that have
# expired are at the old end of this index; few others are among them. Its events may have been
# received again since, or say later times; and those that leave the mirror alone count, too.
_MESSAGES = """
SELECT key, id FROM messages AS m INDEXED BY messages_by_time
WHERE at < ? AND touched_at < ? AND touched_at NOT IN (SELECT value FROM json_each(?))
  AND NOT EXISTS (
    SELECT 1 FROM events AS e WHERE (e.message_key = m.key OR e.loose = 1 AND e.message_id = m.id)
      AND max(e.last_received_at, e.occurred_at, coalesce(e.timestamp, 0)) >= ?)
  AND NOT EXISTS (SELECT 1 FROM deliveries WHERE queue = m.key AND state = 'pending')
ORDER BY at LIMIT ?
"""

_EVENTS_OF = """
SELECT e.seq FROM json_each(?) AS message CROSS JOIN messages AS m ON m.key = message.value
CROSS JOIN events AS e ON e.message_key = m.key OR e.loose = 1 AND e.message_id = m.id
LIMIT ?
"""

_EVENTS_OF_ALL = f"""
SELECT e.seq FROM ({_MESSAGES}) AS m
CROSS JOIN events AS e ON e.message_key = m.key OR e.loose = 1 AND e.message_id = m.id
"""

# One that leaves the mirror alone and belongs to a message all the same goes with it.
_LOOSE = """
SELECT seq FROM events AS e INDEXED BY events_loose
WHERE loose = 1 AND last_received_at < ? AND occurred_at < ? AND coalesce(timestamp, 0) < ?
  AND last_received_at NOT IN (SELECT value FROM json_each(?))
  AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_seq = e.seq AND state = 'pending')
  AND NOT EXISTS (SELECT 1 FROM messages WHERE id = e.message_id)
ORDER BY last_received_at LIMIT ?
"""

_QUARANTINE = """
SELECT digest FROM quarantine
WHERE last_received_at < ? AND last_received_at NOT IN (SELECT value FROM json_each(?))
ORDER BY last_received_at LIMIT ?
"""

# When ZimSend was asked about a message.
_OLD_QUESTIONS = "DELETE FROM marks WHERE name >= 'asked:' AND name < 'asked;' AND value < ?"

_MARK_SEQ = """
UPDATE marks SET value = max(value, (SELECT coalesce(max(seq), 0) FROM events)) WHERE name = 'seq'
"""
_MARK_TIMESTAMP = """
INSERT INTO marks (name, value)
SELECT iif(instr(id, char(31)), 'timestamp:' || substr(id, 1, instr(id, char(31)) - 1),
           'timestamp'), max(timestamp)
FROM events WHERE seq IN (SELECT value FROM json_each(?)) AND timestamp IS NOT NULL GROUP BY 1
ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
"""

_UNCOUNT = f"""
UPDATE statistics SET live = live - gone.count
FROM (SELECT day, provider, device_id, status, {COUNTED_CODE} AS code,
             count(*) AS count
      FROM (SELECT {DAY_OF_AT} AS day, provider, device_id, status, code FROM messages
            WHERE key IN (SELECT value FROM json_each(?))) AS m
      GROUP BY 1, 2, 3, 4, 5) AS gone
WHERE statistics.day = gone.day AND statistics.provider = gone.provider
  AND statistics.device_id = gone.device_id AND statistics.status = gone.status
  AND statistics.code = gone.code
"""
