"""Refused webhooks leave a trace: how many, and why most likely; never what they held."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from receiver import times
from receiver.parts import Receiver
from receiver.providers.zimsend.webhook import sign
from receiver.refusals import PATH, SIGNATURE, SIZE, Refusals, last_noted, note
from receiver.store import Store, open_store
from tests.conftest import SECRET, Provider
from tests.conftest import Clock as Now
from tests.payloads import envelope, sms
from tests.server import eventually


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


class Quiet(Refusals):
    """One that tells when it is asked to."""

    def _tell_all(self) -> None:
        pass


@pytest.fixture
def refusals() -> Refusals:
    return Quiet(["/right"], Clock())


def test_one_line_has_how_many_and_why(refusals: Refusals) -> None:
    assert refusals.tell() is None
    for number in range(9):
        refusals.signature(lambda number=number: f"cause {number // 2}")  # type: ignore[misc]
    refusals.signature(lambda: "another")
    refusals.size()
    refusals.path("/webhook/zimsend", signed=False)
    refusals.path("/hook/whsec_0123456789abcdef/zimsend", signed=False)
    refusals.path("/sms", signed=True)
    refusals.path("/favicon.ico", signed=False)
    assert refusals.tell() == (
        "webhooks were refused: 10 for their signature (likely: cause 3; cause 4; another), "
        "1 larger than MAX_BODY_BYTES, "
        "3 to a path that does not exist, like /sms, /webhook/zimsend: right is /right"
    )
    assert refusals.tell() is None
    assert refusals.counts == {SIGNATURE: 10, SIZE: 1, PATH: 3}
    refusals.path("/hook/SMSCX/0123456789abcdef0123456789", signed=False)
    assert refusals.counts[PATH] == 4
    assert "0123456789" not in str(refusals.tell())


def test_they_are_told_of_for_a_while() -> None:
    clock = Clock()
    refusals = Quiet(["/right"], clock)
    assert refusals.lately() == 0
    refusals.size()
    clock.time = Refusals.LATELY
    assert refusals.lately() == 1
    clock.time += 1
    assert refusals.lately() == 0


def test_at_most_one_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Refusals, "EVERY", 0.3)
    refusals = Refusals(["/right"])
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            refusals.size()
        eventually(lambda: sum(int(r.message.split()[3]) for r in caplog.records) == 50, 5)
    assert len(caplog.records) <= 2


def test_each_refusal_at_the_door_is_counted(
    client: FlaskClient, provider: Provider, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    body = b'{"event": "sms.sent"}'
    for headers in ({}, {"X-Webhook-Signature": sign(SECRET.encode() + b"\n", body)}):
        assert client.post("/webhooks/zimsend", data=body, headers=headers).status_code == 401
    assert client.post("/webhooks/zimsend", data=b"x" * 300_000).status_code == 413
    assert client.post("/webhook/zimsend", data=body).status_code == 404
    assert provider.post(envelope("sms.sent", sms("sent"))).status_code == 200
    assert receiver.receiving.refusals.counts == {SIGNATURE: 2, SIZE: 1, PATH: 1}
    told = client.get("/readyz").get_json()["warnings"]["refusals"]
    assert told == "4 webhooks were refused by this process; its log says why"
    eventually(lambda: any("webhooks were refused" in line for line in caplog.messages))
    assert SECRET not in caplog.text


def test_the_last_line_is_found_by_whoever_has_the_store(store: Store, clock: Now) -> None:
    assert last_noted(store, clock()) is None
    refusals = Quiet(["/right"])
    refusals.keep = lambda line: note(store, clock(), line)
    refusals.size()
    line = refusals.tell()
    assert last_noted(store, clock()) == (clock(), line)
    assert last_noted(store, clock() + times.DAY) is None
    assert last_noted(store, clock() + times.DAY - 1, times.DAY) == (clock(), line)
    refusals.path("/webhook", signed=False)
    refusals.tell()
    assert "path that does not exist" in str(last_noted(store, clock()))


def test_a_store_that_takes_nothing_hides_no_line(tmp_path: Path, clock: Now) -> None:
    refusals = Quiet(["/right"])
    store = open_store(f"sqlite:///{tmp_path}/none.db")
    refusals.keep = lambda line: note(store, clock(), line)
    refusals.size()
    assert refusals.tell() == "webhooks were refused: 1 larger than MAX_BODY_BYTES"


def test_where_no_provider_reports_there_is_no_right_path() -> None:
    refusals = Quiet([], Clock())
    refusals.path("/webhooks/zimsend", signed=False)
    assert "right is none, since no provider that is set up sends any" in str(refusals.tell())
