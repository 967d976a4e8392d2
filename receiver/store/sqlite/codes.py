"""Cells by error code, in SQLite: the step that brings them, and the cell that a message counts in.

Beside them what came with the same step: the index of metadata, and tests, which no total holds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from sqlite_utils import Database

from receiver import mirror, status, times
from receiver.mirror import MOST_CODES, OTHER

log = logging.getLogger(__name__)

#: Messages that the step looks at before it tells how far it has come.
_TOLD_EVERY = 100_000
#: Messages of which it holds what is to be written.
_WRITTEN_AT_ONCE = 500

#: A day as Python counts it: rounded down, before 1970, too.
DAY_OF_AT = f"(at / {times.DAY} - (at % {times.DAY} < 0))"


def counted_code(day: str, provider: str, code: str) -> str:
    """An expression for the code of the cell that a message counts in.

    :param day, provider, code: expressions; a column needs the name of its table in front.
    """
    return f"""
        CASE WHEN {code} = '' OR EXISTS (
            SELECT 1 FROM codes AS c
            WHERE c.day = {day} AND c.provider = {provider} AND c.code = {code})
        THEN {code} ELSE '{OTHER}' END"""


#: The same of a row `m`.
COUNTED_CODE = counted_code("m.day", "m.provider", "m.code")


def take(db: Database, run: Callable[[Database, str], None]) -> None:
    """The step of the schema that counts failures by code and leaves tests out.

    :param run: executes statements, one by one.
    """
    run(db, _CODES)
    # Only what is no longer right is written: most messages did not fail.
    codes: list[tuple[str, int]] = []
    marked: list[tuple[str, int]] = []
    pairs: list[tuple[int, str, str]] = []

    def write() -> None:
        connection.executemany("UPDATE messages SET code = ? WHERE key = ?", codes)
        connection.executemany("UPDATE messages SET registers = ? WHERE key = ?", marked)
        connection.executemany("INSERT INTO metadata VALUES (?, ?, ?)", pairs)
        for written in (codes, marked, pairs):
            written.clear()

    connection = db.conn
    for number, (key, registers, is_test) in enumerate(connection.execute(_MESSAGES), 1):
        row = json.loads(registers)
        if code := mirror.summarize(row, 0).code:
            codes.append((code, key))
        if is_test:
            status.mark_test(row, 0, "")
            marked.append((json.dumps(row, separators=(",", ":")), key))
        pairs += ((key, *pair) for pair in mirror.metadata(row).items())
        if number % _WRITTEN_AT_ONCE == 0:
            write()
        if number % _TOLD_EVERY == 0:
            log.info("migrating the database: %d messages so far", number)
    write()
    run(db, _CODES_COUNTED)
    run(db, _CODES_INDEXES)


# --- SQL

_CODES = f"""
-- Why a message is failed, in full (empty: it is not, or nobody has said why); who carried it.
ALTER TABLE messages ADD COLUMN code TEXT NOT NULL DEFAULT '';
ALTER TABLE messages ADD COLUMN provider TEXT NOT NULL DEFAULT '{mirror.PROVIDER}';

-- By what of its metadata a message is found (receiver/mirror.py). Filled with search.
CREATE TABLE metadata (
    message_key INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    value       TEXT    NOT NULL
);

-- The codes that have cells of their own: at most {MOST_CODES} a day and provider. None is taken
-- away, so a code has a cell of its own or counts as {OTHER}, and never changes from one to the
-- other.
CREATE TABLE codes (
    day      INTEGER NOT NULL,
    provider TEXT    NOT NULL,
    code     TEXT    NOT NULL,
    PRIMARY KEY (day, provider, code)
) WITHOUT ROWID;

-- How many messages there are, cell by cell: `total` with those that have expired and without
-- those of which tests alone have told, `live` the other way round.
ALTER TABLE statistics RENAME TO statistics_before;
CREATE TABLE statistics (
    day       INTEGER NOT NULL,
    provider  TEXT    NOT NULL,
    device_id TEXT    NOT NULL,
    status    TEXT    NOT NULL,
    code      TEXT    NOT NULL,
    total     INTEGER NOT NULL,
    live      INTEGER NOT NULL,
    PRIMARY KEY (day, provider, device_id, status, code)
) WITHOUT ROWID;
INSERT INTO statistics
    SELECT day, '{mirror.PROVIDER}', device_id, status, '', total, live FROM statistics_before;
DROP TABLE statistics_before;

-- The messages of which tests alone have told. Older releases know them by ids alone.
CREATE TABLE tests AS
    SELECT key FROM messages WHERE id >= 'msg_test' AND id < 'msg_tesu'
    UNION
    SELECT m.key FROM events AS t JOIN messages AS m ON m.key = t.message_key
    WHERE t.id >= 'evt_test' AND t.id < 'evt_tesu'
      AND NOT EXISTS (SELECT 1 FROM events AS e
                      WHERE e.message_key = m.key AND substr(e.id, 1, 8) <> 'evt_test');
"""

_MESSAGES = "SELECT key, registers, key IN (SELECT key FROM tests) FROM messages"

# What failed with a code goes from the cell without one into its own; tests leave the totals.
_CODES_COUNTED = f"""
INSERT INTO codes
    SELECT day, provider, code FROM (
        SELECT day, provider, code,
               row_number() OVER (PARTITION BY day, provider ORDER BY number DESC, code) AS place
        FROM (SELECT {DAY_OF_AT} AS day, provider, code, count(*) AS number
              FROM messages WHERE code <> '' GROUP BY 1, 2, 3))
    WHERE place <= {MOST_CODES} AND code <> '{OTHER}';

CREATE TABLE explained AS
    SELECT day, provider, device_id, status, {COUNTED_CODE} AS code,
           count(*) AS number
    FROM (SELECT {DAY_OF_AT} AS day, provider, device_id, status, code FROM messages
          WHERE code <> '') AS m
    GROUP BY 1, 2, 3, 4, 5;
INSERT INTO statistics
    SELECT day, provider, device_id, status, code, number, number FROM explained WHERE true
    ON CONFLICT (day, provider, device_id, status, code) DO UPDATE
        SET total = total + excluded.total, live = live + excluded.live;
INSERT INTO statistics
    SELECT day, provider, device_id, status, '', -sum(number), -sum(number) FROM explained
    WHERE true GROUP BY 1, 2, 3, 4
    ON CONFLICT (day, provider, device_id, status, code) DO UPDATE
        SET total = total + excluded.total, live = live + excluded.live;
DROP TABLE explained;

UPDATE statistics SET total = total - counted.number
FROM (SELECT day, provider, device_id, status, {COUNTED_CODE} AS code,
             count(*) AS number
      FROM (SELECT {DAY_OF_AT} AS day, provider, device_id, status, code FROM messages
            WHERE key IN (SELECT key FROM tests)) AS m
      GROUP BY 1, 2, 3, 4, 5) AS counted
WHERE statistics.day = counted.day AND statistics.provider = counted.provider
  AND statistics.device_id = counted.device_id AND statistics.status = counted.status
  AND statistics.code = counted.code;
DROP TABLE tests;
"""

_CODES_INDEXES = f"""
-- History by what a failure was.
CREATE INDEX messages_by_code ON messages (code, at DESC) WHERE code <> '';

-- Which messages have a value; and what a message has, for when it changes.
CREATE INDEX metadata_by_value ON metadata (name, value, message_key);
CREATE INDEX metadata_of_message ON metadata (message_key);

DROP TRIGGER arrive;
DROP VIEW arrivals;

-- What is written of a new event, as one row; the trigger takes it apart.
CREATE VIEW arrivals (
    id, type, message_id, occurred_at, received_at, timestamp, reported_at, has_error, source,
    late, repeat, redacted, loose, body, handlers,
    -- What its message's row becomes; null where another event of the group says it.
    status, at, device_id, number, code, provider, first_received_at, touched_at, indexed,
    registers,
    -- The day that the message counts on from now on, and whether it is in the total; and the cell
    -- that it has counted in, with the same. Null if nothing changes.
    day, counts, day_before, provider_before, device_id_before, status_before, code_before,
    counts_before,
    -- What has been read: the latest event, the number of expiries; and the ids of the messages
    -- that it was read for. Null for all but the first event of the group.
    latest, expiries, concerned
) AS SELECT null, null, null, null, null, null, null, null, null, null, null, null, null, null,
    null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
    null, null, null, null, null, null;

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
