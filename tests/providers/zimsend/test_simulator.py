"""The simulated ZimSend: its world, its API, and a real receiver beside it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskCliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver import times
from receiver.providers.zimsend.samples import SAMPLES
from receiver.providers.zimsend.simulator import api as simulator
from receiver.providers.zimsend.simulator.api import Simulator, create_api
from receiver.providers.zimsend.simulator.world import (
    REPORTS,
    Message,
    Post,
    Weather,
    Webhook,
    World,
)
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from tests.handlers import seen
from tests.server import ROOT, Server, eventually, free_port, simulating

BEGAN = 20_000 * DAY + 9 * HOUR
NUMBER = "+33612345678"
HOOK = "http://127.0.0.1:9/hook"
SECRET = b"whsec_of_the_first_webhook"
DOCUMENTED_FAILURES = {
    "NETWORK_ERROR",
    "INVALID_NUMBER",
    "INVALID_PHONE_NUMBER",
    "NO_CREDIT",
    "BLOCKED_NUMBER",
    "DEVICE_ERROR",
    "TIMEOUT",
    "SMS_SEND_TIMEOUT",
}
BAD = Weather(failed=0.2, duplicates=0.3, reorder=0.4, drop=0.3, lost_answers=0.2)


def hooked(**settings: Any) -> World:
    """A world with one webhook that gets all reports."""
    world = World(began=BEGAN, **settings)
    world.secret = b"whsec_for_urls_of_messages"
    world.webhooks["wh_1"] = Webhook("wh_1", HOOK, REPORTS, SECRET)
    return world


def play(
    world: World,
    answer: Callable[[Post], str] = lambda post: "200",
    *,
    until: int | None = None,
    after: int = 0,
) -> list[tuple[int, Post]]:
    """Live through everything, moment by moment; each request is answered by `answer`.

    :param after: how long an answer takes; microseconds.
    :returns: each request, and when it was sent.
    """
    posts = []
    while (at := world.next_at) is not None and (until is None or at <= until):
        for post in world.advance(at):
            posts.append((at, post))
            world.pass_time(at + after)
            world.answered(post, answer(post))
    if until is not None:
        assert not world.advance(until)
    return posts


def truth(world: World) -> bytes:
    return json.dumps(world.truth()).encode()


def only(world: World) -> Message:
    [message] = world.messages.values()
    return message


# --- the world: one seed, one world


def bad_world(seed: int) -> World:
    world = hooked(seed=seed, devices=2, weather=BAD)
    world.campaign(30, rate=4)
    world.send(NUMBER, "Bonjour 👋", metadata={"n": 1}, webhook_url="http://127.0.0.1:9/mine")
    return world


def test_the_same_seed_gives_the_same_world() -> None:
    worlds = [bad_world(7), bad_world(7), bad_world(8)]
    sent = [[(at, post.event.body, post.headers) for at, post in play(w)] for w in worlds]
    assert truth(worlds[0]) == truth(worlds[1])
    assert sent[0] == sent[1]
    assert worlds[0].at_rest
    told = worlds[0].truth(), worlds[2].truth()
    assert [m["to"] for m in told[0]["messages"]] != [m["to"] for m in told[1]["messages"]]
    assert [e["at"] for e in told[0]["events"]] != [e["at"] for e in told[1]["events"]]


def test_a_world_does_not_depend_on_who_looks_when() -> None:
    exact, coarse = bad_world(7), bad_world(7)
    play(exact)
    now = BEGAN
    while not coarse.at_rest:
        now += 7 * SECOND
        for post in reversed(coarse.advance(now)):
            coarse.answered(post, "200")
    assert exact.truth()["messages"] == coarse.truth()["messages"]
    assert facts(exact) == facts(coarse)


def facts(world: World) -> list[dict[str, Any]]:
    """What happened, without when it was tried."""
    events = world.truth()["events"]
    return [{name: event[name] for name in event if name != "tries"} for event in events]


# --- the world: phones and messages


def test_a_phone_sends_one_sms_after_the_other_and_phones_work_side_by_side() -> None:
    world = hooked(devices=3, weather=Weather(failed=0.2))
    world.campaign(30, rate=100)
    play(world)
    for device in world.devices:
        ends = sorted(
            m.sent_at or m.failed_at or 0 for m in world.messages.values() if m.device_id == device
        )
        assert 8 <= len(ends) <= 12
        gaps = [end - start for start, end in zip([BEGAN, *ends], ends, strict=False)]
        # The first SMS of a phone is queued a little after the beginning.
        assert all(2 * SECOND <= gap <= 3 * SECOND + SECOND // 10 for gap in gaps)
    assert max(m.sent_at or 0 for m in world.messages.values()) < BEGAN + 12 * 3 * SECOND


def walk(world: World, message: Message) -> list[str]:
    states: list[str] = [message.status]
    while (at := world.next_at) is not None:
        for post in world.advance(at):
            world.answered(post, "200")
        if message.status != states[-1]:
            states.append(message.status)
    return states


def test_the_states_of_a_message() -> None:
    world = hooked()
    message = world.send(NUMBER, "Bonjour")
    assert walk(world, message) == ["queued", "processing", "sent", "delivered"]
    assert message.sent_at is not None
    assert message.delivered_at is not None
    assert 2 * SECOND <= message.sent_at - BEGAN <= 3 * SECOND
    assert message.sent_at < message.delivered_at
    assert message.failed_at is None
    assert message.error is None
    assert [event.type for event in world.events] == ["sms.sent", "sms.delivered"]
    assert [event.at for event in world.events] == [message.sent_at, message.delivered_at]


def test_a_message_that_fails() -> None:
    world = hooked(weather=Weather(failed=1), devices=9)
    messages = [world.send(NUMBER, "Bonjour") for _ in range(40)]
    assert walk(world, messages[-1]) == ["queued", "processing", "failed"]
    codes = Counter(message.error["code"] for message in messages if message.error)
    assert codes.total() == 40
    assert len(codes) >= 3
    assert set(codes) <= DOCUMENTED_FAILURES
    assert all(m.sent_at is None and m.failed_at is not None for m in messages)
    assert {event.type for event in world.events} == {"sms.failed"}


def test_only_what_is_queued_can_be_cancelled() -> None:
    world = hooked()
    first, second = world.send(NUMBER, "one"), world.send(NUMBER, "two")
    world.advance(BEGAN)
    assert (first.status, second.status) == ("processing", "queued")
    assert not world.cancel(first)
    assert world.cancel(second)
    assert not world.cancel(second)
    assert second.cancelled_at == BEGAN
    play(world)
    assert (first.status, second.status) == ("delivered", "cancelled")
    assert not world.cancel(first)
    assert {event.message_id for event in world.events} == {first.id}
    assert world.at_rest


@pytest.mark.parametrize("state", ["processing", "sent", "delivered", "failed"])
def test_later_it_cannot_be_cancelled(state: str) -> None:
    world = hooked(weather=Weather(failed=state == "failed"))
    message = world.send(NUMBER, "Bonjour")
    while message.status != state:
        assert world.next_at is not None
        world.advance(world.next_at)
    assert not world.cancel(message)
    assert message.status == state


def test_only_what_has_failed_can_be_sent_again() -> None:
    world = hooked(weather=Weather(failed=1))
    message, other = world.send(NUMBER, "Bonjour"), world.send(NUMBER, "cancelled")
    assert not world.resend(message)
    world.cancel(other)
    assert not world.resend(other)
    play(world)
    failed_at = message.failed_at

    world.weather = Weather()
    world.pass_time(world.now + HOUR)
    assert world.resend(message)
    assert not world.resend(message)
    assert (message.status, message.failed_at, message.error) == ("queued", None, None)
    assert not world.at_rest
    assert walk(world, message) == ["queued", "processing", "sent", "delivered"]
    assert not world.resend(message)
    assert world.at_rest
    assert [event.type for event in world.events] == ["sms.failed", "sms.sent", "sms.delivered"]
    assert failed_at is not None
    assert message.sent_at is not None
    assert message.sent_at > failed_at + HOUR


def test_what_was_planned_before_a_resend_no_longer_holds() -> None:
    world = hooked()
    message = world.send(NUMBER, "Bonjour")
    # As if it had failed at once: the plans for the first time are still there.
    message.status, message.failed_at = "failed", BEGAN
    assert world.resend(message)
    play(world)
    assert [event.type for event in world.events] == ["sms.sent", "sms.delivered"]
    assert message.sent_at is not None
    # Its phone was taken by the first time.
    assert 4 * SECOND <= message.sent_at - BEGAN <= 6 * SECOND


def test_a_scheduled_message_waits_and_nobody_behind_it() -> None:
    world = hooked()
    later = world.send(NUMBER, "later", scheduled_at=BEGAN + 30 * DAY)
    soon = world.send(NUMBER, "soon")
    assert later.starts_at == BEGAN + 30 * DAY
    play(world, until=BEGAN + DAY)
    assert (later.status, soon.status) == ("queued", "delivered")
    assert soon.sent_at is not None
    assert soon.sent_at <= BEGAN + 3 * SECOND
    assert not world.at_rest
    play(world)
    assert later.status == "delivered"
    assert later.sent_at is not None
    assert 2 * SECOND <= later.sent_at - (BEGAN + 30 * DAY) <= 3 * SECOND


def test_a_world_is_at_rest_when_all_that_is_planned_was_cancelled() -> None:
    world = hooked()
    later = world.send(NUMBER, "later", scheduled_at=BEGAN + 30 * DAY)
    assert not world.at_rest
    assert world.cancel(later)
    assert world.at_rest
    play(world)
    assert later.status == "cancelled"


def test_without_a_device_the_phone_that_is_free_first_sends() -> None:
    world = hooked(devices=2)
    devices = [world.send(NUMBER, "x", device_id="dev_1").device_id for _ in range(3)]
    assert devices == ["dev_1"] * 3
    assert [world.send(NUMBER, "x").device_id for _ in range(2)] == ["dev_2"] * 2


# --- the world: webhooks and weather


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


# --- the API, without a network


class Still(Simulator):
    """Its clock stands still until a test moves it, and its requests are answered by the test."""

    def __init__(self, world: World) -> None:
        super().__init__(world, credentials=("zs_test_1", "client_1"))
        self.time = world.began
        self.answer = "200"
        self.sent: list[Post] = []

    def now(self) -> int:
        return self.time

    def send(self, post: Post) -> str:
        self.sent.append(post)
        return self.answer


class Api:
    """Calls the API with the right headers."""

    def __init__(self, world: World) -> None:
        self.simulated = Still(world)
        self.world = world
        app = create_api(self.simulated)
        app.config["PROPAGATE_EXCEPTIONS"] = True  # a 500 is a traceback, not an answer
        self.client = app.test_client()
        self.headers = {"X-API-Key": "zs_test_1", "X-Client-ID": "client_1"}

    def __call__(
        self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str
    ) -> Any:
        """What a call answers; its status must be the one that is expected."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body)
        answer = self.client.open(
            f"/v1{path}",
            method=method,
            data=raw,
            content_type=None if raw is None else "application/json",
            headers={**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}},
        )
        assert answer.status_code == status, answer.text
        return json.loads(answer.data) if answer.data else None

    def refused(
        self, method: str, path: str, body: Any = None, *, status: int = 400, **headers: str
    ) -> str:
        """The code of an error in ZimSend's shape."""
        answer = self(method, path, body, status=status, **headers)
        assert shape(answer) == {"success": bool, "error": {"code": str, "message": str}}
        assert answer["success"] is False
        code: str = answer["error"]["code"]
        return code

    def send(self, **fields: Any) -> str:
        answer = self("POST", "/sms/send", {"to": NUMBER, "message": "Bonjour", **fields})
        message_id: str = answer["message_id"]
        return message_id

    def wait(self, time_us: int) -> None:
        self.simulated.time += time_us
        for post in self.world.advance(self.simulated.time):
            self.world.answered(post, "200")


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api(hooked(devices=2))
    yield api
    api.simulated.stop()


def shape(value: Any) -> Any:
    """Names and types, without the values."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value)


def is_time(text: str) -> bool:
    return times.parse(text) is not None and text.endswith("Z")


def test_send(api: Api) -> None:
    answer = api("POST", "/sms/send", {"to": NUMBER, "message": "Bonjour"})
    assert shape(answer) == {
        "success": bool,
        "message_id": str,
        "status": str,
        "to": str,
        "queued_at": str,
        "estimated_delivery": str,
    }
    assert (answer["success"], answer["status"], answer["to"]) == (True, "queued", NUMBER)
    assert is_time(answer["queued_at"])
    assert is_time(answer["estimated_delivery"])
    assert only(api.world).id == answer["message_id"]


def test_send_with_everything(api: Api) -> None:
    at = iso(BEGAN + HOUR)
    api.send(
        priority=1,
        webhook_url="https://example.org/hook",
        metadata={"order": 1},
        scheduled_at=at,
        retry_attempts=5,
    )
    message = only(api.world)
    assert (message.priority, message.metadata) == (1, {"order": 1})
    assert (message.webhook_url, message.starts_at) == ("https://example.org/hook", BEGAN + HOUR)


@pytest.mark.parametrize("priority", [1, 2, 3, 4, 5, "low", "normal", "high"])
def test_each_documented_priority(api: Api, priority: Any) -> None:
    api.send(priority=priority)
    assert only(api.world).priority == priority


def test_with_a_device_and_with_any(api: Api) -> None:
    body = {"to": NUMBER, "message": "Bonjour"}
    for _ in range(2):
        api("POST", "/sms/send", body, X_Device_ID="dev_1")
    for _ in range(2):
        api("POST", "/sms/send", body)
    assert [m.device_id for m in api.world.messages.values()] == ["dev_1"] * 2 + ["dev_2"] * 2
    assert api.refused("POST", "/sms/send", body, status=404, X_Device_ID="dev_3") == (
        "INVALID_DEVICE_ID"
    )


BULK = {
    "success": bool,
    "batch_id": str,
    "total_recipients": int,
    "messages": [{"message_id": str, "to": str, "status": str}],
    "queued_at": str,
}


def test_send_bulk(api: Api) -> None:
    recipients = [f"+3361234{n:04}" for n in range(100)]
    answer = api("POST", "/sms/send-bulk", {"recipients": recipients, "message": "Bonjour"})
    assert shape(answer) == BULK
    assert answer["total_recipients"] == 100
    assert [m["to"] for m in answer["messages"]] == recipients
    assert [m["message_id"] for m in answer["messages"]] == list(api.world.messages)
    again = api("POST", "/sms/send-bulk", {"recipients": [NUMBER], "message": "Bonjour"})
    assert again["batch_id"] != answer["batch_id"]


def test_send_bulk_personalized(api: Api) -> None:
    messages = [
        {"to": NUMBER, "message": "un", "metadata": {"n": 1}},
        {"to": "+33600000002", "message": "deux"},
    ]
    answer = api("POST", "/sms/send-bulk-personalized", {"messages": messages, "priority": 1})
    assert shape(answer) == BULK
    told = [(m.to, m.text, m.metadata, m.priority) for m in api.world.messages.values()]
    assert told == [(NUMBER, "un", {"n": 1}, 1), ("+33600000002", "deux", None, 1)]


@pytest.mark.parametrize(
    "bad",
    [
        {"to": "x", "message": "trois"},
        {"to": NUMBER, "message": 3},
        {"to": NUMBER, "message": "trois", "priority": 9},
        {"to": NUMBER, "message": "trois", "webhook_url": "x"},
        {"to": NUMBER, "message": "trois", "scheduled_at": "x"},
        {"to": NUMBER, "message": "trois", "metadata": 3},
        "trois",
        None,
    ],
)
def test_of_a_bad_batch_nothing_is_queued(api: Api, bad: Any) -> None:
    messages = [{"to": NUMBER, "message": "un"}, bad]
    api.refused("POST", "/sms/send-bulk-personalized", {"messages": messages})
    assert not api.world.messages


def test_too_many_recipients(api: Api) -> None:
    body = {"recipients": [NUMBER] * 101, "message": "Bonjour"}
    assert api.refused("POST", "/sms/send-bulk", body) == "TOO_MANY_RECIPIENTS"
    messages = {"messages": [{"to": NUMBER, "message": "x"}] * 101}
    assert api.refused("POST", "/sms/send-bulk-personalized", messages) == "TOO_MANY_RECIPIENTS"
    assert not api.world.messages


def test_status(api: Api) -> None:
    message_id = api.send(metadata={"order": 1})
    api.wait(HOUR)
    answer = api("GET", f"/sms/status/{message_id}")
    names = ("message_id", "status", "to", "message", "created_at", "queued_at")
    assert shape(answer) == {
        "success": bool,
        "priority": int,
        "sent_at": str,
        "delivered_at": str,
        "metadata": {"order": int},
        **dict.fromkeys(names, str),
    }
    message = only(api.world)
    assert answer["status"] == "delivered"
    assert message.sent_at is not None
    assert answer["sent_at"] == iso(message.sent_at)
    assert api.refused("GET", "/sms/status/msg_x", status=404) == "MESSAGE_NOT_FOUND"


def test_history(api: Api) -> None:
    ids = []
    for n in range(5):
        ids.append(api.send(message=f"Été {n}", to=f"+3361234000{n}"))
        api.wait(DAY)
    api.send(message="pending", scheduled_at=iso(BEGAN + 20 * DAY))
    answer = api("GET", "/sms/history?limit=2&page=3")
    assert shape(answer) == {
        "success": bool,
        "data": [
            {
                "message_id": str,
                "status": str,
                "to": str,
                "message": str,
                "sent_at": str,
                "delivered_at": str,
            }
        ],
        "pagination": {
            "current_page": int,
            "per_page": int,
            "total_pages": int,
            "total_items": int,
        },
    }
    assert answer["pagination"] == {
        "current_page": 3,
        "per_page": 2,
        "total_pages": 3,
        "total_items": 6,
    }
    assert [row["message_id"] for row in answer["data"]] == [ids[1], ids[0]]  # newest first

    def found(query: str) -> set[str]:
        return {row["message"] for row in api("GET", f"/sms/history?{query}")["data"]}

    assert found("status=queued") == {"pending"}
    assert found("to=%2B33612340003") == {"Été 3"}
    assert found("search=ÉTÉ 2") == {"Été 2"}
    assert found("device_id=dev_9") == set()
    second = iso(BEGAN + DAY)[:10]
    assert found(f"from_date={second}&to_date={second}") == {"Été 1"}
    assert found(f"to_date={iso(BEGAN + DAY)}") == {"Été 0"}
    assert found("from_date=&to_date=&status=&page=&limit=&search=&to=&device_id=") == {
        "pending",
        *(f"Été {n}" for n in range(5)),
    }
    assert found("limit=1000&page=999999999999999") == set()
    assert api("GET", "/sms/history?limit=1000")["pagination"]["per_page"] == 100


def test_statistics(api: Api) -> None:
    api.send()
    api.wait(MINUTE)
    api.world.weather = Weather(failed=1)
    api.send()
    api.wait(MINUTE)
    api.send(scheduled_at=iso(BEGAN + DAY))
    answer = api("GET", "/sms/stats?from_date=2020-01-01")
    assert shape(answer) == {
        "success": bool,
        "period": {"from": str, "to": type(None)},
        "stats": {
            "total_sent": int,
            "delivered": int,
            "failed": int,
            "pending": int,
            "delivery_rate": float,
            "by_day": [{"date": str, "sent": int, "delivered": int, "failed": int}],
        },
    }
    assert answer["stats"] == {
        "total_sent": 2,
        "delivered": 1,
        "failed": 1,
        "pending": 1,
        "delivery_rate": 50.0,
        "by_day": [{"date": iso(BEGAN)[:10], "sent": 2, "delivered": 1, "failed": 1}],
    }
    empty = api("GET", f"/sms/stats?to_date={iso(BEGAN - DAY)}")["stats"]
    assert (empty["total_sent"], empty["pending"], empty["by_day"]) == (0, 0, [])


def test_cancel(api: Api) -> None:
    ids = [api.send() for _ in range(3)]
    answer = api("DELETE", f"/sms/{ids[2]}")
    assert shape(answer) == dict(zip(answer, (bool, str, str, str), strict=True))
    assert set(answer) == {"success", "message", "message_id", "status"}
    assert (answer["message_id"], answer["status"]) == (ids[2], "cancelled")
    assert api.refused("DELETE", f"/sms/{ids[2]}") == "CANNOT_CANCEL_MESSAGE"
    assert api.refused("DELETE", f"/sms/{ids[0]}") == "CANNOT_CANCEL_MESSAGE"  # processing
    assert api.refused("DELETE", "/sms/msg_x", status=404) == "MESSAGE_NOT_FOUND"


def test_resend(api: Api) -> None:
    api.world.weather = Weather(failed=1)
    message_id = api.send()
    assert api.refused("POST", f"/sms/{message_id}/resend") == "CANNOT_RESEND_MESSAGE"
    api.wait(MINUTE)
    answer = api("POST", f"/sms/{message_id}/resend", status=202)
    assert answer == {"success": True, "message_id": message_id, "status": "queued"}
    assert api.refused("POST", "/sms/msg_x/resend", status=404) == "MESSAGE_NOT_FOUND"


# --- one-time codes


def test_a_one_time_code(api: Api) -> None:
    asked = {"to": NUMBER, "length": 8, "expiry": 60, "template": "{{code}} est votre code"}
    answer = api("POST", "/sms/send-otp", asked)
    names = ("otp_id", "to", "expires_at", "message_id", "status")
    assert shape(answer) == {"success": bool, **dict.fromkeys(names, str)}
    assert answer["expires_at"] == iso(BEGAN + MINUTE)
    found = re.fullmatch(r"(\d{8}) est votre code", only(api.world).text)
    assert found
    verified = api("POST", "/sms/verify-otp", {"otp_id": answer["otp_id"], "code": found[1]})
    assert shape(verified) == {
        "success": bool,
        "valid": bool,
        "message": str,
        "attempts_remaining": int,
    }
    assert verified["valid"] is True
    api("POST", "/sms/send-otp", {"to": NUMBER})
    assert re.search(r"\b\d{6}\b", list(api.world.messages.values())[1].text)


def test_three_tries_at_a_code(api: Api) -> None:
    otp_id = api("POST", "/sms/send-otp", {"to": NUMBER})["otp_id"]
    wrong = {"otp_id": otp_id, "code": "x"}
    answers = [api("POST", "/sms/verify-otp", wrong) for _ in range(3)]
    assert [(a["valid"], a["attempts_remaining"]) for a in answers] == [
        (False, 2),
        (False, 1),
        (False, 0),
    ]
    assert api.refused("POST", "/sms/verify-otp", wrong, status=429) == "OTP_MAX_ATTEMPTS"


def test_codes_expire_and_are_limited(api: Api) -> None:
    asked = {"to": NUMBER, "expiry": 60}
    otp_id = api("POST", "/sms/send-otp", asked)["otp_id"]
    check = {"otp_id": otp_id, "code": "x"}
    api.wait(MINUTE)
    api("POST", "/sms/verify-otp", check)
    api.wait(1)
    assert api.refused("POST", "/sms/verify-otp", check) == "OTP_EXPIRED"
    unknown = {"otp_id": "otp_x", "code": "x"}
    assert api.refused("POST", "/sms/verify-otp", unknown, status=404) == "OTP_NOT_FOUND"

    for _ in range(9):
        api("POST", "/sms/send-otp", {"to": "+33 6 12 34 56 78"})
    assert api.refused("POST", "/sms/send-otp", asked, status=429) == "OTP_RATE_LIMIT"
    assert len(api.world.messages) == 10
    api("POST", "/sms/send-otp", {"to": "+33600000001"})
    api.wait(HOUR)
    api("POST", "/sms/send-otp", asked)


# --- webhooks by the API


WEBHOOK = {"webhook_id": str, "url": str, "events": [str], "status": str}


def test_webhooks_are_configured_listed_and_deleted(api: Api) -> None:
    asked = {"url": "https://example.org/hook", "events": ["sms.failed"], "secret": "my secret"}
    mine = api("POST", "/webhooks/configure", asked)
    assert shape(mine) == {**WEBHOOK, "secret": str}
    assert mine["secret"] == "my secret"
    made = api("POST", "/webhooks/configure", {"url": "https://example.org/other"})
    assert re.fullmatch(r"whsec_[0-9a-f]{32}", made["secret"])
    assert made["events"] == list(REPORTS)

    listed = api("GET", "/webhooks")["webhooks"]
    assert shape(listed) == [WEBHOOK]  # and no secret
    assert [w["webhook_id"] for w in listed] == ["wh_1", mine["webhook_id"], made["webhook_id"]]
    assert api("DELETE", f"/webhooks/{mine['webhook_id']}", status=204) is None
    gone = api.refused("DELETE", f"/webhooks/{mine['webhook_id']}", status=404)
    assert gone == "WEBHOOK_NOT_FOUND"
    another = api("POST", "/webhooks/configure", asked)
    assert another["webhook_id"] not in {w["webhook_id"] for w in listed}
    assert len(api("GET", "/webhooks")["webhooks"]) == 3


def test_a_test_event(api: Api) -> None:
    asked = {"url": "https://example.org/hook", "events": ["sms.failed"], "secret": "my secret"}
    webhook_id = api("POST", "/webhooks/configure", asked)["webhook_id"]
    before = api.world.truth()
    answer = api("POST", f"/webhooks/{webhook_id}/test")
    assert answer == {"message": "Test event sent", "response_status": 200}
    api.simulated.answer = "no answer in time"
    assert api("POST", f"/webhooks/{webhook_id}/test")["response_status"] is None
    first, second = api.simulated.sent
    body = json.loads(first.event.body)
    assert (first.event.url, body["event"]) == (asked["url"], "sms.failed")
    assert body["event_id"].startswith("evt_test")
    assert body["data"]["message_id"].startswith("msg_test")
    assert body["event_id"] != json.loads(second.event.body)["event_id"]
    expected = hmac.new(b"my secret", first.event.body, hashlib.sha256).hexdigest()
    assert first.headers["X-Webhook-Signature"] == expected
    assert api.world.truth() == before
    assert api.world.at_rest  # a test that fails is not tried again
    assert api.refused("POST", "/webhooks/wh_9/test", status=404) == "WEBHOOK_NOT_FOUND"


@pytest.mark.parametrize("event_type", SAMPLES)
def test_a_test_event_of_each_type(api: Api, event_type: str) -> None:
    asked = {"url": "https://example.org/hook", "events": [event_type]}
    webhook_id = api("POST", "/webhooks/configure", asked)["webhook_id"]
    api("POST", f"/webhooks/{webhook_id}/test")
    assert json.loads(api.simulated.sent[0].event.body)["event"] == event_type


def test_the_log_of_the_webhooks(api: Api) -> None:
    api.world.weather = Weather(failed=1, drop=1)
    api.send()
    api.wait(3 * SECOND)
    api.world.weather = Weather(failed=1, lost_answers=1)
    api.wait(MINUTE)
    api.world.weather = Weather(failed=1)
    api.wait(4 * MINUTE)
    api.send(webhook_url="https://example.org/mine")
    api.wait(MINUTE)
    api("POST", "/webhooks/wh_1/test")
    logs = api("GET", "/webhooks/logs")["logs"]
    assert [shape(line) for line in logs[:1]] == [
        {
            "log_id": str,
            "webhook_id": str,
            "event": str,
            "url": str,
            "response_status": int,
            "response_time_ms": int,
            "success": bool,
            "attempt": int,
            "timestamp": str,
        }
    ]
    told = ("webhook_id", "event", "url", "response_status", "success", "attempt")
    assert [tuple(line[name] for name in told) for line in logs] == [
        ("wh_1", "sms.sent", HOOK, 200, True, 1),
        (None, "sms.failed", "https://example.org/mine", 200, True, 1),
        ("wh_1", "sms.failed", HOOK, 200, True, 3),
        ("wh_1", "sms.failed", HOOK, None, False, 2),
        ("wh_1", "sms.failed", HOOK, None, False, 1),
    ]
    assert len({line["log_id"] for line in logs}) == 5
    tries = api.world.events[0].tries
    assert [line["timestamp"] for line in logs[:1:-1]] == [iso(attempt.at) for attempt in tries]
    assert api("GET", "/webhooks/logs?limit=2&page=2")["logs"] == logs[2:4]
    assert api("GET", "/webhooks/logs?page=9")["logs"] == []
    assert api.refused("GET", "/webhooks/logs?page=abc") == "INVALID_PARAMETER"


# --- errors


def test_who_is_let_in(api: Api) -> None:
    body = {"to": NUMBER, "message": "Bonjour"}
    headers = api.headers
    for some, code, status in (
        ({}, "MISSING_AUTH_HEADERS", 400),
        ({"X-API-Key": "zs_test_1"}, "MISSING_AUTH_HEADERS", 400),
        ({"X-Client-ID": "client_1"}, "MISSING_AUTH_HEADERS", 400),
        ({**headers, "X-API-Key": "zs_test_2"}, "INVALID_API_KEY", 401),
        ({**headers, "X-Client-ID": "client_2"}, "INVALID_CLIENT_ID", 401),
        ({**headers, "X-Client-ID": "é"}, "INVALID_CLIENT_ID", 401),
    ):
        api.headers = some
        assert api.refused("POST", "/sms/send", body, status=status) == code
    assert not api.world.messages
    assert api.simulated.requests == 0


def test_a_hundred_requests_in_a_simulated_minute(api: Api) -> None:
    for _ in range(100):
        api("GET", "/webhooks")
    assert api.refused("GET", "/webhooks", status=429) == "RATE_LIMIT_EXCEEDED"
    api.wait(MINUTE - 1)
    assert api.refused("GET", "/webhooks", status=429) == "RATE_LIMIT_EXCEEDED"
    api.wait(1)
    for _ in range(100):
        api("GET", "/webhooks")
    assert api.refused("POST", "/sms/send", {}, status=429) == "RATE_LIMIT_EXCEEDED"
    told = json.loads(api.client.get("/truth").data)
    assert told["api"] == {"requests": 203, "limited": 3}
    assert told["simulator"] == "not ZimSend"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"message": "x" * 1601}, "MESSAGE_TOO_LONG"),
        ({"to": "123"}, "INVALID_PHONE_NUMBER"),
        ({"to": ""}, "INVALID_PHONE_NUMBER"),
        ({"to": "+33612345678\n"}, "INVALID_PHONE_NUMBER"),
        ({"to": "+３３６１２３４５６７８"}, "INVALID_PHONE_NUMBER"),
        ({"priority": 0}, "INVALID_PRIORITY"),
        ({"priority": 6}, "INVALID_PRIORITY"),
        ({"priority": "urgent"}, "INVALID_PRIORITY"),
        ({"scheduled_at": iso(BEGAN - 1)}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": iso(BEGAN + 30 * DAY + 1)}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": "tomorrow"}, "INVALID_SCHEDULED_DATE"),
        ({"webhook_url": "example.org"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "ftp://example.org/"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http://example.org/\n"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http://"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http:///path"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http://example.org:99999/"}, "INVALID_WEBHOOK_URL"),
        ({"webhook_url": "http://\ud800.org/"}, "INVALID_WEBHOOK_URL"),
        ({"metadata": {"text": "x" * 1024}}, "INVALID_PARAMETER"),
        ({"retry_attempts": 6}, "INVALID_PARAMETER"),
    ],
)
def test_what_a_send_is_refused_for(api: Api, fields: dict[str, Any], code: str) -> None:
    body = {"to": NUMBER, "message": "Bonjour", **fields}
    assert api.refused("POST", "/sms/send", body) == code
    assert not api.world.messages


def test_the_largest_that_is_taken(api: Api) -> None:
    metadata = {"text": "é" * 506}  # 1 KB
    api.send(message="é" * 1600, scheduled_at=iso(BEGAN + 30 * DAY), metadata=metadata)
    assert only(api.world).text == "é" * 1600


#: JSON that no field takes, unless it is left out below.
ODD = [
    "null",
    "true",
    "0",
    "-1",
    "1.5",
    "1e400",
    "9" * 5000,
    '""',
    '"\\ud800"',
    "[]",
    "[[1]]",
    "{}",
]
TEXT_MAY = {'"\\ud800"'}
CALLS: dict[str, tuple[dict[str, Any], dict[str, set[str]]]] = {
    # A right body; and of each field the odd values that it may have all the same.
    "/sms/send": (
        {"to": NUMBER, "message": "x"},
        {
            "to": set(),
            "message": TEXT_MAY,
            "priority": set(),
            "webhook_url": {"null"},
            "metadata": {"null", "{}"},
            "scheduled_at": {"null"},
            "retry_attempts": {"null"},
        },
    ),
    "/sms/send-bulk": (
        {"recipients": [NUMBER], "message": "x"},
        {"recipients": set(), "message": TEXT_MAY, "priority": set(), "metadata": {"null", "{}"}},
    ),
    "/sms/send-bulk-personalized": (
        {"messages": [{"to": NUMBER, "message": "x"}]},
        {"messages": set(), "priority": set()},
    ),
    "/sms/send-otp": (
        {"to": NUMBER},
        {
            "to": set(),
            "length": {"null"},
            "expiry": {"null"},
            "template": {"null"},
            "metadata": {"null", "{}"},
        },
    ),
    "/sms/verify-otp": ({"otp_id": "otp_0_1", "code": "1"}, {"otp_id": set(), "code": set()}),
    "/webhooks/configure": (
        {"url": HOOK},
        {"url": set(), "events": {"null"}, "secret": {"null"}},
    ),
}
FIELDS = [(path, name) for path, (_, fields) in CALLS.items() for name in fields]


@pytest.mark.parametrize(("path", "name"), FIELDS)
def test_odd_values_in_a_field(api: Api, path: str, name: str) -> None:
    api("POST", "/sms/send-otp", {"to": NUMBER})
    right, fields = CALLS[path]
    before = len(api.world.messages), len(api.world.webhooks)
    for odd in (*ODD, "NaN", "-Infinity"):
        raw = json.dumps({**right, name: "ODD"}).replace('"ODD"', odd).encode()
        if odd in fields[name]:
            api("POST", path, raw)
        else:
            api.refused("POST", path, raw)
            assert (len(api.world.messages), len(api.world.webhooks)) == before
        before = len(api.world.messages), len(api.world.webhooks)
    api.wait(HOUR)
    assert api.client.get("/truth").status_code == 200


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"to": NaN}', b"1"]
)
def test_a_body_that_is_no_object(api: Api, path: str, raw: bytes) -> None:
    assert api.refused("POST", path, raw) == "INVALID_REQUEST"


def test_a_body_that_says_it_is_no_json(api: Api) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}):
        answer = api.client.post("/v1/sms/send", data=b"x=1", headers={**api.headers, **headers})
        assert answer.status_code == 400
        assert json.loads(answer.data)["error"]["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize("path", ["/sms/history", "/webhooks/logs"])
@pytest.mark.parametrize("name", ["page", "limit"])
@pytest.mark.parametrize("odd", ["abc", "0", "-1", "1.5", "NaN", "2_0", "２", "9" * 5000, "[]"])
def test_odd_pages(api: Api, path: str, name: str, odd: str) -> None:
    assert api.refused("GET", f"{path}?{name}={odd}") == "INVALID_PARAMETER"


@pytest.mark.parametrize("path", ["/sms/history", "/sms/stats"])
@pytest.mark.parametrize("name", ["from_date", "to_date"])
@pytest.mark.parametrize("odd", ["abc", "1e9", "2026-13-01", "NaN", "9" * 5000])
def test_odd_dates(api: Api, path: str, name: str, odd: str) -> None:
    assert api.refused("GET", f"{path}?{name}={odd}") == "INVALID_PARAMETER"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/sms/nothing", 405), ("GET", "/nothing", 404), ("PUT", "/sms/send", 405)],
)
def test_a_call_that_does_not_exist(api: Api, method: str, path: str, status: int) -> None:
    api.refused(method, path, status=status)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
PLAUSIBLE = st.sampled_from(
    [
        *(NUMBER, 5, 300, "x", HOOK, iso(BEGAN + 1), "2026-11-20", "otp_0_1", 10**30),
        *([NUMBER], ["sms.sent"], {"a": 1}),
        [{"to": NUMBER, "message": "x", "priority": [1]}],
    ]
)
NAMES = sorted({name for _, name in FIELDS})


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(CALLS)),
            st.dictionaries(st.sampled_from(NAMES), PLAUSIBLE | JSON, max_size=7),
        ),
        max_size=6,
    )
)
def test_nothing_that_anybody_asks_breaks_it(calls: list[tuple[str, dict[str, Any]]]) -> None:
    api = Api(hooked(devices=2))
    for path, fields in [*calls, ("/sms/send", {"to": NUMBER, "message": "x"})]:
        answer = api.client.post(
            f"/v1{path}", json={**CALLS[path][0], **fields}, headers=api.headers
        )
        assert answer.status_code in (200, 400, 404, 429)
        told = json.loads(answer.data, parse_constant=pytest.fail)
        if answer.status_code != 200:
            assert shape(told) == {"success": bool, "error": {"code": str, "message": str}}
    api.wait(31 * DAY)
    for path in ("/v1/sms/history", "/v1/sms/stats", "/v1/webhooks", "/truth"):
        answer = api.client.get(path, headers=api.headers)
        assert answer.status_code == 200
        json.loads(answer.data, parse_constant=pytest.fail)
    api.simulated.stop()


# --- over a network


class Hook:
    """A customer's web server in this process; it answers as the test says."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[], int] = lambda: 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((dict(self.headers), body))
                status = hook.answer()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@contextmanager
def running(world: World, speed: float) -> Iterator[httpx.Client]:
    simulated = Simulator(world, speed=speed, credentials=("zs_test_1", "client_1"))
    port = free_port()
    close = simulator.serve(simulated, "127.0.0.1", port)
    headers = {"X-API-Key": "zs_test_1", "X-Client-ID": "client_1"}
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            yield client
    finally:
        close()


def rested(client: httpx.Client, within: float = 60) -> dict[str, Any]:
    """The truth, when nothing will happen any more."""

    def look() -> dict[str, Any] | None:
        try:
            told: dict[str, Any] = client.get("/truth").json()
        except httpx.TransportError:  # it has not started yet
            return None
        return told if told["at_rest"] else None

    told: dict[str, Any] = eventually(look, within)
    return told


def test_a_message_and_its_webhooks_over_the_network(hook: Hook) -> None:
    world = World(began=times.now(), seed=3)
    with running(world, speed=8) as client:  # slow enough that one report comes after the other
        asked = {"url": hook.url, "secret": "my own secret"}
        assert client.post("/v1/webhooks/configure", json=asked).status_code == 200
        sent = client.post("/v1/sms/send", json={"to": NUMBER, "message": "Bonjour 👋"})
        assert sent.status_code == 200
        told = rested(client)
        assert [event["state"] for event in told["events"]] == ["received"] * 2
        bodies = [json.loads(body) for _, body in hook.got]
        assert [body["event"] for body in bodies] == ["sms.sent", "sms.delivered"]
        assert [b["event_id"] for b in bodies] == [event["event_id"] for event in told["events"]]
        for headers, body in hook.got:
            expected = hmac.new(b"my own secret", body, hashlib.sha256).hexdigest()
            assert headers["X-Webhook-Signature"] == expected
            assert headers["User-Agent"] == "ZimSend-Webhook/1.0"
            assert headers["Content-Type"] == "application/json"
        tested = client.post("/v1/webhooks/wh_1/test").json()
        assert tested["response_status"] == 200
        lines = client.get("/v1/webhooks/logs").json()["logs"]
        assert [line["event"] for line in lines] == ["sms.sent", "sms.delivered", "sms.sent"]
        assert {line["response_status"] for line in lines} == {200}


def test_a_receiver_may_ask_before_it_answers(hook: Hook) -> None:
    world = World(began=times.now())
    with running(world, speed=1) as client:
        client.post("/v1/webhooks/configure", json={"url": hook.url})
        hook.answer = lambda: client.get("/v1/sms/stats").status_code
        assert client.post("/v1/webhooks/wh_1/test").json()["response_status"] == 200


@pytest.mark.parametrize("wrong", ["silence", "redirect", "nobody"])
def test_what_is_no_success_over_the_network(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr(simulator, "ANSWER_WITHIN", 0.2 if wrong == "silence" else 15)
    released = threading.Event()
    hook.answer = (lambda: 302) if wrong == "redirect" else lambda: released.wait(30) and 200
    url = f"http://127.0.0.1:{free_port()}/" if wrong == "nobody" else hook.url
    world = World(began=times.now(), weather=Weather(failed=1))
    world.webhooks["wh_1"] = Webhook("wh_1", url, REPORTS, SECRET)
    try:
        with running(world, speed=500) as client:
            client.post("/v1/sms/send", json={"to": NUMBER, "message": "Bonjour"})
            [event] = rested(client)["events"]
            lines = client.get("/v1/webhooks/logs").json()["logs"]
    finally:
        released.set()
    outcome = {
        "silence": "no answer in time",
        "redirect": "302",
        "nobody": "no connection (ConnectError)",
    }[wrong]
    assert [attempt["outcome"] for attempt in event["tries"]] == [outcome] * 3
    assert (event["state"], event["arrived"]) == ("dropped", False)
    assert [line["attempt"] for line in lines] == [3, 2, 1]
    assert {line["response_status"] for line in lines} == {302 if wrong == "redirect" else None}
    assert all(line["response_time_ms"] >= 200 for line in lines) == (wrong == "silence")


def test_it_can_be_stopped_at_any_time(hook: Hook) -> None:
    world = hooked(devices=50)
    world.webhooks["wh_1"] = replace(world.webhooks["wh_1"], url=hook.url)
    world.campaign(500, rate=100)
    with running(world, speed=500):
        eventually(lambda: len(hook.got) > 20)
    names = ("simulator", "poster")
    assert not [t.name for t in threading.enumerate() if t.name.startswith(names)]


# --- beside a real receiver

KEYS = {"ZIMSEND_API_KEY": "zs_test_real", "ZIMSEND_CLIENT_ID": "client_real"}
HEADERS = {"X-API-Key": "zs_test_real", "X-Client-ID": "client_real"}


@pytest.fixture(scope="module")
def demo() -> Iterator[subprocess.Popen[str]]:
    """`make demo`. It takes its time, so it starts before the test that looks at its end."""
    with subprocess.Popen(
        [sys.executable, "-m", "receiver.demo"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with its receiver and its simulator


@pytest.mark.usefixtures("demo")
def test_a_receiver_knows_the_truth(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(**KEYS, SEEN=str(tmp_path))
    bad = "--duplicates 0.2 --reorder 0.3 --failed 0.1 --lost-answers 0.1"
    good = "--seed 1 --count 60 --devices 3 --rate 10 --speed 60 --keep"
    with (
        simulating(server, *good.split(), *bad.split()) as ran,
        httpx.Client(base_url=ran.url, headers=HEADERS) as zimsend,
    ):
        told = rested(zimsend)
        stats = zimsend.get("/v1/sms/stats").json()["stats"]
    assert ran.status == 0, ran.output
    assert "SIMULATOR, not ZimSend" in ran.output
    assert "lost:" not in ran.output

    states = Counter(message["status"] for message in told["messages"])
    assert set(states) == {"delivered", "failed"}
    assert states.total() == 60
    asked = ("status", "sent_at", "delivered_at", "failed_at", "error", "to", "device_id")
    for message in told["messages"]:
        path = f"/v1/sms/status/{message['message_id']}"
        answer = server.client.get(path, headers=HEADERS).json()
        for name in (*asked, "metadata", "message"):
            assert answer[name] == message[name], message
    mine = server.client.get("/v1/sms/stats", headers=HEADERS).json()["stats"]
    assert mine == stats
    assert (mine["delivered"], mine["failed"]) == (states["delivered"], states["failed"])

    arrived = {event["event_id"] for event in told["events"]}
    assert all(event["arrived"] for event in told["events"])
    stored = server.events()
    assert len(stored) == len(arrived)
    assert {event["event_id"] for event in stored} == arrived
    tries = sum(len(event["tries"]) for event in told["events"])
    assert sum(event["receipts"] for event in stored) == tries > len(arrived)
    eventually(lambda: all(len(seen(tmp_path, h)) >= len(arrived) for h in ("first", "second")))
    for handler in ("first", "second"):
        # A call that a busy machine held up past its time-out is made again: another attempt.
        first = [str(e["id"]) for e in seen(tmp_path, handler) if e["attempt"] == 1]
        assert sorted(first) == sorted(arrived)
        assert len(seen(tmp_path, handler)) - len(first) <= 3


@pytest.mark.usefixtures("demo")
def test_the_events_that_it_names_as_lost_are_those_that_are_missing(
    serve: Callable[..., Server],
) -> None:
    server = serve(**KEYS)
    options = "--seed 0 --count 40 --devices 4 --rate 10 --speed 100 --drop 0.4 --lost-answers 0.2"
    ran = server.flask("simulate", "--port", str(free_port()), *options.split())
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.search(r"^40 messages: 40 delivered$", ran.stdout, re.MULTILINE)
    total = re.search(r"^(\d+) events: (\d+) dropped, (\d+) received$", ran.stdout, re.MULTILINE)
    assert total
    assert int(total[1]) == 80
    lost = re.findall(r"^lost: (evt_\S+) sms\.\S+ msg_\S+ \((.*)\)$", ran.stdout, re.MULTILINE)
    assert {outcomes for _, outcomes in lost} == {", ".join(["lost on the way"] * 3)}
    assert 0 < len(lost) < int(total[2])  # of others, only the answers were lost
    stored = {event["event_id"] for event in server.events()}
    everything = {f"evt_0_{number}" for number in range(1, 81)}
    assert {event_id for event_id, _ in lost} == everything - stored
    assert stored <= everything


def test_the_demo(demo: subprocess.Popen[str]) -> None:
    output, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, output + errors
    assert "\nThey are equal.\n" in output
    busy = ("the worker cannot use the store", "the store is stuck", "not ready:")  # a slow disk
    told = errors.splitlines()
    assert [line for line in told if not any(b in line for b in busy)] == []
    assert len(told) <= 3


def test_a_port_that_is_taken(environ: dict[str, str], tmp_path: Path, hook: Hook) -> None:
    taken = str(hook.server.server_port)
    ran = Server(environ, tmp_path, "x").flask("simulate", "--port", taken)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"Error: cannot listen on 127.0.0.1:{taken}: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_a_host_that_others_can_reach_is_refused(runner: FlaskCliRunner, host: str) -> None:
    ran = runner.invoke(args=["simulate", "--for", "0", "--host", host])
    assert ran.exit_code == 2
    assert "--expose" in ran.output


@pytest.mark.parametrize(
    "options",
    [
        ["--outage", "60"],
        ["--outage", "600..60"],
        ["--port", "0"],
        ["--port", "65536"],
        ["--failed", "1.1"],
        ["--devices", "0"],
        ["--speed", "0"],
        ["--speed", "nan"],
        ["--failed", "nan"],
        ["--for", "nan"],
        ["--for", "inf"],
        ["--count", "100001"],
    ],
)
def test_options_that_make_no_sense(runner: FlaskCliRunner, options: list[str]) -> None:
    assert runner.invoke(args=["simulate", "--for", "0", *options]).exit_code == 2


def test_an_ipv6_address_stands_in_brackets(
    runner: FlaskCliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(simulator, "serve", lambda *_: lambda: None)  # not every machine has one
    ran = runner.invoke(args=["simulate", "--for", "0", "--host", "::1"])
    assert ran.exit_code == 0
    assert "API on http://[::1]:5040/v1" in ran.output
    assert "the truth is on http://[::1]:5040/truth" in ran.output


def test_it_stops_after_so_many_seconds(environ: dict[str, str], tmp_path: Path) -> None:
    server = Server(environ, tmp_path, "x")
    began = time.monotonic()
    ran = server.flask("simulate", "--port", str(free_port()), "--for", "0.1", "--outage", "0..60")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-2:] == ["0 messages: none", "0 events: none"]
    assert time.monotonic() - began < 30
    server.close()
