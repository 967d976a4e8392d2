"""The world's webhooks: their tries, and what the weather makes of them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from typing import Any

import pytest

from receiver.providers.zimsend.simulator.world import (
    Post,
    Weather,
    Webhook,
    World,
)
from receiver.times import MINUTE, SECOND
from tests.providers.zimsend.simulator.worlds import BEGAN, HOOK, NUMBER, SECRET, hooked, play


@pytest.mark.parametrize("outcome", ["500", "401", "302", "201", "no answer in time", "refused"])
@pytest.mark.parametrize("reorder", [0, 1])
def test_tries_come_at_0_1_and_5_minutes_then_it_is_dropped(outcome: str, reorder: int) -> None:
    world = hooked(weather=Weather(failed=1, reorder=reorder))
    world.send(NUMBER, "Bonjour")
    posts = play(world, lambda _: outcome, after=5 * SECOND)
    [event] = world.events
    first = event.tries[0].at
    assert [attempt.at - first for attempt in event.tries] == [0, MINUTE, 5 * MINUTE]
    assert [at for at, _ in posts] == [attempt.at for attempt in event.tries]
    assert (SECOND <= first - event.at <= 20 * SECOND) if reorder else first == event.at
    assert (event.state, event.arrived) == ("dropped", False)
    assert {attempt.outcome for attempt in event.tries} == {outcome}
    assert world.at_rest
    assert Counter(e["state"] for e in world.truth()["events"]) == {"dropped": 1}


@pytest.mark.parametrize("good", [1, 2, 3])
def test_after_a_200_there_is_no_other_try(good: int) -> None:
    world = hooked(weather=Weather(failed=1))
    world.send(NUMBER, "Bonjour")
    answers = iter(["500"] * (good - 1) + ["200"])
    play(world, lambda _: next(answers))
    [event] = world.events
    assert len(event.tries) == good
    assert (event.state, event.arrived) == ("received", True)


def weathered(**shares: Any) -> tuple[World, list[tuple[int, Post]]]:
    world = hooked(devices=10, weather=Weather(**shares))
    world.campaign(60, rate=20)
    return world, play(world)


def test_in_good_weather_everything_comes_once_at_once_and_in_order() -> None:
    world, posts = weathered()
    assert len(posts) == len(world.events) == 120
    assert [(at, post.event) for at, post in posts] == [(e.at, e) for e in world.events]
    assert {e.state for e in world.events} == {"received"}


def test_duplicates_are_the_same_to_the_byte() -> None:
    world, posts = weathered(duplicates=0.3)
    counts = Counter(post.event.id for _, post in posts)
    assert set(counts.values()) == {1, 2}
    assert 20 <= counts.total() - 120 <= 52
    assert {event.state for event in world.events} == {"received"}
    assert world.at_rest

    world = hooked(weather=Weather(failed=1, duplicates=1))
    world.send(NUMBER, "Bonjour")
    sent: list[tuple[bytes, dict[str, str]]] = []

    def answer(post: Post) -> str:
        sent.append((post.event.body, post.headers))
        return "200"

    play(world, answer)
    assert len(sent) == 2
    assert sent[0] == sent[1]


def test_a_world_is_not_at_rest_while_a_duplicate_waits() -> None:
    world = hooked(weather=Weather(failed=1, duplicates=1))
    world.send(NUMBER, "Bonjour")
    play(world, until=BEGAN + 3 * SECOND)
    assert not world.at_rest
    world.pass_time(BEGAN + MINUTE)
    assert not world.at_rest  # it is due, and nobody has taken it yet
    [duplicate] = world.advance(BEGAN + MINUTE)
    world.answered(duplicate, "500")
    assert duplicate.event.state == "received"
    assert world.at_rest


def test_reorder_lets_the_later_one_overtake() -> None:
    world, posts = weathered(reorder=0.5)
    late = [event.tries[0].at - event.at for event in world.events]
    assert 35 <= sum(delay > 0 for delay in late) <= 85
    assert all(delay == 0 or SECOND <= delay <= 20 * SECOND for delay in late)
    place = {(post.event.message_id, post.event.type): n for n, (_, post) in enumerate(posts)}
    assert any(place[m, "sms.sent"] > place[m, "sms.delivered"] for m in world.messages)


def test_what_is_dropped_never_arrives() -> None:
    world, posts = weathered(drop=0.5)
    assert {post.lost for _, post in posts} == {True, False}
    states = Counter(event.state for event in world.events)
    assert 3 <= states["dropped"] <= 30
    assert states.total() == states["dropped"] + states["received"] == 120
    for event in world.events:
        assert event.arrived == (event.state == "received")
        assert {t.outcome for t in event.tries[:-1]} <= {"lost on the way"}
        assert event.tries[-1].outcome == ("200" if event.arrived else "lost on the way")


def test_an_answer_that_is_lost_makes_another_try_of_what_has_arrived() -> None:
    world, posts = weathered(lost_answers=0.5)
    assert not any(post.lost for _, post in posts)
    assert all(event.arrived for event in world.events)
    states = Counter(event.state for event in world.events)
    assert 3 <= states["dropped"] <= 30
    outcomes = Counter(t.outcome for event in world.events for t in event.tries)
    assert set(outcomes) == {"200", "200, but the answer was lost"}
    assert outcomes["200"] == states["received"]


def test_a_refusal_whose_answer_is_lost_has_not_arrived() -> None:
    world = hooked(weather=Weather(failed=1, lost_answers=1))
    world.send(NUMBER, "Bonjour")
    play(world, lambda _: "503")
    assert not world.events[0].arrived


def test_in_an_outage_nothing_arrives() -> None:
    world, posts = weathered(outage=(5 * SECOND, 15 * SECOND))
    for at, post in posts:
        assert post.lost == (BEGAN + 5 * SECOND <= at < BEGAN + 15 * SECOND)
    assert any(post.lost for _, post in posts)
    assert {event.state for event in world.events} == {"received"}
    assert {len(event.tries) for event in world.events} == {1, 2}


@pytest.mark.parametrize(("begins", "ends", "lost"), [(0, 1, True), (-1, 0, False), (1, 2, False)])
def test_the_bounds_of_an_outage(begins: int, ends: int, lost: bool) -> None:
    world = hooked(weather=Weather(failed=1))
    world.send(NUMBER, "Bonjour")
    [(at, _)] = play(world)
    outage = (at - BEGAN + begins, at - BEGAN + ends)
    world = hooked(weather=Weather(failed=1, outage=outage))
    world.send(NUMBER, "Bonjour")
    assert [post.lost for _, post in play(world)] == ([True, False] if lost else [False])


def test_a_webhook_gets_its_own_events_signed_with_its_own_secret() -> None:
    world = hooked()
    other = Webhook("wh_2", "http://127.0.0.1:9/other", ("sms.delivered",), b"another secret")
    none = Webhook("wh_3", "http://127.0.0.1:9/none", ("device.connected",), b"a third secret")
    world.webhooks |= {"wh_2": other, "wh_3": none}
    world.send(NUMBER, "Bonjour")
    posts = [post for _, post in play(world)]
    assert [(post.event.url, post.event.type) for post in posts] == [
        (HOOK, "sms.sent"),
        (HOOK, "sms.delivered"),
        (other.url, "sms.delivered"),
    ]
    assert len({post.event.id for post in posts}) == 3
    for post, secret in zip(posts, (SECRET, SECRET, other.secret), strict=True):
        signature = hmac.new(secret, post.event.body, hashlib.sha256).hexdigest()
        assert post.headers == {
            "Content-Type": "application/json",
            "User-Agent": "ZimSend-Webhook/1.0",
            "X-Webhook-Signature": signature,
        }


def test_a_messages_own_url_takes_precedence() -> None:
    world = hooked()
    world.send(NUMBER, "Bonjour", webhook_url="http://127.0.0.1:9/mine")
    posts = [post for _, post in play(world)]
    assert [p.event.url for p in posts] == ["http://127.0.0.1:9/mine"] * 2
    for post in posts:
        expected = hmac.new(world.secret, post.event.body, hashlib.sha256).hexdigest()
        assert post.headers["X-Webhook-Signature"] == expected


@pytest.mark.parametrize("metadata", [None, {}, {"order": "CMD-1"}])
def test_bodies_are_as_documented(metadata: Any) -> None:
    text = "Bonjour 👋 \ud83d مرحبا"  # half an emoji, as phones and JavaScript cut them
    bodies = []
    for failed in (0, 1):
        world = hooked(weather=Weather(failed=failed))
        world.send(NUMBER, text, metadata=metadata)
        bodies += [post.event.body for _, post in play(world)]
    assert all("👋".encode() in body and b"\\ud83d" in body for body in bodies)
    extra = set() if metadata is None else {"metadata"}
    shared = {"message_id", "status", "to", "message", "device_id"} | extra
    own = [{"sent_at"}, {"sent_at", "delivered_at"}, {"failed_at", "error"}]
    for body, names, state in zip(bodies, own, ("sent", "delivered", "failed"), strict=True):
        envelope = json.loads(body)
        assert set(envelope) == {"event", "event_id", "timestamp", "data"}
        assert envelope["event"] == f"sms.{state}"
        data = envelope["data"]
        assert set(data) == shared | names
        assert (data["status"], data["to"], data["message"]) == (state, NUMBER, text)
        assert data.get("metadata") == metadata
        assert envelope["timestamp"] == data[f"{state}_at"]
    assert set(json.loads(bodies[2])["data"]["error"]) == {"code", "message"}
