"""The store on PostgreSQL, through psycopg.

Any number of processes on any number of machines work on one database. Whoever changes an event or
a message holds its lock (`_LOCK`), whoever leases work that of its message and handler, and all
write the tables in one order. A writing transaction is a pipeline: statements leave together, and
their results are waited for where one is needed, and at the end.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from receiver import bucket
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.event import Incoming, Rejected
from receiver.mirror import Search
from receiver.store.contract import (
    SILENT_ATTEMPTS,
    Claim,
    Evidence,
    Expired,
    MirrorRow,
    Outcome,
    Report,
    Selection,
    Settlement,
    Table,
    Want,
    tell_given_up,
)
from receiver.store.copying import Row
from receiver.store.group import replayed
from receiver.store.postgres import copy as postgres_copy
from receiver.store.postgres import expiry as postgres_expiry
from receiver.store.postgres import group as postgres_group
from receiver.store.postgres import mirror as postgres_mirror
from receiver.store.postgres import schema as postgres_schema
from receiver.store.postgres.group import ids_of, write_group
from receiver.store.postgres.pool import Connection, Pool
from receiver.times import DAY, iso

#: Seconds that a command or a reader waits for a connection and for others' locks; and that one
#: waits for an answer.
_PATIENCE = 5.0
_READER_PATIENCE = 30.0
_CHECK_PATIENCE = 1.0
#: The server gives up so many seconds before we do: then the connection is still good.
_EARLIER = 0.1
_PAGE = 200
#: Rows of each cell of the statistics. More processes than a few share one now and then.
_SPREADS = 32


class PostgresStore:
    """See `receiver.store.Store`."""

    def __init__(self, url: str) -> None:
        self._pool = Pool(url)
        self._spread = random.randrange(_SPREADS)
        self._commits = 0

    # --- transactions

    @contextmanager
    def _transaction(
        self, patience: float = _PATIENCE, *, ids: Collection[str] = (), first: bool = False
    ) -> Iterator[Connection]:
        """One write transaction: committed and synced when the block ends, or rolled back.

        :param patience: seconds for all of it.
        :param ids: events and messages that nobody else is to change meanwhile.
        :param first: for ingest, which need not wait for a free connection.
        """
        deadline = time.monotonic() + patience
        lend = self._pool.connection if first else self._pool.shared
        with _as_unavailable(), lend(deadline) as connection:
            try:
                with connection.pipeline():
                    newer = _begin(connection, deadline, ids)
                    yield connection
                    postgres_schema.refuse_newer(dict(newer.fetchall()))
                    committed = connection.execute("COMMIT")
            except psycopg.Error:
                # With all that was in the pipeline, the preparing of a statement may have failed,
                # which the driver does not notice: it would ask for it again and again.
                connection.discard()
                raise
            except BaseException:
                _roll_back(connection)
                raise
            if committed.statusmessage != "COMMIT":
                raise StoreUnavailable(f"the commit ended in {committed.statusmessage}")

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """One read transaction: all that is read is of one moment."""
        with self._reader() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        deadline = time.monotonic() + _PATIENCE
        with _as_unavailable(), self._pool.shared(deadline, reading=True) as connection:
            connection.deadline = time.monotonic() + _READER_PATIENCE
            yield connection

    def close(self) -> None:
        self._pool.close()

    # --- schema

    def migrate(self) -> list[str]:
        # Not from the pool: it is told at once why it cannot connect, and may wait for long.
        with _as_unavailable():
            try:
                connection = psycopg.connect(autocommit=True, **self._pool.settings)
            except psycopg.Error as error:
                raise StoreUnavailable(f"DATABASE_URL: {_told(error)}") from error
            with connection:
                return postgres_schema.migrate(connection)

    def check(self) -> None:
        with self._transaction(_CHECK_PATIENCE) as connection:
            postgres_schema.verify(connection)
            # A server that only follows another one can be read, and takes no writes.
            connection.execute("UPDATE marks SET value = value + 1 WHERE name = 'checks'")

    # --- ingest

    def ingest(
        self,
        items: Sequence[Incoming | Rejected],
        wanting: Callable[[str], Sequence[str]],
        patience: float,
    ) -> list[Outcome]:
        with self._transaction(patience, ids=ids_of(items), first=True) as connection:
            outcomes = write_group(connection, items, wanting, self._spread)
        self._commits += 1
        return outcomes

    # --- work

    def work(
        self, now: int, settlements: Sequence[Settlement], wants: Sequence[Want], patience: float
    ) -> list[Claim]:
        with self._transaction(patience) as connection:
            if settlements:
                rows = json.dumps([_settled(s) for s in settlements])
                connection.execute(_SETTLE, (rows,))
            found = [
                connection.execute(
                    _CLAIMABLE, {"handler": want.handler, "now": now, "limit": want.limit}
                )
                for want in wants
            ]
            locked = [[seq for (seq,) in candidates] for candidates in found]
            # Only now, with the locks, is it sure what may be leased.
            leases = [
                (
                    want.handler,
                    seqs,
                    connection.execute(_LEASE, _lease(want, seqs, now), binary=True),
                )
                for want, seqs in zip(wants, locked, strict=True)
                if seqs
            ]
            # Each event once for all its handlers.
            all_seqs = list({seq for _, seqs, _ in leases for seq in seqs})
            found_events = connection.execute(_EVENTS, (all_seqs,), binary=True)
        events = {seq: event for seq, *event in found_events}
        claims = []
        for handler, seqs, answer in leases:
            leased = answer.fetchall()
            by_seq = {lease[0]: lease for *lease, given_up in leased if not given_up}
            tell_given_up(handler, len(leased) - len(by_seq))
            claims += [Claim(*by_seq[seq], *events[seq]) for seq in seqs if seq in by_seq]
        return claims

    def next_due(self, handler: str, after: int) -> int | None:
        (due_at,) = self._row(_NEXT_DUE, (handler, after))
        return None if due_at is None else int(due_at)

    def version(self) -> object:
        # What other processes commit is not heard of, but looked for each second.
        return self._commits, int(time.monotonic())

    def bury(self, now: int, known: Sequence[str], wait: int) -> int:
        with self._transaction() as connection:
            buried = connection.execute(_BURY, (list(known), now - wait))
        return buried.rowcount

    def backlog(self, now: int, handlers: Sequence[str]) -> tuple[int, int]:
        count, oldest = self._row(_BACKLOG, (list(handlers), now))
        return count, now - oldest if oldest is not None else 0

    def _row(self, query: str, values: Sequence[object]) -> tuple[Any, ...]:
        """The one row that the worker asks for."""
        deadline = time.monotonic() + _PATIENCE
        with _as_unavailable(), self._pool.shared(deadline) as connection:
            row = connection.execute(query, values).fetchone()
        assert row is not None
        return row

    # --- upkeep

    def index_texts(self, patience: float) -> bool:
        return False  # ingest has done it

    def tidy(self) -> None:
        """The server's autovacuum does it."""

    def expire(self, before: int, patience: float) -> Expired:
        with self._transaction(patience) as connection:
            return postgres_expiry.expire_batch(connection, before, self._spread)

    def expirable(self, before: int) -> Expired:
        with self._reading() as connection:
            return postgres_expiry.expirable(connection, before)

    def shrink(self, patience: float) -> bool:
        return False  # the server's autovacuum makes room for what comes next

    def claim_turn(self, name: str, now: int, until: int) -> bool:
        held = self.turn(name)
        # A time that lies far ahead was written by a clock that was wrong.
        if held is not None and now < held <= now + DAY:
            return False
        with self._transaction(_CHECK_PATIENCE) as connection:
            turn = connection.execute(
                "INSERT INTO marks AS m VALUES (%(name)s, %(until)s) ON CONFLICT (name) DO UPDATE"
                " SET value = %(until)s WHERE m.value <= %(now)s OR m.value > %(now)s + %(day)s",
                {"name": name, "until": until, "now": now, "day": DAY},
            )
        return turn.rowcount == 1

    def turn(self, name: str) -> int | None:
        (value,) = self._row("SELECT max(value) FROM marks WHERE name = %s", (name,))
        return None if value is None else int(value)

    def keep_turn(self, name: str, until: int, later: int) -> bool:
        with self._transaction(_CHECK_PATIENCE) as connection:
            turn = connection.execute(
                "UPDATE marks SET value = %s WHERE name = %s AND value = %s", (later, name, until)
            )
        return turn.rowcount == 1

    def take(self, name: str, now: int, interval: int, room: int | None) -> int:
        # The mark is when the bucket is full again: each token taken moves it on. One that nobody
        # has used yet must be there to be locked.
        with self._transaction(_CHECK_PATIENCE) as connection:
            connection.execute(
                "INSERT INTO marks VALUES (%s, 0) ON CONFLICT (name) DO NOTHING", (name,)
            )
            ((found,),) = connection.execute(
                "SELECT value FROM marks WHERE name = %s FOR UPDATE", (name,)
            )
            full_at, wait = bucket.take(found, now, interval, room)
            if not wait:
                connection.execute("UPDATE marks SET value = %s WHERE name = %s", (full_at, name))
        return wait

    def note(self, name: str) -> str | None:
        found = self._read("SELECT text FROM notes WHERE name = %s", (name,))
        return found[0] if found else None

    def write_note(self, name: str, text: str) -> None:
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO notes VALUES (%s, %s)"
                " ON CONFLICT (name) DO UPDATE SET text = excluded.text",
                (name, text),
            )

    # --- reading

    def _read(self, query: str, values: Sequence[object]) -> Any:
        """One row for a reader, if there is one."""
        with self._reader() as connection:
            return connection.execute(query, values).fetchone()

    def evidence(self, message_id: str, limit: int) -> Evidence | None:
        with self._reading() as connection:
            row = connection.execute(
                "SELECT registers, (SELECT count(*) FROM events WHERE message_id = messages.id)"
                " FROM messages WHERE id = %s",
                (message_id,),
            ).fetchone()
            if row is None:
                return None
            events = connection.cursor(row_factory=dict_row).execute(
                "SELECT id, type, occurred_at, received_at, source, late, repeat, receipts"
                " FROM events WHERE message_id = %s ORDER BY seq LIMIT %s",
                (message_id, limit),
            )
            return json.loads(row[0]), row[1], events.fetchall()

    def reports(self, message_ids: Collection[str]) -> Mapping[str, list[Report]]:
        with self._reading() as connection:
            return postgres_group.reports(connection, message_ids)

    def learnt(self) -> Iterator[tuple[str, Report]]:
        with self._reader() as connection:
            found = connection.execute(_LEARNT).fetchall()
        for message_id, *report in found:
            yield message_id, Report(*report)

    def history(self, search: Search, offset: int, limit: int) -> tuple[int, list[MirrorRow]]:
        with self._reading() as connection:
            total, rows = postgres_mirror.page(connection, search, offset, limit)
        return total, [(message_id, json.loads(registers)) for message_id, registers in rows]

    def statistics(
        self, first: int | None, last: int | None, device_id: str | None
    ) -> list[tuple[int, str, int]]:
        with self._reading() as connection:
            return postgres_mirror.statistics(connection, first, last, device_id)

    def body(self, event_id: str) -> bytes | None:
        found = self._read("SELECT body FROM events WHERE id = %s", (event_id,))
        return found[0] if found else None

    def events(self, selection: Selection) -> Iterator[dict[str, Any]]:
        for page in self._pages(selection):
            deliveries: dict[int, list[dict[str, Any]]] = {}
            with self._reader() as connection:
                for seq, *item in connection.execute(_DELIVERIES_OF, (list(page),)):
                    names = ("handler", "state", "attempts", "last_error")
                    deliveries.setdefault(seq, []).append(dict(zip(names, item, strict=True)))
            for seq, event in page.items():
                yield {
                    **event,
                    "occurred_at": iso(event["occurred_at"]),
                    "received_at": iso(event["received_at"]),
                    "deliveries": deliveries.get(seq, []),
                }

    def _pages(self, selection: Selection) -> Iterator[dict[int, dict[str, Any]]]:
        where, values = _conditions(selection)
        after = -1
        while True:
            with self._reader() as connection:
                found = connection.cursor(row_factory=dict_row).execute(
                    "SELECT seq, id AS event_id, type, message_id, occurred_at, received_at,"
                    " source, late, repeat, receipts FROM events AS e"
                    f" WHERE seq > %(after)s AND {where} ORDER BY seq LIMIT {_PAGE}",
                    {**values, "after": after},
                )
                page = {event.pop("seq"): event for event in found}
            if not page:
                return
            after = max(page)
            yield page

    def replay(
        self,
        selection: Selection,
        *,
        wanting: Callable[[str], Sequence[str]],
        now: int,
        dry_run: bool,
        progress: Callable[[int], None],
    ) -> int:
        count = 0
        for page in self._pages(selection):
            ids = {event[name] for event in page.values() for name in ("event_id", "message_id")}
            with self._transaction(ids=ids - {None}) as connection:
                count += _replay_page(connection, page, selection, wanting, now, dry_run)
            progress(count)
        return count

    # --- copying

    def rows(self, table: Table, after: Row | None, limit: int) -> list[Row]:
        with self._reader() as connection:
            return postgres_copy.rows(connection, table, after, limit)

    def put_rows(self, table: Table, batch: Sequence[Row]) -> None:
        with self._transaction(_READER_PATIENCE) as connection:
            postgres_copy.put_rows(connection, table, batch)

    def settle_copy(self) -> None:
        with self._transaction() as connection:
            postgres_copy.settle(connection)

    # --- quarantine

    def quarantined(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        with self._reader() as connection:
            digests = connection.execute(
                "SELECT digest FROM quarantine WHERE starts_with(digest, %s)"
                " ORDER BY received_at, digest",
                (prefix,),
            ).fetchall()
        for digest in digests:
            with self._reader() as connection:
                found = connection.cursor(row_factory=dict_row).execute(_QUARANTINED, digest)
                entries = found.fetchall()
            yield from entries

    def release(self, digest: str) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM quarantine WHERE digest = %s", (digest,))


# --- transactions and errors


def _begin(connection: Connection, deadline: float, ids: Collection[str]) -> psycopg.Cursor[Any]:
    """Open a transaction that ends in time; returns the steps of the schema that are not ours."""
    left = str(max(1, int(1000 * (deadline - time.monotonic() - _EARLIER))))
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    connection.execute(_LOCK, (left, left, json.dumps(sorted(ids))))
    return connection.execute(
        "SELECT number, breaking FROM schema_steps WHERE number > %s",
        (len(postgres_schema.STEPS),),
    )


def _roll_back(connection: Connection) -> None:
    """Leave a transaction, if there is one; a connection that cannot is closed."""
    if connection.closed or connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        return
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        connection.close()


def _is_outage(error: psycopg.Error) -> bool:
    """Whether it is the database that failed, and not one item's values."""
    return not isinstance(error, psycopg.DataError | psycopg.IntegrityError)


def _told(error: psycopg.Error) -> str:
    """What is wrong, in one line.

    What PostgreSQL says beside it (DETAIL) quotes whole rows, and a `DataError` quotes a value.
    """
    if isinstance(error, psycopg.DataError):
        return f"the database does not take a value (SQLSTATE {error.sqlstate})"
    told = " ".join((error.diag.message_primary or str(error)).split())
    if "does not support SSL" in told:
        told += " (in a network of your own, add ?sslmode=disable to DATABASE_URL)"
    return told


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise SchemaMismatch(f"{_told(error)}: run `flask migrate`") from error
    except psycopg.Error as error:
        error.args = (_told(error),)  # its traceback may go into the log
        if _is_outage(error):
            raise StoreUnavailable(*error.args) from error
        raise


# --- SQL and its values

# synchronous_commit: a commit is on the disk before the 200 leaves, whatever the server's default.
# A process that stands still in its transaction must not hold up the others for long. And the
# tables of a new database are so small that a plan made then, and kept, would read them whole.
#
# Who waits here holds nothing but such locks, and all ask for them in one order. Nothing has been
# read yet: what is read from the next statement on is what those left who had the locks before.
_LOCK = f"""
SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true),
       set_config('idle_in_transaction_session_timeout', '10s', true),
       set_config('synchronous_commit', 'on', true), set_config('enable_seqscan', 'off', true),
       pg_advisory_xact_lock_shared({postgres_schema.SCHEMA}),
       (SELECT count(pg_advisory_xact_lock(key)) FROM (
            SELECT DISTINCT hashtextextended(id, 0) AS key
            FROM jsonb_array_elements_text(%s::jsonb) AS id ORDER BY key) AS keys)
"""

# Of the items of one message: none while another is leased, then the earliest that is due.
_FIRST_OF_ITS_MESSAGE = """
(d.message_id IS NULL OR NOT EXISTS (
    SELECT 1 FROM deliveries AS o
    WHERE o.message_id = d.message_id AND o.handler = d.handler AND o.state = 'pending'
      AND o.event_seq <> d.event_seq
      AND CASE WHEN o.due_at > %(now)s THEN o.leased
               ELSE (o.occurred_at, o.event_seq) < (d.occurred_at, d.event_seq) END))
"""

# What others are about to lease is passed over. Whoever has the lock of message and handler is
# alone in leasing work of that message; but the snapshot is from before the lock.
_CLAIMABLE = f"""
SELECT event_seq FROM (
    SELECT d.event_seq, d.message_id FROM deliveries AS d
    WHERE d.handler = %(handler)s AND d.state = 'pending' AND d.due_at <= %(now)s
      AND {_FIRST_OF_ITS_MESSAGE}
    ORDER BY d.due_at, d.event_seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS candidates
WHERE message_id IS NULL OR pg_try_advisory_xact_lock(
    hashtextextended(message_id, hashtextextended(%(handler)s, 1)))
"""

# So this looks again; the items themselves are locked, and still due. Work whose attempts have all
# ended without a word is given up.
_LEASE = f"""
UPDATE deliveries AS d SET
    state = CASE WHEN d.attempts < %(most)s THEN 'pending' ELSE 'dead' END,
    leased = d.attempts < %(most)s,
    due_at = %(until)s,
    fence = d.fence + 1,
    attempts = d.attempts + (d.attempts < %(most)s)::integer,
    last_error = CASE WHEN d.attempts < %(most)s THEN d.last_error ELSE
        format('given up: %%s attempts, the last ones ended without a word', d.attempts) END
WHERE d.handler = %(handler)s AND d.event_seq = ANY (%(seqs)s) AND {_FIRST_OF_ITS_MESSAGE}
RETURNING d.event_seq, d.handler, d.fence, d.attempts, d.state = 'dead'
"""

_EVENTS = """
SELECT seq, id, type, message_id, occurred_at, received_at, source, late, redacted, body
FROM events WHERE seq = ANY (%s)
"""

# Only while the lease is the one that is settled: the fence says so. What is leased is pending.
_SETTLE = """
UPDATE deliveries AS d
SET state = ended.state, due_at = ended.due_at, last_error = ended.error,
    attempts = d.attempts - ended.given_back::integer, leased = false
FROM jsonb_to_recordset(%s::jsonb) AS ended (
    seq bigint, handler text, fence bigint, state text, due_at bigint, error text,
    given_back boolean)
WHERE d.event_seq = ended.seq AND d.handler = ended.handler AND d.fence = ended.fence AND d.leased
"""

_BURY = """
UPDATE deliveries SET state = 'dead', leased = false,
    last_error = 'no handler of this name is registered'
WHERE handler <> ALL (%s) AND state = 'pending' AND due_at <= %s
"""

_NEXT_DUE = """
SELECT min(due_at) FROM deliveries WHERE handler = %s AND state = 'pending' AND due_at > %s
"""

_BACKLOG = """
SELECT count(*), min(due_at) FROM deliveries
WHERE handler = ANY (%s) AND state = 'pending' AND due_at <= %s
"""

# Said twice, so that the index of what is learnt is seen to fit.
_LEARNT = """
SELECT message_id, type, reported_at, has_error, source FROM events
WHERE source = 'reconciliation' AND source <> 'webhook' AND NOT repeat AND message_id IS NOT NULL
ORDER BY reported_at NULLS FIRST, seq
"""

_DELIVERIES_OF = """
SELECT event_seq, handler, state, attempts, last_error FROM deliveries
WHERE event_seq = ANY (%s) ORDER BY event_seq, handler
"""

_QUARANTINED = """
SELECT digest, received_at, last_received_at, receipts, length, reason, body
FROM quarantine WHERE digest = %s
"""

# The fence grows so that whoever still runs the item from before no longer counts.
_REPLAY = """
INSERT INTO deliveries AS d (event_seq, handler, message_id, occurred_at, due_at)
SELECT e.seq, item.handler, e.message_id, e.occurred_at, %s
FROM jsonb_to_recordset(%s::jsonb) AS item (seq bigint, handler text)
JOIN events AS e ON e.seq = item.seq
ON CONFLICT (event_seq, handler) DO UPDATE SET
    state = 'pending', due_at = excluded.due_at, leased = false, fence = d.fence + 1,
    attempts = 0, last_error = NULL
"""


def _lease(want: Want, seqs: list[int], now: int) -> dict[str, Any]:
    return {
        "handler": want.handler,
        "seqs": seqs,
        "now": now,
        "until": now + want.lease,
        "most": want.max_attempts + SILENT_ATTEMPTS,
    }


def _settled(settlement: Settlement) -> dict[str, Any]:
    claim = settlement.claim
    return {
        "seq": claim.event_seq,
        "handler": claim.handler,
        "fence": claim.fence,
        "state": settlement.state,
        "due_at": settlement.due_at,
        # What a handler raises can hold anything; the columns cannot.
        "error": settlement.error and settlement.error.replace("\0", "\ufffd"),
        "given_back": settlement.given_back,
    }


def _conditions(selection: Selection) -> tuple[str, dict[str, Any]]:
    where = ["true"]
    values: dict[str, Any] = {}
    if selection.ids:
        where.append("e.id = ANY (%(ids)s)")
        values["ids"] = list(selection.ids)
    if selection.event_type is not None:
        family = selection.event_type.endswith(".*")
        values["type"] = selection.event_type.removesuffix("*")
        where.append("starts_with(e.type, %(type)s)" if family else "e.type = %(type)s")
    for condition, name in (
        ("e.message_id = %(message_id)s", "message_id"),
        ("e.received_at >= %(since)s", "since"),
        ("e.received_at <= %(until)s", "until"),
    ):
        values[name] = getattr(selection, name)
        if values[name] is not None:
            where.append(condition)
    if selection.state is not None:
        handler = "" if selection.handler is None else "AND handler = %(handler)s"
        where.append(
            "EXISTS (SELECT 1 FROM deliveries WHERE event_seq = e.seq"
            f" AND state = %(state)s {handler})"
        )
        values |= {"state": selection.state, "handler": selection.handler}
    return " AND ".join(where), values


def _replay_page(
    connection: Connection,
    page: dict[int, dict[str, Any]],
    selection: Selection,
    wanting: Callable[[str], Sequence[str]],
    now: int,
    dry_run: bool,
) -> int:
    existing: dict[int, dict[str, tuple[str, bool]]] = {}
    for seq, handler, state, held in connection.execute(
        "SELECT event_seq, handler, state, leased AND due_at > %s FROM deliveries"
        " WHERE event_seq = ANY (%s) ORDER BY event_seq, handler FOR UPDATE",
        (now, list(page)),
    ):
        existing.setdefault(seq, {})[handler] = state, held
    items = []
    for seq, event in page.items():
        items += [
            {"seq": seq, "handler": handler}
            for handler in replayed(event, existing.get(seq, {}), selection, wanting)
        ]
    if items and not dry_run:
        connection.execute(_REPLAY, (now, json.dumps(items)))
    return len(items)
