"""By which clock ZimSend is asked: the wall's, but for a simulator on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace

import pytest

from app import create_app
from receiver.parts import Receiver
from receiver.providers.clock import clock_of
from receiver.providers.zimsend.account import Account
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.budget import Half
from receiver.providers.zimsend.simulator import api
from receiver.providers.zimsend.simulator.running import Simulator
from receiver.providers.zimsend.simulator.world import World
from receiver.reconciliation.passes import Reconciliation
from receiver.store import Selection
from receiver.times import DAY, MINUTE, SECOND, iso
from tests.canned import Canned, ok
from tests.conftest import Clock
from tests.server import eventually, free_port

KEY, ID = "zs_test_clock", "client_clock"


class Ahead(Simulator):
    """Its time is 20 minutes after it began."""

    def now(self) -> int:
        return self.world.began + 20 * MINUTE


@pytest.fixture
def ahead(clock: Clock) -> Iterator[Simulator]:
    world = World(began=clock.time - clock.time % SECOND, seed=1)
    simulated = Ahead(world, speed=60, credentials=(KEY, ID))
    world.send("+33612345678", "Bonjour")
    simulated.port = free_port()  # type: ignore[attr-defined]
    close = api.serve(simulated, "127.0.0.1", simulated.port)  # type: ignore[attr-defined]
    yield simulated
    close()


@pytest.fixture
def url(ahead: Simulator) -> str:
    return f"http://127.0.0.1:{ahead.port}/v1"  # type: ignore[attr-defined]


def test_a_simulator_tells_its_time_and_its_speed(
    ahead: Simulator, url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    seconds = [100.0]
    still = SimpleNamespace(monotonic=lambda: seconds[0])
    monkeypatch.setattr("receiver.providers.clock.time", still)
    now = clock_of(url, clock)
    assert now() == ahead.now()
    seconds[0] += 3
    assert now() == ahead.now() + 180 * SECOND
    ahead.world.began += DAY  # another one, on the same port
    assert now() == ahead.now() - DAY + 180 * SECOND
    seconds[0] += 3
    assert now() == ahead.now()


@pytest.mark.parametrize(
    "elsewhere", ["https://api.zimsend.com/v1", "https://127.0.0.1.example.com/v1"]
)
def test_nobody_else_tells_us_the_time(clock: Clock, elsewhere: str) -> None:
    assert clock_of(elsewhere, clock) is clock


@pytest.mark.parametrize(
    "told",
    [
        {},
        [],
        {"now": iso(DAY)},
        {"now": "soon", "speed": 60},
        {"now": iso(DAY), "speed": 0},
        {"now": iso(DAY), "speed": "quick"},
        {"now": iso(DAY), "speed": None},
        {"now": iso(DAY), "speed": 60, "more": "x" * 1_000},
    ],
)
def test_what_is_no_simulator_does_not(fresh_canned: Canned, clock: Clock, told: object) -> None:
    fresh_canned.answers(ok(told))
    assert clock_of(fresh_canned.url, clock)() == clock.time


def test_while_nobody_answers_it_is_the_walls(clock: Clock) -> None:
    now = clock_of("http://127.0.0.1:9/v1", clock)
    assert now() == clock.time
    clock.time += DAY
    assert now() == clock.time


@pytest.mark.each_engine
def test_what_was_missed_in_quick_time_comes_back_now(
    environ: dict[str, str], ahead: Simulator, url: str, clock: Clock
) -> None:
    """It is learnt by the simulator's clock, and handlers need not wait for that time."""
    (message,) = ahead.world.messages.values()
    keys = {"ZIMSEND_API_KEY": KEY, "ZIMSEND_CLIENT_ID": ID, "ZIMSEND_API_URL": url}
    app = create_app({**environ, **keys}, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    ran = app.test_cli_runner().invoke(args=["reconcile", "--since", "1h"])
    assert ran.exit_code == 0, ran.output
    assert "2 reports of 1 message (1 sent, 1 delivered) had not arrived" in ran.stdout
    events = list(receiver.store.events(Selection(message_id=message.id)))
    assert {(e["type"], e["received_at"]) for e in events} == {
        ("sms.sent", iso(clock.time)),
        ("sms.delivered", iso(clock.time)),
    }
    assert receiver.store.next_due("first", 0) == clock.time
    # The turn is free again, by any clock.
    assert receiver.store.claim_turn("reconciliation", clock.time, clock.time + SECOND)
    receiver.store.close()


def test_quick_time_is_no_sleep(
    receiver: Receiver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    minutes, looks = count(), list[int]()

    class Looking(Reconciliation):
        LOOK = 0.001

        def step(self, now: int) -> None:
            looks.append(now)

    budget = Half(receiver.store, clock)
    account = Account(ZimSend(KEY, ID), budget, lambda: next(minutes) * 10 * MINUTE)
    quick = Looking(account, receiver.store, list, clock, retention=DAY)
    quick.start()
    eventually(lambda: len(looks) > 3)
    quick.stop()
    assert "asleep" not in caplog.text
