"""The world without its network: one seed, one world; phones and messages."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from receiver.providers.zimsend.simulator.world import (
    SimulatedMessage,
    Weather,
    World,
)
from receiver.times import DAY, HOUR, SECOND
from tests.providers.zimsend.simulator.worlds import BAD, BEGAN, NUMBER, hooked, play, truth

DOCUMENTED_FAILURES = {
    "NETWORK_ERROR",
    "INVALID_NUMBER",
    "INVALID_PHONE_NUMBER",
    "NO_CREDIT",
    "BLOCKED_NUMBER",
    "DEVICE_ERROR",
    "TIMEOUT",
    "SMS_SEND_TIMEOUT",
}


# --- the world: one seed, one world


def bad_world(seed: int) -> World:
    world = hooked(seed=seed, devices=2, weather=BAD)
    world.campaign(30, rate=4)
    world.send(NUMBER, "Bonjour 👋", metadata={"n": 1}, webhook_url="http://127.0.0.1:9/mine")
    return world


def test_the_same_seed_gives_the_same_world() -> None:
    worlds = [bad_world(7), bad_world(7), bad_world(8)]
    sent = [[(at, post.event.body, post.headers) for at, post in play(w)] for w in worlds]
    assert truth(worlds[0]) == truth(worlds[1])
    assert sent[0] == sent[1]
    assert worlds[0].at_rest
    told = worlds[0].truth(), worlds[2].truth()
    assert [m["to"] for m in told[0]["messages"]] != [m["to"] for m in told[1]["messages"]]
    assert [e["at"] for e in told[0]["events"]] != [e["at"] for e in told[1]["events"]]


def test_a_world_does_not_depend_on_who_looks_when() -> None:
    exact, coarse = bad_world(7), bad_world(7)
    play(exact)
    now = BEGAN
    while not coarse.at_rest:
        now += 7 * SECOND
        for post in reversed(coarse.advance(now)):
            coarse.answered(post, "200")
    assert exact.truth()["messages"] == coarse.truth()["messages"]
    assert facts(exact) == facts(coarse)


def facts(world: World) -> list[dict[str, Any]]:
    """What happened, without when it was tried."""
    events = world.truth()["events"]
    return [{name: event[name] for name in event if name != "tries"} for event in events]


# --- the world: phones and messages


def test_a_phone_sends_one_sms_after_the_other_and_phones_work_side_by_side() -> None:
    world = hooked(devices=3, weather=Weather(failed=0.2))
    world.campaign(30, rate=100)
    play(world)
    for device in world.devices:
        ends = sorted(
            m.sent_at or m.failed_at or 0 for m in world.messages.values() if m.device_id == device
        )
        assert 8 <= len(ends) <= 12
        gaps = [end - start for start, end in zip([BEGAN, *ends], ends, strict=False)]
        # The first SMS of a phone is queued a little after the beginning.
        assert all(2 * SECOND <= gap <= 3 * SECOND + SECOND // 10 for gap in gaps)
    assert max(m.sent_at or 0 for m in world.messages.values()) < BEGAN + 12 * 3 * SECOND


def walk(world: World, message: SimulatedMessage) -> list[str]:
    states: list[str] = [message.status]
    while (at := world.next_at) is not None:
        for post in world.advance(at):
            world.answered(post, "200")
        if message.status != states[-1]:
            states.append(message.status)
    return states


def test_the_states_of_a_message() -> None:
    world = hooked()
    message = world.send(NUMBER, "Bonjour")
    assert walk(world, message) == ["queued", "processing", "sent", "delivered"]
    assert message.sent_at is not None
    assert message.delivered_at is not None
    assert 2 * SECOND <= message.sent_at - BEGAN <= 3 * SECOND
    assert message.sent_at < message.delivered_at
    assert message.failed_at is None
    assert message.error is None
    assert [event.type for event in world.events] == ["sms.sent", "sms.delivered"]
    assert [event.at for event in world.events] == [message.sent_at, message.delivered_at]


def test_a_message_that_fails() -> None:
    world = hooked(weather=Weather(failed=1), devices=9)
    messages = [world.send(NUMBER, "Bonjour") for _ in range(40)]
    assert walk(world, messages[-1]) == ["queued", "processing", "failed"]
    codes = Counter(message.error["code"] for message in messages if message.error)
    assert codes.total() == 40
    assert len(codes) >= 3
    assert set(codes) <= DOCUMENTED_FAILURES
    assert all(m.sent_at is None and m.failed_at is not None for m in messages)
    assert {event.type for event in world.events} == {"sms.failed"}


def test_only_what_is_queued_can_be_cancelled() -> None:
    world = hooked()
    first, second = world.send(NUMBER, "one"), world.send(NUMBER, "two")
    world.advance(BEGAN)
    assert (first.status, second.status) == ("processing", "queued")
    assert not world.cancel(first)
    assert world.cancel(second)
    assert not world.cancel(second)
    assert second.cancelled_at == BEGAN
    play(world)
    assert (first.status, second.status) == ("delivered", "cancelled")
    assert not world.cancel(first)
    assert {event.message_id for event in world.events} == {first.id}
    assert world.at_rest


@pytest.mark.parametrize("state", ["processing", "sent", "delivered", "failed"])
def test_later_it_cannot_be_cancelled(state: str) -> None:
    world = hooked(weather=Weather(failed=state == "failed"))
    message = world.send(NUMBER, "Bonjour")
    while message.status != state:
        assert world.next_at is not None
        world.advance(world.next_at)
    assert not world.cancel(message)
    assert message.status == state


def test_only_what_has_failed_can_be_sent_again() -> None:
    world = hooked(weather=Weather(failed=1))
    message, other = world.send(NUMBER, "Bonjour"), world.send(NUMBER, "cancelled")
    assert not world.resend(message)
    world.cancel(other)
    assert not world.resend(other)
    play(world)
    failed_at = message.failed_at

    world.weather = Weather()
    world.pass_time(world.now + HOUR)
    assert world.resend(message)
    assert not world.resend(message)
    assert (message.status, message.failed_at, message.error) == ("queued", None, None)
    assert not world.at_rest
    assert walk(world, message) == ["queued", "processing", "sent", "delivered"]
    assert not world.resend(message)
    assert world.at_rest
    assert [event.type for event in world.events] == ["sms.failed", "sms.sent", "sms.delivered"]
    assert failed_at is not None
    assert message.sent_at is not None
    assert message.sent_at > failed_at + HOUR


def test_what_was_planned_before_a_resend_no_longer_holds() -> None:
    world = hooked()
    message = world.send(NUMBER, "Bonjour")
    # As if it had failed at once: the plans for the first time are still there.
    message.status, message.failed_at = "failed", BEGAN
    assert world.resend(message)
    play(world)
    assert [event.type for event in world.events] == ["sms.sent", "sms.delivered"]
    assert message.sent_at is not None
    # Its phone was taken by the first time.
    assert 4 * SECOND <= message.sent_at - BEGAN <= 6 * SECOND


def test_a_scheduled_message_waits_and_nobody_behind_it() -> None:
    world = hooked()
    later = world.send(NUMBER, "later", scheduled_at=BEGAN + 30 * DAY)
    soon = world.send(NUMBER, "soon")
    assert later.starts_at == BEGAN + 30 * DAY
    play(world, until=BEGAN + DAY)
    assert (later.status, soon.status) == ("queued", "delivered")
    assert soon.sent_at is not None
    assert soon.sent_at <= BEGAN + 3 * SECOND
    assert not world.at_rest
    play(world)
    assert later.status == "delivered"
    assert later.sent_at is not None
    assert 2 * SECOND <= later.sent_at - (BEGAN + 30 * DAY) <= 3 * SECOND


def test_a_world_is_at_rest_when_all_that_is_planned_was_cancelled() -> None:
    world = hooked()
    later = world.send(NUMBER, "later", scheduled_at=BEGAN + 30 * DAY)
    assert not world.at_rest
    assert world.cancel(later)
    assert world.at_rest
    play(world)
    assert later.status == "cancelled"


def test_without_a_device_the_phone_that_is_free_first_sends() -> None:
    world = hooked(devices=2)
    devices = [world.send(NUMBER, "x", device_id="dev_1").device_id for _ in range(3)]
    assert devices == ["dev_1"] * 3
    assert [world.send(NUMBER, "x").device_id for _ in range(2)] == ["dev_2"] * 2
