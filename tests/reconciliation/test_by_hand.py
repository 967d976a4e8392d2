"""A pass that somebody waits for tells what it can now, and leaves less to the next one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import httpx
import pytest

from receiver.providers.zimsend.simulator.world import Post, SimulatedMessage, Weather
from receiver.providers.zimsend.webhook import sign
from receiver.reconciliation.planning import State
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from tests.conftest import SECRET
from tests.providers.zimsend.reports import NUMBER
from tests.reconciliation.life import Life, handled, learnt


@pytest.fixture
def missed(live: Callable[..., Life]) -> Callable[[int], tuple[Life, SimulatedMessage]]:
    """A failure whose report did not arrive, that long ago; this receiver is new."""

    def missed(ago: int) -> tuple[Life, SimulatedMessage]:
        life = live(weather=Weather(failed=1))
        message = life.world.send(NUMBER, "Bonjour")
        life.up = False
        life.wait(ago)
        life.up = True
        return life, message

    return missed


@pytest.mark.each_engine
def test_a_failure_without_a_time_of_long_ago_is_learnt_at_once(
    missed: Callable[[int], tuple[Life, SimulatedMessage]],
) -> None:
    life, message = missed(2 * HOUR)
    since = life.clock.time - DAY
    told = life.reconciliation.run(since, dry_run=True)
    assert ([report.type for _, report in told.learnt], told.waiting) == (["sms.failed"], 0)
    assert learnt(life) == []
    made = life.reconciliation.run(since)
    assert (made.problem, made.waiting) == (None, 0)
    assert learnt(life) == ["1 sms.failed"]
    # The webhook that says why comes after all, and reaches the handlers.
    late = Post(life.world.events[0], 0, lost=False, answer_lost=False)
    assert life.deliver(late) == "200"
    assert handled(life) == {(message.id, "sms.failed"): 2}
    assert learnt(life) == ["1 sms.failed"]


def test_one_that_may_have_failed_just_now_is_left_to_the_next_pass(
    missed: Callable[[int], tuple[Life, SimulatedMessage]],
) -> None:
    life, _ = missed(50 * MINUTE)
    made = life.reconciliation.run(life.clock.time - DAY)
    assert (made.learnt, made.waiting) == ([], 1)
    life.wait(10 * MINUTE)
    made = life.reconciliation.run(life.clock.time - DAY)
    assert learnt(life) == ["1 sms.failed"]


def test_what_is_known_here_counts_as_well(
    missed: Callable[[int], tuple[Life, SimulatedMessage]],
) -> None:
    """Something was heard of it half an hour ago, which the history does not tell."""
    life, message = missed(2 * HOUR)
    heard = {"message_id": message.id, "processing_at": iso(life.clock.time)}
    body = json.dumps({"event": "sms.processing", "event_id": "e1", "data": heard}).encode()
    headers = {"X-Webhook-Signature": sign(SECRET.encode(), body)}
    assert life.client.post("/webhooks/zimsend", data=body, headers=headers).status_code == 200
    life.wait(30 * MINUTE)
    made = life.reconciliation.run(life.clock.time - DAY)
    assert (made.learnt, made.waiting) == ([], 1)
    life.wait(31 * MINUTE)
    life.reconciliation.run(life.clock.time - DAY)
    assert learnt(life) == ["1 sms.failed"]


def test_by_itself_it_waits_as_before(
    missed: Callable[[int], tuple[Life, SimulatedMessage]],
) -> None:
    """Nobody waits for it, and the phone may have been away for hours: the webhook tells more."""
    life, _ = missed(2 * HOUR)
    now = life.clock.time
    state = State(first=now - DAY, since=now - DAY, next_at=now, deep_at=now)
    life.store.write_note("reconciliation", json.dumps(dataclasses.asdict(state)))
    (made,) = life.look(MINUTE)
    assert (made.learnt, made.waiting) == ([], 1)
    # Who asks by hand in the meantime need not wait, also if the history no longer has it.
    life.wire.fault = without_history
    made = life.reconciliation.run()
    assert (made.problem, made.waiting) == (None, 0)
    assert learnt(life) == ["1 sms.failed"]


def without_history(request: httpx.Request) -> httpx.Response | None:
    if not request.url.path.endswith("history"):
        return None
    return httpx.Response(200, json={"success": True, "data": [], "pagination": {}})


def test_the_unfinished_are_asked_for_now(live: Callable[..., Life]) -> None:
    """By itself it asks for them at growing intervals."""
    life = live()
    life.look(MINUTE)
    hidden = life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.wait(3 * SECOND)
    hidden.delivered_at, hidden.status, hidden.round = None, "sent", 1  # it takes its time
    life.wire.fault = without_history
    life.look(3 * HOUR, every=10 * MINUTE)
    hidden.status, hidden.delivered_at = "delivered", life.clock.time
    life.wait(11 * MINUTE)
    before = len(life.wire.calls)
    life.look(MINUTE)
    assert not [path for _, path in life.wire.calls[before:] if "/status/" in path]
    assert learnt(life) == []
    life.reconciliation.run()
    assert learnt(life) == ["1 sms.delivered"]
