"""The tables of the SQLite store, step by step. A step that has landed is never changed."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import cache

from sqlite_utils import Database, Migrations

from receiver import mirror, times
from receiver.causes import cause_of
from receiver.errors import SchemaMismatch, Unusable
from receiver.status import STATE_OF_TYPE
from receiver.store.claiming import NEVER, STAND
from receiver.store.sqlite import codes, queues
from receiver.store.views import OF_PHONES
from receiver.strict_json import read_json

migrations = Migrations("receiver")


@migrations()
def create_tables(db: Database) -> None:
    _run(db, _TABLES)


@migrations()
def mirror_is_searched_counted_and_expires(db: Database) -> None:
    _run(db, _MIRROR)
    for (seq,) in db.execute("SELECT seq FROM events").fetchall():
        body, received_at = db.execute(
            "SELECT body, received_at FROM events WHERE seq = ?", (seq,)
        ).fetchone()
        timestamp = _timestamp(body, received_at)
        db.execute("UPDATE events SET timestamp = ? WHERE seq = ?", (timestamp, seq))
    counts: Counter[tuple[int, str, str]] = Counter()
    for (key,) in db.execute("SELECT key FROM messages").fetchall():
        message_id, registers = db.execute(
            "SELECT id, registers FROM messages WHERE key = ?", (key,)
        ).fetchone()
        row = json.loads(registers)
        first, last = db.execute(
            "SELECT coalesce(min(received_at), 0), coalesce(max(received_at), 0)"
            " FROM events WHERE message_id = ? AND loose = 0",
            (message_id,),
        ).fetchone()
        summary = mirror.summarize(row, first)
        touched_at = max(last, mirror.latest_time(row))
        db.execute(
            "UPDATE messages SET at = ?, device_id = ?, number = ?, first_received_at = ?,"
            " touched_at = ?, indexed = ? WHERE key = ?",
            (
                *(summary.at, summary.device_id, summary.number, first, touched_at),
                *("message" not in row, key),
            ),
        )
        counts[summary.cell.day, summary.device_id, summary.status] += 1
    for cell, count in counts.items():
        db.execute("INSERT INTO statistics VALUES (?, ?, ?, ?, ?)", (*cell, count, count))
    _run(db, _MIRROR_INDEXES)


@migrations()
def events_arrive_by_one_statement(db: Database) -> None:
    _run(db, _ARRIVALS)


@migrations()
def reports_may_be_learnt(db: Database) -> None:
    _run(db, _LEARNT)


@migrations()
def items_behind_others_are_parked(db: Database) -> None:
    _run(db, _PARKED)


@migrations()
def leases_have_owners(db: Database) -> None:
    _run(db, _OWNERS)


@migrations()
def errors_have_tracebacks(db: Database) -> None:
    # Where `last_error` came from: files, lines and types of exceptions.
    db.execute("ALTER TABLE deliveries ADD COLUMN traceback TEXT")


@migrations()
def failures_are_counted_by_code(db: Database) -> None:
    codes.take(db, _run)


@migrations()
def dead_work_is_found_by_its_cause(db: Database) -> None:
    _run(db, _CAUSES)
    dead = db.execute(_DEAD).fetchall()
    db.conn.executemany(
        "UPDATE deliveries SET cause = ? WHERE event_seq = ? AND handler = ?",
        ((cause_of(error, where), seq, handler) for seq, handler, error, where in dead),
    )
    _run(db, _CAUSES_INDEX)


@migrations()
def what_is_rare_is_found(db: Database) -> None:
    _run(db, _RARE)


@migrations()
def numbers_only_grow(db: Database) -> None:
    _run(db, _COUNTERS)


@migrations()
def numbers_are_forgotten(db: Database) -> None:
    _run(db, _FORGOTTEN)


@migrations()
def leases_have_no_index(db: Database) -> None:
    # An earlier state of `leases_have_owners` made one, which each claim wrote twice.
    db.execute("DROP INDEX IF EXISTS deliveries_leased")


@migrations()
def queues_are_numbered(db: Database) -> None:
    queues.take(db, _run)


@migrations()
def numbers_are_indexed_later(db: Database) -> None:
    _run(db, _NUMBERS)


@cache
def step_names() -> list[str]:
    """All steps that this release knows, in their order: those that an empty database lacks."""
    empty = Database(memory=True)
    try:
        return [migration.name for migration in migrations.pending(empty)]
    finally:
        empty.close()


def refuse_newer(db: Database) -> None:
    """
    :raises SchemaMismatch: if a newer release has migrated the database.
    """
    known = step_names()
    if any(migration.name not in known for migration in migrations.applied(db)):
        raise SchemaMismatch(
            "the database's schema is newer than this release: start the newer release again, or "
            "go back to a copy of the database from before it"
        )


def _timestamp(body: bytes, received_at: int) -> int | None:
    try:
        payload = read_json(body)
    except Unusable:
        return None
    timestamp = _time(payload.get("timestamp")) if isinstance(payload, dict) else None
    return None if timestamp is None or timestamp > received_at + times.DAY else timestamp


def _time(value: object) -> int | None:
    """A time as the release that made this step read it, whatever is read today."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    text = value.upper()
    if not re.fullmatch(r"[0-9W-]+(?:[T ].*)?", text, re.ASCII | re.DOTALL):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _run(db: Database, script: str) -> None:
    """Statement by statement: `executescript` would commit what came before."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


_TABLES = """
-- Each event once. The unique id is the dedupe; seq is the order of arrival.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    type        TEXT    NOT NULL,
    message_id  TEXT,
    occurred_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    reported_at INTEGER,
    has_error   INTEGER NOT NULL,
    source      TEXT    NOT NULL,
    late        INTEGER NOT NULL,
    repeat      INTEGER NOT NULL,
    redacted    INTEGER NOT NULL,
    receipts    INTEGER NOT NULL DEFAULT 1,
    body        BLOB    NOT NULL
);

-- Tells a repeat with two seeks, however many events a message has; finds a message's events.
CREATE INDEX events_of_message ON events (message_id, type, has_error, reported_at)
    WHERE message_id IS NOT NULL;

-- The mirror: one row a message, the join of all that its events said (receiver/status.py).
CREATE TABLE messages (
    id          TEXT    PRIMARY KEY,
    status      TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    registers   TEXT    NOT NULL
);

-- The queue: one work item for each event and handler. Leased work is pending work that is not
-- due before its lease runs out; fence counts the leases.
CREATE TABLE deliveries (
    event_seq   INTEGER NOT NULL REFERENCES events (seq) ON DELETE CASCADE,
    handler     TEXT    NOT NULL,
    message_id  TEXT,
    occurred_at INTEGER NOT NULL,
    state       TEXT    NOT NULL DEFAULT 'pending',
    due_at      INTEGER NOT NULL,
    leased      INTEGER NOT NULL DEFAULT 0,
    fence       INTEGER NOT NULL DEFAULT 0,
    attempts    INTEGER NOT NULL DEFAULT 0,
    last_error  TEXT,
    PRIMARY KEY (event_seq, handler)
) WITHOUT ROWID;

-- What a worker may claim next. Only work that is owed is in it, so it stays small.
CREATE INDEX deliveries_due ON deliveries (handler, due_at, event_seq) WHERE state = 'pending';

-- Whether another item of the same message is leased, or earlier.
CREATE INDEX deliveries_of_message ON deliveries (message_id, handler)
    WHERE state = 'pending' AND message_id IS NOT NULL;

-- `events list --state dead` and `replay --failed`.
CREATE INDEX deliveries_dead ON deliveries (event_seq) WHERE state = 'dead';

-- Signed bodies that could not be used, each once.
CREATE TABLE quarantine (
    digest      TEXT    PRIMARY KEY,
    received_at INTEGER NOT NULL,
    receipts    INTEGER NOT NULL DEFAULT 1,
    length      INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    body        BLOB
);
"""

_MIRROR = f"""
-- The envelope's own time, for telling a replay of what has been forgotten; the last receipt.
ALTER TABLE events ADD COLUMN timestamp INTEGER;
ALTER TABLE events ADD COLUMN last_received_at INTEGER NOT NULL DEFAULT 0;
-- 1: it leaves the mirror alone, so it expires by itself.
ALTER TABLE events ADD COLUMN loose INTEGER NOT NULL DEFAULT 0;
UPDATE events SET last_received_at = received_at,
    loose = message_id IS NULL OR type NOT IN ({", ".join(f"'{t}'" for t in STATE_OF_TYPE)});

ALTER TABLE quarantine ADD COLUMN last_received_at INTEGER NOT NULL DEFAULT 0;
UPDATE quarantine SET last_received_at = received_at;

-- The mirror again, with what it is found by (receiver/mirror.py), and a key that search refers to.
CREATE TABLE found_by (
    key               INTEGER PRIMARY KEY,
    id                TEXT    NOT NULL UNIQUE,
    status            TEXT    NOT NULL,
    at                INTEGER NOT NULL,
    device_id         TEXT    NOT NULL,
    number            TEXT    NOT NULL,
    first_received_at INTEGER NOT NULL,
    touched_at        INTEGER NOT NULL,
    indexed           INTEGER NOT NULL,
    registers         TEXT    NOT NULL
);
INSERT INTO found_by (id, status, at, device_id, number, first_received_at, touched_at, indexed,
                      registers)
    SELECT id, status, 0, '', '', 0, 0, 0, registers FROM messages ORDER BY rowid;
DROP TABLE messages;
ALTER TABLE found_by RENAME TO messages;

-- The texts, in the form that search compares. Filled a little later than messages, many rows at a
-- time: in the transaction of each event it would cost as much as the event itself.
CREATE VIRTUAL TABLE search
    USING fts5 (text, tokenize = 'trigram case_sensitive 1', detail = 'none');

-- How many messages there are, cell by cell: with those that have expired, and without.
CREATE TABLE statistics (
    day       INTEGER NOT NULL,
    device_id TEXT    NOT NULL,
    status    TEXT    NOT NULL,
    total     INTEGER NOT NULL,
    live      INTEGER NOT NULL,
    PRIMARY KEY (day, device_id, status)
) WITHOUT ROWID;

-- What must survive the rows that it came from, and when who may do what next:
-- `seq`: the greatest of an event that has expired; `timestamp`: the latest of one that has.
-- `expiry`: not before this time. `checks`: how often somebody has tried whether one can write.
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO marks VALUES ('seq', 0), ('timestamp', {-(2**63)}), ('expiry', 0),
    ('checks', 0);
"""

_MIRROR_INDEXES = """
-- History without a filter, and by date. With what else is asked for, so that a row that does not
-- match need not be read. Expiry takes the other end.
CREATE INDEX messages_by_time ON messages (at DESC, id, status, device_id);

-- History by status, by device (with or without a status), by number: the page is read from the
-- index alone.
CREATE INDEX messages_by_status ON messages (status, at DESC, id);
CREATE INDEX messages_by_device ON messages (device_id, at DESC, id, status);
CREATE INDEX messages_by_number ON messages (number, at DESC, id);

-- What search does not know yet: nearly nothing.
CREATE INDEX messages_unindexed ON messages (key) WHERE indexed = 0;

-- Events that expire by themselves, oldest first.
CREATE INDEX events_loose ON events (last_received_at) WHERE loose = 1;
CREATE INDEX quarantine_by_age ON quarantine (last_received_at);
"""

# The commit of a group copies each page that it touched, and an index on ids is touched at another
# page by every event. So only two such indexes are left, of events and of messages; all others grow
# at few places. Pages of history are put in the order of ids when they are read.
_ARRIVALS = """
-- The key of the message whose row the event is part of; null for loose ones.
ALTER TABLE events ADD COLUMN message_key INTEGER;
UPDATE events SET message_key = (SELECT key FROM messages WHERE id = message_id) WHERE loose = 0;

-- Tells a repeat with two seeks, however many events a message has; finds a message's events.
DROP INDEX events_of_message;
CREATE INDEX events_of_message ON events (message_key, type, has_error, reported_at)
    WHERE message_key IS NOT NULL;
-- The same for events that leave the mirror alone.
CREATE INDEX loose_events_of_message ON events (message_id, type, has_error, reported_at)
    WHERE loose = 1 AND message_id IS NOT NULL;

-- History without a filter, and by date. With what else is asked for, so that a row that does not
-- match need not be read. Expiry takes the other end.
DROP INDEX messages_by_time;
CREATE INDEX messages_by_time ON messages (at DESC, status, device_id);

-- History by status, and by device (with or without a status).
DROP INDEX messages_by_status;
CREATE INDEX messages_by_status ON messages (status, at DESC);
DROP INDEX messages_by_device;
CREATE INDEX messages_by_device ON messages (device_id, at DESC, status);

-- History by number.
DROP INDEX messages_by_number;
CREATE INDEX messages_by_number ON messages (number, at DESC);

-- How many batches have been deleted.
INSERT INTO marks VALUES ('expiries', 0);

-- What is written of a new event, as one row; the trigger takes it apart.
CREATE VIEW arrivals (
    id, type, message_id, occurred_at, received_at, timestamp, reported_at, has_error, source,
    late, repeat, redacted, loose, body, handlers,
    -- What its message's row becomes; null where another event of the group says it.
    status, at, device_id, number, first_received_at, touched_at, indexed, registers,
    -- The day that the message counts on from now on, and the cell that it has counted in; null if
    -- nothing changes.
    day, day_before, device_id_before, status_before,
    -- What has been read: the latest event, the number of expiries; and the ids of the messages
    -- that it was read for. Null for all but the first event of the group.
    latest, expiries, concerned
) AS SELECT null, null, null, null, null, null, null, null, null, null, null, null, null, null,
    null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null;

CREATE TRIGGER arrive INSTEAD OF INSERT ON arrivals
BEGIN
    SELECT raise(ABORT, 'what was read has changed') WHERE NEW.concerned IS NOT NULL AND (
        NEW.expiries <> (SELECT value FROM marks WHERE name = 'expiries')
        OR EXISTS (SELECT 1 FROM events WHERE seq > NEW.latest
                   AND message_id IN (SELECT value FROM json_each(NEW.concerned))));

    INSERT INTO messages (id, status, at, device_id, number, first_received_at, touched_at,
                          indexed, registers)
    SELECT NEW.message_id, NEW.status, NEW.at, NEW.device_id, NEW.number, NEW.first_received_at,
           NEW.touched_at, NEW.indexed, NEW.registers
    WHERE NEW.registers IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET
        status = excluded.status, at = excluded.at, device_id = excluded.device_id,
        number = excluded.number, first_received_at = excluded.first_received_at,
        touched_at = excluded.touched_at, indexed = excluded.indexed,
        registers = excluded.registers;

    INSERT INTO events (seq, id, type, message_id, message_key, occurred_at, received_at,
                        timestamp, last_received_at, reported_at, has_error, source, late, repeat,
                        redacted, loose, body)
    SELECT max(value, (SELECT coalesce(max(seq), 0) FROM events)) + 1, NEW.id, NEW.type,
           NEW.message_id,
           CASE NEW.loose WHEN 0 THEN (SELECT key FROM messages WHERE id = NEW.message_id) END,
           NEW.occurred_at, NEW.received_at, NEW.timestamp, NEW.received_at, NEW.reported_at,
           NEW.has_error, NEW.source, NEW.late, NEW.repeat, NEW.redacted, NEW.loose, NEW.body
    FROM marks WHERE name = 'seq';

    INSERT INTO deliveries (event_seq, handler, message_id, occurred_at, due_at)
    SELECT (SELECT max(seq) FROM events), value, NEW.message_id, NEW.occurred_at, NEW.received_at
    FROM json_each(NEW.handlers);

    UPDATE statistics SET total = total - 1, live = live - 1
    WHERE day = NEW.day_before AND device_id = NEW.device_id_before
      AND status = NEW.status_before;

    INSERT INTO statistics (day, device_id, status, total, live)
    SELECT NEW.day, NEW.device_id, NEW.status, 1, 1 WHERE NEW.day IS NOT NULL
    ON CONFLICT (day, device_id, status) DO UPDATE SET total = total + 1, live = live + 1;
END;
"""

_RARE = f"""
-- What phones have told of themselves: little, among all events.
CREATE INDEX events_of_phones ON events (seq) WHERE {OF_PHONES};

-- History of the other providers. ZimSend's is found without, and most have no others.
CREATE INDEX messages_by_provider ON messages (provider, at DESC)
    WHERE provider <> '{mirror.PROVIDER}';
"""

_LEARNT = """
-- Events that did not come by webhook: few. Of which messages there are any, and when that was.
CREATE INDEX events_learnt ON events (message_id) WHERE source <> 'webhook';

-- Short texts under a name, as `marks` are numbers.
CREATE TABLE notes (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""

_PARKED = f"""
-- Since when a parked item has been due (receiver/store/claiming.py); null for all others.
ALTER TABLE deliveries ADD COLUMN due_since INTEGER;

-- The queue of a message and handler: the first of each stand with one seek. Whether a message is
-- owed.
DROP INDEX deliveries_of_message;
CREATE INDEX deliveries_of_message
    ON deliveries (message_id, handler, ({STAND}), occurred_at, event_seq)
    WHERE state = 'pending' AND message_id IS NOT NULL;

-- The messages of which something is parked, and since when; mostly there is nothing in it.
CREATE INDEX deliveries_parked ON deliveries (handler, message_id, due_since)
    WHERE state = 'pending' AND due_at = {NEVER};
"""

_OWNERS = """
-- Who has leased an item; null once the lease has ended.
ALTER TABLE deliveries ADD COLUMN owner TEXT;
"""

_CAUSES = f"""
-- Why work is dead, as others of it are (receiver/causes.py); empty for all that is not dead.
ALTER TABLE deliveries ADD COLUMN cause TEXT NOT NULL DEFAULT '';

-- Of dead work `due_at` says when it died. What was buried while it was parked has none.
UPDATE deliveries SET due_at = coalesce(due_since, occurred_at), due_since = NULL
WHERE state = 'dead' AND due_at = {NEVER};
"""

_DEAD = """
SELECT event_seq, handler, last_error, traceback
FROM deliveries INDEXED BY deliveries_dead WHERE state = 'dead'
"""

_CAUSES_INDEX = """
-- Groups of dead work: from each to the next, their first and last, how many.
-- With the state, or SQLite would read the rows for it.
CREATE INDEX deliveries_by_cause ON deliveries (handler, cause, due_at, event_seq, state)
    WHERE state = 'dead';
"""

_COUNTERS = """
-- Numbers that only grow (receiver/metrics.py): a name, and the values of its labels as JSON.
CREATE TABLE counters (
    name   TEXT    NOT NULL,
    labels TEXT    NOT NULL,
    value  INTEGER NOT NULL,
    PRIMARY KEY (name, labels)
) WITHOUT ROWID;

-- The batches that were added last, so that none is added twice.
CREATE TABLE counted_batches (number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE);

-- Up to which event all have been counted. Those that are here already happened before.
INSERT INTO marks SELECT 'counted', coalesce(max(seq), 0) FROM events;
"""

_FORGOTTEN = """
-- Whom to redact, spelling by spelling: a keyed hash of the digits (receiver/forgetting.py).
CREATE TABLE forgotten (
    digest TEXT    PRIMARY KEY,
    key    TEXT    NOT NULL,
    length INTEGER NOT NULL,
    inside INTEGER NOT NULL
) WITHOUT ROWID;

-- `forgotten`: how often that list has grown. `wiped`: whether all that was ever deleted from the
-- file has been overwritten, as earlier releases did not.
INSERT INTO marks VALUES ('forgotten', 0);
INSERT INTO marks SELECT 'wiped', NOT EXISTS (SELECT 1 FROM events)
    AND NOT EXISTS (SELECT 1 FROM quarantine) AND NOT EXISTS (SELECT 1 FROM notes)
    AND (SELECT value FROM marks WHERE name = 'seq') = 0;
"""

# What an index by number is told, it writes at another page for each message. So it is told where
# texts are, many messages at a time, instead of in the transaction of each event.
_NUMBERS = """
-- History by number.
DROP INDEX messages_by_number;
CREATE INDEX messages_by_number ON messages (number, at DESC) WHERE indexed = 1;

-- What that one and search do not know yet, in the order of arrival: nearly nothing. With the
-- number, so that no row is read that is another's.
DROP INDEX messages_unindexed;
CREATE INDEX messages_unindexed ON messages (key, number) WHERE indexed = 0;
"""
