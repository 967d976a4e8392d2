"""A simulated sipgate and the receivers beside it, by a clock that the test moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from flask import Flask

from app import create_app
from receiver import Event, Registry
from receiver.parts import Receiver
from receiver.polling import Polling
from receiver.providers.sipgate.polling import EVERY, Found
from receiver.providers.sipgate.simulator.api import create_api
from receiver.providers.sipgate.simulator.running import Simulator
from receiver.providers.sipgate.simulator.world import World
from receiver.store import Selection
from tests.conftest import Clock
from tests.server import eventually

TOKEN = {"SIPGATE_TOKEN_ID": "token-ABC123", "SIPGATE_TOKEN": "secret"}
#: Nothing answers there.
NOBODY = {"SIPGATE_API_URL": "https://127.0.0.1:9/v2"}
KEYS = {"V1_API_KEY": "key"}
HEADERS = {"X-API-Key": "key"}
NUMBER = "+4915799000002"


class Still(Simulator):
    """A sipgate that lives by the test's clock."""

    def __init__(self, world: World, clock: Clock) -> None:
        super().__init__(world, token_id=TOKEN["SIPGATE_TOKEN_ID"], token=TOKEN["SIPGATE_TOKEN"])
        self._clock = clock

    def now(self) -> int:
        return self._clock.time


class Wire(httpx.BaseTransport):
    """The way to it. `fault` may answer in its place, or raise."""

    def __init__(self, simulated: Simulator) -> None:
        app = create_api(simulated)
        app.config["PROPAGATE_EXCEPTIONS"] = True
        self._app = httpx.WSGITransport(app)
        self.fault: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
        self.calls: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v2")
        self.calls.append(f"{request.method} {path}")
        request.url = request.url.copy_with(path=path)
        request.extensions["trace"]("http11.send_request_headers.started", {})  # it has left
        return self.fault(request) or self._app.handle_request(request)


class Life:
    """A world, and the receivers beside it. Nothing happens but in `wait`."""

    def __init__(self, environ: dict[str, str], clock: Clock, **world: Any) -> None:
        self.environ = environ | TOKEN | NOBODY | KEYS | {"HANDLERS": __name__}
        self.environ.pop("ZIMSEND_WEBHOOK_SECRET", None)
        self.clock = clock
        self.world = World(began=clock.time, seed=1, **world)
        self.simulated = Still(self.world, clock)
        self.wire = Wire(self.simulated)
        self.lost_answers = False
        self.apps: list[Flask] = []
        self.start()
        self.receiver.store.migrate()

    def start(self) -> Polling:
        """Another process of the receiver."""
        make = httpx.Client.__init__

        def through_the_wire(client: httpx.Client, **options: Any) -> None:
            make(client, **{**options, "transport": self.wire})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(httpx.Client, "__init__", through_the_wire)
            app = create_app(self.environ, self.clock)
        self.apps.append(app)
        self.receiver: Receiver = app.extensions["receiver"]
        self.client = app.test_client()
        assert self.receiver.polling is not None
        self.polling = self.receiver.polling
        return self.polling

    def close(self) -> None:
        for app in self.apps:
            receiver: Receiver = app.extensions["receiver"]
            receiver.worker.drain(5)
            receiver.store.close()
        self.simulated.stop()

    def wait(self, span: int) -> None:
        self.clock.time += span
        self.world.pass_time(self.clock.time)

    def look(self, span: int) -> list[Found]:
        """Live on, and make the passes that are due."""
        made = []
        for _ in range(span // EVERY):
            if (found := self.polling.step()) is not None:
                made.append(found)
            self.wait(EVERY)
        return made

    def send(self, to: str = NUMBER, text: str = "Hallo", **how: Any) -> str:
        """Through the gateway. Returns the id that it answers, also where sipgate did not."""
        answer = self.client.post(
            "/v1/sms/send",
            json={"to": to, "message": text, **how},
            headers=HEADERS | {"X-Provider": "sipgate"},
        )
        told = answer.get_json()
        assert answer.status_code == (504 if self.lost_answers else 200), told
        self.lost_answers = False
        return str(told.get("message_id") or told["error"]["message_id"])

    def lose_the_next_answer(self) -> None:
        """It is carried out, and nobody hears so."""

        def lost(request: httpx.Request) -> None:
            self.wire.fault = lambda request: None
            self.wire.handle_request(request)
            raise httpx.ReadTimeout("no answer", request=request)

        self.wire.fault, self.lost_answers = lost, True

    def events(self) -> list[dict[str, Any]]:
        return list(self.receiver.store.events(Selection()))

    def get(self, path: str) -> Any:
        return self.client.get(path, headers=HEADERS).get_json()

    def states(self) -> dict[str, str]:
        """What `/v1` tells of each message."""
        told = self.get("/v1/sms/history?limit=100")
        assert told["pagination"]["total_pages"] <= 1
        return {row["message_id"]: row["status"] for row in told["data"]}


#: What the handler below has seen.
SAW: list[Event] = []


def register(registry: Registry) -> None:
    # A call that takes long on a busy machine is no failure.
    @registry.on("*", name="first", timeout=3_600)
    def first(event: Event) -> None:
        SAW.append(event)


def handled(life: Life) -> Counter[tuple[str | None, str, str]]:
    """Run the handlers until there is no more to do; what they saw: message, type and source."""
    SAW.clear()
    life.receiver.worker.start()
    eventually(lambda: life.receiver.store.next_due("first", 0) is None)
    assert life.receiver.worker.drain(10)
    return Counter((event.message_id, event.type, event.source) for event in SAW)
