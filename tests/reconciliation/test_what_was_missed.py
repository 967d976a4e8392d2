"""What was missed comes back, once: beside a simulated ZimSend."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable

import httpx
import pytest

from receiver import status
from receiver.forgetting import INSTEAD
from receiver.mirror import Search
from receiver.providers.zimsend.simulator.world import Post, Weather, World, view
from receiver.reconciliation.losses import KINDS
from receiver.store import Selection
from receiver.times import DAY, HOUR, MINUTE, SECOND
from tests.conftest import row_of
from tests.providers.zimsend.reports import BEGAN, NUMBER
from tests.reconciliation.life import (
    Life,
    compare,
    handled,
    learnt,
    lost,
    missed_reports,
    quiet_hours,
    shown_by_the_api,
)


@pytest.mark.each_engine
def test_a_receiver_that_was_down(live: Callable[..., Life]) -> None:
    """30 minutes in a campaign of 500 messages over 3 phones."""
    bad = Weather(failed=0.1, duplicates=0.2, reorder=0.3, lost_answers=0.1)
    life = live(devices=3, weather=bad)
    life.world.campaign(500, rate=500 / 3_600)
    assert [made.problem for made in life.look(10 * MINUTE)] == [None]
    life.up = False
    life.wait(30 * MINUTE)
    life.up = True
    life.start()
    passes = life.look(80 * MINUTE)
    assert life.world.at_rest
    gone = lost(life.world)
    assert len(gone) > 250
    assert all(made.problem is None for made in passes)

    compare(life)
    known_ids = {e["event_id"] for e in life.store.events(Selection(event_type="sms.*"))}
    assert len(known_ids) == len([e for e in life.world.events if e.arrived]) + len(gone)
    whole, gaps, [gap] = life.gaps()
    assert whole == gap
    assert (gap.messages, gaps) == (len({message_id for message_id, _ in gone}), 1)
    assert gap.counts == tuple(
        sum(count for (_, of), count in gone.items() if of == f"sms.{kind}") for kind in KINDS
    )
    assert handled(life) == shown_by_the_api(life.world)
    # Never more than half of what ZimSend allows, whoever else calls.
    assert life.simulated.limited == 0
    moments = [moment for moment, _ in life.wire.calls]
    for first in moments:
        assert sum(first <= moment < first + MINUTE for moment in moments) <= 50


def test_the_other_shape_of_the_history_needs_no_more_calls(live: Callable[..., Life]) -> None:
    life = live(devices=9, weather=Weather(failed=0.1))
    life.look(MINUTE)
    life.up = False
    for number in range(250):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})

    def reshape(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("history"):
            return None
        plain = json.loads(life.wire.plain.handle_request(request).read())
        told = plain["pagination"]
        rows = [view(life.world.messages[row["message_id"]]) for row in plain["data"]]
        for row in rows:
            del row["error"], row["failed_at"], row["cancelled_at"]
        pages = {"page": told["current_page"], "limit": 100, "pages": told["total_pages"]}
        body = {"success": True, "messages": rows, "pagination": pages}
        return httpx.Response(200, json=body | {"total": told["total_items"]})

    life.wire.fault = reshape
    life.wait(40 * MINUTE)
    [made] = life.look(MINUTE)
    counts = Counter(message.status for message in life.world.messages.values())
    assert len(missed_reports(life.store)) == len(made.learnt) == 2 * counts["delivered"]
    life.look(40 * MINUTE)
    compare(life)
    assert not [path for _, path in life.wire.calls if "/status/" in path]
    missed = life.missed()
    assert missed is not None
    assert missed.messages == 250
    assert handled(life) == shown_by_the_api(life.world)
    devices = {status.describe(row_of(life.store, m))["device_id"] for m in life.world.messages}
    assert devices == set(life.world.devices)


def test_a_row_without_an_id_stops_nothing(
    live: Callable[..., Life], caplog: pytest.LogCaptureFixture
) -> None:
    life = live()
    life.look(MINUTE)
    life.up = False
    for number in range(5):
        life.world.send(NUMBER, f"Bonjour {number}")

    def rob(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("history"):
            return None
        told = json.loads(life.wire.plain.handle_request(request).read())
        for row in told["data"][1:3]:
            row["message_id"] = None
        return httpx.Response(200, json=told)

    life.wait(40 * MINUTE)
    before = len(life.wire.calls)
    life.wire.fault = rob
    [made] = life.look(MINUTE)
    assert made.problem is None
    assert sum(path.endswith("history") for _, path in life.wire.calls[before:]) == 1
    missed = life.missed()
    assert missed is not None
    assert missed.messages == 3
    assert caplog.messages.count("ZimSend's history has 2 messages without a `message_id`") == 1


def test_what_was_before_is_not_missed_unless_one_asks(live: Callable[..., Life]) -> None:
    life = live()
    life.up = False
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.wait(DAY)
    life.up = True
    assert all(made.problem is None for made in life.look(2 * DAY, 10 * MINUTE))
    assert life.missed() is None
    seen_in_dry_run = life.reconciliation.run(BEGAN, dry_run=True)
    assert [report.type for _, report in seen_in_dry_run.learnt] == ["sms.sent", "sms.delivered"]
    assert life.missed() is None
    made = life.reconciliation.run(BEGAN)
    assert made.since == BEGAN
    assert learnt(life) == ["1 sms.sent", "1 sms.delivered"]
    compare(life)


def test_a_failure_is_not_learnt_before_its_webhook_had_its_time(live: Callable[..., Life]) -> None:
    """The API does not say when it failed: it may have been a moment ago."""
    life = live(weather=Weather(failed=1))
    life.look(MINUTE)
    for _ in range(500):  # one phone: the last of them fails 20 minutes after it was queued
        life.world.send(NUMBER, "Bonjour")
    deliver, slow = life.deliver, 0
    life.deliver = lambda post: "503" if post.number < 2 else deliver(post)  # type: ignore[method-assign]
    for made in life.look(50 * MINUTE):
        slow += made.waiting
    assert slow > 100
    assert life.missed() is None
    assert len(list(life.store.events(Selection(event_type="sms.failed")))) == 500
    assert not life.state().failed


def test_the_reason_of_a_failure_that_was_learnt_comes_later(live: Callable[..., Life]) -> None:
    life = live(weather=Weather(failed=1))
    life.look(MINUTE)
    message = life.world.send(NUMBER, "Bonjour")
    quiet_hours(life, 40 * MINUTE)
    assert learnt(life) == ["1 sms.failed"]
    assert status.describe(row_of(life.store, message.id))["error"] is None
    late = Post(life.world.events[0], 0, lost=False, answer_lost=False)
    assert life.deliver(late) == "200"
    view = status.describe(row_of(life.store, message.id))
    assert (view["error"], view["failed_at"]) == (message.error, message.failed_at)
    events = {e["source"]: e for e in life.store.events(Selection())}
    assert events["webhook"]["repeat"]
    assert events["webhook"]["deliveries"]  # for handlers, the reason is news
    assert learnt(life) == ["1 sms.failed"]


@pytest.mark.parametrize("ends_as", ["failed", "delivered", "queued"])
@pytest.mark.parametrize("first_arrives", [True, False])
def test_a_message_that_was_sent_again_while_nobody_listened(
    live: Callable[..., Life], ends_as: str, first_arrives: bool
) -> None:
    life = live(weather=Weather(failed=1))
    life.look(MINUTE)
    message = life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.up = first_arrives
    life.look(35 * MINUTE)
    life.up = False
    if ends_as != "failed":
        life.world.weather = Weather()
    if ends_as == "queued":
        for device in life.world.devices:
            life.world._free_at[device] = life.clock.time + DAY
    life.world.resend(message)
    life.look(30 * MINUTE)
    assert message.status == ends_as
    compare(life)
    found = Counter(kind for _, kind in (line.split() for line in learnt(life)))
    facts_of = {"failed": ["failed"], "delivered": ["sent", "delivered"], "queued": []}
    failures = int(not first_arrives)
    expected = Counter(f"sms.{kind}" for kind in facts_of[ends_as])
    expected["sms.failed"] += failures
    assert {k: n for k, n in found.items() if k != "sms.queued"} == {
        k: n for k, n in expected.items() if n
    }


@pytest.mark.each_engine
def test_the_unfinished_are_asked_for_at_growing_intervals(live: Callable[..., Life]) -> None:
    life = live()
    life.look(MINUTE)
    hidden = life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.wait(3 * SECOND)
    # Delivered after ten hours, and nobody reports it; nor does the history show it any more.
    hidden.delivered_at = None
    hidden.status = "sent"
    hidden.round += 1
    life.wire.fault = lambda request: (
        httpx.Response(200, json={"success": True, "data": [], "pagination": {}})
        if request.url.path.endswith("history")
        else None
    )
    assert row_of(life.store, hidden.id) is not None
    life.look(10 * HOUR)
    hidden.status, hidden.delivered_at = "delivered", life.clock.time
    life.look(10 * HOUR)
    asked = [(moment - BEGAN) / HOUR for moment, path in life.wire.calls if "/status/" in path]
    assert asked == pytest.approx([0.35, 1.5, 2.5, 3.8, 5.9, 9.0, 13.5], rel=0.2)
    assert learnt(life) == ["1 sms.delivered"]
    compare(life)


def test_a_message_that_zimsend_does_not_have_is_asked_for_once(live: Callable[..., Life]) -> None:
    life = live()
    other = World(began=BEGAN, seed=7)
    other.webhooks = life.world.webhooks
    other.send(NUMBER, "Bonjour")
    [post] = other.advance(BEGAN + 3 * SECOND)
    life.wait(3 * SECOND)
    assert life.deliver(post) == "200"
    passes = life.look(2 * DAY, 10 * MINUTE)
    assert all(made.problem is None for made in passes)
    assert sum("/status/" in path for _, path in life.wire.calls) == 1
    # What `flask trigger` sends is in no account.


def test_pages_move_while_they_are_read(live: Callable[..., Life]) -> None:
    """New messages come in front, and old ones are sent again, while the history is read."""
    life = live(devices=9, weather=Weather(failed=0.05))
    life.look(MINUTE)
    life.up = False
    for number in range(250):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})
    life.wait(20 * MINUTE)
    chance = random.Random(5)

    def meanwhile(request: httpx.Request) -> None:
        if request.url.path.endswith("history"):
            for _ in range(chance.randrange(20)):
                life.world.send(NUMBER, "Encore", metadata={"n": -1})
            failed = [m for m in life.world.messages.values() if m.status == "failed"]
            for message in failed[: chance.randrange(3)]:
                life.world.resend(message)

    life.wire.fault = meanwhile
    [made] = life.look(MINUTE)
    assert made.problem is None
    life.wire.fault = lambda request: None
    life.look(2 * HOUR)
    compare(life)
    assert lost(life.world).keys() >= {
        (m, kind) for m, kind in missed_reports(life.store) if kind != "sms.queued"
    }


def test_a_row_that_slips_to_a_page_already_read_is_seen_all_the_same(
    live: Callable[..., Life],
) -> None:
    life = live()
    life.look(MINUTE)
    life.up = False
    for number in range(300):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})
    life.wait(HOUR)
    pages = 0

    def slip(request: httpx.Request) -> None:
        nonlocal pages
        if request.url.path.endswith("history"):
            pages += 1
            if pages == 2:  # the first page loses one, so the next begins one too late
                first = life.world.messages["msg_0_1"]
                first.queued_at = first.sent_at = BEGAN - 3 * DAY

    life.wire.fault = slip
    [made] = life.look(MINUTE)
    assert made.problem is None
    assert made.messages == 300
    assert pages >= 6
    assert len({message_id for message_id, _ in missed_reports(life.store)}) >= 299


def test_once_a_day_the_last_31_days_are_read(live: Callable[..., Life]) -> None:
    life = live()
    life.look(MINUTE)
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    # For an hour the history shows nothing at all.
    life.wire.fault = lambda request: (
        httpx.Response(200, json={"success": True, "data": [], "pagination": {}})
        if request.url.path.endswith("history")
        else None
    )
    quiet_hours(life, HOUR)
    life.wire.fault = lambda request: None
    life.look(22 * HOUR)
    assert learnt(life) == []
    life.look(2 * HOUR)
    assert learnt(life) == ["1 sms.sent", "1 sms.delivered"]
    # No older than what the receiver knows of, and 31 days; each day has a page of its own.
    life.clock.time += 60 * DAY
    life.world.pass_time(life.clock.time)
    life.look(HOUR)
    calls = len(life.wire.calls)
    passes = life.look(2 * DAY, 10 * MINUTE)
    assert all(made.problem is None for made in passes)
    assert len(life.wire.calls) - calls == len(passes) + 2 * 32


def test_what_is_about_to_expire_is_not_learnt_again(
    environ: dict[str, str], live: Callable[..., Life]
) -> None:
    environ |= {"RETENTION_DAYS": "2", "HANDLERS": "handlers.forward"}  # nobody is owed anything
    life = live()
    life.look(MINUTE)
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.look(3 * DAY, 10 * MINUTE)
    before = life.store.statistics(None, None, None)
    life.store.expire(life.clock.time - 2 * DAY, 5)
    assert row_of(life.store, next(iter(life.world.messages))) is None
    life.look(2 * DAY, 10 * MINUTE)
    assert life.reconciliation.run(BEGAN - DAY).problem is None
    assert learnt(life) == []
    assert life.store.statistics(None, None, None) == before
    assert not list(life.store.quarantined())


@pytest.mark.each_engine
def test_who_was_forgotten_does_not_come_back(live: Callable[..., Life]) -> None:
    """Neither from the history, nor from a report that comes late; and nothing counts twice."""
    life = live()
    life.world.campaign(8, rate=8 / 600)
    life.up = False
    life.wait(11 * MINUTE)
    life.up = True
    numbers = {message.to for message in life.world.messages.values()}
    forgotten = min(numbers)
    assert life.store.history(Search(), 0, 100)[0] == 0
    told = life.apps[0].test_cli_runner().invoke(args=["forget", forgotten, "--yes"])
    assert told.exit_code == 0, told.output
    life.start()
    assert all(made.problem is None for made in life.look(80 * MINUTE))
    total, rows = life.store.history(Search(), 0, 100)
    assert total == len(life.world.messages)
    shown = {row["to"][2] for _, row in rows}
    assert shown == (numbers - {forgotten}) | {INSTEAD}
    events = list(life.store.events(Selection()))
    life.look(80 * MINUTE)
    assert list(life.store.events(Selection())) == events
    assert forgotten[1:] not in repr([life.store.body(e["event_id"]) for e in events])
