"""Several accounts in one service: each is asked about its own, and none waits for another."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from app import create_app
from receiver import ids, status
from receiver.event import Incoming
from receiver.parts import Receiver
from receiver.providers.simulating.world import Weather
from receiver.providers.smscx.simulator.api import serve
from receiver.providers.smscx.simulator.running import Simulator
from receiver.providers.smscx.simulator.world import World
from receiver.reconciliation.losses import KINDS, TOGETHER
from receiver.store import Missed
from receiver.times import DAY, HOUR, MINUTE, SECOND
from tests.conftest import Clock, row_of
from tests.providers.zimsend.reports import BEGAN, NUMBER
from tests.reconciliation.life import HEADERS, KEYS, Life, refused_with
from tests.reconciliation.smscx_life import TOKEN
from tests.reconciliation.test_what_is_seen import API
from tests.server import free_port

SMSCX_KEYS = {
    "SMSCX_WEBHOOK_TOKEN": TOKEN,
    "SMSCX_API_KEY": "key",
    "SMSCX_API_URL": "http://127.0.0.1:9",
}


@pytest.fixture
def both(live: Callable[..., Life], environ: dict[str, str]) -> tuple[Life, Life]:
    """One database, an account at each, and what each has failed to report."""
    environ |= KEYS | SMSCX_KEYS
    lives = live("zimsend", seed=1), live("smscx", weather=Weather(failed=1), seed=2)
    for life in lives:
        life.look(MINUTE)
        life.up = False
    lives[0].world.send(NUMBER, "Bonjour", metadata={"n": 1})
    lives[1].world.campaign(3, rate=1)
    for life in lives:
        life.wait(30 * MINUTE)
    return lives


def ask(life: Life) -> Any:
    found = life.look(MINUTE)
    assert len(found) == 1
    return found[0]


@pytest.mark.each_engine
def test_losses_are_told_by_provider(both: tuple[Life, Life]) -> None:
    zimsend, smscx = both
    for life in both:
        assert ask(life).problem is None
    whole, count, _ = zimsend.gaps()
    assert whole is not None
    assert (whole.messages, whole.counts, count) == (1, (1, 1, 0), 1)
    whole, count, _ = smscx.gaps()
    assert whole is not None
    assert (whole.messages, whole.counts, count) == (3, (0, 0, 3), 1)
    every, _, gaps = smscx.store.missed([f"sms.{kind}" for kind in KINDS], TOGETHER, 9)
    assert (every.messages, sum(every.counts)) == (4, 5)
    assert smscx.store.missed(["sms.sent"], TOGETHER, 9, "sipgate") == (None, 0, [])
    assert isinstance(gaps[0], Missed)

    client = zimsend.apps[-1].test_client()
    answer = client.get("/v1/reconciliation", headers=HEADERS)
    API["/v1/reconciliation"]["GET"].validate_response(answer)
    told: dict[str, Any] = answer.get_json()
    assert told["providers"].keys() == {"zimsend", "smscx"}
    assert told["providers"]["smscx"]["missed"]["failed"] == 3
    assert told["providers"]["smscx"]["last_pass"]["complete"]
    about_zimsend = told["providers"]["zimsend"]
    assert about_zimsend == {name: told[name] for name in about_zimsend}
    assert told["missed"]["delivered"] == 1


def test_one_that_fails_does_not_hold_up_the_other(both: tuple[Life, Life]) -> None:
    zimsend, smscx = both
    zimsend.wire.fault = refused_with(503)
    assert ask(zimsend).problem is not None
    made = ask(smscx)
    assert (made.problem, len(made.learnt)) == (None, 3)
    assert zimsend.state().failures == 1
    assert smscx.state().failures == 0
    # Each goes on from where it was itself.
    zimsend.wire.fault = lambda request: None
    zimsend.look(HOUR)
    missed = zimsend.missed()
    assert missed is not None
    assert (missed.messages, missed.counts) == (1, (1, 1, 0))
    smscx.compare()


def test_each_has_a_budget_and_a_turn_of_its_own(both: tuple[Life, Life]) -> None:
    zimsend, smscx = both
    now = zimsend.clock.time
    while not smscx.reconciliation.account.budget.take():
        pass
    assert zimsend.reconciliation.account.budget.take() == 0
    assert zimsend.store.claim_turn("reconciliation", now, now + MINUTE)
    smscx.wait(MINUTE)
    assert smscx.reconciliation.step(smscx.clock.time) is not None
    assert zimsend.reconciliation.step(now) is None


def pending(provider: str, own_id: str, received_at: int) -> Incoming:
    """A message of some provider that was sent, and of which nothing more was heard."""
    message_id = ids.key(provider, own_id)
    told: dict[str, Any] = {
        "event_id": f"{message_id}:1",
        "timestamp": received_at,
        "received_at": received_at,
    }
    says = status.project("sms.sent", {}, retention=90 * DAY, **told)
    return Incoming(
        id=told["event_id"],
        type="sms.sent",
        message_id=message_id,
        occurred_at=received_at,
        received_at=received_at,
        timestamp=received_at,
        reported_at=received_at,
        has_error=False,
        body=b"{}",
        redacted=False,
        says=says,
        source="webhook",
        original=None,
    )


@pytest.mark.each_engine
def test_nobody_is_asked_about_the_messages_of_another(live: Callable[..., Life]) -> None:
    zimsend, smscx = live("zimsend"), live("smscx")
    mine = ("zimsend", "a"), ("smscx", "b"), ("sipgate", "c"), ("smsgate", "d"), ("zimsend", "e:f")
    zimsend.store.ingest([pending(*each, BEGAN) for each in mine], lambda _: (), 5)
    asked = {}
    for life in (zimsend, smscx):
        life.wait(HOUR)
        assert ask(life).problem is None
        assert life.reconciliation.run().problem is None
        paths = [path for _, path in life.wire.calls]
        asked[life.provider] = {
            path.rpartition("/")[2] for path in paths if "/status/" in path or "/single/" in path
        }
    assert asked == {"zimsend": {"a", "e:f"}, "smscx": {"b"}}


def test_who_is_asked_goes_by_the_credentials(environ: dict[str, str], clock: Clock) -> None:
    for keys, names in (
        ({}, set()),
        (KEYS, {"zimsend"}),
        (SMSCX_KEYS, {"smscx"}),
        (KEYS | SMSCX_KEYS, {"zimsend", "smscx"}),
        ({"SMSCX_WEBHOOK_TOKEN": TOKEN}, set()),
    ):
        app = create_app(environ | keys, clock)
        receiver: Receiver = app.extensions["receiver"]
        assert receiver.reconciliations.keys() == names
        receiver.store.close()


@pytest.mark.each_engine
def test_by_the_settings_alone(environ: dict[str, str], clock: Clock) -> None:
    """Over HTTP, at the address and with the key that are set."""
    world = World(began=clock.time - HOUR, weather=Weather(failed=1))
    world.campaign(2, rate=1)
    world.advance(clock.time - 30 * MINUTE)
    port = free_port()
    simulated = Simulator(world, api_key="key")
    simulated.now = lambda: clock.time  # type: ignore[method-assign]  # it is asked by this clock
    close = serve(simulated, "127.0.0.1", port)
    app = create_app(environ | SMSCX_KEYS | {"SMSCX_API_URL": f"http://127.0.0.1:{port}"}, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    try:
        ran = app.test_cli_runner().invoke(args=["reconcile", "--since", "1h"])
    finally:
        close()
    assert ran.exit_code == 0, ran.output
    assert "2 reports of 2 messages (2 failed) had not arrived" in ran.stdout
    codes = {str(message.error_code) for message in world.messages.values()}
    rows = [row_of(receiver.store, ids.key("smscx", each)) for each in world.messages]
    assert {status.describe(row or {})["error"]["code"] for row in rows} == codes
    receiver.store.close()


def test_a_gap_is_asked_about_at_each(both: tuple[Life, Life]) -> None:
    zimsend, _ = both
    for life in both:
        ask(life)
        assert life.reconciliation.step(life.clock.time) is None
        life.wait(2 * MINUTE)
    parts = dataclasses.replace(
        zimsend.receiver,
        reconciliations={life.provider: life.reconciliation for life in both},
    )
    parts.notice_gap()
    for life in both:
        assert life.reconciliation.step(life.clock.time) is not None


def test_the_note_of_an_earlier_release_is_read(live: Callable[..., Life]) -> None:
    life = live()
    now = life.clock.time
    note = {
        "first": now - 9 * DAY,
        "since": now - 2 * HOUR,
        "next_at": now,
        "tried_at": now,
        "ended_at": now - HOUR,
        "wide_until": 0,
        "deep_at": now - HOUR,
        "deep_day": None,
        "failures": 0,
        "problem": None,
        "calls": 3,
        "failed": {"m": 1},
        "asked": {},
    }
    life.store.write_note("reconciliation", json.dumps(note))
    life = life.start() and life
    assert (life.state().first, life.state().failed) == (now - 9 * DAY, {"m": 1})
    (made,) = life.look(MINUTE)
    assert made.since == now - 26 * HOUR  # a start is a gap
    assert life.state().since == now - 15 * MINUTE


def test_the_command_asks_each_and_fails_if_one_does(both: tuple[Life, Life]) -> None:
    zimsend, _ = both
    app = zimsend.apps[-1]
    app.extensions["receiver"] = dataclasses.replace(
        zimsend.receiver,
        reconciliations={life.provider: life.reconciliation for life in both},
    )
    zimsend.wire.fault = refused_with(503)
    ran = app.test_cli_runner().invoke(args=["reconcile"])
    assert ran.exit_code == 1
    first, second, *_, last = ran.stdout.splitlines()
    assert (first, second) == ("ZimSend:", "SMS.CX:")
    assert "3 reports of 3 messages (3 failed) had not arrived" in last
    assert "not all of it could be asked for: the answer gives no reason (HTTP 503)" in ran.stderr
    zimsend.wire.fault = lambda request: None
    zimsend.wait(MINUTE * 2 + SECOND)
    assert app.test_cli_runner().invoke(args=["reconcile"]).exit_code == 0
