"""A database that is far away, with real processes: each byte takes its time in both directions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.distance import Distance, at_port
from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.postgres import Databases
from tests.server import Server, eventually

#: Seconds that the provider waits.
PATIENT = 5.0


@pytest.fixture
def far(
    databases: Databases, serve: Callable[..., Server]
) -> Iterator[Callable[[float], tuple[Server, Distance]]]:
    """A service whose PostgreSQL is so many seconds away, and the way there."""
    url = databases.lend()
    ways: list[Distance] = []

    def start(round_trip: float, **settings: str) -> tuple[Server, Distance]:
        way = Distance(int(conninfo_to_dict(url)["port"]), round_trip)
        ways.append(way)
        return serve(DATABASE_URL=at_port(url, way.port), **settings), way

    start.url = url  # type: ignore[attr-defined]
    yield start
    for way in ways:
        way.close()
    databases.take_back(url)


def stored(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {event_id for (event_id,) in connection.execute("SELECT id FROM events")}


@pytest.mark.slow
@pytest.mark.parametrize("round_trip", [0.0, 0.15, 0.4])
def test_webhooks_are_stored_in_time_and_a_hiccup_ends(
    far: Any, databases: Databases, round_trip: float
) -> None:
    server, way = far(round_trip, EMBEDDED_WORKER="0")
    server.client.timeout = httpx.Timeout(30)
    sent: list[dict[str, Any]] = []

    def send() -> tuple[int, float, float]:
        event = envelope("sms.sent", sms("sent"))
        began = time.monotonic()
        status = server.post(event).status_code
        if status == 200:
            sent.append(event)
        return status, time.monotonic() - began, began

    with ThreadPoolExecutor(64) as pool:
        one_after_the_other = [send() for _ in range(5)]
        at_once = [each.result() for each in [pool.submit(send) for _ in range(60)]]
        for status, took, _ in one_after_the_other + at_once:
            assert status == 200
            assert took < PATIENT

        way.hiccup(4.0)
        over = time.monotonic() + 4.0
        tries = []
        while time.monotonic() < over + 5.0:
            tries.append(pool.submit(send))
            time.sleep(0.1)
        answers = [each.result() for each in tries]
    assert {status for status, _, _ in answers} == {200, 503}
    assert max(took for _, took, _ in answers) < PATIENT
    assert max(began for status, _, began in answers if status == 503) < over + 3.0
    assert {event["event_id"] for event in sent} <= stored(far.url)


@pytest.mark.slow
@pytest.mark.parametrize("round_trip", [0.15, 0.4])
def test_every_item_is_called_and_none_twice(far: Any, tmp_path: Path, round_trip: float) -> None:
    server, _ = far(round_trip, SEEN=str(tmp_path))
    server.client.timeout = httpx.Timeout(30)
    events = [envelope("sms.sent", sms("sent")) for _ in range(200)]
    with ThreadPoolExecutor(64) as pool:
        assert {each.status_code for each in pool.map(server.post, events)} == {200}
    wanted = [event["event_id"] for event in events]
    for name in ("first", "second"):
        eventually(lambda name=name: len(seen(tmp_path, name)) >= len(wanted))
        assert sorted(str(e["id"]) for e in seen(tmp_path, name)) == sorted(wanted)
        assert {e["attempt"] for e in seen(tmp_path, name)} == {1}
    with psycopg.connect(far.url) as connection:
        states = "SELECT state, attempts FROM deliveries GROUP BY 1, 2"
        eventually(lambda: connection.execute(states).fetchall() == [("done", 1)])
