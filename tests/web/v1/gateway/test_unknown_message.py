"""A message that the mirror does not have: ZimSend is asked."""

from __future__ import annotations

from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.status import STATES
from receiver.times import HOUR, MINUTE, SECOND, iso
from receiver.web.v1 import gateway
from tests.canned import Canned, Step, ok, raw, reset, silent, status
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms
from tests.web.v1.gateway.asking import HTML, NUMBER, TEXT, Gateway, problem


def known(at: int, state: str = "delivered", **more: Any) -> Step:
    shown = {
        "success": True,
        "message_id": "msg_9",
        "status": state,
        "to": NUMBER,
        "message": TEXT,
        "priority": 2,
        "metadata": {"n": 1},
        "created_at": iso(at),
        "queued_at": iso(at),
        "sent_at": iso(at + 2 * SECOND),
        "delivered_at": iso(at + 5 * SECOND),
    }
    return ok(shown | more)


def test_zimsend_is_asked_and_its_answer_kept(here: Gateway, zimsend: Canned, clock: Clock) -> None:
    clock.time = clock.time // SECOND * SECOND
    zimsend.answers(known(clock.time - HOUR))
    first, again = here.message("msg_9"), here.message("msg_9")
    assert first == again
    assert len(zimsend.seen) == 1
    assert zimsend.last.path == "/v1/sms/status/msg_9"
    assert (first["status"], first["to"], first["message"]) == ("delivered", NUMBER, TEXT)
    assert first["queued_at"] == iso(clock.time - HOUR)
    assert first["delivered_at"] == iso(clock.time - HOUR + 5 * SECOND)
    assert {event["source"] for event in first["events"]} == {"reconciliation"}


@pytest.mark.parametrize("state", ["queued", "processing", "sent", "delivered", "failed"])
def test_what_has_just_happened_is_shown_and_its_webhook_is_a_repeat(
    here: Gateway, zimsend: Canned, clock: Clock, state: str
) -> None:
    clock.time = clock.time // SECOND * SECOND
    at = clock.time - MINUTE
    times: dict[str, Any] = {"sent_at": None, "delivered_at": None}
    if state in ("sent", "delivered"):
        times["sent_at"] = iso(at + 2 * SECOND)
    if state == "delivered":
        times["delivered_at"] = iso(at + 5 * SECOND)
    zimsend.answers(known(at, state, **times))
    shown = here.message("msg_9")
    assert (shown["status"], shown["queued_at"]) == (state, iso(at))
    assert shown == shown | times
    assert (shown["message"], shown["priority"], shown["metadata"]) == (TEXT, 2, {"n": 1})
    assert {event["source"] for event in shown["events"]} == {"gateway"}
    types = [f"sms.{each}" for each in STATES]
    assert here.parts.store.missed(types, 1, 1) == (None, 0, [])
    if state in ("sent", "delivered"):
        report = envelope(f"sms.{state}", sms(state, "msg_9", **times))
        assert Provider(here.client).post(report).status_code == 200
        assert here.message("msg_9")["events"][-1]["repeat"]
        assert here.message("msg_9")["status"] == state


def test_what_was_on_its_way_is_no_resend_of_what_has_just_failed(
    here: Gateway, zimsend: Canned, clock: Clock
) -> None:
    """The API gives a failure no time, and its times may differ a little from the webhook's."""
    clock.time = clock.time // SECOND * SECOND
    at = clock.time - MINUTE
    zimsend.answers(known(at, "failed", sent_at=iso(at + 2 * SECOND), delivered_at=None))
    assert here.message("msg_9")["status"] == "failed"
    late = sms("sent", "msg_9", sent_at=iso(at + 2 * SECOND + 400_000))
    report = envelope("sms.sent", late, timestamp=late["sent_at"])
    assert Provider(here.client).post(report).status_code == 200
    assert here.message("msg_9")["status"] == "failed"


@pytest.mark.parametrize("state", ["queued", "sent", "delivered", "failed", "cancelled"])
def test_an_answer_without_times(here: Gateway, zimsend: Canned, state: str) -> None:
    bare = {"success": True, "message_id": "msg_9", "status": state, "to": NUMBER}
    zimsend.answers(ok(bare))
    shown = here.message("msg_9")
    assert (shown["status"], shown["to"]) == (state, NUMBER)


def test_it_is_asked_once_an_hour(here: Gateway, zimsend: Canned, clock: Clock) -> None:
    nothing = ok({"success": False, "error": {"code": "MESSAGE_NOT_FOUND", "message": "x"}}, 404)
    zimsend.answers(nothing)
    for _ in range(3):
        problem(here.call("GET", "/sms/status/msg_9"), 404, "MESSAGE_NOT_FOUND")
    problem(here.call("GET", "/sms/status/msg_8"), 404, "MESSAGE_NOT_FOUND")
    assert [seen.path[-1] for seen in zimsend.seen] == ["9", "8"]
    clock.time += HOUR + 1
    zimsend.answers(known(clock.time - HOUR))
    assert here.message("msg_9")["status"] == "delivered"


@pytest.mark.parametrize(
    "step",
    [
        *(reset, raw(b""), status(502, HTML), status(200, HTML), ok({}), ok([])),
        ok({"success": False, "error": {"code": "RATE_LIMIT_EXCEEDED"}}, 429),
        ok({"success": True, "message_id": "another", "queued_at": "2026-11-20T08:15:42Z"}),
        ok({"success": True, "message_id": "msg_9", "status": "lost"}),
        ok({"success": True, "message_id": "msg_9", "queued_at": "1999-11-20T08:15:42Z"}),
    ],
)
def test_no_answer_is_not_found(here: Gateway, zimsend: Canned, step: Step) -> None:
    zimsend.answers(step)
    problem(here.call("GET", "/sms/status/msg_9"), 404, "MESSAGE_NOT_FOUND")
    assert len(zimsend.seen) == 1


@pytest.mark.parametrize("name", ["claim_turn", "ingest"])
def test_a_store_that_can_only_be_read(
    here: Gateway, zimsend: Canned, clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    zimsend.answers(known(clock.time - HOUR))
    monkeypatch.setattr(here.parts.store, name, refuse)
    problem(here.call("GET", "/sms/status/msg_9"), 404, "MESSAGE_NOT_FOUND")


def test_not_for_longer_than_two_seconds(
    here: Gateway, zimsend: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gateway.ASK_WITHIN == 2
    monkeypatch.setattr(gateway, "ASK_WITHIN", 0.1)
    zimsend.answers(silent)
    problem(here.call("GET", "/sms/status/msg_9"), 404, "MESSAGE_NOT_FOUND")


@pytest.mark.parametrize("message_id", ["%2E", "%2E%2E", "a%00", "y" * 300, "a/b", "%F0"])
def test_odd_ids(here: Gateway, zimsend: Canned, message_id: str) -> None:
    zimsend.answers(ok({"success": False, "error": {"code": "MESSAGE_NOT_FOUND"}}, 404))
    response = here.call("GET", f"/sms/status/{message_id}")
    problem(response, 404, "MESSAGE_NOT_FOUND")
