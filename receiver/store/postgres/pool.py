"""Connections to PostgreSQL: how they are made, shared, and given up in time."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, ClassVar, Self

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from psycopg.rows import TupleRow
from psycopg.types.string import StrDumperUnknown
from psycopg_pool import ConnectionPool, PoolTimeout

from receiver.errors import ConfigError, StoreUnavailable
from receiver.setting_values import schema
from receiver.store.postgres.place import Place

#: Of one process at most: two web processes, a worker and an overlapping release stay under the 20
#: that the small plans of hosts allow.
CONNECTIONS = 4
#: So many of them are ingest's alone, so many others'; of these, so many at most are readers'
#: or borrowed for a second group.
_INGEST = 1
_OTHERS = CONNECTIONS - _INGEST
_READERS = 2
#: Seconds that a read waits for others' locks; and that it may take in all, answers included.
LOCKED_READ = 5.0
LONGEST_READ = 30.0
#: Seconds after which a connection that nobody used is tried before it is given to somebody.
_FRESH = 1.0
#: Seconds for one round trip of that. The server may be 400 ms away.
_CHECK_PATIENCE = 1.5
#: Round trips that a transaction takes, and one to spare.
_ROUND_TRIPS = 3
#: Seconds that one waits for a connection that is at hand.
_AT_HAND = 0.001
#: Seconds after which a connection is asked for again: each time the pool tries to make one.
_ASK_AGAIN = 0.25
#: Used where the URL says nothing else. The network's silence is noticed in about 10 s by the
#: kernel; whoever waits for an answer has gone long before (see `Connection`).
_DEFAULTS = {
    "application_name": "zimsend-receiver",
    "client_encoding": "UTF8",
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

# What driver and pool warn of ends in a `StoreUnavailable`, which says it once.
logging.getLogger("psycopg").setLevel(logging.ERROR)


def settings_of(url: str) -> dict[str, Any]:
    """How to connect for a `DATABASE_URL`.

    TLS unless the URL says something else, or the server is on this machine.

    :raises ConfigError: if it is no such URL; what is wrong with it might be the password.
    """
    place = place_of(url)
    url, _ = without_others(url)
    try:
        given = conninfo_to_dict(url)
        if not re.fullmatch("[0-9,]*", str(given.get("port", ""))):
            raise psycopg.ProgrammingError  # so reads a password with a slash in it
        hosts = str(given.get("hostaddr") or given.get("host") or os.environ.get("PGHOST") or "")
        if "@" in hosts[1:]:
            raise psycopg.ProgrammingError  # and so one with an @; an @ in front names a socket
    except psycopg.Error:
        raise ConfigError(
            "DATABASE_URL",
            "not a URL that PostgreSQL understands; it is "
            "postgres://user:password@host:5432/database, with %-encoding in each part",
        ) from None
    if not all(map(_is_local, hosts.split(","))) and "PGSSLMODE" not in os.environ:
        given.setdefault("sslmode", "require")
    own = {"application_name": f"{_DEFAULTS['application_name']} {place.schema}".rstrip()}
    return _DEFAULTS | own | given


#: Parameters by which other tools set their own pools and caches: nothing is lost without them.
_OF_OTHERS = {
    *("connection_limit", "pgbouncer", "pool_timeout", "socket_timeout", "statement_cache_size"),
    *("supa", "workaround", "checkout_timeout", "encoding", "pool", "prepared_statements"),
    *("reaping_frequency", "conn_max_age", "conn_health_checks", "pool_size", "max_overflow"),
    *("pool_recycle", "pool_pre_ping", "max_conns", "pool_max_conns", "pool_min_conns"),
    *("prepared_statement_cache_size", "statement_timeout", "prepareThreshold", "ApplicationName"),
    "uselibpqcompat",
}
#: Parameters that mean something here, and how it is written for PostgreSQL.
_MEANT = {
    "currentSchema": "schema=NAME",
    "ssl": "sslmode=require or sslmode=disable",
    "sslaccept": "sslmode=require or sslmode=verify-full",
    "sslcertificate": "sslrootcert=FILE",
    "sslfactory": "sslmode=require",
}
#: What changes nothing: what would be so without it.
_AS_EVER = {("schema", "public"), ("currentSchema", "public")}
#: What is ours, and not PostgreSQL's: `DATABASE_SCHEMA`, where there is only a URL.
_SCHEMA = "schema"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def without_others(url: str) -> tuple[str, list[str]]:
    """A `DATABASE_URL` without the parameters of other tools, and their names.

    :raises ConfigError: at one that means something here, or that nobody knows.
    """
    head, pairs = _parameters(url)
    if not pairs:
        return url, []
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    kept, ignored = [], []
    for name, value in pairs:
        if (name, value) in _AS_EVER or name in _OF_OTHERS:
            ignored.append(name)
        elif name == _SCHEMA:
            pass  # see `place_of`
        elif (name, value) == ("ssl", "true"):
            kept.append("sslmode=require")
        elif name in _MEANT:
            raise ConfigError("DATABASE_URL", f"?{name}= is not PostgreSQL's: write {_MEANT[name]}")
        elif name not in known:
            raise ConfigError(
                "DATABASE_URL", f"?{name}= is no parameter of PostgreSQL's; take it out"
            )
        elif name == "sslmode" and value not in _SSL_MODES:
            raise ConfigError("DATABASE_URL", f"sslmode is one of {', '.join(_SSL_MODES)}")
        else:
            kept.append(f"{name}={value}")
    return head + ("?" + "&".join(kept) if kept else ""), ignored


def place_of(url: str) -> Place:
    """Where a `DATABASE_URL` says that the tables are.

    :raises ConfigError: if that is no name for a schema, or there are two.
    """
    _, pairs = _parameters(url)
    named = {v for name, v in pairs if name == _SCHEMA and (name, v) not in _AS_EVER}
    if len(named) > 1:
        raise ConfigError(
            "DATABASE_SCHEMA", f"?{_SCHEMA}= in DATABASE_URL names another one: take one away"
        )
    try:
        return Place(*(schema(name) for name in named))
    except ValueError as error:
        raise ConfigError("DATABASE_URL", f"?{_SCHEMA}= is {error}") from None


def _parameters(url: str) -> tuple[str, list[tuple[str, str]]]:
    """A URL up to its parameters, and these."""
    head, _, query = url.rpartition("?")
    pairs = [(name, value) for name, _, value in (part.partition("=") for part in query.split("&"))]
    # What looks different is a password with a question mark, and nothing of it may be told.
    if not head or "@" in query or not all(re.fullmatch("[A-Za-z_]+", name) for name, _ in pairs):
        return url, []
    return head, pairs


def _is_local(host: str) -> bool:
    if host in ("", "localhost") or host.startswith(("/", "@")):  # @: a socket without a file
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Connection(psycopg.Connection[TupleRow]):
    """A connection that waits for nothing beyond its deadline, and is closed then.

    The server's own time-outs end what is slow or waits for a lock. They cannot where the server,
    or the network, is silent.
    """

    #: By `time.monotonic()`.
    deadline: float = 0.0
    used_at: float = 0.0
    #: Seconds to the server and back, as its first statement took.
    round_trip: float = 0.0
    #: Whether a pooler may give each transaction to another session of the server.
    pooled: bool = False
    #: Where the tables are.
    place: Place = Place()
    #: Whether it is ingest's own.
    is_ingests: bool = False
    #: It was given up with a link that may be sound, so nothing is said about the others'.
    discarded: bool = False
    #: Why the last attempt to connect failed.
    refused: ClassVar[str] = ""

    @classmethod
    def connect(cls, *arguments: Any, **settings: Any) -> Self:
        try:
            connection = super().connect(*arguments, **settings)
        except psycopg.Error as error:
            Connection.refused = " ".join(str(error).split())
            raise
        Connection.refused = ""
        return connection

    def discard(self) -> None:
        """Use it no more: what the server keeps of it is in doubt."""
        self.discarded = not self.closed
        self.close()

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        left = max(0.0, self.deadline - time.monotonic())
        try:
            return super().wait(gen, interval, left)
        except psycopg.OperationalError:
            if time.monotonic() >= self.deadline:
                self.close()
            raise


class _Text(StrDumperUnknown):
    """A text as PostgreSQL can hold it: what is asked for may be anything. Nothing that must not
    change comes this way: bodies are bytes, and registers ASCII."""

    def dump(self, obj: str) -> bytes:
        return obj.replace("\0", "\ufffd").encode("utf-8", "replace")


class Pool:
    """At most `CONNECTIONS` connections. Opened on first use: after a fork, never before one.

    Ingest has a pool of its own, of one connection. psycopg's pool opens one connection after the
    other, which takes seconds where the server is far away: in one pool webhooks would wait, after
    an outage, until a page or a counter that came before has its own.
    """

    def __init__(self, url: str) -> None:
        self.settings = settings_of(url)
        self.place = place_of(url)
        #: Parameters of the URL that are other tools'.
        self.ignored = ", ".join(without_others(url)[1])
        self._opening = threading.Lock()
        #: By how many connections they have: ingest's, and all others'.
        self._pools: dict[int, ConnectionPool[Connection]] = {}
        #: Who has ingest's own connection.
        self._ingest = threading.Lock()
        self._others = threading.BoundedSemaphore(_OTHERS)
        self._readers = threading.BoundedSemaphore(_READERS)

    @contextmanager
    def for_ingest(self, deadline: float) -> Iterator[Connection]:
        """A connection that works until a deadline, for a group of arrivals.

        While another group is written, one of the others', if one is at hand.

        :raises StoreUnavailable: if there is none in time.
        """
        with ExitStack() as stack:
            yield self._free_for_ingest(stack, deadline)

    def _free_for_ingest(self, stack: ExitStack, deadline: float) -> Connection:
        wait = 0.0
        while not self._ingest.acquire(timeout=wait):
            with suppress(StoreUnavailable):
                at_hand = time.monotonic() + _AT_HAND
                return stack.enter_context(self.shared(deadline, at_hand, reading=True))
            wait = min(_ASK_AGAIN, deadline - time.monotonic())
            if wait <= 0:
                raise StoreUnavailable("all connections to the database are in use")
        stack.callback(self._ingest.release)
        return stack.enter_context(self._lent(_INGEST, deadline, deadline))

    def prepare_for_ingest(self) -> None:
        """Begin to connect, if nobody has yet: the first webhook then need not wait for that."""
        self._opened(_INGEST)

    @contextmanager
    def shared(
        self, deadline: float, waits_until: float | None = None, *, reading: bool = False
    ) -> Iterator[Connection]:
        """The same, for all but ingest's own: however many read, one is left for the worker.

        :param waits_until: until when it is waited for; by default as long.
        """
        until = waits_until or deadline
        with (
            _slot(self._readers, until) if reading else nullcontext(),
            _slot(self._others, until),
            self._lent(_OTHERS, deadline, until) as connection,
        ):
            yield connection

    @contextmanager
    def _lent(self, size: int, deadline: float, until: float) -> Iterator[Connection]:
        pool = self._opened(size)
        connection = _connection_from(pool, until)
        if deadline - time.monotonic() < _ROUND_TRIPS * connection.round_trip:
            # It would be cut off in the middle, and be lost to those who have the time.
            pool.putconn(connection)
            raise StoreUnavailable("no time left for a transaction")
        connection.deadline = deadline
        try:
            yield connection
        finally:
            connection.used_at = time.monotonic()
            connection.deadline = connection.used_at + _CHECK_PATIENCE
            lost = connection.closed and not connection.discarded
            pool.putconn(connection)
            if lost:  # whatever it was, it befell the others, too
                for each in list(self._pools.values()):
                    each.drain()

    def _opened(self, size: int) -> ConnectionPool[Connection]:
        with self._opening:
            if size not in self._pools:
                pool = ConnectionPool(
                    connection_class=Connection,
                    kwargs={"autocommit": True, **self.settings},
                    min_size=_INGEST if size == _INGEST else 0,
                    max_size=size,
                    check=_check,
                    configure=partial(_configure, self.place, size == _INGEST),
                    reconnect_timeout=0,  # the next who asks tries again, at once
                    num_workers=1,
                    open=False,
                )
                try:
                    pool.open()
                except RuntimeError as error:  # the system allows no more threads
                    pool.close(0)
                    raise StoreUnavailable(f"no connection to the database: {error}") from error
                self._pools[size] = pool
            return self._pools[size]

    def close(self) -> None:
        with self._opening:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close(2)


def _connection_from(pool: ConnectionPool[Connection], deadline: float) -> Connection:
    while True:
        left = deadline - time.monotonic()
        try:
            return pool.getconn(min(left, _ASK_AGAIN))
        except PoolTimeout:
            if left <= _ASK_AGAIN:
                raise StoreUnavailable(
                    Connection.refused or "no connection to the database in time"
                ) from None


@contextmanager
def _slot(semaphore: threading.BoundedSemaphore, deadline: float) -> Iterator[None]:
    if not semaphore.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise StoreUnavailable("all connections to the database are in use")
    try:
        yield
    finally:
        semaphore.release()


def _check(connection: Connection) -> None:
    """What lay idle may have been cut off; what was used a moment ago shows it soon enough."""
    now = time.monotonic()
    if now - connection.used_at > _FRESH:
        connection.deadline = now + _CHECK_PATIENCE
        ConnectionPool.check_connection(connection)


def _configure(place: Place, is_ingests: bool, connection: Connection) -> None:
    connection.is_ingests = is_ingests
    began = time.monotonic()
    connection.deadline = began + 2 * _CHECK_PATIENCE
    connection.adapters.register_dumper(str, _Text)
    # A pooler like PgBouncer tells another number than the server's own. The session is not ours
    # then: nothing may be set in it, nor prepared.
    connection.place = place
    bounds = (f"{LONGEST_READ:g}s", f"{1000 * LOCKED_READ:.0f}ms")
    own = (connection.info.backend_pid, *bounds, place.search_path)
    ((bounded,),) = connection.execute(_BOUND, own)
    connection.pooled = bounded is None
    if connection.pooled:
        connection.prepare_threshold = None
    connection.used_at = time.monotonic()
    connection.round_trip = connection.used_at - began


# For what is read without a transaction of its own; and where the tables are, for all. Before
# PostgreSQL 18 a plan that `enable_seqscan` discourages looks so dear that the server compiles it
# (JIT), which takes a second for what takes a millisecond.
_BOUND = """
SELECT CASE WHEN pg_backend_pid() = %s THEN
    set_config('statement_timeout', %s, false) || set_config('lock_timeout', %s, false)
    || set_config('jit', 'off', false)
    || set_config('search_path', coalesce(%s, current_setting('search_path')), false) END
"""
