"""Two services, or two releases of one, with different handlers on one database."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient

from receiver import Registry, times
from receiver.parts import Receiver, parts
from receiver.providers.zimsend.webhook import parse
from receiver.store import Selection, Store
from receiver.times import DAY, HOUR, MINUTE
from receiver.worker import Worker
from tests.payloads import envelope, sms

BEGAN = times.now()


def having(*names: str) -> Registry:
    registry = Registry()
    for name in names:
        registry.on("*", name=name)(lambda event: None)
    return registry


def owe(store: Store, handler: str) -> str:
    """Store an event for a handler that nobody calls here."""
    body = json.dumps(envelope("sms.sent", sms("sent"))).encode()
    item = parse(body, received_at=BEGAN, retention=90 * DAY)
    store.ingest([item], lambda _: [handler], 5)
    return item.id


def state(store: Store, event_id: str) -> str:
    (found,) = store.events(Selection(ids=[event_id]))
    return str(found["deliveries"][0]["state"])


def test_after_a_long_outage_the_first_that_starts_buries_nothing(store: Store) -> None:
    """Both were away for eight days; the other one comes a minute later."""
    Worker(store, having("mine")).step(BEGAN)
    Worker(store, having("theirs")).step(BEGAN)
    event_id = owe(store, "theirs")
    for minutes in range(5):
        Worker(store, having("mine")).step(BEGAN + 8 * DAY + minutes * MINUTE)
    assert state(store, event_id) == "pending"


def test_nobody_buries_what_he_has_never_heard_of(store: Store) -> None:
    """As where a release before did not note its handlers; it waits a week from here."""
    event_id = owe(store, "theirs")
    for hours in range(8 * 24, 16 * 24, 6):
        Worker(store, having("mine")).step(BEGAN + hours * HOUR)
        assert state(store, event_id) == ("pending" if hours < 15 * 24 else "dead"), hours


def test_a_clock_that_leaps_buries_nothing(store: Store) -> None:
    event_id = owe(store, "theirs")
    mine = Worker(store, having("mine"))
    for now in (BEGAN - HOUR, BEGAN, BEGAN + 400 * DAY, BEGAN + 400 * DAY + MINUTE):
        mine.step(now)
    assert state(store, event_id) == "pending"


def test_other_handlers_elsewhere_are_told_once_and_not_when_they_are_gone(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    mine, theirs = Worker(store, having("mine")), Worker(store, having("theirs"))
    theirs.step(BEGAN)
    for minutes in range(2):
        mine.step(BEGAN + minutes * MINUTE)
    told = [r for r in caplog.records if "has other HANDLERS (theirs)" in r.message]
    assert len(told) == 1
    caplog.clear()
    theirs.stop()
    theirs.run()
    Worker(store, having("other")).step(BEGAN + 10 * MINUTE)  # what died says nothing any more
    assert "other HANDLERS" not in caplog.text


def test_the_same_handlers_elsewhere_are_no_matter(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        Worker(store, having("a", "b")).step(BEGAN)
    assert caplog.text == ""


def test_work_of_a_renamed_handler_is_told(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    owe(store, "old name")
    Worker(store, having("new name")).step(BEGAN)
    assert "work waits for handlers that nobody has registered: old name." in caplog.text


@pytest.mark.each_engine
def test_readyz_warns_and_stays_ready(receiver: Receiver, client: FlaskClient) -> None:
    now = receiver.now()
    receiver.worker.step(now)
    assert client.get("/readyz").json["warnings"] == {}
    Worker(receiver.store, having("theirs")).step(now)
    owe(receiver.store, "old name")
    parts(client.application).readiness.KEPT = 0
    answer = client.get("/readyz")
    assert answer.status_code == 200
    told = answer.json["warnings"]["handlers"]
    assert "other HANDLERS (theirs)" in told
    assert "nobody has registered: old name" in told
