"""The tables of the PostgreSQL store, step by step. A step that has landed is never changed.

Releases overlap: while `flask migrate` of one runs, and for a while after, processes of the one
before still work. So a step says whether they may go on:

- an *additive* step (a table, an index, a column that is nullable or has a default) leaves the
  older release's statements right. It goes on after the step, and does not notice;
- a *breaking* step does not. From its commit on, each write of an older release fails with a
  `SchemaMismatch` before anything is committed, until the newer release has taken over.

To change something without a refusal, spread it over two releases: the first adds and writes both,
the second takes away what is old, with a breaking step that no running process minds.

Every writing transaction shares the lock `SCHEMA` and reads the steps after it; whoever takes steps
has it alone. So no write goes on under a schema other than the one that it has looked at, and none
meets a step half-way, with a table that the step waits for while it waits for one of the step's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable

from receiver import mirror
from receiver.calling import call
from receiver.causes import cause_of
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.store.claiming import NEVER, STAND
from receiver.store.contract import Outlook
from receiver.store.postgres import codes, own_schema
from receiver.store.postgres.place import MIGRATION, SCHEMA, Place
from receiver.store.views import OF_PHONES

Connection = psycopg.Connection[Any]

#: A step that is none: these tables are used under the locks of their own schema. It is a breaking
#: one for whoever finds them by its `search_path`, older releases too, and would take other locks.
OWN_LOCKS = 1_000_000

#: Whoever waits for the lock of a table makes all wait that come after: so not for long, and again
#: after a rest.
_LOCK_TIMEOUT = "1s"
_REST = 2.0
_TRIES = 20


class Step(NamedTuple):
    name: str
    take: Callable[[Connection], None]
    breaking: bool = False


def migrate(connection: Connection, place: Place) -> list[str]:
    """Take the steps that are missing, all in one transaction; returns their names."""
    for _ in range(_TRIES):
        try:
            with connection.transaction():
                return _migrate(connection, place)
        # Readers have no lock but those of the tables, so one and a step may wait for each other.
        except (DeadlockDetected, LockNotAvailable):
            time.sleep(_REST)
    raise StoreUnavailable(
        f"somebody has held a lock on the tables for {_TRIES * _REST:.0f} s, and the schema could "
        f"not be changed; look in pg_stat_activity for who it is, and run `{call('migrate')}` again"
    )


def _migrate(connection: Connection, place: Place) -> list[str]:
    (encoding,) = connection.execute("SHOW server_encoding").fetchone() or ("",)
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"the database's encoding is {encoding}, which cannot hold every text: make another "
            "one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
    connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    connection.execute("SET LOCAL client_min_messages = 'warning'")
    connection.execute(f"SELECT pg_advisory_xact_lock({place.lock(MIGRATION)})")
    if not place.schema or not own_schema.enter(connection, place):
        connection.execute(_STEPS_TAKEN)
    taken = _taken(connection)
    if place.schema and OWN_LOCKS not in taken:
        _take_own_locks(connection, bool(taken))
        taken[OWN_LOCKS] = True
    pending = [(number, step) for number, step in enumerate(STEPS, 1) if number not in taken]
    refuse_others(taken, place)
    if pending:
        connection.execute(f"SELECT pg_advisory_xact_lock({place.lock(SCHEMA)})")
    for number, step in pending:
        step.take(connection)
        connection.execute(
            "INSERT INTO schema_steps (number, name, breaking) VALUES (%s, %s, %s)",
            (number, step.name, step.breaking),
        )
    return [step.name for _, step in pending]


def _take_own_locks(connection: Connection, used: bool) -> None:
    """From here on nobody writes under other locks.

    :param used: whether somebody may be writing under those at this moment.
    """
    if used:
        connection.execute(f"SELECT pg_advisory_xact_lock({Place().lock(SCHEMA)})")
    row = (OWN_LOCKS, "locks_of_its_own", True)
    connection.execute("INSERT INTO schema_steps (number, name, breaking) VALUES (%s, %s, %s)", row)


def _taken(connection: Connection) -> dict[int, bool]:
    """The numbers of the steps that the database has taken, and whether each is breaking."""
    return dict(connection.execute("SELECT number, breaking FROM schema_steps").fetchall())


def outlook(connection: Connection, place: Place) -> Outlook:
    """See `Store.outlook`; without the size."""
    ((made,),) = connection.execute("SELECT to_regclass('schema_steps') IS NOT NULL").fetchall()
    taken = _taken(connection) if made else {}
    if taken:
        refuse_others(taken, place)
    steps = [step for number, step in enumerate(STEPS, 1) if number not in taken]
    events = 0
    if taken:
        ((events,),) = connection.execute("SELECT count(*) FROM events").fetchall()
    return Outlook([step.name for step in steps], any(s.breaking for s in steps), events, size=0)


def verify(connection: Connection, place: Place) -> None:
    """Whether this release can work with the database's schema.

    :raises SchemaMismatch: if it cannot.
    """
    taken = _taken(connection)
    if any(number not in taken for number in range(1, len(STEPS) + 1)):
        raise SchemaMismatch(
            f"the database's schema is older than this release: run `{call('migrate')}`"
        )
    refuse_others(taken, place)


def refuse_others(taken: dict[int, bool], place: Place) -> None:
    """
    :raises SchemaMismatch: if a newer release has changed what this one relies on, or if the
        tables are used under other locks.
    """
    if (OWN_LOCKS in taken) is not bool(place.schema):
        raise SchemaMismatch(
            f"the tables have been used without DATABASE_SCHEMA: run `{call('migrate')}`"
            if place.schema
            else "the tables are those of a receiver with DATABASE_SCHEMA: set it here as well"
        )
    if any(breaking for number, breaking in taken.items() if len(STEPS) < number != OWN_LOCKS):
        raise SchemaMismatch(
            "the database's schema is newer than this release, which must not write into it: "
            "start the newer release"
        )


# --- the steps


def _create_tables(connection: Connection) -> None:
    connection.execute(_TABLES)
    try:
        with connection.transaction():  # a savepoint: without the extension it works as well
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            # It may be anywhere, and need not be where names are looked for.
            ((where,),) = connection.execute(_WHERE_TRIGRAMS_ARE)
            connection.execute(_TRIGRAMS.format(where))
    except psycopg.Error:
        pass


def _park_items_behind_others(connection: Connection) -> None:
    # Additive: an older release takes what is parked for work that waits, and its statements find
    # in the new index what they found in the one before.
    connection.execute(_PARKED)


def _leases_have_owners(connection: Connection) -> None:
    # Additive: what an older release leases has no owner, and ends by time.
    connection.execute(_OWNERS)


def _keep_tracebacks(connection: Connection) -> None:
    # Additive: an older release writes an error and leaves the traceback of the one before.
    connection.execute("ALTER TABLE deliveries ADD COLUMN traceback text")


def _find_dead_work_by_its_cause(connection: Connection) -> None:
    # Additive: what dies under an older release has no cause until it is replayed.
    connection.execute(_CAUSES)
    dead = connection.execute(_DEAD)
    while some := dead.fetchmany(1_000):
        rows = [
            {"seq": seq, "handler": handler, "cause": cause_of(error, where)}
            for seq, handler, error, where in some
        ]
        connection.execute(_WRITE_CAUSES, (json.dumps(rows),))
    connection.execute(_CAUSES_INDEX)


def _find_what_is_rare(connection: Connection) -> None:
    for statement in _RARE:
        connection.execute(statement)


def _keep_counters(connection: Connection) -> None:
    # Additive: events that an older release writes are counted by this one, from their rows.
    connection.execute(_COUNTERS)


def _forget_numbers(connection: Connection) -> None:
    # Additive: an older release knows nobody who was forgotten. So it must have ended before.
    connection.execute(_FORGOTTEN)


def _leases_have_no_index(connection: Connection) -> None:
    # Additive: an older release finds its leases by another index. Each end of a call read all that
    # was leased by this one.
    connection.execute("DROP INDEX IF EXISTS deliveries_leased")


_STEPS_TAKEN = """
CREATE TABLE IF NOT EXISTS schema_steps (
    number   integer PRIMARY KEY,
    name     text    NOT NULL,
    -- Releases that do not know this step must not write any more.
    breaking boolean NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now()
)
"""

_TABLES = """
-- Ids and whatever is sorted or compared go by code point, as in Python: COLLATE "C".

-- The order in which events are numbered. Numbers of transactions that failed are missing, and of
-- two processes the one with the smaller number may commit later.
CREATE SEQUENCE event_seqs;

-- Each event once. The unique id is the dedupe.
CREATE TABLE events (
    seq              bigint   PRIMARY KEY,
    id               text     COLLATE "C" NOT NULL UNIQUE,
    type             text     COLLATE "C" NOT NULL,
    message_id       text     COLLATE "C",
    occurred_at      bigint   NOT NULL,
    received_at      bigint   NOT NULL,
    last_received_at bigint   NOT NULL,
    -- The envelope's own time, for telling a replay of what has been forgotten.
    timestamp        bigint,
    reported_at      bigint,
    has_error        boolean  NOT NULL,
    source           text     NOT NULL,
    late             boolean  NOT NULL,
    repeat           boolean  NOT NULL,
    redacted         boolean  NOT NULL,
    -- It leaves the mirror alone, so it expires by itself.
    loose            boolean  NOT NULL,
    receipts         integer  NOT NULL DEFAULT 1,
    body             bytea    NOT NULL
);

-- Tells a repeat with two seeks, however many events a message has; finds a message's events.
CREATE INDEX events_of_message ON events (message_id, type, has_error, reported_at)
    WHERE message_id IS NOT NULL;

-- Events that did not come by webhook: few. Of which messages there are any, and when that was.
CREATE INDEX events_learnt ON events (message_id) WHERE source <> 'webhook';

-- Events that expire by themselves, oldest first.
CREATE INDEX events_loose ON events (last_received_at) WHERE loose;

-- The mirror: one row a message, the join of all that its events said (receiver/status.py), with
-- what it is found by (receiver/mirror.py). The registers are JSON in ASCII: neither `text` nor
-- `jsonb` would take the characters that an SMS can hold.
CREATE TABLE messages (
    id                text   COLLATE "C" PRIMARY KEY,
    status            text   COLLATE "C" NOT NULL,
    at                bigint NOT NULL,
    device_id         text   COLLATE "C" NOT NULL,
    number            text   COLLATE "C" NOT NULL,
    first_received_at bigint NOT NULL,
    touched_at        bigint NOT NULL,
    registers         text   NOT NULL
);

-- History without a filter, and by date. Expiry takes the other end.
CREATE INDEX messages_by_time ON messages (at DESC, id) INCLUDE (status, device_id);

-- History by status, by device (with or without a status), by number: pages that are passed over
-- are read from the index alone.
CREATE INDEX messages_by_status ON messages (status, at DESC, id);
CREATE INDEX messages_by_device ON messages (device_id, at DESC, id) INCLUDE (status);
CREATE INDEX messages_by_number ON messages (number, at DESC, id);

-- The texts, in the form that search compares. Apart from the messages, so that a message whose
-- status changes does not have its text indexed again.
CREATE TABLE texts (
    message_id text COLLATE "C" PRIMARY KEY,
    folded     text COLLATE "C" NOT NULL
);

-- How many messages there are, cell by cell: with those that have expired, and without. A cell is
-- the sum of its rows: each process writes into one of its own, and none waits for another.
CREATE TABLE statistics (
    day       integer  NOT NULL,
    device_id text     COLLATE "C" NOT NULL,
    status    text     COLLATE "C" NOT NULL,
    spread    smallint NOT NULL,
    total     bigint   NOT NULL,
    live      bigint   NOT NULL,
    PRIMARY KEY (day, device_id, status, spread)
) WITH (fillfactor = 70);

-- The queue: one work item for each event and handler. Leased work is pending work that is not
-- due before its lease runs out; fence counts the leases. No foreign key: each row would be paid
-- for with a look at the event that the same transaction has just written. What deletes events
-- deletes their work.
CREATE TABLE deliveries (
    event_seq   bigint  NOT NULL,
    handler     text    COLLATE "C" NOT NULL,
    message_id  text    COLLATE "C",
    occurred_at bigint  NOT NULL,
    state       text    COLLATE "C" NOT NULL DEFAULT 'pending',
    due_at      bigint  NOT NULL,
    leased      boolean NOT NULL DEFAULT false,
    fence       bigint  NOT NULL DEFAULT 0,
    attempts    integer NOT NULL DEFAULT 0,
    last_error  text,
    PRIMARY KEY (event_seq, handler)
) WITH (
    -- Each item is written three times on its way; the old versions must go before they are many.
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000
);

-- What a worker may claim next. Only work that is owed is in it, so it stays small.
CREATE INDEX deliveries_due ON deliveries (handler, due_at, event_seq) WHERE state = 'pending';

-- Whether another item of the same message is leased, or earlier; whether a message is owed.
CREATE INDEX deliveries_of_message ON deliveries (message_id, handler)
    WHERE state = 'pending' AND message_id IS NOT NULL;

-- `events list --state dead` and `replay --failed`.
CREATE INDEX deliveries_dead ON deliveries (event_seq) WHERE state = 'dead';

-- Signed bodies that could not be used, each once.
CREATE TABLE quarantine (
    digest           text    COLLATE "C" PRIMARY KEY,
    received_at      bigint  NOT NULL,
    last_received_at bigint  NOT NULL,
    receipts         integer NOT NULL DEFAULT 1,
    length           bigint  NOT NULL,
    reason           text    NOT NULL,
    body             bytea
);
CREATE INDEX quarantine_by_age ON quarantine (last_received_at);

-- What must survive the rows that it came from, and when who may do what next:
-- `timestamp`: the latest of an event that has expired. `expiry`: not before this time. `checks`:
-- how often somebody has tried whether one can write.
CREATE TABLE marks (name text PRIMARY KEY, value bigint NOT NULL);
-- Short texts under a name, as `marks` are numbers.
CREATE TABLE notes (name text PRIMARY KEY, text text NOT NULL);
INSERT INTO marks VALUES ('timestamp', -9223372036854775808), ('expiry', 0), ('checks', 0);
"""

# A part of a text is found by its trigrams. The list of what the index has yet to take in is kept
# short: whoever fills it empties it, and a webhook waits for that.
_TRIGRAMS = """
CREATE INDEX texts_by_trigrams ON texts USING gin (folded {}.gin_trgm_ops)
    WITH (gin_pending_list_limit = 512)
"""

_WHERE_TRIGRAMS_ARE = (
    "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_trgm'"
)

_PARKED = f"""
-- Since when a parked item has been due (receiver/store/claiming.py); null for all others.
ALTER TABLE deliveries ADD COLUMN due_since bigint;

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
-- Who has leased an item; null once the lease has ended. And what somebody has leased: little.
ALTER TABLE deliveries ADD COLUMN owner text;
CREATE INDEX deliveries_leased ON deliveries (owner) WHERE leased;
"""

_CAUSES = f"""
-- Why work is dead, as others of it are (receiver/causes.py); empty for all that is not dead.
ALTER TABLE deliveries ADD COLUMN cause text COLLATE "C" NOT NULL DEFAULT '';

-- Of dead work `due_at` says when it died. What was buried while it was parked has none.
UPDATE deliveries SET due_at = coalesce(due_since, occurred_at), due_since = NULL
WHERE state = 'dead' AND due_at = {NEVER};
"""

_DEAD = "SELECT event_seq, handler, last_error, traceback FROM deliveries WHERE state = 'dead'"

_WRITE_CAUSES = """
UPDATE deliveries AS d SET cause = told.cause
FROM jsonb_to_recordset(%s::jsonb) AS told (seq bigint, handler text, cause text)
WHERE d.event_seq = told.seq AND d.handler = told.handler
"""

_CAUSES_INDEX = """
-- Groups of dead work: from each to the next, their first and last, how many.
CREATE INDEX deliveries_by_cause ON deliveries (handler, cause, due_at, event_seq)
    WHERE state = 'dead'
"""

_RARE = (
    # What phones have told of themselves: little, among all events.
    f"CREATE INDEX events_of_phones ON events (seq) WHERE {OF_PHONES}",
    # History of the other providers. ZimSend's is found without, and most have no others.
    "CREATE INDEX messages_by_provider ON messages (provider, at DESC, id)"
    f" WHERE provider <> '{mirror.PROVIDER}'",
)


_COUNTERS = """
-- Numbers that only grow (receiver/metrics.py): a name, and the values of its labels as JSON.
CREATE TABLE counters (
    name   text   COLLATE "C" NOT NULL,
    labels text   COLLATE "C" NOT NULL,
    value  bigint NOT NULL,
    PRIMARY KEY (name, labels)
);

-- The batches that were added last, so that none is added twice.
CREATE TABLE counted_batches (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token  text   NOT NULL UNIQUE
);

-- Up to which event all have been counted. Those that are here already happened before.
INSERT INTO marks SELECT 'counted', coalesce(max(seq), 0) FROM events;
"""

_FORGOTTEN = """
-- Whom to redact, spelling by spelling: a keyed hash of the digits (receiver/forgetting.py). And
-- how often that list has grown.
CREATE TABLE forgotten (
    digest text    COLLATE "C" PRIMARY KEY,
    key    text    NOT NULL,
    length integer NOT NULL,
    inside integer NOT NULL
);
INSERT INTO marks VALUES ('forgotten', 0);
"""

STEPS = (
    Step("create_tables", _create_tables),
    Step("park_items_behind_others", _park_items_behind_others),
    Step("leases_have_owners", _leases_have_owners),
    Step("keep_tracebacks", _keep_tracebacks),
    Step("count_failures_by_code", codes.take),
    Step("find_dead_work_by_its_cause", _find_dead_work_by_its_cause),
    Step("find_what_is_rare", _find_what_is_rare),
    Step("keep_counters", _keep_counters),
    Step("forget_numbers", _forget_numbers),
    Step("leases_have_no_index", _leases_have_no_index),
)
