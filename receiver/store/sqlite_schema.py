"""The tables of the SQLite store, step by step. A step that has landed is never changed."""

from __future__ import annotations

from sqlite_utils import Database, Migrations

migrations = Migrations("receiver")


@migrations()
def create_tables(db: Database) -> None:
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            db.execute(statement)


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
