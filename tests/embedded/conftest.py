"""Receivers inside other programs, in this process; all are closed at the end of a test."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from receiver import calling
from receiver.embedded import Embedded
from receiver.parts import Receiver, parts
from receiver.providers.zimsend.webhook import sign
from tests.payloads import envelope, sms

SECRET = "whsec_0123456789abcdef0123456789abcdef"
#: What an embedded receiver needs at least; nothing answers at ZimSend's.
SETTINGS = {"ZIMSEND_WEBHOOK_SECRET": SECRET, "ZIMSEND_API_URL": "http://127.0.0.1:9/v1"}

Embed = Callable[..., Embedded]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the person who runs the tests."""
    for name in os.environ:
        if name.startswith(("ZIMSEND_", "SMSCX_", "SIPGATE_")) or name in (
            *("DATABASE_URL", "SECRET_KEY", "PORT", "HANDLERS", "FLASK_DEBUG"),
        ):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def commands_are_called_as_before() -> Iterator[None]:
    """Whoever is embedded says how its commands are called, for the whole process."""
    yield
    calling.be_called("flask")


@pytest.fixture
def embed(tmp_path: Path) -> Iterator[Embed]:
    """`embed(settings, …)` makes one whose tables are there, in the folder of the test."""
    made: list[Embedded] = []

    def make(
        settings: dict[str, object] | None = None, *, migrate: bool = True, **options: Any
    ) -> Embedded:
        options.setdefault("folder", tmp_path)
        embedded = Embedded(SETTINGS if settings is None else settings, **options)
        made.append(embedded)
        if migrate:
            parts_of(embedded).store.migrate()
        return embedded

    yield make
    for embedded in made:
        embedded.close()


def parts_of(embedded: Embedded) -> Receiver:
    return parts(embedded.application)


def report(
    client: Any, state: str, message_id: str, *, at: str = "/webhooks/zimsend", **more: Any
) -> TestResponse:
    """Have ZimSend report what became of a message, through a test client."""
    return post(client, envelope(f"sms.{state}", sms(state, message_id), **more), at)


def post(client: Any, event: dict[str, Any], at: str) -> TestResponse:
    body = json.dumps(event).encode()
    headers = {"X-Webhook-Signature": sign(SECRET.encode(), body)}
    answer: TestResponse = client.post(at, data=body, headers=headers)
    return answer


def client_of(embedded: Embedded, prefix: str = "/sms") -> Client:
    """Somebody who asks it, where it is mounted at a prefix."""

    def mounted(environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        assert path.startswith(prefix)
        environ |= {"SCRIPT_NAME": prefix, "PATH_INFO": path.removeprefix(prefix)}
        return embedded(environ, start)

    return Client(mounted)
