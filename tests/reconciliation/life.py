"""A simulated world and the receivers that take its reports, by a clock that the test moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from receiver import Event, Registry, status
from receiver.parts import Receiver
from receiver.providers.simulating.running import Running
from receiver.providers.zimsend.account import Account
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.budget import Half
from receiver.providers.zimsend.simulator.api import create_api
from receiver.providers.zimsend.simulator.running import Simulator
from receiver.providers.zimsend.simulator.world import REPORTS, Post, Webhook, World
from receiver.reconciliation.losses import KINDS, TOGETHER
from receiver.reconciliation.passes import (
    Pass,
    Reconciliation,
)
from receiver.store import Missed, Selection
from receiver.times import MINUTE, SECOND, iso
from tests.conftest import SECRET, Clock, row_of
from tests.server import eventually

KEY, ID = "zs_test_0123456789", "client_0123456789"
#: Nothing answers there.
NOBODY = "http://127.0.0.1:9/v1"
KEYS = {"ZIMSEND_API_KEY": KEY, "ZIMSEND_CLIENT_ID": ID, "ZIMSEND_API_URL": NOBODY}
HEADERS = {"X-API-Key": KEY, "X-Client-ID": ID}

Fault = Callable[[httpx.Request], httpx.Response | None]


class Still(Simulator):
    """A ZimSend that lives by the test's clock."""

    def __init__(self, world: World, clock: Clock) -> None:
        super().__init__(world, credentials=(KEY, ID))
        self.clock = clock

    def now(self) -> int:
        return self.clock.time


class Wire(httpx.BaseTransport):
    """The way to a simulated provider. `fault` may answer in its place, or raise."""

    def __init__(self, simulated: Running[Any], app: Flask) -> None:
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

    provider, path = "zimsend", "/webhooks/zimsend"

    def __init__(self, environ: dict[str, str], clock: Clock, world: Any) -> None:
        self.environ = environ
        self.clock = clock
        self.world = world
        self.simulated, self.wire = self.simulate()
        self.apps: list[Flask] = []
        self.up = True
        #: How far back each pass has read.
        self.reach: list[int] = []
        self.start()
        self.receiver.store.migrate()

    def simulate(self) -> tuple[Any, Wire]:
        """The provider, and the way to it."""
        hook = Webhook("wh_1", "https://receiver", REPORTS, SECRET.encode())
        self.world.webhooks["wh_1"] = hook
        simulated = Still(self.world, self.clock)
        return simulated, Wire(simulated, create_api(simulated))

    def account(self) -> Any:
        """The account there."""
        client = ZimSend(KEY, ID, sleep=self.sleep, clock=lambda: self.clock.time / SECOND)
        return Account(client, Half(self.receiver.store, self.clock), self.clock)

    def start(self) -> Reconciliation:
        """Another process of the receiver."""
        app = create_app(self.environ, self.clock)
        self.apps.append(app)
        self.receiver: Receiver = app.extensions["receiver"]
        self.client: FlaskClient = app.test_client()
        make = httpx.Client.__init__

        def through_the_wire(client: httpx.Client, **options: Any) -> None:
            make(client, **{**options, "transport": self.wire})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(httpx.Client, "__init__", through_the_wire)
            account = self.account()
        self.reconciliation = Reconciliation(
            account,
            self.receiver.store,
            self.receiver.ingest.submit_all,
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
        answer = self.client.post(self.path, data=post.event.body, headers=post.headers)
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

    def missed(self) -> Missed | None:
        return self.gaps()[0]

    def gaps(self) -> tuple[Missed | None, int, list[Missed]]:
        found: tuple[Missed | None, int, list[Missed]]
        kinds = [f"sms.{kind}" for kind in KINDS]
        found = self.store.missed(kinds, TOGETHER, 100, self.provider)
        return found

    def compare(self) -> None:
        """The mirror tells the truth of every message."""
        compare(self)

    def lost(self) -> Counter[tuple[str, str]]:
        """What no report has brought, as far as the provider still tells of it."""
        return lost(self.world)

    def state(self) -> Any:
        state = self.reconciliation.state()
        assert state is not None
        return state


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


def quiet_hours(life: Life, time_us: int) -> list[Pass]:
    """Time in which nothing arrives."""
    life.up = False
    passes = life.look(time_us)
    life.up = True
    return passes


def learnt(life: Life) -> list[str]:
    return [f"{message_id[-1]} {kind}" for message_id, kind in missed_reports(life.store)]


def missed_reports(store: Any) -> list[tuple[str, str]]:
    """Of which messages a report came from reconciliation alone, and of which type, by time."""
    events = [
        event
        for event in store.events(Selection())
        if event["source"] == "reconciliation" and not event["repeat"]
    ]
    return [(e["message_id"], e["type"]) for e in sorted(events, key=lambda e: e["occurred_at"])]


def refused_with(code: int, **more: Any) -> Fault:
    return lambda request: httpx.Response(code, **more)


def raising(error: type[httpx.HTTPError]) -> Fault:
    def fault(request: httpx.Request) -> None:
        raise error("on the way", request=request)

    return fault
