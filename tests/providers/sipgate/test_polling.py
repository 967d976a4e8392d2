"""One pass: what is new in the history, whose it is, and what a crash leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from receiver import ids
from receiver.event import Incoming
from receiver.providers.sipgate import polling
from receiver.providers.sipgate.events import sent_id
from receiver.providers.sipgate.intents import PREFIX, intent
from receiver.providers.sipgate.polling import GIVE_UP, OVERLAP, UNSURE, WIDER, State, windows
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from tests.providers.sipgate.past import NOON, NUMBER, RETENTION, Service


def queued_by_gateway(service: Service, own_id: str, **how: Any) -> None:
    kept = service.intend(own_id, **how)
    service.memory.learn(
        polling.queued(
            kept, now=service.now, retention=RETENTION, text_mode="full", source="gateway"
        )
    )


def test_a_send_is_found_and_an_unknown_entry_is_a_message_of_its_own() -> None:
    service = Service()
    queued_by_gateway(service, "own")
    service.account.add("1", NOON + SECOND, target="01579-9000002")
    service.account.add("2", NOON + SECOND, smsContent="written in the app")
    found = service.poll()
    assert {event.source for event in found.events} == {"poll"}
    assert service.memory.states == {"own": "sent", "2": "sent"}
    assert (service.open, found.waiting, found.given_up) == ([], 0, 0)
    assert service.poll().events == []


def test_while_counts_differ_none_becomes_a_message_of_its_own() -> None:
    service = Service()
    queued_by_gateway(service, "own")
    service.account.add("1", NOON + SECOND)
    service.account.add("2", NOON + 2 * SECOND)
    for _ in range(5):
        assert service.poll(5 * HOUR - 12 * MINUTE).events == []
    assert service.memory.states == {"own": "queued"}
    found = service.poll(HOUR)
    assert found.given_up == 1
    assert service.memory.states == {"own": "queued", "1": "sent", "2": "sent"}
    assert service.open == []


def test_equal_texts_pair_off_when_all_are_there() -> None:
    service = Service()
    for own_id in ("a", "b"):
        queued_by_gateway(service, own_id)
        service.now += SECOND
    service.account.add("1", NOON)
    assert service.poll().events == []
    service.account.add("2", NOON + 2 * SECOND)  # late
    service.poll()
    assert service.memory.states == {"a": "sent", "b": "sent"}


def test_an_intent_without_an_event_is_queued_once_its_request_has_ended() -> None:
    service = Service()
    service.intend("own", metadata={"order": 17})
    assert service.poll(UNSURE).events == []
    (event,) = service.poll(SECOND).events
    assert (event.type, event.source) == ("sms.queued", "poll")
    assert service.poll().events == []
    service.account.add("1", NOON)
    (event,) = service.poll().events
    assert event.type == "sms.sent"
    assert service.memory.states == {"own": "sent"}


def test_an_intent_without_an_event_is_queued_and_sent_where_it_is_found_at_once() -> None:
    service = Service()
    service.intend("own")
    service.account.add("1", NOON)
    assert [event.type for event in service.poll(MINUTE).events] == ["sms.queued", "sms.sent"]


def test_an_entry_that_was_known_before_serves_no_later_send() -> None:
    service = Service()
    service.account.add("1", NOON)
    service.poll(SECOND)
    assert service.memory.states == {"1": "sent"}
    queued_by_gateway(service, "own")
    service.poll()
    assert service.memory.states == {"1": "sent", "own": "queued"}


def test_the_history_before_the_first_pass_is_not_learnt() -> None:
    service = Service()
    service.account.add("1", NOON - 2 * OVERLAP)
    service.poll(0)
    assert service.memory.states == {}
    assert service.poll(WIDER).events == []


def test_entries_may_be_late() -> None:
    service = Service(began=NOON)
    service.poll(0)
    service.poll(2 * DAY)
    late = service.now
    service.poll(23 * HOUR)
    service.account.add("1", late)
    service.poll()
    service.poll(HOUR)
    assert service.memory.states == {"1": "sent"}


@pytest.mark.parametrize("listed_before", [True, False])
@pytest.mark.parametrize("created", [NOON, NOON + 3 * DAY])
@pytest.mark.parametrize("told", [True, False])
def test_a_scheduled_send(listed_before: bool, created: int, told: bool) -> None:
    """However and whenever the history tells of it: queued until it goes, then sent, once."""
    at = NOON + 3 * DAY
    service = Service()
    queued_by_gateway(service, "own", send_at=at)
    tells = {"scheduled": iso(at) if told else None}
    if listed_before:
        service.account.add("1", created, **tells)
    if created == NOON and not told:
        return  # nothing tells it from what went at once
    for _ in range(2):
        assert service.poll(DAY).events == []
    assert service.memory.states == {"own": "queued"}
    if not listed_before:
        service.account.add("1", created, **tells)
        service.account.asked.clear()
    service.poll(DAY + SECOND)
    assert service.memory.states == {"own": "sent"}
    (event,) = (e for e in service.memory.events.values() if e.type == "sms.sent")
    assert event.timestamp == at
    assert service.open == []


def test_what_is_scheduled_in_the_app_is_sent_when_it_has_gone() -> None:
    service = Service()
    service.account.add("1", NOON, scheduled=iso(NOON + 2 * DAY))
    service.account.add("2", NOON, scheduled=iso(NOON + 2 * DAY))
    service.poll(MINUTE)
    assert service.memory.states == {}
    assert service.state.awaited == {"1": NOON + 2 * DAY, "2": NOON + 2 * DAY}
    service.poll(DAY)
    assert service.account.fetched == []
    del service.account.rows[0]  # deleted before it went
    service.poll(DAY)
    assert service.memory.states == {"1": "sent"}
    assert service.state.awaited == {}


def test_what_stays_scheduled_is_awaited_further() -> None:
    service = Service()
    service.account.add("1", NOON, scheduled=iso(NOON + HOUR))
    service.poll(MINUTE)
    service.account.rows[0]["scheduled"] = iso(NOON + 3 * HOUR)
    service.poll(2 * HOUR)
    assert service.state.awaited == {"1": NOON + 3 * HOUR}


def test_other_extensions_are_nobody_s_business() -> None:
    service = Service()
    queued_by_gateway(service, "own", sms_id="s1")
    service.account.add("1", NOON, connectionIds=["s1"])
    service.account.add("2", NOON, connectionIds=["s1"], smsContent="of somebody else")
    service.poll()
    assert service.memory.states == {"own": "sent"}
    assert service.account.asked[-1]["connection_ids"] == ["s0", "s1"]


def test_an_outage_gives_nothing_up_that_can_be_found() -> None:
    service = Service()
    queued_by_gateway(service, "own")
    service.account.add("1", NOON)
    assert service.poll(10 * DAY).given_up == 0
    assert service.memory.states == {"own": "sent"}


def test_who_is_given_up_keeps_nobody_waiting_any_more() -> None:
    service = Service()
    queued_by_gateway(service, "lost")
    service.now += 2 * HOUR
    queued_by_gateway(service, "again")
    service.account.add("1", service.now)
    service.poll()
    assert service.memory.states == {"lost": "queued", "again": "queued"}
    service.poll(GIVE_UP - HOUR)
    assert service.memory.states == {"lost": "queued", "again": "sent"}


def test_a_clock_that_was_ahead_does_not_hide_the_history() -> None:
    service = Service()
    service.memory.write_note(polling.NOTE, State(NOON + 400 * DAY, NOON + 400 * DAY).text())
    service.account.add("1", NOON - HOUR)
    service.poll(0)
    assert service.memory.states == {"1": "sent"}


def test_notes_that_cannot_be_read_are_passed_over() -> None:
    service = Service()
    service.intend("own")
    for name, text in {"x": "{", "y": "[]", "z": '{"id": "z"}', "n": "null"}.items():
        service.memory.write_note(PREFIX + name, text)
    assert service.open == ["own"]


@pytest.mark.parametrize("mode", ["masked", "none"])
def test_texts_are_kept_as_they_are_to_be_stored(mode: str) -> None:
    service = Service()
    service.intend("own", "Code 482913", text_mode=mode, metadata={"pin": "482913"})
    assert "482913" not in str(service.memory.texts)
    service.account.add("1", NOON, smsContent="Code 482913")
    service.now += MINUTE
    found = polling.look(
        service.account,  # type: ignore[arg-type]
        service.book.open,
        service.memory,
        service.state,
        lambda: service.now,
        retention=RETENTION,
        text_mode=mode,
    )
    assert [event.type for event in found.events] == ["sms.queued", "sms.sent"]
    assert all(event.redacted and b"482913" not in event.body for event in found.events)


# --- what is read


def test_windows() -> None:
    state = State(NOON - 5 * MINUTE, NOON)
    assert windows([], state, NOON, RETENTION) == [(NOON - 5 * MINUTE - OVERLAP, None)]
    assert windows([], State(NOON, NOON - DAY), NOON, RETENTION) == [(NOON - WIDER, None)]

    def sends(*asked: int, send_at: int | None = None) -> Sequence[Any]:
        return [
            intent("a", sms_id="s0", to=NUMBER, text="x", now=at, send_at=send_at) for at in asked
        ]

    old = NOON - 5 * HOUR
    assert windows(sends(old), state, NOON, RETENTION) == [(old - 2 * MINUTE, None)]
    # Those that have not gone are not looked for.
    assert len(windows(sends(NOON - 20 * DAY, send_at=NOON + 1), state, NOON, RETENTION)) == 1
    day, twenty = NOON - 20 * DAY, sends(NOON - 20 * DAY, NOON - 20 * DAY + MINUTE, send_at=NOON)
    assert windows(twenty, state, NOON, RETENTION) == [
        (day - 2 * MINUTE, day + 11 * MINUTE),
        (NOON - 5 * MINUTE - OVERLAP, None),
    ]
    assert windows(sends(NOON - 9 * DAY), state, NOON, 5 * DAY) == [(NOON - 5 * DAY + HOUR, None)]


# --- a crash between every two lines


class Dies(Exception):
    pass


@pytest.mark.parametrize("at", range(4))
def test_whatever_ends_a_pass_the_next_one_comes_to_the_same(at: int) -> None:
    service = Service()
    queued_by_gateway(service, "own")
    service.intend("unsure", "Other")
    service.account.add("1", NOON)
    service.account.add("2", NOON, smsContent="in the app")
    service.account.add("3", NOON, smsContent="Other")
    service.now += 5 * MINUTE
    steps = 0

    def dying(function: Any) -> Any:
        def step(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps > at:
                raise Dies
            return function(*arguments)

        return step

    memory = service.memory
    try:
        found = service.look()
        polling.keep(found, dying(memory.learn), dying(service.book.drop), dying(memory.write_note))
    except Dies:
        assert at < 3
    # Another equal send must not be taken for the one of before.
    service.now += MINUTE
    queued_by_gateway(service, "next")
    service.account.add("4", service.now)
    service.poll()
    service.poll()
    assert memory.states == {"own": "sent", "unsure": "sent", "next": "sent", "2": "sent"}
    assert service.open == []
    assert memory.events[sent_id("1")].message_id == ids.key("sipgate", "own")


def test_what_is_being_asked_for_is_not_told_by_a_simulators_clock() -> None:
    """For it, hours go by while one request is on its way, and may still be refused."""
    service = Service()
    service.intend("own")
    for asked_ago, queued in ((UNSURE - SECOND, []), (UNSURE + SECOND, ["sms.queued"])):
        found = polling.look(
            service.account,  # type: ignore[arg-type]
            service.book.open,
            service.memory,
            service.state,
            lambda: NOON + 3 * HOUR,
            wall=lambda ago=asked_ago: NOON + ago,  # type: ignore[misc]
            retention=RETENTION,
        )
        assert [event.type for event in found.events] == queued


def test_an_intent_that_comes_while_the_history_is_read_is_seen() -> None:
    service = Service()
    account, entries = service.account, service.account.entries

    def sending_meanwhile(**which: Any) -> Any:
        queued_by_gateway(service, "own")
        account.add("1", service.now)
        return entries(**which)

    account.entries = sending_meanwhile
    found = service.poll()
    assert service.memory.states == {"own": "sent"}
    assert all(isinstance(event, Incoming) for event in found.events)
