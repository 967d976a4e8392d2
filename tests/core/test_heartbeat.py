"""`HEARTBEAT_URL`: asked each minute while all is well, by one process of all."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from flask.testing import FlaskClient

from receiver.heartbeat import Heartbeat
from receiver.parts import Receiver
from receiver.times import DAY, HOUR, MINUTE, SECOND
from tests.canned import Canned, ok, status
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms

SECRET_PATH = "/ping/0a1b2c3d"


@dataclass
class Asked:
    canned: Canned
    before: int = field(default=0)

    def times(self) -> int:
        number = len(self.canned.seen) - self.before
        self.before = len(self.canned.seen)
        return number


@pytest.fixture
def environ(environ: dict[str, str], canned: Canned) -> dict[str, str]:
    canned.answers(ok({}))
    return {**environ, "EMBEDDED_WORKER": "0", "HEARTBEAT_URL": canned.url + SECRET_PATH}


def another(receiver: Receiver) -> Heartbeat:
    """That of another process."""
    url = receiver.config.heartbeat_url
    assert url is not None
    return Heartbeat(url, receiver.store, receiver.readiness, receiver.now)


@pytest.mark.each_engine
def test_it_is_asked_each_minute_by_one_of_all(
    receiver: Receiver, clock: Clock, canned: Canned
) -> None:
    asked, processes = Asked(canned), [another(receiver) for _ in range(3)]
    for minute in range(4):
        for _ in range(12):
            for process in processes:
                process.step(clock.time)
            clock.time += 5 * SECOND
        assert asked.times() == 1, minute
    assert (canned.last.method, canned.last.path) == ("GET", SECRET_PATH)


@pytest.mark.parametrize("wrong", [20 * MINUTE, 2 * HOUR, 3 * DAY])
def test_a_clock_that_was_ahead_keeps_nobody_from_asking(
    receiver: Receiver, clock: Clock, canned: Canned, wrong: int
) -> None:
    assert another(receiver).step(clock.time + wrong)
    assert another(receiver).step(clock.time)
    assert not another(receiver).step(clock.time + 5 * SECOND)
    assert len(canned.seen) == 2


def test_it_is_not_asked_while_readyz_is_not_well(
    receiver: Receiver,
    client: FlaskClient,
    provider: Provider,
    clock: Clock,
    canned: Canned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver.readiness, "KEPT", 0.0)
    asked, heartbeat = Asked(canned), receiver.heartbeat
    assert heartbeat is not None
    assert heartbeat.step(clock.time)
    provider.post(envelope("sms.sent", sms("sent")))
    clock.time += 16 * MINUTE
    assert client.get("/readyz").status_code == 503
    assert not heartbeat.step(clock.time)
    assert asked.times() == 1


def test_a_watcher_that_does_not_answer_harms_nothing_and_its_address_is_not_told(
    receiver: Receiver, clock: Clock, canned: Canned, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    heartbeat = another(receiver)
    canned.answers(status(500), status(500), status(302, b"", "Location: /else"), ok({}))
    for well in (False, False, False, True):
        assert heartbeat.step(clock.time) == well
        clock.time += MINUTE
    assert len(canned.seen) == 4  # no redirect was followed
    told = [line for line in caplog.messages if "HEARTBEAT_URL" in line]
    assert [line.split(";")[0] for line in told] == [
        "HEARTBEAT_URL answered 500",
        "HEARTBEAT_URL answered 302",
        "HEARTBEAT_URL answers again",
    ]
    ours = [record for record in caplog.records if record.name.startswith("receiver")]
    assert not any(SECRET_PATH in record.getMessage() for record in ours)
