"""The store on PostgreSQL, through psycopg: its parts are put together here."""

from __future__ import annotations

import logging

import psycopg

from receiver.calling import as_called
from receiver.errors import StoreUnavailable
from receiver.store.contract import Engine, Outlook
from receiver.store.postgres import schema
from receiver.store.postgres.copy import Copy
from receiver.store.postgres.counters import OUR_TABLES, SIZE, Counters
from receiver.store.postgres.forgetting import Forgetting
from receiver.store.postgres.group import Ingest
from receiver.store.postgres.marks import Marks
from receiver.store.postgres.mirror import Mirror
from receiver.store.postgres.phones import Phones
from receiver.store.postgres.transactions import SHORT_PATIENCE, as_unavailable, told
from receiver.store.postgres.upkeep import Upkeep
from receiver.store.postgres.views import Views
from receiver.store.postgres.work import Work

log = logging.getLogger(__name__)


_OF_OTHERS = (
    ": it is another program's, so name a schema that is this service's alone, as by "
    "DATABASE_SCHEMA=zimsend, or another database"
)
#: What to do where the schema cannot be made, by SQLSTATE. Another program's may be a table or an
#: index, a type, or a table that we add to.
_HINTS: dict[str | None, str] = {
    "3F000": ": create the schema that search_path names",
    "42501": ": let an owner run `flask migrate`, or GRANT CREATE ON SCHEMA to this user",
    **dict.fromkeys(("42P07", "42710", "42703"), _OF_OTHERS),
}


class PostgresStore(Ingest, Work, Mirror, Phones, Upkeep, Marks, Counters, Views, Copy, Forgetting):
    """See `receiver.store.Store`."""

    def migrate(self) -> list[str]:
        if self._pool.ignored:
            log.warning("DATABASE_URL: of other tools, and ignored: %s", self._pool.ignored)
        # Not from the pool: it is told at once why it cannot connect, and may wait for long.
        with as_unavailable():
            try:
                connection = psycopg.connect(
                    autocommit=True, prepare_threshold=None, **self._pool.settings
                )
            except psycopg.Error as error:
                raise StoreUnavailable(f"DATABASE_URL: {told(error)}") from error
            with connection:
                try:
                    return schema.migrate(connection, self._pool.place)
                except psycopg.Error as error:
                    hint = as_called(_HINTS.get(error.sqlstate, ""))
                    raise StoreUnavailable(f"DATABASE_URL: {told(error)}{hint}") from error

    def outlook(self) -> Outlook:
        with self._reader() as connection:
            found = schema.outlook(connection, self._pool.place)
            if len(found.steps) == len(schema.STEPS):  # no table is ours yet
                return found
            ((size,),) = connection.execute(SIZE, (OUR_TABLES,)).fetchall()
            return found._replace(size=int(size))

    def engine(self) -> Engine:
        version, clock = self._row(
            "SELECT current_setting('server_version'),"
            " (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
            (),
        )
        return Engine(f"PostgreSQL {version.partition(' ')[0]}", clock=clock)

    def prove_writable(self) -> None:
        self._pool.prepare_for_ingest()  # who asks wants to know whether webhooks may come
        with self._transaction(lock_patience=SHORT_PATIENCE) as connection:
            schema.verify(connection, connection.place)
            # A server that only follows another one can be read, and takes no writes.
            connection.execute("UPDATE marks SET value = value + 1 WHERE name = 'checks'")
