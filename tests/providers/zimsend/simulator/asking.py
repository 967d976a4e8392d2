"""The simulator's API without a network, and what its answers look like."""

from __future__ import annotations

import json
from typing import Any

from receiver import times
from receiver.providers.zimsend.simulator.api import create_api
from receiver.providers.zimsend.simulator.running import Simulator
from receiver.providers.zimsend.simulator.world import (
    Post,
    World,
)
from tests.providers.zimsend.simulator.worlds import NUMBER


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


def shape(value: Any) -> Any:
    """Names and types, without the values."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value)


def is_time(text: str) -> bool:
    return times.parse(text) is not None and text.endswith("Z")
