"""What a wrong clock must not do: nothing acknowledged is deleted by it, or dated by it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from receiver import status, times, upkeep
from receiver.mirror import Search
from receiver.parts import Receiver
from receiver.providers.zimsend.webhook import parse
from receiver.store import Selection, Settlement, Store, Want
from receiver.times import DAY, HOUR, MINUTE, RELEASED, SECOND, iso
from receiver.upkeep import Upkeep
from tests.conftest import Clock, Provider, row_of
from tests.payloads import body_of, envelope, sms
from tests.server import ROOT, eventually

RETENTION = 90 * DAY
#: The real time in these tests.
NOW = RELEASED + 200 * DAY
BEHIND = pytest.mark.parametrize(
    "starts", [5 * MINUTE, RELEASED - 165 * DAY], ids=["1970", "a year back"]
)


@pytest.fixture
def starts() -> int:
    return NOW


@pytest.fixture
def clock(starts: int) -> Clock:
    return Clock(starts)


def put(store: Store, message_id: str, at: int, *, received_at: int | None = None) -> None:
    body = body_of("sms.sent", {"message_id": message_id, "sent_at": iso(at)}, timestamp=iso(at))
    item = parse(body, received_at=received_at or at, retention=RETENTION)
    assert store.ingest([item], lambda _: (), 5) == ["accepted"]


def messages(store: Store) -> set[str]:
    return {name for name, _ in store.history(Search(), 0, 1_000)[1]}


def signed(state: str, message_id: str, at: int, **changes: Any) -> dict[str, Any]:
    data = sms(state, message_id, sent_at=iso(at))
    return envelope(f"sms.{state}", data, timestamp=iso(at), **changes)


# --- the clock is behind


@BEHIND
@pytest.mark.each_engine
def test_what_came_while_the_clock_was_behind_is_dated_by_what_is_signed_and_stays(
    receiver: Receiver, provider: Provider, clock: Clock
) -> None:
    store = receiver.store
    event = signed("sent", "m1", NOW, event_id="e1")
    assert provider.post(event).json["status"] == "accepted"
    row = row_of(store, "m1")
    assert row is not None
    assert status.describe(row)["sent_at"] == NOW // SECOND * SECOND
    assert {day for day, _, count in store.statistics(None, None, None) if count} == {NOW // DAY}
    keeper = Upkeep(store, RETENTION)
    keeper.step(clock.time)
    clock.time = NOW + MINUTE  # it is set
    for minutes in range(1, 50, 11):
        keeper.step(NOW + minutes * MINUTE)
    assert messages(store) == {"m1"}
    assert provider.post(event).json["status"] == "duplicate"


@BEHIND
@pytest.mark.each_engine
def test_what_has_no_signed_time_counts_from_a_clock_that_is_trusted(
    receiver: Receiver, provider: Provider, clock: Clock
) -> None:
    store = receiver.store
    provider.post(body_of("sms.sent", {"message_id": "m1"}, event_id="e1"))
    provider.post(body_of("device.connected", {}, event_id="e2"))
    assert provider.post(b"nothing that one can use").status_code == 400
    # Dated by nothing that is known to be wrong; and work that is owed is due, by that clock.
    assert {day for day, _, count in store.statistics(None, None, None) if count} == {
        RELEASED // DAY
    }
    (handler, *_) = [handler.name for handler in receiver.registry]
    assert store.backlog(clock.time, [handler])[0] > 0
    names = [handler.name for handler in receiver.registry]
    while claims := store.work(clock.time, [], [Want(n, 9, SECOND, 9) for n in names], 5):
        store.work(clock.time, [Settlement(c, "done", 0) for c in claims], [], 5)
    assert list(upkeep.expire(store, NOW - RETENTION)) == [0, 0, 0]  # nobody has looked yet
    put(store, "fresh", NOW)
    keeper = Upkeep(store, RETENTION)
    keeper.step(NOW)
    put(store, "fresh too", NOW + 89 * DAY)
    keeper.step(NOW + 89 * DAY)
    assert {"m1", "fresh"} <= messages(store)
    assert len(list(store.quarantined())) == 1
    put(store, "fresher", NOW + 91 * DAY)
    keeper.step(NOW + 91 * DAY)
    assert messages(store) == {"fresh too", "fresher"}
    assert {e["event_id"] for e in store.events(Selection())}.isdisjoint({"e1", "e2"})
    assert not list(store.quarantined())


@BEHIND
@pytest.mark.each_engine
@pytest.mark.parametrize("is_set", [False, True])
def test_handlers_get_at_once_what_came_while_the_clock_was_behind(
    receiver: Receiver, provider: Provider, clock: Clock, is_set: bool
) -> None:
    """It is due since 0, which is a time like any other, but says nothing of its age."""
    provider.post(body_of("sms.sent", {"message_id": "m1"}, event_id="e1"))
    provider.post(signed("sent", "m2", NOW, event_id="e2"))
    if is_set:
        clock.time = NOW + MINUTE
    names = [handler.name for handler in receiver.registry]
    waiting, age = receiver.store.backlog(clock.time, names)
    assert waiting >= 2
    assert age == 0

    def done() -> bool:
        receiver.worker.step(clock.time)
        return receiver.store.backlog(clock.time, names)[0] == 0

    eventually(done)


@BEHIND
def test_nothing_expires_while_the_clock_is_before_the_release(
    receiver: Receiver, app: Flask, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    put(receiver.store, "old", 20 * DAY)
    Upkeep(receiver.store, RETENTION).step(clock.time)
    assert "before the date of this release" in caplog.text
    told = FlaskCliRunner(app).invoke(args=["expire"])
    assert told.exit_code == 1
    assert "before the date of this release" in told.output
    assert messages(receiver.store) == {"old"}


@pytest.mark.each_engine
def test_a_clock_that_is_right_still_bounds_what_is_signed(
    receiver: Receiver, provider: Provider, clock: Clock
) -> None:
    clock.time = NOW
    provider.post(signed("sent", "m1", NOW + 400 * DAY))
    row = row_of(receiver.store, "m1")
    assert row is not None
    assert status.describe(row)["sent_at"] == NOW


# --- the clock is ahead


@pytest.mark.parametrize("years", [1, 10])
def test_a_new_host_whose_clock_is_ahead_deletes_nothing(
    store: Store, caplog: pytest.LogCaptureFixture, years: int
) -> None:
    """A copied database: nobody has looked at it here yet."""
    for number in range(20):
        put(store, f"m{number}", NOW - number * HOUR)
    ahead = NOW + years * 365 * DAY
    keeper = Upkeep(store, RETENTION)
    for look in range(10):
        keeper.step(ahead + look * keeper.EVERY)
    assert len(messages(store)) == 20
    assert f"{years * 365} days later than anything seen here" in caplog.text
    # The clock is set, and it goes on as ever.
    put(store, "young", NOW + 91 * DAY)
    keeper.step(NOW + 91 * DAY)
    assert messages(store) == {"young"}


def test_a_leap_while_it_runs_deletes_nothing_until_a_signed_event_confirms_it(
    store: Store,
) -> None:
    put(store, "m1", NOW)
    keeper = Upkeep(store, RETENTION)
    for look in range(3):
        keeper.step(NOW + look * keeper.EVERY)
    for look in range(20):
        keeper.step(NOW + 300 * DAY + look * keeper.EVERY)
    assert messages(store) == {"m1"}
    put(store, "m2", NOW + 300 * DAY)
    keeper.step(NOW + 300 * DAY + 20 * keeper.EVERY)
    assert messages(store) == {"m2"}


@pytest.mark.parametrize("back", [HOUR, 23 * HOUR])
def test_a_clock_that_is_set_back_stops_expiry_for_no_longer_than_a_look(
    store: Store, back: int
) -> None:
    """It was ahead when somebody looked."""
    keeper = Upkeep(store, RETENTION)
    put(store, "m1", NOW - RETENTION)
    put(store, "now", NOW)
    Upkeep(store, RETENTION).step(NOW + back)
    put(store, "m2", NOW - RETENTION + 1)
    keeper.step(NOW + 2)
    assert messages(store) == {"now"}


def test_two_looks_are_made_by_one_of_two_whose_clocks_differ_a_little(store: Store) -> None:
    begun = []
    for keeper, now in ((Upkeep(store, RETENTION), NOW), (Upkeep(store, RETENTION), NOW - MINUTE)):
        before = store.turn("expiry")
        keeper.step(now)
        begun.append(store.turn("expiry") != before)
    assert begun == [True, False]


def test_real_time_counts_where_nothing_comes(store: Store) -> None:
    """Looks in a process that goes on: the clock goes with them, and is believed."""
    put(store, "m1", NOW)
    keeper = Upkeep(store, DAY)
    for hours in range(26):
        keeper.step(NOW + hours * HOUR)
    assert not messages(store)


def test_another_process_whose_clock_is_ahead_does_not_help(store: Store) -> None:
    put(store, "m1", NOW)
    right, ahead = Upkeep(store, RETENTION), Upkeep(store, RETENTION)
    keep_turn = store.keep_turn
    right.step(NOW)

    def kept(*arguments: Any) -> bool:
        """In the middle of one process's look comes the other."""
        store.keep_turn = keep_turn  # type: ignore[method-assign]
        ahead.step(NOW + 300 * DAY)
        return keep_turn(*arguments)

    for look in range(1, 5):
        store.keep_turn = kept  # type: ignore[method-assign]
        right.step(NOW + look * right.EVERY)
        ahead.step(NOW + 300 * DAY + look * right.EVERY)
    assert messages(store) == {"m1"}


# --- the date of the release


def test_the_date_of_the_release_is_that_of_the_changelog() -> None:
    headings = re.findall(r"^## .*?(\d{4}-\d\d-\d\d)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert RELEASED % DAY == 0
    assert times.now() >= RELEASED
    if headings:  # the newest stands first
        assert iso(RELEASED)[:10] == headings[0]
