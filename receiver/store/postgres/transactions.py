"""Transactions of PostgreSQL: how they begin and end, and what their failures mean.

Any number of processes on any number of machines work on one database. Whoever changes an event or
a message holds its lock (`_LOCK`), whoever leases work that of its message and handler, and all
write the tables in one order. A writing transaction is a pipeline: statements leave together, and
their results are waited for where one is needed, and at the end.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors

from receiver.calling import call
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.store.forgetting import Door
from receiver.store.postgres import schema
from receiver.store.postgres.codes import Codes
from receiver.store.postgres.place import SCHEMA
from receiver.store.postgres.pool import LOCKED_READ, LONGEST_READ, Connection, Pool

#: Seconds that one waits for a connection; and that a command's transaction may take, others' locks
#: included.
PATIENCE = 5.0
#: Seconds of these for others' locks, where somebody waits meanwhile: a check, a turn, a token.
#: With one number for both, a server 400 ms away never gave an answer to the first one.
SHORT_PATIENCE = 2.5
#: The server gives up so many seconds before we do: then the connection is still good.
_EARLIER = 0.1
#: Rows of each cell of the statistics; a process writes two of them. More processes than a few
#: share some now and then.
_SPREADS = 32


class Transactions:
    """A process's transactions. Each part of the store inherits them; a store is all its parts."""

    def __init__(self, url: str) -> None:
        self._pool = Pool(url)
        self._spread = random.randrange(_SPREADS)
        self._other_spread = (self._spread + _SPREADS // 2) % _SPREADS
        self._codes = Codes()
        self._commits = 0
        self._door = Door()

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def _transaction(
        self,
        patience: float = PATIENCE,
        *,
        lock_patience: float | None = None,
        ids: Collection[str] = (),
        first: bool = False,
    ) -> Iterator[Connection]:
        """One write transaction: committed and synced when the block ends, or rolled back.

        :param patience: seconds for all of it, the way to the server included.
        :param lock_patience: seconds of these that the server waits for others' locks; all of them
            by default.
        :param ids: events and messages that nobody else is to change meanwhile.
        :param first: for ingest, which has a connection of its own, or borrows one.
        """
        deadline = time.monotonic() + patience
        lend = self._pool.for_ingest if first else self._pool.shared
        with as_unavailable(), lend(deadline) as connection:
            try:
                with connection.pipeline():
                    newer = _begin(connection, deadline, lock_patience, ids)
                    yield connection
                    schema.refuse_others(dict(newer.fetchall()), connection.place)
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
        with self._lent_to_reader() as connection:
            _begin_reading(connection, "REPEATABLE READ")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextmanager
    def _reader(self) -> Iterator[Connection]:
        """For single statements."""
        with self._lent_to_reader() as connection, _bounded(connection):
            yield connection

    @contextmanager
    def _lent_to_reader(self) -> Iterator[Connection]:
        now = time.monotonic()
        lent = self._pool.shared(now + LONGEST_READ, now + PATIENCE, reading=True)
        with as_unavailable(), lent as connection:
            yield connection

    def _read(self, query: str, values: Sequence[object]) -> Any:
        """One row for a reader, if there is one."""
        with self._reader() as connection:
            return connection.execute(query, values).fetchone()

    @contextmanager
    def _worker_reads(self) -> Iterator[Connection]:
        """A connection for a read by a worker, or who takes turns: no reader is in its way."""
        deadline = time.monotonic() + PATIENCE
        with (
            as_unavailable(),
            self._pool.shared(deadline) as connection,
            _bounded(connection),
        ):
            yield connection

    def _row(self, query: str, values: Sequence[object] | Mapping[str, object]) -> tuple[Any, ...]:
        """The one row that a worker asks for, or who takes turns."""
        with self._worker_reads() as connection:
            row = connection.execute(query, values).fetchone()
        assert row is not None
        return row


def _begin(
    connection: Connection, deadline: float, lock_patience: float | None, ids: Collection[str]
) -> psycopg.Cursor[Any]:
    """Open a transaction that ends in time; returns the steps of the schema that are not ours."""
    left = max(1, int(1000 * (deadline - time.monotonic() - _EARLIER)))
    locks = left if lock_patience is None else min(left, max(1, int(1000 * lock_patience)))
    place = connection.place
    connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
    if connection.pooled:
        connection.execute(_IN_ANY_SESSION, (place.search_path,))
    asked = {"statement": str(left), "locks": str(locks), "space": place.space}
    asked |= {"schema": SCHEMA, "ids": json.dumps(sorted(ids)), "seed": place.seed}
    connection.execute(_LOCK, asked)
    return connection.execute(
        "SELECT number, breaking FROM schema_steps WHERE number > %s",
        (len(schema.STEPS),),
    )


@contextmanager
def _bounded(connection: Connection) -> Iterator[None]:
    """What no transaction is needed for, except where nothing can be set without one."""
    if not connection.pooled:
        yield
        return
    _begin_reading(connection, "READ COMMITTED")
    try:
        yield
    finally:
        _roll_back(connection)


def _begin_reading(connection: Connection, isolation: str) -> None:
    # Statements in one round trip, which cannot be prepared.
    statements = _BEGIN_READING.format(isolation)
    if connection.pooled and connection.place.search_path:
        statements += f"; SET LOCAL search_path = {connection.place.search_path}"
    connection.execute(statements, prepare=False)


def _roll_back(connection: Connection) -> None:
    """Leave a transaction, if there is one; a connection that cannot is closed."""
    if connection.closed or connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        return
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        connection.close()


@contextmanager
def as_unavailable() -> Iterator[None]:
    """Raise what the database's own errors mean to a caller."""
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        raise SchemaMismatch(f"{told(error)}: run `{call('migrate')}`") from error
    except psycopg.Error as error:
        error.args = (told(error),)  # its traceback may go into the log
        if _is_outage(error):
            raise StoreUnavailable(*error.args) from error
        raise


def told(error: psycopg.Error) -> str:
    """What is wrong, in one line.

    What PostgreSQL says beside it (DETAIL) quotes whole rows, and a `DataError` quotes a value.
    """
    if isinstance(error, psycopg.DataError):
        return f"the database does not take a value (SQLSTATE {error.sqlstate})"
    line = " ".join((error.diag.message_primary or str(error)).split())
    if "does not support SSL" in line:
        line += " (in a network of your own, add ?sslmode=disable to DATABASE_URL)"
    if "unsupported startup parameter" in line:
        line += (
            " (this pooler does not pass it on: set it by ALTER ROLE, or a search_path by "
            "DATABASE_SCHEMA, and not in DATABASE_URL)"
        )
    return line


def _is_outage(error: psycopg.Error) -> bool:
    """Whether it is the database that failed, and not one item's values."""
    return not isinstance(error, psycopg.DataError | psycopg.IntegrityError)


# --- SQL

# synchronous_commit: a commit is on the disk before the 200 leaves, whatever the server's default.
# A process that stands still in its transaction must not hold up the others for long. And the
# tables of a new database are so small that a plan made then, and kept, would read them whole.
#
# Who waits here holds nothing but such locks, and all ask for them in one order. Nothing has been
# read yet: what is read from the next statement on is what those left who had the locks before.
_LOCK = """
SELECT set_config('statement_timeout', %(statement)s, true),
       set_config('lock_timeout', %(locks)s, true),
       set_config('idle_in_transaction_session_timeout', '10s', true),
       set_config('synchronous_commit', 'on', true), set_config('enable_seqscan', 'off', true),
       pg_advisory_xact_lock_shared(%(space)s, %(schema)s),
       (SELECT count(pg_advisory_xact_lock(key)) FROM (
            SELECT DISTINCT hashtextextended(id, %(seed)s) AS key
            FROM jsonb_array_elements_text(%(ids)s::jsonb) AS id ORDER BY key) AS keys)
"""

# Where sessions are a pooler's: in all others, it is set once (`pool`).
_IN_ANY_SESSION = """
SELECT set_config('jit', 'off', true),
       set_config('search_path', coalesce(%s, current_setting('search_path')), true)
"""

_BEGIN_READING = (
    "BEGIN ISOLATION LEVEL {} READ ONLY;"
    f" SET LOCAL statement_timeout = '{LONGEST_READ:g}s';"
    f" SET LOCAL lock_timeout = '{LOCKED_READ:g}s';"
    " SET LOCAL jit = off"
)

# Whoever has the lock of message and handler is alone in leasing and parking work of that message.
LOCK_OF_QUEUE = "hashtextextended(m.message_id, hashtextextended({handler}, %(seed)s + 1))"
