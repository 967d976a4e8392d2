"""Connections to the file: how they are made, who has one, and what their failures mean.

A process has one connection that writes, guarded by a lock, and one that reads for each thread
that does. Waiting for the other threads is then the lock's business, and only other *processes*
are waited for by asking SQLite again and again. None of the connections may be carried across a
fork: they are opened on first use.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from sqlite_utils import Database

from receiver.calling import call
from receiver.errors import FileReplaced, SchemaMismatch, StoreUnavailable
from receiver.store.forgetting import Door
from receiver.store.sqlite.files import File, identity, prepare
from receiver.store.sqlite.schema import migrations, refuse_newer

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Seconds that a command or a reader waits for other writers.
PATIENCE = 5.0
#: The same for what somebody else waits for meanwhile: a check, a turn, a token.
SHORT_PATIENCE = 1.0
#: Seconds that a read transaction may take; and SQLite's operations between two looks at that.
READER_PATIENCE = 30.0
_OPERATIONS = 200_000
_WRITER_CACHE_KIB = 8_192
_READER_CACHE_KIB = 1_024


class Opened(Database):
    """A connection."""

    #: The files that it has open: the database's and its log's.
    files: tuple[File, File]

    def __del__(self) -> None:
        # A reader whose thread has ended: under some servers each request has a thread of its own.
        self.conn.close()


class Connections:
    """A process's connections. Each part of the store inherits them; a store is all its parts."""

    def __init__(self, path: str) -> None:
        # Whole: what a handler does to the current folder is no business of ours.
        self.path = os.path.abspath(path)
        # SQLite keeps it beside the file itself, and not beside a link to it.
        self._log = f"{os.path.realpath(path)}-wal"
        self._writing = threading.Lock()
        self._writer: Opened | None = None
        self._readers = threading.local()
        #: The file that this process has written or read first. It may have no other.
        self._file: File | None = None
        #: Its files are no longer in their place: nothing is written or read any more.
        self._lost = False
        #: SQLite's count of schema changes at which the schema was found to be ours.
        self._verified: int | None = None
        self._door = Door()

    def expect(self, device: int, inode: int) -> None:
        """Open this file, and no other that has come into its place."""
        self._file = device, inode

    def _connect(self, cache_kib: int, patience: float, *, create: bool = False) -> Opened:
        if self._lost or (self._file is not None and identity(self.path) != self._file):
            self._lose("")
        for _ in range(3):
            try:
                before = prepare(self.path, create=create)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not create:
                    raise SchemaMismatch(
                        f"there is no database {self.path}: run `{call('migrate')}`"
                    ) from error
                raise self._unusable(error.strerror) from error
            db = self._open(cache_kib, patience)
            db.files = identity(self.path), identity(self._log)
            # Some file systems give a file another number when it is first opened for writing.
            if db.files[0] == before:
                self._file = before
                return db
            db.close()
        raise StoreUnavailable(f"DATABASE_URL: {self.path} is being replaced")

    def _unusable(self, why: object) -> StoreUnavailable:
        return StoreUnavailable(
            f"DATABASE_URL: {self.path}: {why}: let the user of this process write into its "
            "folder, or name a file in another one"
        )

    def _open(self, cache_kib: int, patience: float) -> Opened:
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
            raise self._unusable(error) from error
        try:
            db = Opened(connection, execute_plugins=False)
            # Asked first: to set it, even to what it is, waits for whoever writes.
            if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                # Only an empty file can become one that gives space back, and only before WAL.
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("PRAGMA journal_mode = WAL").fetchone()
            # FULL: a commit is on the disk before the 200 leaves. NORMAL would lose the last
            # ones at a power cut.
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            # What is deleted is overwritten: who was forgotten is in no free page either.
            db.execute("PRAGMA secure_delete = ON").fetchone()
            db.execute(f"PRAGMA cache_size = -{cache_kib}")
            # Fewer checkpoints than every 1,000 pages: each one copies and syncs the whole file
            # while a request waits, and the longer the log is, the more often a page is in it.
            db.execute("PRAGMA wal_autocheckpoint = 16000")
            db.execute("PRAGMA journal_size_limit = 67108864")
            # A read opens the log; from then on nobody else can take it away as being the last.
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
                raise StoreUnavailable(f"DATABASE_URL: {self.path}: {error}") from error
            raise
        except BaseException:
            connection.close()
            raise
        return db

    def _verify_files(self, opened: Opened) -> None:
        """SQLite goes on in a file that was removed or replaced, without an error. Cheap: it is
        asked after each commit.

        :raises FileReplaced: if what is open is not what lies in its place.
        """
        here = identity(self.path), identity(self._log)
        if self._lost or here != opened.files:
            self._lose("" if here[0] != opened.files[0] else "-wal")

    def _lose(self, which: str) -> NoReturn:
        """From the first time on for ever: a restart looks at what is there."""
        if not self._lost:
            self._lost = True
            log.critical(
                "%s%s was removed, renamed or replaced while this process had it open. Nothing is "
                "stored or acknowledged until a restart: put the file back in its place, with its "
                "-wal, or leave the one that is there; then restart the service",
                self.path,
                which,
            )
        raise FileReplaced(
            "the database's file was removed or replaced while the service ran; nothing is stored "
            "until it is restarted (the log says more)"
        )

    @property
    def _reader(self) -> Database:
        db: Opened | None = getattr(self._readers, "db", None)
        if db is None:
            with as_unavailable():
                db = self._readers.db = self._connect(_READER_CACHE_KIB, PATIENCE)
        else:
            self._verify_files(db)
        return db

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """One read transaction: all that is read is of one moment.

        It ends in time, for as long as it lasts the log cannot be emptied.
        """
        with as_unavailable():
            db = self._reader
            try:
                db.conn.execute("BEGIN")
                ends = time.monotonic() + READER_PATIENCE
                db.conn.set_progress_handler(lambda: time.monotonic() > ends, _OPERATIONS)
                yield db.conn
                db.conn.set_progress_handler(None, 0)
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
        reader: Opened | None = getattr(self._readers, "db", None)
        if reader is not None:
            reader.close()
            self._readers.db = None

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    @contextmanager
    def _transaction(
        self, patience: float = PATIENCE, *, migrating: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """One write transaction: committed and synced when the block ends, or rolled back.

        :param patience: seconds to wait for the lock, in this process and in others together.
        :param migrating: with any schema, and in a new file where there is none.
        """
        deadline = time.monotonic() + patience
        with self._exclusive_writer(deadline, any_schema=migrating, create=migrating) as connection:
            # The lock before anything is read: a transaction that reads first and writes then
            # fails at once if somebody wrote in between, whatever the busy time-out.
            patiently(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            if not migrating and self._writer is not None:
                self._verify_schema(self._writer)  # what we waited for may be a migration
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _exclusive_writer(
        self, deadline: float, *, any_schema: bool = False, create: bool = False
    ) -> Iterator[sqlite3.Connection]:
        """The writing connection, for this thread alone. No transaction is left open on it."""
        patience = max(deadline - time.monotonic(), 0)
        if not self._writing.acquire(timeout=patience):
            raise StoreUnavailable("another thread is writing")
        try:
            with as_unavailable():
                writer = self._writer
                if writer is None:
                    writer = self._connect(_WRITER_CACHE_KIB, patience, create=create)
                    writer.execute("PRAGMA busy_timeout = 0")
                    self._writer = writer
                connection = writer.conn
                try:
                    if not any_schema:
                        self._verify_schema(writer)
                    yield connection
                    # After the commit: what a file holds that nobody finds is not stored.
                    self._verify_files(writer)
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
                f"the database's schema is older than this release: run `{call('migrate')}`"
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
            raise SchemaMismatch(f"{error}: run `{call('migrate')}`") from error
        raise StoreUnavailable(str(error)) from error
    except sqlite3.DatabaseError as error:
        if _is_outage(error):
            raise StoreUnavailable(str(error)) from error
        raise


def item_of(array: str, index: int) -> str:
    """The SQL of an item of a JSON array. SQLite before 3.38 has no `->>`."""
    return f"json_extract({array}, '$[{index}]')"


def placeholders(values: Sequence[object]) -> str:
    """So many of them as there are values."""
    return ", ".join("?" * len(values))
