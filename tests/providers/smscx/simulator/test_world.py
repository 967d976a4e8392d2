"""A simulated SMS.CX by itself, and what a receiver makes of its callbacks and reports."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import times
from receiver.providers.simulating.world import Post, Weather
from receiver.providers.smscx.simulator.world import MOST_ITEMS, World
from receiver.providers.smscx.webhook import parse
from tests.providers.smscx.simulator.mirror import BEGAN, RETENTION, Mirror, play, rows

steady = settings(derandomize=True, deadline=None, max_examples=40)
HOOK = "http://127.0.0.1:9/webhooks/smscx/token"
BAD = Weather(
    failed=0.2,
    duplicates=0.3,
    reorder=0.4,
    drop=0.2,
    lost_answers=0.2,
    outage=(60 * times.SECOND, 240 * times.SECOND),
)


def world(weather: Weather | None = None, seed: int = 1) -> World:
    return World(began=BEGAN, seed=seed, weather=weather, callback_url=HOOK)


def test_a_fair_day() -> None:
    simulated, mirror = world(), Mirror()
    simulated.campaign(50, rate=10)
    play(simulated, mirror.callback)
    assert simulated.at_rest
    mirror.check(simulated)
    assert len(mirror.events) == 100  # each sent, each delivered
    assert mirror.duplicates == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_day_with_reports(seed: int) -> None:
    """500 SMS, repeats in other batches, disorder, lost answers, an outage: what was missed is
    what was dropped, and then the mirror is the truth."""
    simulated, mirror = world(BAD, seed), Mirror()
    simulated.campaign(500, rate=2)
    posts = play(simulated, mirror.callback)
    assert len(posts) > 200
    assert mirror.duplicates
    arrived = {
        (item["msgId"], item["status"])
        for post in posts
        if not post.lost
        for item in post.event.items
    }
    assert len(mirror.events) == len(arrived)  # every fact once, whatever batch it came in
    missed = {
        message.id
        for message in simulated.messages.values()
        if (message.id, message.status) not in arrived
    }
    assert missed
    later = simulated.now + times.HOUR
    learnt = mirror.reconcile(rows(simulated), later)
    assert {event.message_id.rpartition("\x1f")[2] for event in learnt} == missed
    mirror.check(simulated)
    assert mirror.reconcile(rows(simulated), later + times.DAY) == []


@steady
@given(st.data())
def test_any_order_in_any_batches_is_the_same_mirror(data: st.DataObject) -> None:
    simulated = world(Weather(failed=0.5))
    simulated.campaign(6, rate=10)
    posts = play(simulated, lambda post, now: "200")
    items = [item for post in posts for item in post.event.items]
    shuffled = data.draw(st.permutations(items + items[:3]))
    mirror, at = Mirror(), 0
    while at < len(shuffled):
        size = data.draw(st.integers(1, 9))
        body = json.dumps({"event": "dlr_update", "data": shuffled[at : at + size]}).encode()
        mirror.take(parse(body, received_at=simulated.now, retention=RETENTION))
        at += size
    assert len(mirror.events) == len(items)
    mirror.check(simulated)


def test_reports_alone() -> None:
    """Not one callback arrives."""
    simulated, mirror = world(Weather(failed=0.5, drop=1)), Mirror()
    simulated.campaign(40, rate=10)
    play(simulated, mirror.callback)
    assert not mirror.events
    learnt = mirror.reconcile(rows(simulated), simulated.now + times.HOUR)
    assert {event.type for event in learnt} == {"sms.delivered", "sms.failed"}
    mirror.check(simulated)


def test_callbacks_have_at_most_200_items() -> None:
    simulated, mirror = world(), Mirror()
    simulated.send([f"+3361{n:07}" for n in range(1_000)], "x", sender="Shop")
    posts = play(simulated, mirror.callback)
    sizes = [len(post.event.items) for post in posts]
    assert sum(sizes) == 2_000
    assert 50 < max(sizes) <= MOST_ITEMS
    mirror.check(simulated)


def test_the_same_seed_is_the_same_world() -> None:
    def truth(seed: int) -> str:
        simulated = world(BAD, seed)
        simulated.campaign(60, rate=5)
        play(simulated, lambda post, now: "200")
        return json.dumps(simulated.truth())

    assert truth(5) == truth(5) != truth(6)


def test_repeated_items_come_in_another_batch() -> None:
    simulated = world(Weather(duplicates=1))
    simulated.campaign(20, rate=10)
    posts = play(simulated, lambda post, now: "200")
    bodies = [post.event.body for post in posts]
    assert any(0 < len(post.event.fresh) < len(post.event.items) for post in posts)
    items = [json.dumps(item) for body in bodies for item in json.loads(body)["data"]]
    assert len(items) == 2 * len(set(items))


def test_what_is_final_at_once_and_what_is_scheduled() -> None:
    simulated = world()
    refused, uncovered, scheduled = simulated.send(
        ["+33600000000", "+9912345678", "+33612345678"],
        "x",
        sender="Shop",
        scheduled_at=BEGAN + times.HOUR,
    )
    assert (refused.status, uncovered.status) == ("REJECTED", "NO COVERAGE")
    assert scheduled.status == "SCHEDULED"
    (taken_back,) = simulated.send(
        ["+33612345679"], "x", sender="Shop", scheduled_at=BEGAN + times.HOUR
    )
    assert simulated.delete(taken_back)
    assert not simulated.delete(taken_back)
    posts: list[Post] = play(simulated, lambda post, now: "200")
    told = {item["msgId"] for post in posts for item in post.event.items}
    assert told == {scheduled.id}
    assert scheduled.status == "DELIVERED"
    assert not simulated.delete(scheduled)
