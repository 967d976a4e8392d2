"""The store on one file of SQLite, through sqlite-utils: its parts are put together here."""

from __future__ import annotations

import sqlite3
from functools import partial
from multiprocessing.connection import Connection

from receiver.errors import StoreUnavailable
from receiver.store.contract import Engine, Outlook
from receiver.store.sqlite.connections import SHORT_PATIENCE
from receiver.store.sqlite.copy import Copy
from receiver.store.sqlite.counters import Counters
from receiver.store.sqlite.files import make_private
from receiver.store.sqlite.forgetting import Forgetting
from receiver.store.sqlite.group import Ingest
from receiver.store.sqlite.listing import Listing
from receiver.store.sqlite.marks import Marks
from receiver.store.sqlite.mirror import Mirror
from receiver.store.sqlite.outlook import outlook
from receiver.store.sqlite.phones import Phones
from receiver.store.sqlite.schema import migrations, refuse_newer
from receiver.store.sqlite.upkeep import Upkeep
from receiver.store.sqlite.views import Views
from receiver.store.sqlite.work import Work
from receiver.store.sqlite.writer_process import WriterProcess, answer_calls

#: What the worker's process writes again and again. Not `tidy`, which holds no lock that others
#: wait for, and takes as long as the disk does.
_WRITTEN_APART = (
    *("settle_and_claim", "renew", "unpark", "bury", "index_texts", "expire", "bound_quarantine"),
    *("shrink", "date_undated", "claim_turn", "keep_turn", "take", "write_note", "write_notes"),
    *("add_counts", "count_arrivals"),
)


class SqliteStore(
    Ingest, Work, Mirror, Phones, Listing, Upkeep, Marks, Counters, Views, Copy, Forgetting
):
    """See `receiver.store.Store`."""

    _writer_process: WriterProcess | None = None

    def write_apart(self) -> None:
        process = self._writer_process = WriterProcess(self.path, lambda: self._file)
        for name in _WRITTEN_APART:
            setattr(self, name, partial(process.call, name))

    def close(self) -> None:
        if self._writer_process is not None:
            self._writer_process.close()
        super().close()

    def migrate(self) -> list[str]:
        # Inside BEGIN IMMEDIATE one process migrates and the others find it done; outside of
        # it, most of several simultaneous calls fail.
        with self._transaction(migrating=True) as connection:
            assert self._writer is not None
            make_private(self.path)
            db = self._writer
            refuse_newer(db)
            pending = [migration.name for migration in migrations.pending(db)]
            try:
                if pending:
                    migrations.apply(db)
            except sqlite3.OperationalError as error:
                hint = ": they are another program's, so name a file of this service's own"
                raise StoreUnavailable(
                    f"DATABASE_URL: {self.path}: {error}"
                    f"{hint if 'already exists' in str(error) else ''}"
                ) from error
            try:
                # Told at the start, also where no step is pending. Taken back: a disk that is full
                # is no reason not to start, for it may be expiry that makes room.
                connection.execute("SAVEPOINT trial")
                connection.execute(_WRITE)
                connection.execute("ROLLBACK TO trial")
            except sqlite3.OperationalError as error:
                raise StoreUnavailable(
                    f"DATABASE_URL: {self.path} cannot be written ({error}): let the user of this "
                    "process write the file and its folder"
                ) from error
            return pending

    def outlook(self) -> Outlook:
        return outlook(self.path)

    def engine(self) -> Engine:
        return Engine(f"SQLite {sqlite3.sqlite_version}", self.path)

    def prove_writable(self) -> None:
        with self._transaction(SHORT_PATIENCE) as connection:
            connection.execute(_WRITE)


# On a full disk, and on a read-only file, a transaction that changes nothing succeeds.
_WRITE = "UPDATE marks SET value = value + 1 WHERE name = 'checks'"


def serve(line: str, path: str, *file: str) -> None:
    """Write into a file what another process asks for.

    :param line: the number of the socket to that one.
    :param file: device and inode of the file that it has, if it has one.
    """
    store = SqliteStore(path)
    if file:
        store.expect(int(file[0]), int(file[1]))
    answer_calls(Connection(int(line)), store)
