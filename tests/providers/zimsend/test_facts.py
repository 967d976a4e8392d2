"""What an answer of the API says: the events that it stands for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import status
from receiver.providers.zimsend.api import answers
from receiver.providers.zimsend.facts import QUIET, facts, is_whole, may_be_new
from receiver.store import Report
from receiver.times import DAY, HOUR, SECOND, iso
from tests.providers.zimsend.reports import BEGAN, NUMBER, at, report

RETENTION = 90 * DAY


def shown(**fields: Any) -> answers.Message:
    """A message as the API shows it."""
    return answers.message({"message_id": "m", "to": NUMBER, "message": "Code 1234", **fields})


def told(message: answers.Message, known: tuple[Report, ...] = (), **changes: Any) -> list[str]:
    """The events that an answer stands for, with their seconds."""
    options = {"now": BEGAN + HOUR, "retention": RETENTION, "known": known, **changes}
    found = facts(message, **options)
    assert all(fact.source == "reconciliation" for fact in found)
    return [f"{fact.type} {(fact.occurred_at - BEGAN) // SECOND}" for fact in found]


QUEUED = {"queued_at": at(0)}
SENT = {"sent_at": at(60)}
DELIVERED = {"delivered_at": at(70)}
CASES = {
    "queued": (QUEUED, ["sms.queued 0"]),
    "processing": (QUEUED, ["sms.processing 0"]),
    "sent": (QUEUED | SENT, ["sms.sent 60"]),
    "delivered": (QUEUED | SENT | DELIVERED, ["sms.sent 60", "sms.delivered 70"]),
    "failed": (QUEUED, ["sms.failed 0"]),
    "cancelled": (QUEUED, ["sms.cancelled 0"]),
}
WITHOUT_QUEUED = {
    "sent": ["sms.sent 60"],
    "delivered": ["sms.sent 60", "sms.delivered 70"],
}


@pytest.mark.parametrize("state", CASES)
def test_what_each_status_stands_for(state: str) -> None:
    given_times, expected = CASES[state]
    assert told(shown(status=state, metadata={"n": 1}, **given_times)) == expected
    # The history of one document has fewer times.
    short = {name: moment for name, moment in given_times.items() if name != "queued_at"}
    assert told(shown(status=state, **short)) == WITHOUT_QUEUED.get(state, [])


def test_what_an_event_of_them_holds() -> None:
    message = shown(
        status="delivered",
        metadata={"n": 1},
        device_id="dev",
        priority=2,
        **QUEUED,
        **SENT,
        **DELIVERED,
    )
    sent, delivered = facts(message, now=BEGAN + HOUR, retention=RETENTION)
    assert json.loads(sent.body) == {
        "event": "sms.sent",
        "event_id": f"api:m:sms.sent:{at(60)}",
        "timestamp": at(60),
        "data": {
            "message_id": "m",
            "status": "sent",
            "to": NUMBER,
            "message": "Code 1234",
            "device_id": "dev",
            "priority": 2,
            "metadata": {"n": 1},
            "queued_at": at(0),
            "sent_at": at(60),
        },
    }
    assert sent.id == f"api:m:sms.sent:{at(60)}"
    assert json.loads(delivered.body)["data"].keys() == {
        *json.loads(sent.body)["data"],
        "delivered_at",
    }
    masked = facts(message, now=BEGAN + HOUR, retention=RETENTION, text_mode="masked")
    assert json.loads(masked[0].body)["data"]["message"] == "Code ****"


def test_what_the_answer_does_not_say() -> None:
    assert told(shown(status="failed")) == []
    assert told(shown(status="failed", created_at=at(5))) == ["sms.failed 5"]
    assert told(shown(status="failed", failed_at=at(9), **QUEUED)) == ["sms.failed 9"]
    assert told(shown(status="delivered", **SENT)) == ["sms.sent 60", "sms.delivered 60"]
    assert told(shown(status="odd", **SENT)) == ["sms.sent 60"]
    assert told(shown(**SENT)) == ["sms.sent 60"]
    assert told(shown(status="sent", sent_at=at(-91 * 86_400))) == []


RESENT = shown(status="failed", queued_at=at(600), metadata=None)
KNOWN: dict[str, tuple[answers.Message, tuple[Report, ...], list[str]]] = {
    "all of it, at slightly other times": (
        shown(status="delivered", **SENT, **DELIVERED),
        (report("sent", 61.3), report("delivered", 75)),
        [],
    ),
    "the end only": (
        shown(status="delivered", **SENT, **DELIVERED),
        (report("delivered", 70),),
        ["sms.sent 60"],
    ),
    "a failure": (shown(status="failed", **QUEUED), (report("failed", 5, error=True),), []),
    "a failure, before it was sent again and failed again": (
        RESENT,
        (report("failed", 5, error=True),),
        ["sms.queued 600", "sms.failed 600"],
    ),
    "that, and that it was sent again": (
        RESENT,
        (report("failed", 5, error=True), report("queued", 600, "gateway")),
        ["sms.failed 600"],
    ),
    "all of that": (
        RESENT,
        (
            report("failed", 5, error=True),
            report("queued", 600, "gateway"),
            report("failed", 605, error=True),
        ),
        [],
    ),
    "a failure, before it was sent again and delivered": (
        shown(status="delivered", queued_at=at(600), sent_at=at(602), delivered_at=at(609)),
        (report("sent", 2), report("failed", 5, error=True)),
        ["sms.queued 600", "sms.sent 602", "sms.delivered 609"],
    ),
    "a failure, before it was put back": (
        shown(status="queued", queued_at=at(600)),
        (report("failed", 5, error=True),),
        ["sms.queued 600"],
    ),
    "what was queued through the gateway": (
        shown(status="queued", **QUEUED),
        (report("queued", 0.4, "gateway"),),
        [],
    ),
}


@pytest.mark.parametrize(("message", "known", "expected"), KNOWN.values(), ids=KNOWN.keys())
def test_what_is_known_is_not_learnt(
    message: answers.Message, known: tuple[Report, ...], expected: list[str]
) -> None:
    assert told(message, known) == expected


moment = st.integers(0, 7 * 86_400).map(lambda seconds: BEGAN - 8 * DAY + seconds * SECOND)


@given(
    st.sampled_from([*status.STATES, "odd"]), st.lists(moment, min_size=4, max_size=4), st.data()
)
def test_the_same_fact_has_the_same_id(state: str, moments: list[int], data: st.DataObject) -> None:
    """However often it is learnt, when, and in which of the documented shapes."""
    whole = dict(
        zip(("queued_at", "sent_at", "delivered_at"), map(iso, sorted(moments)), strict=False)
    )
    short = {name: moment for name, moment in whole.items() if name != "queued_at"}
    now = BEGAN + data.draw(st.integers(0, DAY))
    one = facts(shown(status=state, **whole), now=now, retention=RETENTION)
    again = facts(
        shown(status=state, metadata={"n": 1}, created_at=whole["queued_at"], **whole),
        now=now + data.draw(st.integers(0, DAY)),
        retention=RETENTION,
    )
    assert [fact.id for fact in one] == [fact.id for fact in again]
    other = facts(shown(status=state, **short), now=now, retention=RETENTION)
    # What has a time of its own has it in both; what has none is asked for.
    timed = {"sms.sent", "sms.delivered"}
    assert {f.id for f in other if f.type in timed} == {f.id for f in one if f.type in timed}
    assert len({fact.id for fact in one}) == len(one)
    told_all = tuple(Report(f.type, f.reported_at, f.has_error, f.source) for f in one)
    assert not facts(shown(status=state, **whole), now=now, retention=RETENTION, known=told_all)


@given(st.sampled_from(status.STATES), st.integers(-DAY, DAY))
def test_nothing_is_said_while_the_provider_may_still_report(state: str, age: int) -> None:
    message = shown(status=state, queued_at=iso(BEGAN - HOUR), sent_at=iso(BEGAN))
    found = facts(message, now=BEGAN + age, retention=RETENTION)
    assert bool(found) == (age >= QUIET)


def test_what_of_the_history_is_asked_for() -> None:
    short, whole = shown(status="failed"), shown(status="failed", metadata=None, **QUEUED)
    assert (is_whole(short), is_whole(whole)) == (False, True)
    failure = report("failed", 5, error=True)
    assert may_be_new(short, (), BEGAN)
    assert may_be_new(short, (report("sent", 2),), BEGAN)
    assert not may_be_new(short, (failure,), BEGAN)
    # Nothing that is known of it is why it is in this part of the history.
    assert may_be_new(short, (failure,), BEGAN + HOUR)
    assert may_be_new(shown(status="queued"), (), BEGAN)
    assert not may_be_new(shown(status="queued"), (report("sent", 2),), BEGAN)
    # It has failed, so it was put back; unless that is known.
    assert may_be_new(shown(status="queued"), (failure,), BEGAN)
    assert not may_be_new(shown(status="queued"), (failure, report("queued", 600)), BEGAN)
    assert may_be_new(shown(status="cancelled"), (report("queued", 0),), BEGAN)
    assert not may_be_new(shown(status="cancelled"), (report("cancelled", 9),), BEGAN)
    assert not may_be_new(shown(status="odd"), (), BEGAN)
