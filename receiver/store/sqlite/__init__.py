"""The store on one file of SQLite, through sqlite-utils: its parts are put together here."""

from __future__ import annotations

import sqlite3

from receiver.errors import StoreUnavailable
from receiver.store.contract import Engine
from receiver.store.sqlite.connections import SHORT_PATIENCE
from receiver.store.sqlite.copy import Copy
from receiver.store.sqlite.counters import Counters
from receiver.store.sqlite.files import make_private
from receiver.store.sqlite.group import Ingest
from receiver.store.sqlite.listing import Listing
from receiver.store.sqlite.marks import Marks
from receiver.store.sqlite.mirror import Mirror
from receiver.store.sqlite.phones import Phones
from receiver.store.sqlite.schema import migrations, refuse_newer
from receiver.store.sqlite.upkeep import Upkeep
from receiver.store.sqlite.views import Views
from receiver.store.sqlite.work import Work


class SqliteStore(Ingest, Work, Mirror, Phones, Listing, Upkeep, Marks, Counters, Views, Copy):
    """See `receiver.store.Store`."""

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

    def engine(self) -> Engine:
        return Engine(f"SQLite {sqlite3.sqlite_version}", self.path)

    def prove_writable(self) -> None:
        with self._transaction(SHORT_PATIENCE) as connection:
            connection.execute(_WRITE)


# On a full disk, and on a read-only file, a transaction that changes nothing succeeds.
_WRITE = "UPDATE marks SET value = value + 1 WHERE name = 'checks'"
