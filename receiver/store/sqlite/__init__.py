"""The store on one file of SQLite, through sqlite-utils: its parts are put together here."""

from __future__ import annotations

from receiver.store.sqlite.connections import SHORT_PATIENCE
from receiver.store.sqlite.copy import Copy
from receiver.store.sqlite.group import Ingest
from receiver.store.sqlite.marks import Marks
from receiver.store.sqlite.mirror import Mirror
from receiver.store.sqlite.records import Records
from receiver.store.sqlite.schema import migrations, refuse_newer
from receiver.store.sqlite.upkeep import Upkeep
from receiver.store.sqlite.work import Work


class SqliteStore(Ingest, Work, Mirror, Upkeep, Marks, Records, Copy):
    """See `receiver.store.Store`."""

    def migrate(self) -> list[str]:
        # Inside BEGIN IMMEDIATE one process migrates and the others find it done; outside of
        # it, most of several simultaneous calls fail.
        with self._transaction(any_schema=True):
            assert self._writer is not None
            refuse_newer(self._writer)
            pending = [migration.name for migration in migrations.pending(self._writer)]
            if pending:
                migrations.apply(self._writer)
            return pending

    def prove_writable(self) -> None:
        with self._transaction(SHORT_PATIENCE) as connection:
            # On a full disk, a transaction that changes nothing succeeds.
            connection.execute("UPDATE marks SET value = value + 1 WHERE name = 'checks'")
