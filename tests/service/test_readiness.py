"""`/readyz` knows what ingest knows: what is written for a webhook is tried."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.parts import parts
from receiver.readiness import Readiness
from receiver.store import Selection
from receiver.store.contract import Settlement, Want
from receiver.times import HOUR, MINUTE
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms

pytestmark = pytest.mark.each_engine


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "EMBEDDED_WORKER": "0"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Readiness, "KEPT", 0.0)
    monkeypatch.setattr(Readiness, "TRIED_FOR", 0.0)
    monkeypatch.setattr(Readiness, "PATIENCE", 0.3)


@pytest.fixture
def outside(app: Flask, engine: str) -> Iterator[Callable[[str], Any]]:
    """What somebody else does to the database."""
    url = parts(app).config.database_url
    connection: Any
    if engine == "sqlite":
        connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    else:
        connection = psycopg.connect(url, autocommit=True)
    yield connection.execute
    connection.close()


def test_a_look_leaves_nothing_behind(app: Flask, client: FlaskClient) -> None:
    store = parts(app).store
    for _ in range(3):
        assert client.get("/readyz").status_code == 200
    assert not list(store.events(Selection()))
    assert not list(store.quarantined())
    assert not store.statistics(None, None, None)
    assert client.get("/readyz").get_json()["backlog"]["waiting"] == 0


@pytest.mark.parametrize("table", ["events", "messages", "deliveries", "quarantine", "statistics"])
def test_a_table_that_takes_no_rows(
    client: FlaskClient, outside: Callable[[str], Any], engine: str, table: str
) -> None:
    """As where a right was revoked. 503 for as long as it is so, and no longer."""
    if engine == "sqlite":
        on = f"TRIGGER no BEFORE INSERT ON {table} BEGIN SELECT raise(ABORT, 'no'); END"
        off = "DROP TRIGGER no"
        on = f"CREATE {on}"
    else:
        table = {"statistics": "cells"}.get(table, table)
        on = f"ALTER TABLE {table} ADD CONSTRAINT no CHECK (false) NOT VALID"
        off = f"ALTER TABLE {table} DROP CONSTRAINT no"
    assert client.get("/readyz").status_code == 200
    outside(on)
    try:
        for _ in range(2):
            answer = client.get("/readyz")
            assert (answer.status_code, [*answer.get_json()["failing"]]) == (503, ["store"])
    finally:
        outside(off)
    assert client.get("/readyz").status_code == 200


def test_a_lock_that_somebody_holds(
    client: FlaskClient, outside: Callable[[str], Any], engine: str
) -> None:
    outside("BEGIN IMMEDIATE" if engine == "sqlite" else "BEGIN")
    if engine == "postgres":
        outside("LOCK TABLE deliveries IN SHARE MODE")
    assert client.get("/readyz").status_code == 503
    outside("ROLLBACK")
    assert client.get("/readyz").status_code == 200


def test_dead_and_failing_work_is_a_warning(
    app: Flask, client: FlaskClient, provider: Provider, clock: Clock
) -> None:
    receiver = parts(app)
    handler = next(iter(receiver.registry)).name
    for _ in range(3):
        provider.post(envelope("sms.sent", sms("sent")))
    assert client.get("/readyz").get_json()["warnings"] == {}
    want = Want(handler, 3, MINUTE, 12)
    one, two, three = receiver.store.work(clock.time, [], [want], 1.0)
    assert client.get("/readyz").get_json()["warnings"] == {}  # they are in hand
    settled = [
        Settlement(one, "dead", 0, "no"),
        Settlement(two, "pending", clock.time + HOUR, "later"),
        Settlement(three, "done", 0),
    ]
    receiver.store.work(clock.time, settled, [], 1.0)
    answer = client.get("/readyz")
    assert answer.status_code == 200
    told = answer.get_json()["warnings"]
    assert told["dead"].startswith(f"work was given up: 1 of {handler};")
    assert told["retries"] == f"work has failed and is tried again: 1 of {handler}"
