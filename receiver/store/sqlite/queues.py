"""The queues of messages, in SQLite: the step that numbers them, and what the number is.

Work items are found by that number instead of by their message's id. Ids are in no order, so an
index of them is written at another page by every arrival, claim and end. The numbers grow.

The step has landed, and calls `queue_of` and `number`. So these are never changed: a later step
brings its own.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection

from sqlite_utils import Database

from receiver.mirror import MOST_CODES, OTHER
from receiver.store.claiming import NEVER, STAND
from receiver.store.sqlite.codes import counted_code


def queue_of(message_id: str, event_seq: str) -> str:
    """An expression for the queue of a new work item: the key of its message; as long as the mirror
    has none, the queue of what is pending of it; else one of its own, which is negative.

    :param message_id, event_seq: expressions; a column needs the name of its table in front.
    """
    return f"""
        CASE WHEN {message_id} IS NOT NULL THEN coalesce(
            (SELECT key FROM messages WHERE id = {message_id}),
            (SELECT beside.queue FROM deliveries AS beside
             WHERE beside.message_id = {message_id} AND beside.state = 'pending'
               AND beside.queue < 0 LIMIT 1),
            -{event_seq}) END"""


def take(db: Database, run: Callable[[Database, str], None]) -> None:
    """The step."""
    db.execute("ALTER TABLE deliveries ADD COLUMN queue INTEGER")
    number(db.conn)
    run(db, _QUEUES)


def number(connection: sqlite3.Connection) -> None:
    """Give each pending work item that has none its queue."""
    connection.execute(_OF_MESSAGES)
    connection.execute(_OF_OTHERS)


def number_anew(connection: sqlite3.Connection) -> None:
    """Give each pending work item its queue, whatever queue it has.

    Where a database is copied a second time, a message may have come into the mirror in between:
    then its older items have a number that is no longer right.
    """
    connection.execute("UPDATE deliveries SET queue = NULL WHERE state = 'pending'")
    number(connection)


def join(connection: sqlite3.Connection, message_ids: Collection[str]) -> None:
    """Put the pending work of each of these messages, whose ids have just changed, into one queue.

    Work that came while a number was being forgotten has the new id already, and another queue.
    """
    connection.execute(_JOIN, (json.dumps(list(message_ids)),))


_OF_MESSAGES = """
UPDATE deliveries SET queue = (SELECT key FROM messages WHERE id = deliveries.message_id)
WHERE state = 'pending' AND message_id IS NOT NULL AND queue IS NULL
"""

_OF_OTHERS = """
UPDATE deliveries SET queue = -others.first
FROM (SELECT message_id, min(event_seq) AS first FROM deliveries
      WHERE state = 'pending' AND message_id IS NOT NULL AND queue IS NULL
      GROUP BY message_id) AS others
WHERE deliveries.message_id = others.message_id AND state = 'pending' AND queue IS NULL
"""

_JOIN = """
UPDATE deliveries SET queue = coalesce(
    (SELECT key FROM messages WHERE id = deliveries.message_id),
    (SELECT min(beside.queue) FROM deliveries AS beside
     WHERE beside.message_id = deliveries.message_id AND beside.state = 'pending'
       AND beside.queue < 0))
WHERE state = 'pending' AND queue < 0 AND message_id IN (SELECT value FROM json_each(?))
"""

_QUEUES = f"""
-- The queue of a message and handler: the first of each stand with one seek. Whether a message is
-- owed.
DROP INDEX deliveries_of_message;
CREATE INDEX deliveries_in_queue
    ON deliveries (queue, handler, ({STAND}), occurred_at, event_seq)
    WHERE state = 'pending' AND queue IS NOT NULL;

-- The queues of which something is parked, and since when; mostly there is nothing in it.
DROP INDEX deliveries_parked;
CREATE INDEX deliveries_parked ON deliveries (handler, queue, due_since)
    WHERE state = 'pending' AND due_at = {NEVER};

-- The queue of a message that is not in the mirror; mostly there is nothing in it.
CREATE INDEX deliveries_beside ON deliveries (message_id) WHERE state = 'pending' AND queue < 0;

DROP TRIGGER arrive;
CREATE TRIGGER arrive INSTEAD OF INSERT ON arrivals
BEGIN
    SELECT raise(ABORT, 'what was read has changed') WHERE NEW.concerned IS NOT NULL AND (
        NEW.expiries <> (SELECT value FROM marks WHERE name = 'expiries')
        OR EXISTS (SELECT 1 FROM events WHERE seq > NEW.latest
                   AND message_id IN (SELECT value FROM json_each(NEW.concerned))));

    INSERT INTO messages (id, status, at, device_id, number, code, provider, first_received_at,
                          touched_at, indexed, registers)
    SELECT NEW.message_id, NEW.status, NEW.at, NEW.device_id, NEW.number, NEW.code, NEW.provider,
           NEW.first_received_at, NEW.touched_at, NEW.indexed, NEW.registers
    WHERE NEW.registers IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET
        status = excluded.status, at = excluded.at, device_id = excluded.device_id,
        number = excluded.number, code = excluded.code,
        first_received_at = excluded.first_received_at, touched_at = excluded.touched_at,
        indexed = excluded.indexed, registers = excluded.registers;

    -- What has come of it before, and leaves the mirror alone, is of the same queue.
    UPDATE deliveries SET queue = (SELECT key FROM messages WHERE id = NEW.message_id)
    WHERE NEW.registers IS NOT NULL
      AND message_id = NEW.message_id AND state = 'pending' AND queue < 0;

    INSERT INTO events (seq, id, type, message_id, message_key, occurred_at, received_at,
                        timestamp, last_received_at, reported_at, has_error, source, late, repeat,
                        redacted, loose, body)
    SELECT max(value, (SELECT coalesce(max(seq), 0) FROM events)) + 1, NEW.id, NEW.type,
           NEW.message_id,
           CASE NEW.loose WHEN 0 THEN (SELECT key FROM messages WHERE id = NEW.message_id) END,
           NEW.occurred_at, NEW.received_at, NEW.timestamp, NEW.received_at, NEW.reported_at,
           NEW.has_error, NEW.source, NEW.late, NEW.repeat, NEW.redacted, NEW.loose, NEW.body
    FROM marks WHERE name = 'seq';

    INSERT INTO deliveries (event_seq, handler, message_id, queue, occurred_at, due_at)
    SELECT (SELECT max(seq) FROM events), value, NEW.message_id,
           {queue_of("NEW.message_id", "(SELECT max(seq) FROM events)")},
           NEW.occurred_at, NEW.received_at
    FROM json_each(NEW.handlers);

    UPDATE statistics SET total = total - NEW.counts_before, live = live - 1
    WHERE day = NEW.day_before AND provider = NEW.provider_before
      AND device_id = NEW.device_id_before AND status = NEW.status_before
      AND code = {counted_code("NEW.day_before", "NEW.provider_before", "NEW.code_before")};

    INSERT OR IGNORE INTO codes SELECT NEW.day, NEW.provider, NEW.code
    WHERE NEW.code <> '' AND NEW.code <> '{OTHER}' AND NEW.day IS NOT NULL
      AND (SELECT count(*) FROM codes WHERE day = NEW.day AND provider = NEW.provider)
          < {MOST_CODES};

    INSERT INTO statistics (day, provider, device_id, status, code, total, live)
    SELECT NEW.day, NEW.provider, NEW.device_id, NEW.status,
           {counted_code("NEW.day", "NEW.provider", "NEW.code")}, NEW.counts, 1
    WHERE NEW.day IS NOT NULL
    ON CONFLICT (day, provider, device_id, status, code) DO UPDATE
        SET total = total + excluded.total, live = live + 1;
END;
"""
