"""What a report tells that nothing has told yet."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from receiver import ids, status, times
from receiver.event import Incoming
from receiver.providers.smscx import webhook
from receiver.providers.smscx.api import answers
from receiver.providers.smscx.reports import QUIET, days, facts
from receiver.store import Report
from tests.providers.callers import NOW, RETENTION
from tests.providers.smscx.api.calls import NUMBER, ROW

LATER = NOW + QUIET + times.MINUTE


def told(known: list[Report] | None = None, *, now: int = LATER, **changes: Any) -> list[Incoming]:
    message = answers.report({"data": ROW | changes})
    return facts(message, now=now, retention=RETENTION, known=known or [])


def known(state: str, at: int | None = NOW, source: str = "webhook", error: bool = False) -> Report:
    return Report(f"sms.{state}", at, error, source)


@pytest.mark.parametrize(
    ("named", "kind", "code"),
    [
        ("ACCEPTED", "sms.queued", None),
        ("SCHEDULED", "sms.queued", None),
        ("SENT", "sms.sent", None),
        ("DELIVERED", "sms.delivered", None),
        ("FAILED", "sms.failed", "27"),
        ("REJECTED", "sms.failed", "REJECTED"),
        ("NO COVERAGE", "sms.failed", "NO_COVERAGE"),
    ],
)
def test_the_state_and_its_code(named: str, kind: str, code: str | None) -> None:
    (event,) = told(status=named)
    assert (event.type, event.source) == (kind, "reconciliation")
    assert event.message_id == ids.key("smscx", "9b1e")
    assert event.says is not None
    shown = status.describe(event.says)
    assert shown["to"] == NUMBER
    assert (shown["error"] and shown["error"]["code"]) == code
    assert event.type.removeprefix("sms.") in webhook.STATES.values()
    if named != "ACCEPTED":
        assert shown["queued_at"] is not None


def test_times() -> None:
    (event,) = told(status="DELIVERED")
    assert event.says is not None
    shown = status.describe(event.says)
    assert shown["delivered_at"] == NOW  # updatedAt
    assert shown["queued_at"] == NOW - 2 * times.SECOND  # createdAt
    (queued,) = told(status="ACCEPTED", updatedAt=None)
    assert queued.timestamp == NOW - 2 * times.SECOND


def test_ids_are_of_the_fact_and_not_of_how_it_is_told() -> None:
    (first,), (again,) = told(), told(cost=None, more="x", now=LATER + times.HOUR)
    assert first.id == again.id == ids.key("smscx", "api:9b1e:sms.failed:2026-11-20T08:15:42Z")
    assert told(msgId="other")[0].id != first.id
    assert told(status="SENT")[0].id != first.id
    assert told(updatedAt="2026-11-20 08:15:43")[0].id != first.id
    (long,) = told(msgId="x" * 200)
    assert len(ids.split(long.id)[1]) <= 200


@pytest.mark.parametrize(
    ("reports", "new"),
    [
        ([], True),
        ([known("queued", NOW - times.HOUR)], True),
        ([known("sent")], True),
        ([known("failed", NOW, error=True)], False),
        ([known("failed", NOW - times.HOUR, error=True)], False),
        ([known("failed", NOW)], True),  # nobody knows yet why
        ([known("failed", NOW, "reconciliation", True)], False),
    ],
)
def test_what_is_known_is_not_told_again(reports: list[Report], new: bool) -> None:
    assert bool(told(reports)) is new


def test_a_queued_message_is_told_of_only_if_nothing_is_known() -> None:
    assert told(status="ACCEPTED")
    assert not told([known("queued", NOW - times.DAY, "gateway")], status="SCHEDULED")
    assert not told([known("sent")], status="ACCEPTED")


def test_what_has_just_happened_is_left_to_the_callback() -> None:
    assert not told(now=NOW + QUIET - times.SECOND)
    assert told(now=NOW + QUIET)


def test_rows_without_a_time() -> None:
    (event,) = told(createdAt=None, updatedAt=None)
    assert event.timestamp is None
    assert event.id == ids.key("smscx", "api:9b1e:sms.failed")
    assert not told([known("failed", None)], createdAt=None, updatedAt="soon")


@pytest.mark.parametrize(
    "changes", [{"status": "DELETED"}, {"status": None}, {"updatedAt": "2003-01-01 00:00:00"}]
)
def test_rows_of_no_use(changes: dict[str, Any]) -> None:
    assert told(**changes) == []


def test_a_stored_report_is_the_same_event_again() -> None:
    (event,) = told()
    (again,) = webhook.parse(
        event.body, received_at=LATER, retention=RETENTION, source="reconciliation"
    )
    assert again == event
    assert webhook.read(event.body)[0] == ROW


def test_a_day_more_on_each_side() -> None:
    assert days(NOW, NOW) == (date(2026, 11, 19), date(2026, 11, 21))
    assert days(NOW - 10 * times.HOUR, NOW) == (date(2026, 11, 18), date(2026, 11, 21))
