"""A PostgreSQL server that is slow, hangs, or goes away."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from receiver.errors import StoreUnavailable
from receiver.store import Selection
from receiver.store.postgres import PostgresStore
from tests.conftest import row_of
from tests.payloads import envelope, sms
from tests.postgres import PostgresServer
from tests.server import eventually
from tests.store.postgres.work import incoming, ingest, refused_within, sent, work


def test_locked_rows_make_it_unavailable_in_time_and_usable_after(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    ingest(store, sent("m1"))
    with outside.transaction():
        outside.execute("LOCK TABLE messages IN EXCLUSIVE MODE")
        later = incoming(envelope("sms.delivered", sms("delivered", "m1")))
        refused_within(0.6, lambda: ingest(store, later, patience=0.5))
        assert row_of(store, "m1")  # readers do not wait
    # A server that is slow as well may have come to it, once the lock was gone.
    assert ingest(store, later)[0] in ("accepted", "duplicate")


def test_a_statement_in_vain_costs_its_own_connection_alone(
    store: PostgresStore, outside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server ends it well before we give up on its word.
    monkeypatch.setattr("receiver.store.postgres.transactions._EARLIER", 3.5)

    def backend(patience: float) -> int:
        with store._transaction(patience) as connection:
            if patience < 5:
                connection.execute("LOCK TABLE messages IN ACCESS SHARE MODE")
            return connection.info.backend_pid

    with store._reader() as held:
        first, other = held.info.backend_pid, backend(5)
    with outside.transaction():
        outside.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            backend(4)
    with store._reader() as one, store._reader() as two:
        kept = {one.info.backend_pid, two.info.backend_pid}
    assert len(kept & {first, other}) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_goes_away_and_comes_back(
    server: PostgresServer, how: signal.Signals
) -> None:
    """Under load: each call ends in time, none in another error; then all goes on by itself."""
    store = PostgresStore(server.url)
    store.migrate()
    stop = threading.Event()
    back = threading.Event()
    acknowledged: list[str] = []
    errors: list[BaseException] = []
    slowest: list[float] = []
    recovered: list[float] = []

    def send(call: Callable[[], Any]) -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                call()
                if back.is_set():
                    recovered.append(time.monotonic())
                    return
            except StoreUnavailable:
                time.sleep(0.05)
            except BaseException as error:
                errors.append(error)
                return
            slowest.append(time.monotonic() - began)

    def put() -> None:
        event = envelope("sms.sent", sms("sent"))
        assert ingest(store, incoming(event), patience=0.5) == ["accepted"]
        acknowledged.append(event["event_id"])

    calls = [put, lambda: work(store, patience=0.5), lambda: row_of(store, "m1")]
    with ThreadPoolExecutor(4) as executor:
        futures = [executor.submit(send, call) for call in calls]
        eventually(lambda: len(acknowledged) > 20)
        if how == signal.SIGSTOP:
            server.send(signal.SIGSTOP)
        else:
            server.stop(how)
        refused_within(0.7, lambda: ingest(store, sent("m1"), patience=0.5))
        time.sleep(1.5)
        returned = time.monotonic()
        if how == signal.SIGSTOP:
            server.send(signal.SIGCONT)
        else:
            server.start()
            returned = time.monotonic()
        back.set()
        eventually(lambda: all(future.done() for future in futures) or errors)
        stop.set()
    assert not errors
    assert max(recovered) - returned < 8
    found = {event["event_id"] for event in store.events(Selection())}
    assert found.issuperset(acknowledged)
    if how != signal.SIGSTOP:
        assert max(slowest) < 10
    store.close()


def test_what_lay_idle_is_tried_before_it_is_used(
    store: PostgresStore, outside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.store.postgres.pool._FRESH", 0.0)
    assert ingest(store, sent("m1")) == ["accepted"]
    outside.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'zimsend-receiver%'"
    )
    assert ingest(store, sent("m2")) == ["accepted"]


def test_no_server_at_all_says_why(tmp_path: Any) -> None:
    store = PostgresStore("postgres://u:hunter2@127.0.0.1:1/none")
    for call in (store.migrate, lambda: ingest(store, sent("m1"), patience=2)):
        told = refused_within(4, call)
        assert "refused" in told
        assert "hunter2" not in told
    store.close()
