"""The fixtures that all tests share. Real processes: `tests/server.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from werkzeug.test import TestResponse

from app import Receiver, create_app
from receiver import signature, times
from receiver.store import Store, open_store
from tests.server import Server

SECRET = "whsec_0123456789abcdef0123456789abcdef"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Settings for one receiver with a database of its own."""
    return {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'receiver.db'}",
        "HANDLERS": "tests.handlers",
    }


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Clock:
    """A wall clock that stands still until a test moves it."""

    time: int = field(default_factory=times.now)

    def __call__(self) -> int:
        return self.time


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A migrated store, once for each engine."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def app(environ: dict[str, str], clock: Clock) -> Iterator[Flask]:
    app = create_app(environ, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    yield app
    receiver.store.close()


@pytest.fixture
def receiver(app: Flask) -> Receiver:
    receiver: Receiver = app.extensions["receiver"]
    return receiver


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


@pytest.fixture
def provider(client: FlaskClient) -> Provider:
    return Provider(client)


@dataclass
class Provider:
    """Sends events as ZimSend does, to the application in this process."""

    client: FlaskClient

    def post(self, event: dict[str, Any] | bytes, *, secret: str = SECRET) -> TestResponse:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        return self.client.post(
            "/webhooks/zimsend",
            data=body,
            headers={"X-Webhook-Signature": signature.sign(secret.encode(), body)},
        )


@pytest.fixture
def serve(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start real gunicorn processes: `serve(WEB_CONCURRENCY="2")`."""
    servers: list[Server] = []

    def start(**settings: str) -> Server:
        server = Server({**environ, **settings}, tmp_path, SECRET)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()
