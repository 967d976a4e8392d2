"""PostgreSQL's connections: how they are made, and how many; what is synced."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest

from receiver.errors import ConfigError, StoreUnavailable
from receiver.store import Settlement, open_store
from receiver.store.postgres import PostgresStore
from receiver.store.postgres.pool import CONNECTIONS, Connection, Pool, settings_of
from tests.conftest import row_of
from tests.postgres import PostgresServer
from tests.server import eventually, quick
from tests.shortage import threads_allowed
from tests.store.postgres.work import NOW, compiling_refused, ingest, refused_within, sent, work


@pytest.mark.parametrize(
    ("url", "sslmode"),
    [
        ("postgres://u:p@db.example.com/receiver", "require"),
        ("postgresql://u:p@10.0.0.7:5432/receiver", "require"),
        ("postgres://u:p@db.example.com/receiver?sslmode=verify-full", "verify-full"),
        ("postgres://u:p@db.internal/receiver?sslmode=disable", "disable"),
        ("postgres://u:p@127.0.0.1,db.example.com/receiver", "require"),
        ("postgres:///receiver?host=db.example.com", "require"),
        ("postgres://localhost/receiver?hostaddr=192.0.2.7", "require"),
        ("postgres://u:p@127.0.0.1/receiver", None),
        ("postgres://u:p@[::1]:5433/receiver", None),
        ("postgres://localhost/receiver", None),
        ("postgres:///receiver", None),
        ("postgres:///receiver?host=/var/run/postgresql", None),
        ("postgres://%2Fvar%2Frun%2Fpostgresql/receiver", None),
    ],
)
def test_tls_is_required_unless_the_url_or_the_place_says_otherwise(
    url: str, sslmode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    assert settings_of(url).get("sslmode") == sslmode


def test_the_hosts_variables_count_as_the_driver_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "db.example.com")
    assert settings_of("postgres:///receiver")["sslmode"] == "require"
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert "sslmode" not in settings_of("postgres:///receiver")  # nothing weaker than asked for


def test_a_server_without_tls_is_refused_with_a_hint(server: PostgresServer) -> None:
    store = open_store(f"{server.url}?sslmode=require")
    assert "sslmode=disable" in refused_within(5, store.migrate)


def test_a_wrong_url_is_refused_without_its_password() -> None:
    for url in (
        "postgres://u:hunter2/secret@host/db",
        "postgres://u:hunter2@h/db?no_such=1",
        "postgres://u:hunter2@[::1/db",
        "postgres://u:half@hunter2@host/db",
    ):
        with pytest.raises(ConfigError) as caught:
            open_store(url)
        assert "DATABASE_URL" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_nothing_is_connected_before_the_first_use(postgres_url: str) -> None:
    before = threading.active_count()
    store = PostgresStore(postgres_url)
    assert threading.active_count() <= before
    assert row_of(store, "m1") is None
    store.close()
    assert row_of(store, "m1") is None  # and again, after an end
    store.close()


@pytest.mark.spoils_the_schema
def test_nothing_is_compiled(
    store: PostgresStore, postgres_url: str, outside: psycopg.Connection[Any]
) -> None:
    """Before PostgreSQL 18 the server would do so for a second, for what takes a millisecond."""
    with compiling_refused(outside):
        assert ingest(store, sent("m1")) == ["accepted"]
        (claim,) = work(store)
        work(store, Settlement(claim, "done", NOW))
    pool = Pool(postgres_url)
    with pool.shared(time.monotonic() + 5) as connection:
        assert connection.execute("SHOW jit").fetchone() == ("off",)
    pool.close()


@pytest.mark.parametrize("number", [0, 1])
def test_without_its_threads_the_store_is_unavailable_until_there_are_more(
    store: PostgresStore, number: int
) -> None:
    store.migrate()
    with threads_allowed("pool-", number):
        refused_within(1, lambda: ingest(store, sent("m1")))
    assert ingest(store, sent("m1")) == ["accepted"]


def test_at_most_four_connections_and_readers_leave_one_to_the_webhook(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    stop = threading.Event()
    reads: list[int] = []
    most = 0

    def read_slowly() -> None:
        while not stop.is_set():
            with suppress(StoreUnavailable), store._reading() as connection:
                connection.execute("SELECT pg_sleep(0.3)")
                reads.append(1)

    def look() -> None:
        while not stop.is_set():
            with suppress(StoreUnavailable):
                store.backlog(NOW, ["h"])
                store.expirable(0)

    with ThreadPoolExecutor(14) as executor:
        readers = [executor.submit(read_slowly) for _ in range(10)]
        others = [executor.submit(look) for _ in range(3)]

        def slowest_of_most() -> float:
            nonlocal most
            began = time.monotonic()
            took = []
            while time.monotonic() - began < 2:
                commit = time.monotonic()
                assert ingest(store, sent(f"m{commit}")) == ["accepted"]
                took.append(time.monotonic() - commit)
                (count,) = outside.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name LIKE 'zimsend-receiver%'"
                ).fetchone() or (0,)
                most = max(most, count)
            return sorted(took)[len(took) * 8 // 10]

        try:
            in_time = quick(slowest_of_most, 0.2)  # less than a reader takes
        finally:
            stop.set()
        for future in (*readers, *others):
            future.result()
    assert most == CONNECTIONS
    assert sum(reads) > 0
    assert in_time


def test_the_webhook_waits_for_no_connection_that_others_open(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """psycopg's pool opens one after the other, and one may take seconds after an outage."""
    connect = Connection.connect.__func__  # type: ignore[attr-defined]
    opening, stored = threading.Event(), threading.Event()

    def slowly_for_the_first(cls: type[Connection], *arguments: Any, **settings: Any) -> Any:
        if not opening.is_set():
            opening.set()
            stored.wait(30)
        return connect(cls, *arguments, **settings)

    store.close()
    monkeypatch.setattr(Connection, "connect", classmethod(slowly_for_the_first))
    with ThreadPoolExecutor(1) as executor:
        reading = executor.submit(store.work_counts)
        try:
            assert opening.wait(30)
            assert ingest(store, sent("m1")) == ["accepted"]
        finally:
            stored.set()
        assert reading.result() is not None


@pytest.mark.spoils_the_schema
def test_a_commit_is_synced_whatever_the_servers_default(
    postgres_url: str, outside: psycopg.Connection[Any], store: PostgresStore
) -> None:
    (name,) = outside.execute("SELECT current_database()").fetchone() or ("",)
    outside.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    outside.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    with store._transaction() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


def test_a_second_group_borrows_a_connection(postgres_url: str) -> None:
    pool = Pool(postgres_url)
    try:
        with pool.for_ingest(soon()) as own:
            # It is made when it is asked for first, and is at hand soon after.
            assert eventually(lambda: other_than(own, pool))
            with ExitStack() as all_others:
                for _ in range(CONNECTIONS - 1):
                    all_others.enter_context(pool.shared(soon()))
                with pytest.raises(StoreUnavailable), pool.for_ingest(soon(0.5)):
                    pass
            assert other_than(own, pool)
        with ExitStack() as all_others:
            for _ in range(CONNECTIONS - 1):
                all_others.enter_context(pool.shared(soon()))
            with pool.for_ingest(soon()) as again:
                assert again is own
    finally:
        pool.close()


def other_than(own: Connection, pool: Pool) -> bool:
    """Whether a second group has a connection, and it works."""
    try:
        with pool.for_ingest(soon(0.1)) as other:
            return other is not own and other.execute("SELECT 1").fetchone() == (1,)
    except StoreUnavailable:
        return False


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds
