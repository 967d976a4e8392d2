"""The fixtures that all tests share. Real processes: `tests/server.py`."""

from __future__ import annotations

import gc
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from hypothesis import HealthCheck, settings
from werkzeug.test import TestResponse

from app import create_app
from receiver import status, times
from receiver.counting import Counting
from receiver.parts import Receiver, parts
from receiver.providers.zimsend import webhook
from receiver.service import close
from receiver.store import Store, open_store
from tests import postgres
from tests.canned import Canned, ok
from tests.postgres import Databases
from tests.server import Server
from tests.sqlite_files import migrated

# What a helper of a room asserts is told as fully as what a test asserts.
pytest.register_assert_rewrite(
    "tests.core", "tests.providers", "tests.reconciliation", "tests.store", "tests.web"
)

# The same examples in each run; and a machine that stands still for a moment is no failure.
settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

# The thread of a test that has ended would add what it counted to the database of the next one.
Counting.EVERY = 3_600.0

# Each HTTP client reads the authorities' certificates, which takes as long as several tests.
ssl.create_default_context = cache(ssl.create_default_context)

SECRET = "whsec_0123456789abcdef0123456789abcdef"


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("dist", "no") == "no":  # it collects, and lets no others do so
        # To look for garbage among all that stays takes as long as to collect the tests.
        gc.disable()
    config.addinivalue_line("markers", "each_engine: runs on SQLite and on PostgreSQL")
    config.addinivalue_line("markers", "spoils_the_schema: needs a PostgreSQL database for itself")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is given a `store`, or is marked `each_engine`, runs on each engine."""
    marked = metafunc.definition.get_closest_marker("each_engine")
    if "engine" in metafunc.fixturenames and (marked or "store" in metafunc.fixturenames):
        metafunc.parametrize("engine", ["sqlite", "postgres"], scope="module")


@pytest.fixture(scope="module")
def engine() -> str:
    return "sqlite"


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The PostgreSQL of this test process; started by the first test that needs it."""
    with postgres.databases() as databases:
        yield databases


@contextmanager
def new_database(
    engine: str, request: pytest.FixtureRequest, folder: Path, *, empty: bool = False
) -> Iterator[str]:
    """The URL of a database that nobody else uses; migrated, unless it is `empty`."""
    if engine == "sqlite":
        yield f"sqlite:///{folder}/empty.db" if empty else migrated(folder / "receiver.db")
        return
    databases: Databases = request.getfixturevalue("databases")
    if empty:
        url = databases.create(empty=True)
        yield url
        databases.drop(url)
    else:
        url = databases.lend()
        yield url
        databases.take_back(url)


@pytest.fixture
def database_url(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with new_database(engine, request, tmp_path) as url:
        yield url


@pytest.fixture
def empty_database_url(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    with new_database(engine, request, tmp_path, empty=True) as url:
        yield url


@pytest.fixture
def environ(database_url: str) -> dict[str, str]:
    """Settings for one receiver with a database of its own."""
    return {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": database_url,
        "HANDLERS": "tests.handlers",
        "ZIMSEND_API_URL": "http://127.0.0.1:9/v1",  # nobody is there
    }


@pytest.fixture
def without_database(empty_database_url: str, environ: dict[str, str]) -> dict[str, str]:
    """The same, where nothing has been migrated."""
    Path(environ["DATABASE_URL"].removeprefix("sqlite:///")).unlink(missing_ok=True)
    return {**environ, "DATABASE_URL": empty_database_url}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass
class Clock:
    """A wall clock that stands still until a test moves it."""

    time: int = field(default_factory=times.now)

    def __call__(self) -> int:
        return self.time


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """A migrated store, once for each engine."""
    store = open_store(database_url)
    store.migrate()
    yield store
    store.close()


@pytest.fixture(scope="module")
def canned() -> Iterator[Canned]:
    """A ZimSend that answers as a test says."""
    canned = Canned()
    yield canned
    canned.released.set()
    canned.close()


@pytest.fixture
def fresh_canned(canned: Canned) -> Iterator[Canned]:
    """The same, as if nobody had told it anything yet."""
    canned.released.clear()
    canned.answers(ok({}))
    yield canned
    canned.released.set()


def row_of(store: Store, message_id: str) -> status.Row | None:
    """A message's row in the mirror."""
    found = store.evidence(message_id, limit=0)
    return found[0] if found else None


@pytest.fixture
def app(environ: dict[str, str], clock: Clock) -> Iterator[Flask]:
    app = create_app(environ, clock)
    parts(app).store.migrate()
    yield app
    close(app)


@pytest.fixture
def receiver(app: Flask) -> Receiver:
    return parts(app)


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

    def post(
        self,
        event: dict[str, Any] | bytes,
        *,
        secret: str = SECRET,
        path: str = "/webhooks/zimsend",
    ) -> TestResponse:
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        return self.client.post(
            "/",
            base_url="http://localhost",
            environ_overrides={"PATH_INFO": path},  # the client would look for a host in it
            data=body,
            headers={"X-Webhook-Signature": webhook.sign(secret.encode(), body)},
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
