"""Connections to the file: how they are made, who has one, and what their failures mean.

A process has one connection that writes, guarded by a lock, and one that reads for each thread
that does. Waiting for the other threads is then the lock's business, and only other *processes*
are waited for by asking SQLite again and again. None of the connections may be carried across a
fork: they are opened on first use.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sqlite_utils import Database

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.store.sqlite.schema import migrations, refuse_newer

Result = TypeVar("Result")

#: Seconds that a command or a reader waits for other writers.
PATIENCE = 5.0
#: The same for what somebody else waits for meanwhile: a check, a turn, a token.
SHORT_PATIENCE = 1.0
_WRITER_CACHE_KIB = 8_192
_READER_CACHE_KIB = 1_024


class Connections:
    """A process's connections. Each part of the store inherits them; a store is all its parts."""

    def __init__(self, path: str) -> None:
        # Whole: what a handler does to the current folder is no business of ours.
        self.path = os.path.abspath(path)
        self._writing = threading.Lock()
        self._writer: Database | None = None
        self._readers = threading.local()
        #: SQLite's count of schema changes at which the schema was found to be ours.
        self._verified: int | None = None

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
            raise StoreUnavailable(
                f"DATABASE_URL: {self.path}: {error}: let the user of this process write into its "
                "folder, or name a file in another one"
            ) from error
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
            with as_unavailable():
                db = self._readers.db = self._connect(_READER_CACHE_KIB, PATIENCE)
        return db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One read transaction: all that is read is of one moment."""
        with as_unavailable():
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
        self, patience: float = PATIENCE, *, any_schema: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed and synced when the block ends, or rolled back.

        :param patience: seconds to wait for the lock, in this process and in others together.
        """
        deadline = time.monotonic() + patience
        with self._exclusive_writer(deadline, any_schema=any_schema) as connection:
            # The lock before anything is read: a transaction that reads first and writes then
            # fails at once if somebody wrote in between, whatever the busy time-out.
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            if not any_schema and self._writer is not None:
                self._verify_schema(self._writer)  # it may have been a migration that we waited for
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _exclusive_writer(
        self, deadline: float, *, any_schema: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """The writing connection, for this thread alone. No transaction is left open on it."""
        patience = max(deadline - time.monotonic(), 0)
        if not self._writing.acquire(timeout=patience):
            raise StoreUnavailable("another thread is writing")
        try:
            with as_unavailable():
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

    def _verify_schema(self, db: Database) -> None:
        """Cheap where the schema has not changed since the last time.

        :raises SchemaMismatch: if it is not that of this release.
        """
        (version,) = db.execute("PRAGMA schema_version").fetchone()
        if version == self._verified:
            return
        refuse_newer(db)
        if migrations.pending(db):
            raise SchemaMismatch(
                "the database's schema is older than this release: run `flask migrate`"
            )
        self._verified = version


def patiently(write: Callable[[], Result], deadline: float) -> Result:
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
def as_unavailable() -> Iterator[None]:
    """Raise what the database's own errors mean to a caller."""
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


def placeholders(values: Sequence[object]) -> str:
    """So many of them as there are values."""
    return ", ".join("?" * len(values))
