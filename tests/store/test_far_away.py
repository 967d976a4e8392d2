"""PostgreSQL at a distance: how long one waits for a lock is not how long an answer may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from receiver import times
from receiver.errors import StoreUnavailable
from receiver.store import Store, open_store
from receiver.store.postgres import pool, transactions
from receiver.times import SECOND
from tests.distance import Distance, at_port
from tests.postgres import OURS, Databases, plain
from tests.server import quick


@pytest.fixture(params=[0.0, 0.15, 0.4])
def far(
    databases: Databases, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Store, str, float]]:
    """A store, its database's own address, and the seconds between them."""
    # Shorter than a round trip of the farthest.
    monkeypatch.setattr(pool, "LOCKED_READ", 0.3)
    monkeypatch.setattr(transactions, "SHORT_PATIENCE", 0.3)
    # New: what an earlier test has left running knows the address of one that it was lent.
    url = databases.create()
    way = Distance(int(conninfo_to_dict(plain(url))["port"]), request.param)
    with closing(open_store(at_port(plain(url), way.port) + OURS)) as store:
        yield store, url, request.param
    way.close()
    databases.drop(url)


def test_the_first_call_succeeds_and_so_does_each_after_it(
    far: tuple[Store, str, float],
) -> None:
    store, _, _ = far
    now = times.now()
    store.prove_writable()  # with the time that it takes to connect
    assert store.claim_turn("turn", now, now + SECOND)
    assert store.keep_turn("turn", now + SECOND, now + 2 * SECOND)
    assert store.take("tokens", now, SECOND, None) == 0
    assert store.leases("somebody", 0) == []


CALLS: tuple[tuple[str, Callable[[Store], Any]], ...] = (
    ("events", lambda store: store.body("an event")),
    ("notes", lambda store: store.note("a note")),
)


def test_a_read_waits_for_a_lock_as_long_as_it_may_and_keeps_its_connection(
    far: tuple[Store, str, float],
) -> None:
    store, url, away = far
    store.body("an event")
    connections = "SELECT count(*), min(backend_start) FROM pg_stat_activity WHERE application_name"
    connections += " LIKE 'zimsend-receiver%' AND datname = current_database()"
    with psycopg.connect(url) as outside:
        before = outside.execute(connections).fetchone()
        for table, call in CALLS:
            outside.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

            def waits(call: Callable[[Store], Any] = call) -> float:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match="lock timeout"):
                    call(store)
                took = time.monotonic() - began
                assert took >= 0.3
                return took

            assert quick(waits, 0.3 + 3 * away + 1.5)
            outside.rollback()
        assert outside.execute(connections).fetchone() == before
