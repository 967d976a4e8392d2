"""What was asked of sipgate and what its history tells, as events: never beyond `sent`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from receiver import ids, status, times
from receiver.event import Incoming
from receiver.providers.sipgate import events
from receiver.status import STATE_OF_TYPE
from tests.providers.callers import NOW, RETENTION
from tests.providers.sipgate.api.calls import ENTRY

ASKED = {
    "smsId": "s0",
    "recipient": "+4915799000002",
    "message": "Code 482913",
    "metadata": {"order_id": "CMD-1042"},
    "askedAt": "2026-11-20T08:15:40Z",
}


def event(body: bytes, **how: Any) -> Incoming:
    (item,) = events.parse(body, **({"received_at": NOW, "retention": RETENTION} | how))
    assert isinstance(item, Incoming)
    return item


def entry(message_id: str | None = None, **changes: Any) -> Incoming:
    return event(events.wrap(events.ENTRY, ENTRY | changes, message_id))


def test_a_send_and_its_entry_are_one_message() -> None:
    asked = event(events.wrap(events.SEND, ASKED, "own-1"), source="gateway")
    found = entry("own-1")
    assert asked.message_id == found.message_id == ids.key("sipgate", "own-1")
    assert (asked.type, found.type) == ("sms.queued", "sms.sent")
    assert (asked.source, found.source) == ("gateway", "poll")
    assert asked.says is not None
    assert found.says is not None
    row = status.describe(status.merge(asked.says, found.says))
    assert row["status"] == "sent"
    assert row["queued_at"] == NOW - 2 * times.SECOND
    assert row["sent_at"] == NOW
    assert row["metadata"] == {"order_id": "CMD-1042"}
    assert row["to"] == "+4915799000002"


def test_an_entry_is_used_once_whosever_it_is() -> None:
    assert entry().id == entry("own-1").id == events.sent_id(ENTRY["id"])
    assert entry().message_id == ids.key("sipgate", ENTRY["id"])
    asked = event(events.wrap(events.SEND, ASKED, "own-1"))
    assert asked.id == events.queued_id("own-1")


@pytest.mark.parametrize("status", ["PICKUP", "NOPICKUP", "BUSY", "FORWARD", "FAILED", None])
def test_a_call_s_status_says_nothing(status: str | None) -> None:
    assert entry(status=status).type == "sms.sent"


@pytest.mark.parametrize(
    ("scheduled", "kind", "at"),
    [
        ("2026-11-20T09:15:42Z", "sms.queued", NOW),
        (NOW // times.SECOND + 60, "sms.queued", NOW),
        ("2026-11-20T08:15:42Z", "sms.sent", NOW),
        (None, "sms.sent", NOW),
        ("later", "sms.sent", NOW),
    ],
)
def test_what_is_scheduled_is_not_sent_yet(scheduled: Any, kind: str, at: int) -> None:
    found = entry(scheduled=scheduled)
    assert (found.type, found.timestamp) == (kind, at)


def test_what_was_scheduled_went_out_at_that_time() -> None:
    found = entry(created="2026-11-20T08:00:00Z", scheduled="2026-11-20T08:15:00Z")
    assert found.timestamp == NOW - 42 * times.SECOND
    ahead = entry(created="2026-11-20T08:00:00Z", scheduled="2026-11-20T08:20:00Z")
    assert ahead.id != found.id


@pytest.mark.parametrize(
    ("target", "to"),
    [
        ("01579-9912345", "+4915799912345"),
        ("+4915799912345", "+4915799912345"),
        ("0049 1579 9912345", "+4915799912345"),
        ("22033", "22033"),
        (None, None),
    ],
)
def test_numbers_are_shown_in_one_form(target: str | None, to: str | None) -> None:
    found = entry(target=target)
    assert events.read(found.body)[1].get("to") == to
    assert events.read(found.body)[0]["target"] == target


@pytest.mark.parametrize(
    "changes", [{"type": "CALL"}, {"direction": "INCOMING"}, {"id": None}, {"id": ""}]
)
def test_what_is_no_sms_on_its_way_out_leaves_the_mirror_alone(changes: dict[str, Any]) -> None:
    found = entry(**changes)
    assert (found.type, found.message_id, found.says) == ("sipgate.history", None, None)


def test_nothing_is_ever_beyond_sent() -> None:
    for body in (b'{"event": "sms.delivered", "data": {"id": "1", "message_id": "1"}}',):
        assert event(body).type not in STATE_OF_TYPE


def test_bodies_have_one_spelling() -> None:
    body = json.dumps({"data": ENTRY, "event": events.ENTRY}, indent=1).encode()
    assert event(body).body == entry().body
