"""What was missed comes back: beside a simulated ZimSend, with a clock of the test's own and for
real."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from hypothesis import given
from hypothesis import strategies as st

from app import create_app
from receiver import Event, Registry, status
from receiver.errors import StoreUnavailable
from receiver.logs import Sparingly
from receiver.parts import Receiver
from receiver.providers.zimsend.api import ZimSend, answers
from receiver.providers.zimsend.budget import Half
from receiver.providers.zimsend.facts import QUIET, facts, is_whole, may_be_new
from receiver.providers.zimsend.simulator.api import Simulator, create_api
from receiver.providers.zimsend.simulator.world import REPORTS, Post, Weather, Webhook, World, view
from receiver.reconciliation import losses
from receiver.reconciliation.passes import (
    EVERY,
    LEASE,
    OVERLAP,
    NotOurTurn,
    Pass,
    Reconciliation,
    State,
)
from receiver.store import Report, Selection, open_store
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from receiver.web import webhook
from tests.conftest import SECRET, Clock, Provider, row_of
from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, eventually, free_port, simulating

KEY, ID = "zs_test_0123456789", "client_0123456789"
#: Nothing answers there.
NOBODY = "http://127.0.0.1:9/v1"
KEYS = {"ZIMSEND_API_KEY": KEY, "ZIMSEND_CLIENT_ID": ID, "ZIMSEND_API_URL": NOBODY}
HEADERS = {"X-API-Key": KEY, "X-Client-ID": ID}
NUMBER = "+33612345678"
#: 2026-11-20, 09:00: a day whose history no other test has.
BEGAN = 20_777 * DAY + 9 * HOUR
RETENTION = 90 * DAY
API = schemathesis.openapi.from_path(ROOT / "docs/openapi.yaml", config=schemathesis.Config())


# --- what an answer says


def shown(**fields: Any) -> answers.Message:
    """A message as the API shows it."""
    return answers.message({"message_id": "m", "to": NUMBER, "message": "Code 1234", **fields})


def at(seconds: float) -> str:
    return iso(BEGAN + int(seconds * SECOND))


def told(message: answers.Message, known: tuple[Report, ...] = (), **changes: Any) -> list[str]:
    """The events that an answer stands for, with their seconds."""
    options = {"now": BEGAN + HOUR, "retention": RETENTION, "known": known, **changes}
    found = facts(message, **options)
    assert all(fact.source == "reconciliation" for fact in found)
    return [f"{fact.type} {(fact.occurred_at - BEGAN) // SECOND}" for fact in found]


QUEUED = {"queued_at": at(0)}
SENT = {"sent_at": at(60)}
DELIVERED = {"delivered_at": at(70)}
CASES = {
    "queued": (QUEUED, ["sms.queued 0"]),
    "processing": (QUEUED, ["sms.processing 0"]),
    "sent": (QUEUED | SENT, ["sms.sent 60"]),
    "delivered": (QUEUED | SENT | DELIVERED, ["sms.sent 60", "sms.delivered 70"]),
    "failed": (QUEUED, ["sms.failed 0"]),
    "cancelled": (QUEUED, ["sms.cancelled 0"]),
}
WITHOUT_QUEUED = {
    "sent": ["sms.sent 60"],
    "delivered": ["sms.sent 60", "sms.delivered 70"],
}


@pytest.mark.parametrize("state", CASES)
def test_what_each_status_stands_for(state: str) -> None:
    given_times, expected = CASES[state]
    assert told(shown(status=state, metadata={"n": 1}, **given_times)) == expected
    # The history of one document has fewer times.
    short = {name: moment for name, moment in given_times.items() if name != "queued_at"}
    assert told(shown(status=state, **short)) == WITHOUT_QUEUED.get(state, [])


def test_what_an_event_of_them_holds() -> None:
    message = shown(
        status="delivered",
        metadata={"n": 1},
        device_id="dev",
        priority=2,
        **QUEUED,
        **SENT,
        **DELIVERED,
    )
    sent, delivered = facts(message, now=BEGAN + HOUR, retention=RETENTION)
    assert json.loads(sent.body) == {
        "event": "sms.sent",
        "event_id": f"api:m:sms.sent:{at(60)}",
        "timestamp": at(60),
        "data": {
            "message_id": "m",
            "status": "sent",
            "to": NUMBER,
            "message": "Code 1234",
            "device_id": "dev",
            "priority": 2,
            "metadata": {"n": 1},
            "queued_at": at(0),
            "sent_at": at(60),
        },
    }
    assert sent.id == f"api:m:sms.sent:{at(60)}"
    assert json.loads(delivered.body)["data"].keys() == {
        *json.loads(sent.body)["data"],
        "delivered_at",
    }
    masked = facts(message, now=BEGAN + HOUR, retention=RETENTION, text_mode="masked")
    assert json.loads(masked[0].body)["data"]["message"] == "Code ****"


def test_what_the_answer_does_not_say() -> None:
    assert told(shown(status="failed")) == []
    assert told(shown(status="failed", created_at=at(5))) == ["sms.failed 5"]
    assert told(shown(status="failed", failed_at=at(9), **QUEUED)) == ["sms.failed 9"]
    assert told(shown(status="delivered", **SENT)) == ["sms.sent 60", "sms.delivered 60"]
    assert told(shown(status="odd", **SENT)) == ["sms.sent 60"]
    assert told(shown(**SENT)) == ["sms.sent 60"]
    assert told(shown(status="sent", sent_at=at(-91 * 86_400))) == []


def report(kind: str, seconds: float, source: str = "webhook", error: bool = False) -> Report:
    return Report(f"sms.{kind}", BEGAN + int(seconds * SECOND), error, source)


RESENT = shown(status="failed", queued_at=at(600), metadata=None)
KNOWN: dict[str, tuple[answers.Message, tuple[Report, ...], list[str]]] = {
    "all of it, at slightly other times": (
        shown(status="delivered", **SENT, **DELIVERED),
        (report("sent", 61.3), report("delivered", 75)),
        [],
    ),
    "the end only": (
        shown(status="delivered", **SENT, **DELIVERED),
        (report("delivered", 70),),
        ["sms.sent 60"],
    ),
    "a failure": (shown(status="failed", **QUEUED), (report("failed", 5, error=True),), []),
    "a failure, before it was sent again and failed again": (
        RESENT,
        (report("failed", 5, error=True),),
        ["sms.queued 600", "sms.failed 600"],
    ),
    "that, and that it was sent again": (
        RESENT,
        (report("failed", 5, error=True), report("queued", 600, "gateway")),
        ["sms.failed 600"],
    ),
    "all of that": (
        RESENT,
        (
            report("failed", 5, error=True),
            report("queued", 600, "gateway"),
            report("failed", 605, error=True),
        ),
        [],
    ),
    "a failure, before it was sent again and delivered": (
        shown(status="delivered", queued_at=at(600), sent_at=at(602), delivered_at=at(609)),
        (report("sent", 2), report("failed", 5, error=True)),
        ["sms.queued 600", "sms.sent 602", "sms.delivered 609"],
    ),
    "a failure, before it was put back": (
        shown(status="queued", queued_at=at(600)),
        (report("failed", 5, error=True),),
        ["sms.queued 600"],
    ),
    "what was queued through the gateway": (
        shown(status="queued", **QUEUED),
        (report("queued", 0.4, "gateway"),),
        [],
    ),
}


@pytest.mark.parametrize(("message", "known", "expected"), KNOWN.values(), ids=KNOWN.keys())
def test_what_is_known_is_not_learnt(
    message: answers.Message, known: tuple[Report, ...], expected: list[str]
) -> None:
    assert told(message, known) == expected


moment = st.integers(0, 7 * 86_400).map(lambda seconds: BEGAN - 8 * DAY + seconds * SECOND)


@given(
    st.sampled_from([*status.STATES, "odd"]), st.lists(moment, min_size=4, max_size=4), st.data()
)
def test_the_same_fact_has_the_same_id(state: str, moments: list[int], data: st.DataObject) -> None:
    """However often it is learnt, when, and in which of the documented shapes."""
    whole = dict(
        zip(("queued_at", "sent_at", "delivered_at"), map(iso, sorted(moments)), strict=False)
    )
    short = {name: moment for name, moment in whole.items() if name != "queued_at"}
    now = BEGAN + data.draw(st.integers(0, DAY))
    one = facts(shown(status=state, **whole), now=now, retention=RETENTION)
    again = facts(
        shown(status=state, metadata={"n": 1}, created_at=whole["queued_at"], **whole),
        now=now + data.draw(st.integers(0, DAY)),
        retention=RETENTION,
    )
    assert [fact.id for fact in one] == [fact.id for fact in again]
    other = facts(shown(status=state, **short), now=now, retention=RETENTION)
    # What has a time of its own has it in both; what has none is asked for.
    timed = {"sms.sent", "sms.delivered"}
    assert {f.id for f in other if f.type in timed} == {f.id for f in one if f.type in timed}
    assert len({fact.id for fact in one}) == len(one)
    told_all = tuple(Report(f.type, f.reported_at, f.has_error, f.source) for f in one)
    assert not facts(shown(status=state, **whole), now=now, retention=RETENTION, known=told_all)


@given(st.sampled_from(status.STATES), st.integers(-DAY, DAY))
def test_nothing_is_said_while_the_provider_may_still_report(state: str, age: int) -> None:
    message = shown(status=state, queued_at=iso(BEGAN - HOUR), sent_at=iso(BEGAN))
    found = facts(message, now=BEGAN + age, retention=RETENTION)
    assert bool(found) == (age >= QUIET)


def test_what_of_the_history_is_asked_for() -> None:
    short, whole = shown(status="failed"), shown(status="failed", metadata=None, **QUEUED)
    assert (is_whole(short), is_whole(whole)) == (False, True)
    failure = report("failed", 5, error=True)
    assert may_be_new(short, (), BEGAN)
    assert may_be_new(short, (report("sent", 2),), BEGAN)
    assert not may_be_new(short, (failure,), BEGAN)
    # Nothing that is known of it is why it is in this part of the history.
    assert may_be_new(short, (failure,), BEGAN + HOUR)
    assert may_be_new(shown(status="queued"), (), BEGAN)
    assert not may_be_new(shown(status="queued"), (report("sent", 2),), BEGAN)
    # It has failed, so it was put back; unless that is known.
    assert may_be_new(shown(status="queued"), (failure,), BEGAN)
    assert not may_be_new(shown(status="queued"), (failure, report("queued", 600)), BEGAN)
    assert may_be_new(shown(status="cancelled"), (report("queued", 0),), BEGAN)
    assert not may_be_new(shown(status="cancelled"), (report("cancelled", 9),), BEGAN)
    assert not may_be_new(shown(status="odd"), (), BEGAN)


# --- gaps


def test_gaps_are_counted() -> None:
    learnt = [
        ("a", report("sent", 0)),
        ("a", report("delivered", 10)),
        ("b", report("queued", 300)),
        ("b", report("failed", 599)),
        ("c", report("sent", 1199)),
        ("d", report("processing", 5000)),
    ]
    first, second = losses.gaps(learnt)
    assert (first.first, first.last) == (BEGAN, BEGAN + 599 * SECOND)
    assert (first.messages, first.counts) == (2, {"sent": 1, "delivered": 1, "failed": 1})
    assert first.told() == "3 reports of 2 messages (1 sent, 1 delivered, 1 failed)"
    assert (second.told(), second.first) == ("1 report of 1 message (1 sent)", second.last)
    whole = losses.total([first, second])
    assert whole is not None
    assert (whole.messages, whole.reports, whole.last) == (3, 4, second.last)
    assert (losses.gaps([]), losses.total([])) == ([], None)


# --- beside a simulated ZimSend, with a clock that the test moves

Fault = Callable[[httpx.Request], httpx.Response | None]


class Still(Simulator):
    """A ZimSend that lives by the test's clock."""

    def __init__(self, world: World, clock: Clock) -> None:
        super().__init__(world, credentials=(KEY, ID))
        self.clock = clock

    def now(self) -> int:
        return self.clock.time


class Wire(httpx.BaseTransport):
    """The way to the simulated ZimSend. `fault` may answer in its place, or raise."""

    def __init__(self, simulated: Simulator) -> None:
        app = create_api(simulated)
        app.config["PROPAGATE_EXCEPTIONS"] = True
        self.plain = httpx.WSGITransport(app)
        self.clock = simulated.now
        self.fault: Fault = lambda request: None
        #: When each call came, and which.
        self.calls: list[tuple[int, str]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append((self.clock(), request.url.path))
        return self.fault(request) or self.plain.handle_request(request)


class Life:
    """A world, and the receivers that take its reports. Nothing happens but in `wait`."""

    def __init__(self, environ: dict[str, str], clock: Clock, world: World) -> None:
        self.environ = environ
        self.clock = clock
        self.world = world
        world.webhooks["wh_1"] = Webhook("wh_1", "https://receiver", REPORTS, SECRET.encode())
        self.simulated = Still(world, clock)
        self.wire = Wire(self.simulated)
        self.apps: list[Flask] = []
        self.up = True
        #: How far back each pass has read.
        self.reach: list[int] = []
        self.start()
        self.receiver.store.migrate()

    def start(self) -> Reconciliation:
        """Another process of the receiver."""
        app = create_app(self.environ, self.clock)
        self.apps.append(app)
        self.receiver: Receiver = app.extensions["receiver"]
        self.client: FlaskClient = app.test_client()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(httpx, "Client", partial(httpx.Client, transport=self.wire))
            zimsend = ZimSend(KEY, ID, sleep=self.sleep, clock=lambda: self.clock.time / SECOND)
        self.reconciliation = Reconciliation(
            zimsend,
            self.receiver.store,
            self.receiver.ingest.submit_all,
            self.clock,
            budget=Half(self.receiver.store, self.clock),
            retention=self.receiver.config.retention,
            text_mode=self.receiver.config.text_mode,
        )
        self.reconciliation.notice_gap()
        return self.reconciliation

    def close(self) -> None:
        for app in self.apps:
            receiver: Receiver = app.extensions["receiver"]
            receiver.worker.drain(5)
            receiver.store.close()
        self.simulated.stop()

    def sleep(self, seconds: float) -> None:
        self.wait(int(seconds * SECOND) + 1)

    def wait(self, time_us: int) -> None:
        """Live on; what ZimSend sends arrives, if the receiver is up."""
        until = self.clock.time + time_us
        while (next_at := self.world.next_at) is not None and next_at <= until:
            self.clock.time = max(self.clock.time, next_at)
            for post in self.world.advance(self.clock.time):
                self.world.answered(post, self.deliver(post))
        self.clock.time = until
        self.world.pass_time(until)

    def deliver(self, post: Post) -> str:
        if post.lost or not self.up:
            return "no connection"
        answer = self.client.post("/webhooks/zimsend", data=post.event.body, headers=post.headers)
        return str(answer.status_code)

    def look(self, time_us: int, every: int = MINUTE) -> list[Pass]:
        """Live on, and make the passes that are due."""
        passes = []
        until = self.clock.time + time_us
        while self.clock.time < until:
            began = self.clock.time
            made = self.reconciliation.step(began)
            if made is not None:
                passes.append(made)
                self.reach.append(began - made.since)
            self.wait(every)
        return passes

    @property
    def store(self) -> Any:
        return self.receiver.store

    def missed(self) -> losses.Loss | None:
        return losses.total(losses.gaps(self.store.learnt()))

    def state(self) -> Any:
        state = self.reconciliation.state()
        assert state is not None
        return state


@pytest.fixture
def live(environ: dict[str, str]) -> Iterator[Callable[..., Life]]:
    """Lives in memory, where there is such a place: what is tested here is not the disk."""
    memory = Path("/dev/shm")
    folder = TemporaryDirectory(dir=memory if memory.is_dir() else None)
    environ["HANDLERS"] = __name__
    if environ["DATABASE_URL"].startswith("sqlite:"):
        environ["DATABASE_URL"] = f"sqlite:///{folder.name}/receiver.db"
    lives: list[Life] = []

    def begin(**settings: Any) -> Life:
        began = settings.pop("began", BEGAN)
        life = Life(environ, Clock(began), World(began=began, **settings))
        lives.append(life)
        return life

    yield begin
    for life in lives:
        life.close()
    folder.cleanup()


#: What the handler below has seen.
SAW: list[Event] = []


def register(registry: Registry) -> None:
    # A call that takes long on a busy machine is no failure.
    @registry.on("*", name="first", timeout=3_600)
    def first(event: Event) -> None:
        SAW.append(event)


def handled(life: Life) -> Counter[tuple[str | None, str]]:
    """Run the handlers until there is no more to do; what they saw: message and type."""
    SAW.clear()
    life.receiver.worker.start()
    eventually(lambda: life.store.next_due("first", 0) is None)  # also nothing that is leased
    assert life.receiver.worker.drain(10)
    return Counter((event.message_id, event.type) for event in SAW)


def shown_by_the_api(world: World) -> Counter[tuple[str, str]]:
    """The facts that ZimSend still tells of."""
    facts_of = {"delivered": ("sms.sent", "sms.delivered"), "failed": ("sms.failed",)}
    return Counter(
        (message.id, kind)
        for message in world.messages.values()
        for kind in facts_of.get(message.status, ("sms.sent",) if message.sent_at else ())
    )


def lost(world: World) -> Counter[tuple[str, str]]:
    return Counter((e.message_id, e.type) for e in world.events if not e.arrived)


def compare(life: Life) -> None:
    """The mirror tells the truth of every message."""
    for truth in life.world.truth()["messages"]:
        row = row_of(life.store, truth["message_id"])
        assert row is not None, truth
        view = status.describe(row)
        told = {name: view[name] for name in ("status", "to", "message", "metadata")}
        assert told == {name: truth[name] for name in told}
        for name in ("sent_at", "delivered_at"):
            assert (view[name] and iso(view[name])) == truth[name], truth


@pytest.mark.each_engine
def test_a_receiver_that_was_down(live: Callable[..., Life]) -> None:
    """30 minutes in a campaign of 500 messages over 3 phones."""
    bad = Weather(failed=0.1, duplicates=0.2, reorder=0.3, lost_answers=0.1)
    life = live(devices=3, weather=bad)
    life.world.campaign(500, rate=500 / 3_600)
    assert [made.problem for made in life.look(10 * MINUTE)] == [None]
    life.up = False
    life.wait(30 * MINUTE)
    life.up = True
    life.start()
    passes = life.look(80 * MINUTE)
    assert life.world.at_rest
    gone = lost(life.world)
    assert len(gone) > 250
    assert all(made.problem is None for made in passes)

    compare(life)
    known_ids = {e["event_id"] for e in life.store.events(Selection(event_type="sms.*"))}
    assert len(known_ids) == len([e for e in life.world.events if e.arrived]) + len(gone)
    missed = life.missed()
    assert missed is not None
    assert missed.message_ids == {message_id for message_id, _ in gone}
    assert missed.counts == {
        kind: sum(count for (_, of), count in gone.items() if of == f"sms.{kind}")
        for kind in losses.KINDS
    }
    assert len(losses.gaps(life.store.learnt())) == 1
    assert handled(life) == shown_by_the_api(life.world)
    # Never more than half of what ZimSend allows, whoever else calls.
    assert life.simulated.limited == 0
    moments = [moment for moment, _ in life.wire.calls]
    for first in moments:
        assert sum(first <= moment < first + MINUTE for moment in moments) <= 50


def test_the_other_shape_of_the_history_needs_no_more_calls(live: Callable[..., Life]) -> None:
    life = live(devices=9, weather=Weather(failed=0.1))
    life.look(MINUTE)
    life.up = False
    for number in range(250):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})

    def reshape(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("history"):
            return None
        plain = json.loads(life.wire.plain.handle_request(request).read())
        told = plain["pagination"]
        rows = [view(life.world.messages[row["message_id"]]) for row in plain["data"]]
        for row in rows:
            del row["error"], row["failed_at"], row["cancelled_at"]
        pages = {"page": told["current_page"], "limit": 100, "pages": told["total_pages"]}
        body = {"success": True, "messages": rows, "pagination": pages}
        return httpx.Response(200, json=body | {"total": told["total_items"]})

    life.wire.fault = reshape
    life.wait(40 * MINUTE)
    [made] = life.look(MINUTE)
    counts = Counter(message.status for message in life.world.messages.values())
    assert len(list(life.store.learnt())) == len(made.learnt) == 2 * counts["delivered"]
    life.look(40 * MINUTE)
    compare(life)
    assert not [path for _, path in life.wire.calls if "/status/" in path]
    missed = life.missed()
    assert missed is not None
    assert missed.messages == 250
    assert handled(life) == shown_by_the_api(life.world)
    devices = {status.describe(row_of(life.store, m))["device_id"] for m in life.world.messages}
    assert devices == set(life.world.devices)


def test_a_row_without_an_id_stops_nothing(
    live: Callable[..., Life], caplog: pytest.LogCaptureFixture
) -> None:
    life = live()
    life.look(MINUTE)
    life.up = False
    for number in range(5):
        life.world.send(NUMBER, f"Bonjour {number}")

    def rob(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("history"):
            return None
        told = json.loads(life.wire.plain.handle_request(request).read())
        for row in told["data"][1:3]:
            row["message_id"] = None
        return httpx.Response(200, json=told)

    life.wait(40 * MINUTE)
    before = len(life.wire.calls)
    life.wire.fault = rob
    [made] = life.look(MINUTE)
    assert made.problem is None
    assert sum(path.endswith("history") for _, path in life.wire.calls[before:]) == 1
    missed = life.missed()
    assert missed is not None
    assert missed.messages == 3
    assert caplog.messages.count("ZimSend's history has 2 messages without a `message_id`") == 1


def quiet_hours(life: Life, time_us: int) -> list[Pass]:
    """Time in which nothing arrives."""
    life.up = False
    passes = life.look(time_us)
    life.up = True
    return passes


def learnt(life: Life) -> list[str]:
    return [f"{message_id[-1]} {report.type}" for message_id, report in life.store.learnt()]


def test_what_was_before_is_not_missed_unless_one_asks(live: Callable[..., Life]) -> None:
    life = live()
    life.up = False
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.wait(DAY)
    life.up = True
    assert all(made.problem is None for made in life.look(2 * DAY, 10 * MINUTE))
    assert life.missed() is None
    seen_in_dry_run = life.reconciliation.run(BEGAN, dry_run=True)
    assert [report.type for _, report in seen_in_dry_run.learnt] == ["sms.sent", "sms.delivered"]
    assert life.missed() is None
    made = life.reconciliation.run(BEGAN)
    assert made.since == BEGAN
    assert learnt(life) == ["1 sms.sent", "1 sms.delivered"]
    compare(life)


def test_a_failure_is_not_learnt_before_its_webhook_had_its_time(live: Callable[..., Life]) -> None:
    """The API does not say when it failed: it may have been a moment ago."""
    life = live(weather=Weather(failed=1))
    life.look(MINUTE)
    for _ in range(500):  # one phone: the last of them fails 20 minutes after it was queued
        life.world.send(NUMBER, "Bonjour")
    deliver, slow = life.deliver, 0
    life.deliver = lambda post: "503" if post.number < 2 else deliver(post)  # type: ignore[method-assign]
    for made in life.look(50 * MINUTE):
        slow += made.waiting
    assert slow > 100
    assert life.missed() is None
    assert len(list(life.store.events(Selection(event_type="sms.failed")))) == 500
    assert not life.state().failed


def test_the_reason_of_a_failure_that_was_learnt_comes_later(live: Callable[..., Life]) -> None:
    life = live(weather=Weather(failed=1))
    life.look(MINUTE)
    message = life.world.send(NUMBER, "Bonjour")
    quiet_hours(life, 40 * MINUTE)
    assert learnt(life) == ["1 sms.failed"]
    assert status.describe(row_of(life.store, message.id))["error"] is None
    late = Post(life.world.events[0], 0, lost=False, answer_lost=False)
    assert life.deliver(late) == "200"
    view = status.describe(row_of(life.store, message.id))
    assert (view["error"], view["failed_at"]) == (message.error, message.failed_at)
    events = {e["source"]: e for e in life.store.events(Selection())}
    assert events["webhook"]["repeat"]
    assert events["webhook"]["deliveries"]  # for handlers, the reason is news
    assert learnt(life) == ["1 sms.failed"]


@pytest.mark.parametrize("ends_as", ["failed", "delivered", "queued"])
@pytest.mark.parametrize("first_arrives", [True, False])
def test_a_message_that_was_sent_again_while_nobody_listened(
    live: Callable[..., Life], ends_as: str, first_arrives: bool
) -> None:
    life = live(weather=Weather(failed=1))
    life.look(MINUTE)
    message = life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.up = first_arrives
    life.look(35 * MINUTE)
    life.up = False
    if ends_as != "failed":
        life.world.weather = Weather()
    if ends_as == "queued":
        for device in life.world.devices:
            life.world._free_at[device] = life.clock.time + DAY
    life.world.resend(message)
    life.look(30 * MINUTE)
    assert message.status == ends_as
    compare(life)
    found = Counter(kind for _, kind in (line.split() for line in learnt(life)))
    facts_of = {"failed": ["failed"], "delivered": ["sent", "delivered"], "queued": []}
    failures = int(not first_arrives)
    expected = Counter(f"sms.{kind}" for kind in facts_of[ends_as])
    expected["sms.failed"] += failures
    assert {k: n for k, n in found.items() if k != "sms.queued"} == {
        k: n for k, n in expected.items() if n
    }


@pytest.mark.each_engine
def test_the_unfinished_are_asked_for_at_growing_intervals(live: Callable[..., Life]) -> None:
    life = live()
    life.look(MINUTE)
    hidden = life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.wait(3 * SECOND)
    # Delivered after ten hours, and nobody reports it; nor does the history show it any more.
    hidden.delivered_at = None
    hidden.status = "sent"
    hidden.round += 1
    life.wire.fault = lambda request: (
        httpx.Response(200, json={"success": True, "data": [], "pagination": {}})
        if request.url.path.endswith("history")
        else None
    )
    assert row_of(life.store, hidden.id) is not None
    life.look(10 * HOUR)
    hidden.status, hidden.delivered_at = "delivered", life.clock.time
    life.look(10 * HOUR)
    asked = [(moment - BEGAN) / HOUR for moment, path in life.wire.calls if "/status/" in path]
    assert asked == pytest.approx([0.35, 1.5, 2.5, 3.8, 5.9, 9.0, 13.5], rel=0.2)
    assert learnt(life) == ["1 sms.delivered"]
    compare(life)


def test_a_message_that_zimsend_does_not_have_is_asked_for_once(live: Callable[..., Life]) -> None:
    life = live()
    other = World(began=BEGAN, seed=7)
    other.webhooks = life.world.webhooks
    other.send(NUMBER, "Bonjour")
    [post] = other.advance(BEGAN + 3 * SECOND)
    life.wait(3 * SECOND)
    assert life.deliver(post) == "200"
    passes = life.look(2 * DAY, 10 * MINUTE)
    assert all(made.problem is None for made in passes)
    assert sum("/status/" in path for _, path in life.wire.calls) == 1
    # What `flask trigger` sends is in no account.


def test_pages_move_while_they_are_read(live: Callable[..., Life]) -> None:
    """New messages come in front, and old ones are sent again, while the history is read."""
    life = live(devices=9, weather=Weather(failed=0.05))
    life.look(MINUTE)
    life.up = False
    for number in range(250):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})
    life.wait(20 * MINUTE)
    chance = random.Random(5)

    def meanwhile(request: httpx.Request) -> None:
        if request.url.path.endswith("history"):
            for _ in range(chance.randrange(20)):
                life.world.send(NUMBER, "Encore", metadata={"n": -1})
            failed = [m for m in life.world.messages.values() if m.status == "failed"]
            for message in failed[: chance.randrange(3)]:
                life.world.resend(message)

    life.wire.fault = meanwhile
    [made] = life.look(MINUTE)
    assert made.problem is None
    life.wire.fault = lambda request: None
    life.look(2 * HOUR)
    compare(life)
    assert lost(life.world).keys() >= {
        (m, r.type) for m, r in life.store.learnt() if r.type != "sms.queued"
    }


def test_a_row_that_slips_to_a_page_already_read_is_seen_all_the_same(
    live: Callable[..., Life],
) -> None:
    life = live()
    life.look(MINUTE)
    life.up = False
    for number in range(300):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})
    life.wait(HOUR)
    pages = 0

    def slip(request: httpx.Request) -> None:
        nonlocal pages
        if request.url.path.endswith("history"):
            pages += 1
            if pages == 2:  # the first page loses one, so the next begins one too late
                first = life.world.messages["msg_0_1"]
                first.queued_at = first.sent_at = BEGAN - 3 * DAY

    life.wire.fault = slip
    [made] = life.look(MINUTE)
    assert made.problem is None
    assert made.messages == 300
    assert pages >= 6
    assert len({message_id for message_id, _ in life.store.learnt()}) >= 299


def test_once_a_day_the_last_31_days_are_read(live: Callable[..., Life]) -> None:
    life = live()
    life.look(MINUTE)
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    # For an hour the history shows nothing at all.
    life.wire.fault = lambda request: (
        httpx.Response(200, json={"success": True, "data": [], "pagination": {}})
        if request.url.path.endswith("history")
        else None
    )
    quiet_hours(life, HOUR)
    life.wire.fault = lambda request: None
    life.look(22 * HOUR)
    assert learnt(life) == []
    life.look(2 * HOUR)
    assert learnt(life) == ["1 sms.sent", "1 sms.delivered"]
    # No older than what the receiver knows of, and 31 days; each day has a page of its own.
    life.clock.time += 60 * DAY
    life.world.pass_time(life.clock.time)
    life.look(HOUR)
    calls = len(life.wire.calls)
    passes = life.look(2 * DAY, 10 * MINUTE)
    assert all(made.problem is None for made in passes)
    assert len(life.wire.calls) - calls == len(passes) + 2 * 32


def test_what_is_about_to_expire_is_not_learnt_again(
    environ: dict[str, str], live: Callable[..., Life]
) -> None:
    environ |= {"RETENTION_DAYS": "2", "HANDLERS": "handlers.forward"}  # nobody is owed anything
    life = live()
    life.look(MINUTE)
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.look(3 * DAY, 10 * MINUTE)
    before = life.store.statistics(None, None, None)
    life.store.expire(life.clock.time - 2 * DAY, 5)
    assert row_of(life.store, next(iter(life.world.messages))) is None
    life.look(2 * DAY, 10 * MINUTE)
    assert life.reconciliation.run(BEGAN - DAY).problem is None
    assert learnt(life) == []
    assert life.store.statistics(None, None, None) == before
    assert not list(life.store.quarantined())


# --- when ZimSend is not well


def refused_with(code: int, **more: Any) -> Fault:
    return lambda request: httpx.Response(code, **more)


def raising(error: type[httpx.HTTPError]) -> Fault:
    def fault(request: httpx.Request) -> None:
        raise error("on the way", request=request)

    return fault


LIMITED = {"success": False, "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "Too many"}}
BAD_DAYS: dict[str, tuple[Fault, str]] = {
    "slow": (raising(httpx.ReadTimeout), "ReadTimeout"),
    "resetting": (raising(httpx.ReadError), "ReadError"),
    "a page of a proxy": (refused_with(502, html="<h1>Bad gateway</h1>"), "502"),
    "limiting": (refused_with(429, json=LIMITED), "RATE_LIMIT_EXCEEDED"),
    "not letting in": (
        refused_with(401, json={"error": "no", "code": "INVALID_API_KEY"}),
        "API key",
    ),
    "not itself": (refused_with(200, html="<h1>Welcome</h1>"), "cannot be understood"),
}


@pytest.mark.parametrize(("fault", "reason"), BAD_DAYS.values(), ids=BAD_DAYS.keys())
@pytest.mark.parametrize("begins", ["at once", "in the middle"])
def test_a_pass_that_cannot_end(
    live: Callable[..., Life],
    fault: Fault,
    reason: str,
    begins: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    life = live(devices=9)
    life.look(MINUTE)
    before = life.state()
    life.up = False
    for number in range(20):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})
    life.wait(30 * MINUTE)
    calls = len(life.wire.calls) + (0 if begins == "at once" else 10)
    life.wire.fault = lambda request: fault(request) if len(life.wire.calls) > calls else None
    [made] = life.look(MINUTE, MINUTE)
    assert made.problem is not None
    assert reason in made.problem
    assert f"reconciliation stopped, next try in 60 s: {made.problem}" in caplog.text
    after = life.state()
    assert (after.since, after.ended_at) == (before.since, before.ended_at)
    assert (after.problem, after.failures) == (made.problem, 1)
    # Ever more seldom, but within 10 minutes.
    begun = life.clock.time
    passes = [(life.clock.time - begun, made) for _ in range(60) for made in life.look(MINUTE)]
    assert all(made.problem for _, made in passes)
    assert 8 <= len(passes) <= 12
    life.wire.fault = lambda request: None
    [made, *_] = [made for made in life.look(11 * MINUTE) if made]
    assert made.problem is None
    assert life.state().failures == 0
    assert len(life.missed().message_ids) == 20  # type: ignore[union-attr]
    compare(life)


def test_zimsend_limits_for_a_minute(live: Callable[..., Life]) -> None:
    life = live(devices=9)
    life.look(MINUTE)
    life.up = False
    for number in range(100):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})
    life.wait(30 * MINUTE)
    others = [life.simulated]
    for _ in range(100):  # another program of this account
        others[0].admit({"X-Api-Key": KEY, "X-Client-Id": ID})
    limited_before = life.simulated.limited
    passes = life.look(15 * MINUTE)
    assert passes[-1].problem is None
    assert life.simulated.limited - limited_before <= 6
    assert len(life.missed().message_ids) == 100  # type: ignore[union-attr]


def test_one_message_that_zimsend_cannot_tell_of_holds_up_no_other(
    live: Callable[..., Life],
) -> None:
    life = live(devices=9)
    life.look(MINUTE)
    life.up = False
    ids = [life.world.send(NUMBER, "Bonjour", metadata={"n": 1}).id for _ in range(20)]
    life.wait(30 * MINUTE)
    life.wire.fault = lambda request: (
        httpx.Response(500) if request.url.path.endswith(("status/" + ids[3], ids[7])) else None
    )
    [made, *_] = life.look(5 * MINUTE)
    assert made.problem is None
    # The history tells enough of them, if need be.
    assert len(life.missed().message_ids) == 20  # type: ignore[union-attr]
    assert status.describe(row_of(life.store, ids[3]))["metadata"] is None


# --- whose turn it is


@pytest.mark.each_engine
def test_one_process_at_a_time(live: Callable[..., Life]) -> None:
    life = live()
    one, other = life.reconciliation, life.start()
    refused: list[str] = []

    def meanwhile(request: httpx.Request) -> None:
        assert other.step(life.clock.time) is None
        with pytest.raises(NotOurTurn) as error:
            other.run()
        refused.append(str(error.value))
        # A look at what would be learnt needs no turn.
        if len(refused) == 1:
            assert other.run(dry_run=True).problem is None

    life.wire.fault = meanwhile
    made = one.step(life.clock.time)
    assert made is not None
    assert made.problem is None
    assert refused
    life.wire.fault = lambda request: None
    # There was one just now: that will do for the other process as well.
    life.wait(30 * SECOND)
    assert other.step(life.clock.time) is None
    life.wait(5 * MINUTE)
    assert other.step(life.clock.time) is None
    life.wait(5 * MINUTE)
    assert other.step(life.clock.time) is not None
    assert one.step(life.clock.time) is None


def test_the_turn_of_a_killed_process_runs_out(live: Callable[..., Life]) -> None:
    life = live()
    one, other = life.reconciliation, life.start()

    class Killed(BaseException):
        pass

    def kill(request: httpx.Request) -> None:
        raise Killed

    life.wire.fault = kill
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one, "_release", lambda: None)
        with pytest.raises(Killed):
            one.step(life.clock.time)
    life.wire.fault = lambda request: None
    assert other.step(life.clock.time + LEASE - SECOND) is None
    life.wait(LEASE)
    made = other.step(life.clock.time)
    assert made is not None
    assert made.problem is None


def test_who_was_too_slow_stops_at_once(live: Callable[..., Life]) -> None:
    life = live()
    one, other = life.reconciliation, life.start()
    taken_over: list[Pass | None] = []

    def hang(request: httpx.Request) -> None:
        if not taken_over:
            taken_over.append(None)
            life.wait(LEASE + SECOND)
            taken_over[0] = other.step(life.clock.time)

    life.wire.fault = hang
    life.world.campaign(150, rate=10)
    made = one.step(life.clock.time)
    assert made is not None
    assert made.problem == "another process has taken over"
    assert taken_over[0] is not None
    assert taken_over[0].problem is None
    assert life.state().ended_at == life.clock.time


def test_a_process_that_is_about_to_end_makes_no_other_call(live: Callable[..., Life]) -> None:
    life = live()
    life.wire.fault = lambda request: life.reconciliation.stop()
    life.world.campaign(150, rate=100)
    life.wait(MINUTE)
    made = life.reconciliation.step(life.clock.time)
    assert made is not None
    assert made.problem == "this process is about to end"
    assert len(life.wire.calls) == 1
    other = life.start()  # and holds nobody up
    life.wire.fault = lambda request: None
    assert other.step(life.clock.time).problem is None  # type: ignore[union-attr]


# --- when a pass is made


def test_passes_are_made_every_ten_minutes_and_after_a_gap(live: Callable[..., Life]) -> None:
    life = live()
    life.world.campaign(1, 1)
    assert len(life.look(HOUR)) == 6
    assert life.reconciliation.step(life.clock.time) is not None
    assert life.state().next_at == life.clock.time + EVERY
    life.wait(MINUTE + SECOND)
    life.reconciliation.notice_gap()
    made = life.reconciliation.step(life.clock.time)
    assert made is not None
    assert made.since == BEGAN - OVERLAP  # a day back, but not before the beginning
    life.wait(50 * SECOND)
    life.start()
    assert life.reconciliation.step(life.clock.time + 50 * SECOND) is None
    life.wait(2 * MINUTE)
    life.start()
    assert life.reconciliation.step(life.clock.time) is not None


def test_after_a_gap_and_after_a_loss_more_is_read(live: Callable[..., Life]) -> None:
    life = live()
    life.look(3 * DAY, 10 * MINUTE)
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.reach.clear()
    quiet_hours(life, 70 * MINUTE)
    usual, wide = 25, 25 + 24 * 60
    assert [reach // MINUTE for reach in life.reach] == [
        usual,
        usual,
        usual,
        wide,
        usual,
        usual,
        usual,
    ]
    life.start()
    life.reach.clear()
    life.look(40 * MINUTE)
    assert [reach // MINUTE for reach in life.reach] == [wide, wide, usual, usual]


@pytest.mark.parametrize("wrong", [-30 * DAY, -HOUR, HOUR, 400 * DAY])
def test_a_clock_that_was_wrong_stops_nothing(live: Callable[..., Life], wrong: int) -> None:
    life = live()
    life.look(MINUTE)
    life.clock.time += wrong
    life.world.pass_time(life.clock.time)
    life.look(HOUR)
    life.clock.time = life.world.now = BEGAN + 10 * MINUTE
    life.reconciliation.notice_gap()
    life.world._free_at = dict.fromkeys(life.world.devices, life.clock.time)
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    quiet_hours(life, 2 * DAY)
    assert learnt(life) == ["1 sms.sent", "1 sms.delivered"]


def test_the_thread_notices_that_it_was_asleep(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    life = live()
    monkeypatch.setattr(life.reconciliation, "LOOK", 0.01)
    looks: list[int] = []
    step = life.reconciliation.step
    monkeypatch.setattr(life.reconciliation, "step", lambda now: (step(now), looks.append(now)))
    life.reconciliation.start()
    try:
        wait_for(lambda: life.wire.calls)
        wait_for(lambda: life.reconciliation.state() is not None)
        life.clock.time += 50 * SECOND
        wait_for(lambda: looks and looks[-1] == life.clock.time)
        count = len(looks)
        wait_for(lambda: len(looks) > count)  # it looked, and waited, at the new time
        assert len(life.wire.calls) == 1
        life.clock.time += 8 * MINUTE
        wait_for(lambda: len(life.wire.calls) == 2)
        assert "the clock went on by 479 s at once: this process was asleep" in caplog.text
    finally:
        end(life.reconciliation)


def end(reconciliation: Reconciliation) -> None:
    reconciliation.stop()
    assert reconciliation._thread is not None
    reconciliation._thread.join(30)


def test_the_thread_survives_what_it_meets(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life = live()
    monkeypatch.setattr(life.reconciliation, "LOOK", 0.001)
    note, failures = life.store.note, iter([RuntimeError("a defect")])

    def failing(name: str) -> str | None:
        for failure in failures:
            raise failure
        found: str | None = note(name)
        return found

    monkeypatch.setattr(life.store, "note", failing)
    life.reconciliation.start()
    wait_for(lambda: life.wire.calls)
    end(life.reconciliation)
    assert "reconciliation failed and goes on: a defect" in caplog.text


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what people and programs see of it


@pytest.fixture
def at_work(live: Callable[..., Life], environ: dict[str, str]) -> Life:
    """A life with three messages, nothing of which has arrived."""
    environ |= KEYS
    life = live(weather=Weather(failed=0.5), seed=4)
    life.look(MINUTE)
    life.up = False
    for number in range(3):
        life.world.send(NUMBER, "Bonjour", metadata={"n": number})
    life.wait(20 * MINUTE)
    return life


def flask(life: Life, *arguments: str) -> Any:
    """A command of the application, with its wire to the simulated ZimSend."""
    app = life.apps[-1]
    parts = dataclasses.replace(life.receiver, reconciliation=life.reconciliation)
    app.extensions["receiver"] = parts
    return app.test_cli_runner().invoke(args=["reconcile", *arguments])


def test_the_command_tells_what_was_missing(at_work: Life) -> None:
    states = Counter(message.status for message in at_work.world.messages.values())
    assert states == {"delivered": 1, "failed": 2}
    ran = flask(at_work, "--dry-run")
    assert ran.exit_code == 0
    head, gap, whole, waiting = ran.stdout.splitlines()
    assert head.split() == ["FROM", "TO", "MESSAGES", "SENT", "DELIVERED", "FAILED"]
    assert gap.split()[2:] == ["1", "1", "1", "0"]
    reports = "2 reports of 1 message (1 sent, 1 delivered)"
    assert whole == f"since {at(-15 * 60)}: {reports} would be learnt"
    assert waiting.startswith("2 more changed so lately")
    assert at_work.missed() is None

    ran = flask(at_work)
    assert ran.stdout.splitlines()[2].endswith(f"{reports} had not arrived, and are learnt now")
    at_work.wait(QUIET)
    ran = flask(at_work)
    assert ran.stdout.splitlines()[1].split()[2:] == ["2", "0", "0", "2"]
    ran = flask(at_work)
    assert ran.stdout == f"since {at(-15 * 60)}: nothing is missing\n"
    assert ran.stderr == ""  # no progress in a pipe


def test_the_command_fails_if_zimsend_cannot_be_asked(at_work: Life) -> None:
    at_work.wire.fault = raising(httpx.ConnectError)
    for arguments in ([], ["--dry-run"], ["--since", "90d"]):
        ran = flask(at_work, *arguments)
        assert ran.exit_code == 1
        *_, last = ran.stderr.splitlines()
        assert last.startswith("Error: not all of it could be asked for: ConnectError")


def test_the_command_needs_an_account(runner: FlaskCliRunner) -> None:
    ran = runner.invoke(args=["reconcile"])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Error: ZIMSEND_API_KEY: not set")


def test_the_api_tells_what_was_missing(at_work: Life) -> None:
    flask(at_work, "--dry-run")  # wires it
    client = at_work.apps[-1].test_client()
    refused = client.get("/v1/reconciliation")
    assert (refused.status_code, refused.json["error"]["code"]) == (400, "MISSING_AUTH_HEADERS")
    before = get(client)
    assert (before["missed"], before["gaps"], before["gaps_total"]) == (None, [], 0)
    at_work.look(25 * MINUTE)
    told = get(client)
    assert told["last_pass"]["complete"]
    assert told["last_pass"]["budget"]["used"] >= 1
    assert told["last_complete_at"] == told["last_pass"]["ended_at"]
    assert told["last_complete_at"] < iso(at_work.clock.time) <= told["next_pass_at"]
    counts = {"messages": 3, "reports": 4, "sent": 1, "delivered": 1, "failed": 2}
    assert counts.items() <= told["missed"].items()
    assert told["gaps"] == [told["missed"]]
    at_work.wire.fault = refused_with(503)
    at_work.look(15 * MINUTE)
    told = get(client)
    assert told["last_pass"]["problem"].startswith("the answer gives no reason (HTTP 503)")
    assert told["last_complete_at"] < told["last_pass"]["ended_at"]


def get(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/v1/reconciliation", headers=HEADERS)
    assert answer.status_code == 200
    API["/v1/reconciliation"]["GET"].validate_response(answer)
    told: dict[str, Any] = answer.get_json()
    return told


def test_nobody_was_asked_yet(environ: dict[str, str], clock: Clock) -> None:
    app = create_app(environ | KEYS, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    told = get(app.test_client())
    assert (told["last_pass"], told["missed"]) == (None, None)
    receiver.store.close()


def test_the_text_of_what_is_learnt_is_hidden_where_that_is_wanted(
    live: Callable[..., Life], environ: dict[str, str]
) -> None:
    environ["STORE_TEXT"] = "masked"
    life = live()
    life.look(MINUTE)
    message = life.world.send(NUMBER, "Code 123456", metadata={"n": 1})
    quiet_hours(life, 30 * MINUTE)
    assert status.describe(row_of(life.store, message.id))["message"] == "Code ******"
    bodies = [life.store.body(e["event_id"]) for e in life.store.events(Selection())]
    assert len(bodies) == 2
    assert not any(b"123456" in body.replace(NUMBER.encode(), b"") for body in bodies)


def test_the_store_was_stuck(live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch) -> None:
    """Then ZimSend may have given up meanwhile."""
    life = live()
    life.look(MINUTE)
    app = create_app(life.environ | KEYS, life.clock)
    receiver: Receiver = app.extensions["receiver"]
    assert receiver.reconciliation is not None
    life.apps.append(app)
    noticed: list[bool] = []
    monkeypatch.setattr(receiver.ingest, "on_recovery", lambda: noticed.append(True))
    ingest = receiver.store.ingest

    def stuck(*_: Any) -> Any:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(receiver.store, "ingest", stuck)
    life.client = app.test_client()
    life.world.send(NUMBER, "Bonjour")
    life.wait(30 * SECOND)
    monkeypatch.setattr(receiver.store, "ingest", ingest)
    assert not noticed
    life.wait(2 * MINUTE)
    assert noticed == [True]


def test_it_is_wired_to_the_store(environ: dict[str, str], clock: Clock) -> None:
    app = create_app(environ | KEYS, clock)
    receiver: Receiver = app.extensions["receiver"]
    assert receiver.reconciliation is not None
    assert receiver.ingest.on_recovery == receiver.reconciliation.notice_gap
    receiver.store.close()
    app = create_app(environ, clock)
    assert app.extensions["receiver"].reconciliation is None
    app.extensions["receiver"].store.close()


def test_events_that_come_again_are_a_warning_but_not_each(
    provider: Provider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZimSend gives up after its third try, so who has to try again is close to it."""
    monkeypatch.setattr(webhook, "_retries", Sparingly())
    again = envelope("sms.sent", sms("sent"))
    for _ in range(5):
        provider.post(again)
    [line] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert line == f"event {again['event_id']} came again: ZimSend gives up after its third try"
    monkeypatch.setattr(Sparingly, "EVERY", -1.0)
    monkeypatch.setattr(webhook._retries, "_next", 0.0)
    provider.post(again)
    assert caplog.messages[-1].endswith("(3 more came again since the last such line)")


# --- for real: a simulator, receivers and passes in processes of their own


@pytest.fixture
def quick(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A receiver that is not started, and whose time goes faster; see tests/quick_clock.py."""
    servers: list[Server] = []

    def make(speed: float) -> Server:
        settings = {
            "CLOCK_BEGAN": str(BEGAN),
            "CLOCK_STARTED": str(time.monotonic()),
            "CLOCK_SPEED": str(speed),
            "FLASK_APP": "tests.quick_clock",
            "HANDLERS": "tests.quick_clock",
            "SEEN": str(tmp_path),
            **KEYS,
        }
        server = Server(environ | settings, tmp_path, SECRET)
        servers.append(server)
        open_store(environ["DATABASE_URL"]).migrate()
        return server

    yield make
    for server in servers:
        server.close()


def truth_of(url: str) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"{url}/truth", timeout=30).json()
    return told


def lost_for(store: Any, truth: dict[str, Any]) -> Counter[tuple[str, str]]:
    """What no webhook has brought. What is stored may lack its 200: the kill came before it."""
    stored = {e["event_id"] for e in store.events(Selection(event_type="sms.*"))}
    assert stored >= {e["event_id"] for e in truth["events"] if e["arrived"]}
    return Counter(
        (e["message_id"], e["type"]) for e in truth["events"] if e["event_id"] not in stored
    )


def check_against(truth: dict[str, Any], store: Any, folder: Path) -> None:
    """The end of every run: mirror, handlers, what counts as missed, and the limit of requests."""
    expected: Counter[tuple[str, str]] = Counter()
    for message in truth["messages"]:
        row = row_of(store, message["message_id"])
        assert row is not None
        view = status.describe(row)
        assert (view["status"], view["metadata"]) == (message["status"], message["metadata"])
        assert (view["sent_at"] and iso(view["sent_at"])) == message["sent_at"]
        kinds = {"delivered": ("sent", "delivered"), "failed": ("failed",)}[message["status"]]
        expected.update((message["message_id"], f"sms.{kind}") for kind in kinds)
    gone = lost_for(store, truth)
    found = Counter(
        (message_id, report.type)
        for message_id, report in store.learnt()
        if report.type != "sms.queued"
    )
    assert found == gone
    events = {e["event_id"]: e for e in store.events(Selection(event_type="sms.*"))}
    dispatched = Counter(
        (e["message_id"], e["type"])
        for e in events.values()
        if e["deliveries"] and e["type"] != "sms.queued"
    )
    assert dispatched == expected
    states = {d["state"] for e in events.values() for d in e["deliveries"]}
    assert states <= {"done"}
    # No handler was called for what was done: a call of its own for each attempt, and not more.
    calls = Counter(str(line["id"]) for line in seen(folder, "all"))
    attempts = {e["event_id"]: sum(d["attempts"] for d in e["deliveries"]) for e in events.values()}
    assert all(1 <= calls[name] <= count for name, count in attempts.items() if count)
    assert truth["api"]["limited"] == 0


@contextmanager
def passing(server: Server) -> Iterator[Callable[[str], SimpleNamespace]]:
    """Passes in processes of their own: `begin("one")` makes one, `begin("ever")` one after the
    other. It returns what waits for the process and returns its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.quick_clock"],
        cwd=ROOT,
        env=server.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    line = process.stdout.readline

    def begin(what: str) -> SimpleNamespace:
        print(what, file=process.stdin, flush=True)
        return SimpleNamespace(pid=int(line()), wait=lambda: int(line()))

    with process:
        yield begin
        process.stdin.close()
        assert process.wait(10) == 0


def test_killed_at_random_moments(quick: Callable[..., Server], tmp_path: Path) -> None:
    """kill -9 of 20 passes."""
    chance = random.Random(20_261_121)
    server = quick(600)
    store = open_store(server.environ["DATABASE_URL"])
    # A pass has been made at the beginning of the world.
    state = State(first=BEGAN, since=BEGAN, next_at=BEGAN, ended_at=BEGAN, deep_at=BEGAN)
    store.write_note("reconciliation", json.dumps(dataclasses.asdict(state)))
    options = ["--count", "150", "--rate", "1", "--devices", "5", "--failed", "0.1", "--drop", "1"]
    with simulating(server, "--speed", "600", "--seed", "3", "--keep", *options) as ran:
        server.environ["ZIMSEND_API_URL"] = f"{ran.url}/v1"
        eventually(lambda: truth_of(ran.url)["at_rest"])
        learnt_by: list[int] = []
        states = Counter(message["status"] for message in truth_of(ran.url)["messages"])
        everything = 2 * states["delivered"] + states["failed"]
        lease = LEASE / SECOND / 600  # for so long the dead one has the turn
        longest = 0.25
        with passing(server) as begin:
            # At least 20, and until many of them have died in the middle of it.
            while len(learnt_by) < 20 or (
                len(set(learnt_by)) < 9 and learnt_by[-1] < everything  # else there is no middle
            ):
                assert len(learnt_by) < 60
                made = begin("ever")
                time.sleep(lease + chance.uniform(0, longest))
                os.kill(made.pid, signal.SIGKILL)
                assert made.wait() == -signal.SIGKILL
                learnt_by.append(len(list(store.learnt())))
                if learnt_by[-1] == [0, *learnt_by][-2]:  # a busy machine
                    longest = min(1.2 * longest, 1.0)
            # One looks at the failures for the first time, and the next one is sure of them.
            for _ in range(2):
                time.sleep(EVERY / SECOND / 600)
                assert begin("one").wait() == 0
        server.spawn([*GUNICORN])
        eventually(server.ready)
        eventually(lambda: store.next_due("all", 0) is None)
        server.terminate()
        check_against(truth_of(ran.url), store, tmp_path)
    store.close()


GUNICORN = ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "tests.quick_clock:app"]


def test_a_service_that_was_down_catches_up_by_itself(
    quick: Callable[..., Server], tmp_path: Path
) -> None:
    """Two processes, killed in the middle of a campaign, and back when ZimSend has given up."""
    speed = 200
    server = quick(speed)
    server.environ["WEB_CONCURRENCY"] = "2"
    port = free_port()
    server.environ["ZIMSEND_API_URL"] = f"http://127.0.0.1:{port}/v1"
    store = open_store(server.environ["DATABASE_URL"])
    # Before the campaign: of what was before its first pass it asks for 15 minutes only.
    server.spawn([*GUNICORN])
    eventually(server.ready)
    eventually(lambda: store.note("reconciliation"))
    options = "--count 200 --rate 0.1 --devices 3 --failed 0.1 --seed 3 --keep"
    with simulating(server, "--speed", str(speed), *options.split(), port=port) as ran:
        eventually(lambda: len(list(store.events(Selection(event_type="sms.*")))) > 20)
        server.kill()
        # Half an hour later. Before it, a last try could wait at the door while a pass is made.
        eventually(lambda: truth_of(ran.url)["at_rest"])
        server.spawn([*GUNICORN])
        eventually(server.ready)
        gone = {message_id for message_id, _ in lost_for(store, truth_of(ran.url))}
        assert len(gone) > 50

        def caught_up() -> bool:
            told = server.client.get("/v1/reconciliation", headers=HEADERS).json()
            return bool(told["missed"]) and told["missed"]["messages"] == len(gone)

        eventually(caught_up, 60)
        eventually(lambda: store.next_due("all", 0) is None)
        told = server.client.get("/v1/reconciliation", headers=HEADERS)
        assert told.json()["gaps_total"] == 1
        assert server.terminate() == 0
        check_against(truth_of(ran.url), store, tmp_path)
    store.close()
