"""The store on one file of SQLite, through sqlite-utils.

A process has one connection that writes, guarded by a lock, and one that reads for each thread
that does. Waiting for the other threads is then the lock's business, and only other *processes*
are waited for by asking SQLite again and again. None of the connections may be carried across a
fork: they are opened on first use.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from sqlite_utils import Database

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
from receiver.store.sqlite import copy as sqlite_copy
from receiver.store.sqlite import expiry as sqlite_expiry
from receiver.store.sqlite import group as sqlite_group
from receiver.store.sqlite import mirror as sqlite_mirror
from receiver.store.sqlite.group import Group
from receiver.store.sqlite.schema import migrations, step_names
from receiver.times import DAY, iso

Result = TypeVar("Result")

_WRITER_CACHE_KIB = 8_192
_READER_CACHE_KIB = 1_024
#: Seconds that a command or a reader waits for other writers.
_PATIENCE = 5.0
_CHECK_PATIENCE = 1.0
_PAGE = 200
#: Pages given back to the disk in one go, and those that are kept for what comes next. Few: where
#: very many are free, SQLite takes half a millisecond to find the place for each.
_FREED_AT_ONCE = 16
_FREE_PAGES_KEPT = 256


class SqliteStore:
    """See `receiver.store.Store`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._writing = threading.Lock()
        self._writer: Database | None = None
        self._readers = threading.local()
        #: SQLite's count of schema changes at which the schema was found to be ours.
        self._verified: int | None = None

    # --- connections

    def _connect(self, cache_kib: int, patience: float) -> Database:
        # isolation_level=None: no BEGIN behind our back, transactions are where we write them.
        # check_same_thread=False: the writer goes from thread to thread, under its lock.
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=max(patience, 0),
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"DATABASE_URL: {self.path}: {error}") from error
        try:
            db = Database(connection, execute_plugins=False)
            # Asked first: to set it, even to what it is, waits for whoever writes.
            if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                # Only an empty file can become one that gives space back, and only before WAL.
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("PRAGMA journal_mode = WAL").fetchone()
            # FULL: a commit is on the disk before the 200 leaves. NORMAL would lose the last
            # ones at a power cut.
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            db.execute(f"PRAGMA cache_size = -{cache_kib}")
            # Fewer checkpoints than every 1,000 pages: each one copies and syncs the whole file
            # while a request waits.
            db.execute("PRAGMA wal_autocheckpoint = 4000")
            db.execute("PRAGMA journal_size_limit = 33554432")
        except sqlite3.DatabaseError as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                raise StoreUnavailable(f"DATABASE_URL: {self.path}: {error}") from error
            raise
        except BaseException:
            connection.close()
            raise
        return db

    @property
    def _reader(self) -> Database:
        db: Database | None = getattr(self._readers, "db", None)
        if db is None:
            with _as_unavailable():
                db = self._readers.db = self._connect(_READER_CACHE_KIB, _PATIENCE)
        return db

    def close(self) -> None:
        """Close the writing connection and this thread's reading one."""
        with self._writing:
            self._drop_writer()
        reader: Database | None = getattr(self._readers, "db", None)
        if reader is not None:
            reader.close()
            self._readers.db = None

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    @contextmanager
    def _transaction(
        self, patience: float = _PATIENCE, *, any_schema: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed and synced when the block ends, or rolled back.

        :param patience: seconds to wait for the lock, in this process and in others together.
        """
        deadline = time.monotonic() + patience
        with self._turn(deadline, any_schema=any_schema) as connection:
            # The lock before anything is read: a transaction that reads first and writes then
            # fails at once if somebody wrote in between, whatever the busy time-out.
            _patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            if not any_schema and self._writer is not None:
                self._verify_schema(self._writer)  # it may have been a migration that we waited for
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _turn(self, deadline: float, *, any_schema: bool = False) -> Iterator[sqlite3.Connection]:
        """The writing connection, for this thread alone. No transaction is left open on it."""
        patience = max(deadline - time.monotonic(), 0)
        if not self._writing.acquire(timeout=patience):
            raise StoreUnavailable("another thread is writing")
        try:
            with _as_unavailable():
                if self._writer is None:
                    self._writer = self._connect(_WRITER_CACHE_KIB, patience)
                    self._writer.execute("PRAGMA busy_timeout = 0")
                connection = self._writer.conn
                try:
                    if not any_schema:
                        self._verify_schema(self._writer)
                    yield connection
                except BaseException as error:
                    # A connection that failed in the database, or cannot roll back, is done
                    # with: the next transaction opens another.
                    try:
                        if connection.in_transaction:
                            connection.execute("ROLLBACK")
                    except sqlite3.Error:
                        self._drop_writer()
                    if _is_outage(error) and not _is_locked(error):
                        self._drop_writer()
                    raise
        finally:
            self._writing.release()

    # --- schema

    def _verify_schema(self, db: Database) -> None:
        """Cheap where the schema has not changed since the last time.

        :raises SchemaMismatch: if it is not that of this release.
        """
        (version,) = db.execute("PRAGMA schema_version").fetchone()
        if version == self._verified:
            return
        _refuse_newer(db)
        if migrations.pending(db):
            raise SchemaMismatch(
                "the database's schema is older than this release: run `flask migrate`"
            )
        self._verified = version

    def migrate(self) -> list[str]:
        # Inside BEGIN IMMEDIATE one process migrates and the others find it done; outside of
        # it, most of several simultaneous calls fail.
        with self._transaction(any_schema=True):
            assert self._writer is not None
            _refuse_newer(self._writer)
            pending = [migration.name for migration in migrations.pending(self._writer)]
            if pending:
                migrations.apply(self._writer)
            return pending

    def check(self) -> None:
        with self._transaction(_CHECK_PATIENCE) as connection:
            # On a full disk, a transaction that changes nothing succeeds.
            connection.execute("UPDATE marks SET value = value + 1 WHERE name = 'checks'")

    # --- ingest

    def ingest(
        self,
        items: Sequence[Incoming | Rejected],
        wanting: Callable[[str], Sequence[str]],
        patience: float,
    ) -> list[Outcome]:
        deadline = time.monotonic() + patience
        with self._turn(deadline) as connection:
            group = Group(connection, items, wanting)
            if group.is_one_statement:
                with suppress(sqlite3.IntegrityError):
                    _patiently(lambda: group.write(connection), deadline)
                    return group.outcomes
        with self._transaction(deadline - time.monotonic()) as connection:
            group = Group(connection, items, wanting)
            group.write(connection)
        return group.outcomes

    # --- work

    def work(
        self, now: int, settlements: Sequence[Settlement], wants: Sequence[Want], patience: float
    ) -> list[Claim]:
        leased: list[tuple[int, str, int, int]] = []
        given_up: dict[str, int] = {}
        with self._transaction(patience) as connection:
            if settlements:
                connection.execute(_SETTLE, (json.dumps([_settled(s) for s in settlements]),))
            for want in wants:
                found, given_up[want.handler] = self._lease(connection, now, want)
                leased += found
            # Each event once for all its handlers; and before the commit, so that a read that
            # fails leases nothing.
            seqs = json.dumps(list({seq for seq, *_ in leased}))
            events = {seq: event for seq, *event in connection.execute(_EVENTS, (seqs,))}
        for handler, items in given_up.items():
            tell_given_up(handler, items)
        return [Claim(*lease, *events[lease[0]]) for lease in leased]

    def _lease(
        self, connection: sqlite3.Connection, now: int, want: Want
    ) -> tuple[list[tuple[int, str, int, int]], int]:
        """Lease what is claimable: seq, handler, fence and attempt of each item; and how many were
        given up instead."""
        found = connection.execute(
            _CLAIMABLE, {"handler": want.handler, "now": now, "limit": want.limit}
        ).fetchone()[0]
        leased, given_up = [], 0
        for seq, attempts, fence in json.loads(found):
            if attempts >= want.max_attempts + SILENT_ATTEMPTS:
                error = f"given up: {attempts} attempts, the last ones ended without a word"
                connection.execute(_BURY_ONE, (error, seq, want.handler))
                given_up += 1
            else:
                leased.append((seq, want.handler, fence + 1, attempts + 1))
        if leased:
            seqs = json.dumps([seq for seq, *_ in leased])
            connection.execute(_LEASE, (now + want.lease, want.handler, seqs))
        return leased, given_up

    def next_due(self, handler: str, after: int) -> int | None:
        with _as_unavailable():
            found = self._reader.execute(_NEXT_DUE, (handler, after)).fetchone()
        due_at: int | None = found[0]
        return due_at

    def version(self) -> object:
        with _as_unavailable():
            return self._reader.execute("PRAGMA data_version").fetchone()[0]

    def bury(self, now: int, known: Sequence[str], wait: int) -> int:
        unknown = f"handler NOT IN ({_marks(known)}) AND state = 'pending' AND due_at <= ?"
        with _as_unavailable():
            found = self._reader.execute(
                f"SELECT 1 FROM deliveries WHERE {unknown} LIMIT 1", (*known, now - wait)
            ).fetchone()
        if not found:
            return 0
        with self._transaction() as connection:
            buried = connection.execute(
                f"UPDATE deliveries SET state = 'dead', leased = 0, last_error = ? WHERE {unknown}",
                ("no handler of this name is registered", *known, now - wait),
            )
            return buried.rowcount

    def backlog(self, now: int, handlers: Sequence[str]) -> tuple[int, int]:
        with _as_unavailable():
            count, oldest = self._reader.execute(
                "SELECT count(*), min(due_at) FROM deliveries WHERE state = 'pending'"
                f" AND handler IN ({_marks(handlers)}) AND due_at <= ?",
                (*handlers, now),
            ).fetchone()
        return count, now - oldest if oldest is not None else 0

    # --- upkeep

    def index_texts(self, patience: float) -> bool:
        with self._reading() as connection:
            if not sqlite_mirror.has_unindexed(connection):
                return False
        with self._transaction(patience) as connection:
            return sqlite_mirror.index_texts(connection)

    def tidy(self) -> None:
        # From the log into the file. Each page that is copied here, beside the writers, is none
        # that a commit must copy while a request waits for it.
        with _as_unavailable():
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def expire(self, before: int, patience: float) -> Expired:
        with self._transaction(patience) as connection:
            return sqlite_expiry.expire_batch(connection, before)

    def expirable(self, before: int) -> Expired:
        with self._reading() as connection:
            return sqlite_expiry.expirable(connection, before)

    def shrink(self, patience: float) -> bool:
        free = self._free_pages()
        if free <= _FREE_PAGES_KEPT:
            return False
        with self._transaction(patience):
            pass  # waits for its turn, and connects
        with self._writing, _as_unavailable():
            if self._writer is not None:
                # `execute` frees one page; a script frees them all, in a transaction of its own.
                self._writer.conn.executescript(f"PRAGMA incremental_vacuum({_FREED_AT_ONCE})")
        # A file that was not made by us may be of a kind that gives nothing back.
        return _FREE_PAGES_KEPT < self._free_pages() < free

    def _free_pages(self) -> int:
        with _as_unavailable():
            count: int = self._reader.execute("PRAGMA freelist_count").fetchone()[0]
        return count

    def claim_turn(self, name: str, now: int, until: int) -> bool:
        held = self.turn(name)
        # A time that lies far ahead was written by a clock that was wrong.
        if held is not None and now < held <= now + DAY:
            return False
        with self._transaction(_CHECK_PATIENCE) as connection:
            turn = connection.execute(
                "INSERT INTO marks VALUES (:name, :until) ON CONFLICT (name) DO UPDATE"
                " SET value = :until WHERE value <= :now OR value > :now + :day",
                {"name": name, "until": until, "now": now, "day": DAY},
            )
            return turn.rowcount == 1

    def turn(self, name: str) -> int | None:
        with self._reading() as connection:
            found = connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def keep_turn(self, name: str, until: int, later: int) -> bool:
        with self._transaction(_CHECK_PATIENCE) as connection:
            turn = connection.execute(
                "UPDATE marks SET value = ? WHERE name = ? AND value = ?", (later, name, until)
            )
            return turn.rowcount == 1

    def take(self, name: str, now: int, interval: int, room: int | None) -> int:
        # The mark is when the bucket is full again: each token taken moves it on.
        with self._transaction(_CHECK_PATIENCE) as connection:
            found = connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
            full_at, wait = bucket.take(found and found[0], now, interval, room)
            if not wait:
                connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, full_at))
        return wait

    def note(self, name: str) -> str | None:
        with self._reading() as connection:
            found = connection.execute("SELECT text FROM notes WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def write_note(self, name: str, text: str) -> None:
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text))

    # --- reading

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One read transaction: all that is read is of one moment."""
        with _as_unavailable():
            db = self._reader
            try:
                db.conn.execute("BEGIN")
                yield db.conn
                db.conn.execute("COMMIT")
            except BaseException:
                # Whatever state it is in: the thread's next read opens another.
                self._readers.db = None
                db.close()
                raise

    def evidence(self, message_id: str, limit: int) -> Evidence | None:
        with self._reading() as connection:
            row = connection.execute(
                "SELECT registers FROM messages WHERE id = ?", (message_id,)
            ).fetchone()
            if row is None:
                return None
            (count,) = connection.execute(
                f"SELECT count(*) FROM events AS e WHERE {_OF_MESSAGE}", {"message_id": message_id}
            ).fetchone()
            found = connection.execute(
                "SELECT id, type, occurred_at, received_at, source, late, repeat, receipts"
                f" FROM events AS e WHERE {_OF_MESSAGE} ORDER BY seq LIMIT :limit",
                {"message_id": message_id, "limit": limit},
            )
            names = [column[0] for column in found.description]
            events = [dict(zip(names, event, strict=True)) for event in found]
        return json.loads(row[0]), count, events

    def reports(self, message_ids: Collection[str]) -> Mapping[str, list[Report]]:
        with self._reading() as connection:
            return sqlite_group.reports(connection, message_ids)

    def learnt(self) -> Iterator[tuple[str, Report]]:
        with self._reading() as connection:
            found = connection.execute(
                "SELECT message_id, type, reported_at, has_error, source FROM events"
                " WHERE source = 'reconciliation' AND source <> 'webhook' AND repeat = 0"
                " AND message_id IS NOT NULL ORDER BY reported_at, seq"
            ).fetchall()
        for message_id, kind, reported_at, has_error, source in found:
            yield message_id, Report(kind, reported_at, bool(has_error), source)

    def history(self, search: Search, offset: int, limit: int) -> tuple[int, list[MirrorRow]]:
        with self._reading() as connection:
            total, rows = sqlite_mirror.page(connection, search, offset, limit)
        return total, [(message_id, json.loads(registers)) for message_id, registers in rows]

    def statistics(
        self, first: int | None, last: int | None, device_id: str | None
    ) -> list[tuple[int, str, int]]:
        with self._reading() as connection:
            return sqlite_mirror.statistics(connection, first, last, device_id)

    def body(self, event_id: str) -> bytes | None:
        with _as_unavailable():
            found = self._reader.execute(
                "SELECT body FROM events WHERE id = ?", (event_id,)
            ).fetchone()
        return found[0] if found else None

    def events(self, selection: Selection) -> Iterator[dict[str, Any]]:
        for page in self._pages(selection):
            deliveries: dict[int, list[dict[str, Any]]] = {}
            with _as_unavailable():
                for item in self._reader.query(
                    "SELECT event_seq, handler, state, attempts, last_error FROM deliveries"
                    f" WHERE event_seq IN ({_marks(page)}) ORDER BY event_seq, handler",
                    [event["seq"] for event in page],
                ):
                    deliveries.setdefault(item.pop("event_seq"), []).append(item)
            for event in page:
                yield {
                    "event_id": event["id"],
                    "type": event["type"],
                    "message_id": event["message_id"],
                    "occurred_at": iso(event["occurred_at"]),
                    "received_at": iso(event["received_at"]),
                    "source": event["source"],
                    "late": bool(event["late"]),
                    "repeat": bool(event["repeat"]),
                    "receipts": event["receipts"],
                    "deliveries": deliveries.get(event["seq"], []),
                }

    def _pages(self, selection: Selection) -> Iterator[list[dict[str, Any]]]:
        where, values = _conditions(selection)
        after = -1
        while True:
            with _as_unavailable():
                page = list(
                    self._reader.query(
                        "SELECT seq, id, type, message_id, occurred_at, received_at, source,"
                        " late, repeat, receipts FROM events AS e"
                        f" WHERE seq > :after AND {where} ORDER BY seq LIMIT {_PAGE}",
                        {**values, "after": after},
                    )
                )
            if not page:
                return
            after = page[-1]["seq"]
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
            with self._transaction() as connection:
                for event in page:
                    count += self._replay_one(connection, event, selection, wanting, now, dry_run)
            progress(count)
        return count

    def _replay_one(
        self,
        connection: sqlite3.Connection,
        event: dict[str, Any],
        selection: Selection,
        wanting: Callable[[str], Sequence[str]],
        now: int,
        dry_run: bool,
    ) -> int:
        existing = {
            name: (state, leased and due_at > now)
            for name, state, leased, due_at in connection.execute(
                "SELECT handler, state, leased, due_at FROM deliveries WHERE event_seq = ?",
                (event["seq"],),
            )
        }
        names = replayed(event, existing, selection, wanting)
        if not dry_run:
            connection.executemany(
                _REPLAY,
                [
                    (event["seq"], name, event["message_id"], event["occurred_at"], now)
                    for name in names
                ],
            )
        return len(names)

    # --- copying

    def rows(self, table: Table, after: Row | None, limit: int) -> list[Row]:
        with self._reading() as connection:
            return sqlite_copy.rows(connection, table, after, limit)

    def put_rows(self, table: Table, batch: Sequence[Row]) -> None:
        with self._transaction() as connection:
            sqlite_copy.put_rows(connection, table, batch)

    def settle_copy(self) -> None:
        with self._transaction() as connection:
            sqlite_copy.settle(connection)

    # --- quarantine

    def quarantined(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        with _as_unavailable():
            digests = [
                row[0]
                for row in self._reader.execute(
                    "SELECT digest FROM quarantine WHERE substr(digest, 1, ?) = ?"
                    " ORDER BY received_at, digest",
                    (len(prefix), prefix),
                )
            ]
            for digest in digests:
                yield from self._reader.query(
                    "SELECT * FROM quarantine WHERE digest = ?", (digest,)
                )

    def release(self, digest: str) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM quarantine WHERE digest = ?", (digest,))


def _refuse_newer(db: Database) -> None:
    """
    :raises SchemaMismatch: if a newer release has migrated the database.
    """
    known = step_names()
    if any(migration.name not in known for migration in migrations.applied(db)):
        raise SchemaMismatch(
            "the database's schema is newer than this release: start the newer release again, or "
            "go back to a copy of the database from before it"
        )


# --- transactions


def _patiently(write: Callable[[], Result], deadline: float) -> Result:
    """Write as soon as no other process does.

    SQLite's own waiting sleeps up to 100 ms at a time; asking more often costs microseconds and
    keeps several processes fast.
    """
    pause = 0.0002
    while True:
        try:
            return write()
        except sqlite3.OperationalError as error:
            if not _is_locked(error) or time.monotonic() + pause >= deadline:
                raise
        time.sleep(pause)
        pause = min(pause * 1.5, 0.002)


def _is_locked(error: BaseException) -> bool:
    """Whether somebody else holds the lock, and nothing is wrong with the connection."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_outage(error: BaseException) -> bool:
    """Whether it is the database that failed, and not one item's values."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError
    )


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "no such table" in str(error) or "no such column" in str(error):
            raise SchemaMismatch(f"{error}: run `flask migrate`") from error
        raise StoreUnavailable(str(error)) from error
    except sqlite3.DatabaseError as error:
        if _is_outage(error):
            raise StoreUnavailable(str(error)) from error
        raise


# --- SQL and its values

# The events of a message: those that its row was made of, and those that leave the mirror alone.
_OF_MESSAGE = """
(e.message_key = (SELECT key FROM messages WHERE id = :message_id)
 OR e.loose = 1 AND e.message_id = :message_id)
"""

# Among the items of one message: none while another is leased, then the earliest that is due.
_CLAIMABLE = """
SELECT json_group_array(json_array(event_seq, attempts, fence)) FROM (
    SELECT d.event_seq, d.attempts, d.fence FROM deliveries AS d INDEXED BY deliveries_due
    WHERE d.handler = :handler AND d.state = 'pending' AND d.due_at <= :now
      AND (d.message_id IS NULL OR NOT EXISTS (
        SELECT 1 FROM deliveries AS o
        WHERE o.message_id = d.message_id AND o.handler = d.handler AND o.state = 'pending'
          AND o.event_seq <> d.event_seq
          AND CASE WHEN o.due_at > :now THEN o.leased
                   ELSE (o.occurred_at, o.event_seq) < (d.occurred_at, d.event_seq) END))
    ORDER BY d.due_at, d.event_seq LIMIT :limit)
"""

_EVENTS = """
SELECT seq, id, type, message_id, occurred_at, received_at, source, late, redacted, body
FROM events WHERE seq IN (SELECT value FROM json_each(?))
"""

_LEASE = """
UPDATE deliveries SET leased = 1, due_at = ?, fence = fence + 1, attempts = attempts + 1
WHERE handler = ? AND event_seq IN (SELECT value FROM json_each(?))
"""

# Only while the lease is the one that is settled: the fence says so.
_SETTLE = """
UPDATE deliveries AS d
SET state = ended.state, due_at = ended.due_at, last_error = ended.error,
    attempts = attempts - ended.given_back, leased = 0
FROM (SELECT value ->> 0 AS seq, value ->> 1 AS handler, value ->> 2 AS fence, value ->> 3 AS state,
             value ->> 4 AS due_at, value ->> 5 AS error, value ->> 6 AS given_back
      FROM json_each(?)) AS ended
WHERE d.event_seq = ended.seq AND d.handler = ended.handler AND d.fence = ended.fence
  AND d.leased = 1 AND d.state = 'pending'
"""

_BURY_ONE = """
UPDATE deliveries SET state = 'dead', leased = 0, last_error = ? WHERE event_seq = ? AND handler = ?
"""

_NEXT_DUE = """
SELECT min(due_at) FROM deliveries INDEXED BY deliveries_due
WHERE handler = ? AND state = 'pending' AND due_at > ?
"""

# The fence grows so that whoever still runs the item from before no longer counts.
_REPLAY = """
INSERT INTO deliveries (event_seq, handler, message_id, occurred_at, due_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (event_seq, handler) DO UPDATE SET
    state = 'pending', due_at = excluded.due_at, leased = 0, fence = fence + 1, attempts = 0,
    last_error = NULL
"""


def _settled(settlement: Settlement) -> tuple[Any, ...]:
    claim = settlement.claim
    return (
        claim.event_seq,
        claim.handler,
        claim.fence,
        settlement.state,
        settlement.due_at,
        # JSON's functions end a text at NUL.
        settlement.error and settlement.error.replace("\0", "\ufffd"),
        int(settlement.given_back),
    )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _conditions(selection: Selection) -> tuple[str, dict[str, Any]]:
    where = ["true"]
    values: dict[str, Any] = {}
    if selection.ids:
        where.append("e.id IN (SELECT value FROM json_each(:ids))")
        values["ids"] = json.dumps(list(selection.ids))
    if selection.event_type is not None:
        family = selection.event_type.endswith(".*")
        values["type"] = selection.event_type.removesuffix("*")
        where.append("substr(e.type, 1, length(:type)) = :type" if family else "e.type = :type")
    for condition, name in (
        (_OF_MESSAGE, "message_id"),
        ("e.received_at >= :since", "since"),
        ("e.received_at <= :until", "until"),
    ):
        value = getattr(selection, name)
        if value is not None:
            where.append(condition)
            values[name] = value
    if selection.state is not None:
        handler = "" if selection.handler is None else "AND handler = :handler"
        where.append(
            "EXISTS (SELECT 1 FROM deliveries WHERE event_seq = e.seq"
            f" AND state = :state {handler})"
        )
        values |= {"state": selection.state, "handler": selection.handler}
    return " AND ".join(where), values
