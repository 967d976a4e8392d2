"""Requests to send in ZimSend's shape, and what SMS.CX's answers become."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from receiver import ids, status, times
from receiver.providers import errors
from receiver.providers.exchange import Answer
from receiver.providers.smscx import sending, sent
from receiver.providers.smscx.api import SmsCx, answers
from receiver.providers.smscx.api.errors import refusal
from receiver.providers.smscx.sending import NotTaken, Wanted
from receiver.providers.smscx.webhook import parse, read
from tests.providers.callers import NOW, RETENTION
from tests.providers.smscx.api.calls import NUMBER, OTP, ROW, UUID

OTHER = "+33612345679"
ASKED = {"to": NUMBER, "message": "Bonjour", "metadata": {"order": 17}, "priority": 1}


def row(to: str = NUMBER, named: str = "ACCEPTED", msg_id: str = "9b1e") -> dict[str, Any]:
    return ROW | {"to": to, "status": named, "msgId": msg_id, "errorCode": None, "trackData": UUID}


def answered(*rows: dict[str, Any], **info: Any) -> answers.Sent:
    return answers.sent({"info": info, "data": list(rows)})


def ends(wanted: list[Any], *rows: dict[str, Any], **info: Any) -> list[sent.End]:
    return sent.ends([w for w in wanted if isinstance(w, Wanted)], answered(*rows, **info))


def error(kind: str, code: int | None = None, status: int = 400, **more: Any) -> Any:
    document = {"error": {"type": kind, "code": code, "message": "no", **more}}
    headers = [("x-rate-limit-reset", "1009"), ("date", "Thu, 01 Jan 1970 00:16:40 GMT")]
    return refusal(Answer(status, headers, b""), document, (), lambda: 0)


# --- what is asked


def test_one() -> None:
    wanted = sending.one(ASKED | {"scheduled_at": "2026-11-21T09:00:00+01:00"})
    assert wanted == (NUMBER, "Bonjour", "2026-11-21 08:00:00", {"order": 17})
    told = sending.arguments(
        [wanted], webhook_url="https://example.org/h", track_data=UUID, idempotency_id=UUID
    )
    inspect.signature(SmsCx.send).bind(None, **told)
    assert told == {
        "to": NUMBER,
        "text": "Bonjour",
        "allow_invalid": None,
        "scheduled_at": "2026-11-21 08:00:00",
        "dlr_callback_url": "https://example.org/h",
        "track_data": UUID,
        "idempotency_id": UUID,
    }


@pytest.mark.parametrize(
    "to", [NUMBER, "33612345678", "+33 6 12 34 56 78", "+33.6.12-34 (56) 78", "+33 (0)6 12345678"]
)
def test_numbers(to: str) -> None:
    assert sending.one(ASKED | {"to": to}).to == NUMBER


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        *[({"to": to}, "INVALID_PHONE_NUMBER") for to in (None, 17, "", "0612345678", "+1", "x")],
        ({"to": [NUMBER]}, "INVALID_PHONE_NUMBER"),
        *[({"message": text}, "INVALID_REQUEST") for text in (None, 1, "", " \n", [])],
        ({"message": "x" * 1531}, "MESSAGE_TOO_LONG"),
        ({"message": "It is {{today}}"}, "INVALID_REQUEST"),
        ({"message": "{{"}, "INVALID_REQUEST"),
        ({"scheduled_at": "soon"}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": 17}, "INVALID_SCHEDULED_DATE"),
        ({"scheduled_at": "0001-01-01T00:00:00+14:00"}, "INVALID_SCHEDULED_DATE"),
        ({"metadata": "x"}, "INVALID_REQUEST"),
    ],
)
def test_what_cannot_be_sent_as_it_is(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(NotTaken) as caught:
        sending.one(ASKED | changes)
    assert (caught.value.status, caught.value.code) == (400, code)
    assert not caught.value.maybe_sent


def test_braces_are_told_of_in_words_that_help() -> None:
    with pytest.raises(NotTaken, match=r"cannot be escaped.*another provider"):
        sending.one(ASKED | {"message": "Rendez-vous {{date}}"})
    assert sending.one(ASKED | {"message": "{a} }} {"}).text == "{a} }} {"


def test_many_one_text() -> None:
    wanted = sending.many({"recipients": [NUMBER, "06", None, OTHER, NUMBER], "message": "x"})
    assert [w.to for w in wanted] == [NUMBER, "06", None, OTHER, NUMBER]
    good = [w for w in wanted if isinstance(w, Wanted)]
    # The same number twice is two SMS, and SMS.CX's rows could not be told apart.
    assert [[w.to for w in batch] for batch in sending.batches(good)] == [[NUMBER, OTHER], [NUMBER]]
    told = sending.arguments(
        sending.batches(good)[0], webhook_url=None, track_data=UUID, idempotency_id=UUID
    )
    assert (told["to"], told["allow_invalid"]) == ([NUMBER, OTHER], True)


def test_many_texts() -> None:
    messages = [{"to": NUMBER, "message": "a"}, "x", {"to": OTHER, "message": "{{a}}"},
                {"to": OTHER, "message": "b", "metadata": {"n": 1}}]  # fmt: skip
    wanted = sending.many({"messages": messages})
    assert [isinstance(w, Wanted) for w in wanted] == [True, False, False, True]
    assert len(sending.batches(w for w in wanted if isinstance(w, Wanted))) == 2


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "INVALID_REQUEST"),
        ({"recipients": [], "message": "x"}, "INVALID_REQUEST"),
        ({"recipients": NUMBER, "message": "x"}, "INVALID_REQUEST"),
        ({"recipients": [NUMBER], "message": "{{x}}"}, "INVALID_REQUEST"),
        ({"recipients": [NUMBER] * 101, "message": "x"}, "TOO_MANY_RECIPIENTS"),
    ],
)
def test_many_that_are_wrong_as_a_whole(asked: dict[str, Any], code: str) -> None:
    with pytest.raises(NotTaken) as caught:
        sending.many(asked)
    assert caught.value.code == code


def test_one_time_codes() -> None:
    told = sending.otp_arguments(
        {"to": NUMBER, "length": 4, "expiry": 60, "template": "Code {{code}} !"}, track_id=UUID
    )
    inspect.signature(SmsCx.new_otp).bind(None, **told)
    assert (told["template"], told["pin_length"], told["ttl"]) == ("Code {{pin}} !", 4, 60)
    told = sending.otp_arguments({"to": NUMBER}, track_id=UUID)
    assert "{{pin}}" in told["template"]
    for wrong in ({"length": 3}, {"expiry": 59}, {"expiry": True}, {"template": "no code"},
                  {"template": "{{code}} {{today}}"}, {"template": "{{code}}"}):  # fmt: skip
        with pytest.raises(NotTaken):
            sending.otp_arguments({"to": NUMBER, **wrong}, track_id=UUID)


# --- what is answered


def test_what_was_taken() -> None:
    (end,) = ends([sending.one(ASKED)], row())
    assert sent.answer_to_one(end, NOW) == {
        "success": True,
        "message_id": "smscx:9b1e",
        "status": "queued",
        "to": NUMBER,
        "queued_at": "2026-11-20T08:15:40Z",
        "provider": "smscx",
    }
    (event,) = sent.events([end], now=NOW, retention=RETENTION, text_mode="full")
    assert (event.type, event.source) == ("sms.queued", "gateway")
    assert event.message_id == ids.key("smscx", "9b1e")
    assert event.says is not None
    shown = status.describe(event.says)
    assert (shown["to"], shown["message"]) == (NUMBER, "x")  # as it was really sent
    assert shown["metadata"] == {"order": 17}
    assert read(event.body)[1]["metadata"] == {"order": 17}
    (again,) = parse(event.body, received_at=NOW, retention=RETENTION, source="gateway")
    assert again == event


def test_a_state_that_nobody_knows_was_taken_all_the_same() -> None:
    (end,) = ends([sending.one(ASKED)], row(named="PENDING"))
    assert sent.answer_to_one(end, NOW)["status"] == "queued"
    (event,) = sent.events([end], now=NOW, retention=RETENTION, text_mode="full")
    assert event.type == "sms.queued"


def test_a_scheduled_one() -> None:
    scheduled = row(named="SCHEDULED") | {"scheduledAt": "2026-11-21 08:00:00"}
    (end,) = ends([sending.one(ASKED)], scheduled)
    assert sent.answer_to_one(end, NOW)["scheduled_at"] == "2026-11-21T08:00:00Z"


@pytest.mark.parametrize(
    ("named", "code", "told"),
    [
        ("REJECTED", "BLOCKED_NUMBER", "REJECTED"),
        ("NO COVERAGE", "NO_COVERAGE", "NO_COVERAGE"),
    ],
)
def test_what_is_refused_at_once_is_a_failed_message(named: str, code: str, told: str) -> None:
    (end,) = ends([sending.one(ASKED)], row(named=named))
    with pytest.raises(NotTaken) as caught:
        sent.answer_to_one(end, NOW)
    assert (caught.value.status, caught.value.code) == (403, code)
    assert not caught.value.maybe_sent
    (event,) = sent.events([end], now=NOW, retention=RETENTION, text_mode="none")
    assert event.type == "sms.failed"
    assert event.says is not None
    assert status.describe(event.says)["error"]["code"] == told
    assert b'"text":null' in event.body


def test_a_failure_that_their_documents_do_not_have() -> None:
    (end,) = ends([sending.one(ASKED)], row(named="FAILED") | {"errorCode": 27})
    assert end.problem is not None
    assert (end.problem.status, end.problem.code) == (502, "NETWORK_ERROR")


@pytest.mark.parametrize("rows", [(), ({"status": "ACCEPTED"},)])
def test_an_answer_without_the_message(rows: tuple[dict[str, Any], ...]) -> None:
    (end,) = ends([sending.one(ASKED)], *rows)
    assert end.problem is not None
    assert (end.problem.status, end.problem.maybe_sent) == (502, True)
    assert sent.events([end], now=NOW, retention=RETENTION, text_mode="full") == []


def test_each_recipient_has_its_own_result() -> None:
    numbers = [NUMBER, "06", OTHER, "+33600000000", "+33600000001"]
    wanted = sending.many({"recipients": numbers, "message": "x"})
    found = ends(
        wanted,
        row("+33600000000", "REJECTED", "c"),
        row(OTHER, msg_id="b"),
        row("33612345678", msg_id="a"),
        invalid=["+33600000001"],
    )
    answer = sent.answer_to_many(wanted, reversed(found), NOW)
    json.dumps(answer)
    assert (answer["success"], answer["queued_messages"], answer["failed_messages"]) == (True, 2, 3)
    told = [(r.get("message_id"), r["status"], r.get("error", {}).get("code"))
            for r in answer["messages"]]  # fmt: skip
    assert told == [
        ("smscx:a", "queued", None),
        (None, "failed", "INVALID_PHONE_NUMBER"),
        ("smscx:b", "queued", None),
        ("smscx:c", "failed", "BLOCKED_NUMBER"),
        (None, "failed", "INVALID_PHONE_NUMBER"),
    ]
    learnt = sent.events(found, now=NOW, retention=RETENTION, text_mode="full")
    assert sorted(event.type for event in learnt) == ["sms.failed", "sms.queued", "sms.queued"]


def test_rows_whose_numbers_are_written_in_another_way() -> None:
    wanted = sending.many({"recipients": [NUMBER, OTHER], "message": "x", "metadata": {"a": 1}})
    one, other = ends(wanted, row(OTHER, msg_id="b"), row("06 12 34 56 78", msg_id="a"))
    assert (one.message and one.message.msg_id) == "a"
    assert (other.message and other.message.msg_id) == "b"
    # Two of them cannot be told apart; that they were sent is known all the same.
    found = ends(wanted, row("0612345678", msg_id="a"), row("0612345679", msg_id="b"))
    assert [end.problem and end.problem.maybe_sent for end in found] == [True, True, None, None]
    learnt = sent.events(found, now=NOW, retention=RETENTION, text_mode="full")
    assert [event.says["metadata"][2] for event in learnt if event.says] == [{"a": 1}] * 2
    rows = sent.answer_to_many(wanted, found, NOW)["messages"]
    assert [r["status"] for r in rows] == ["queued", "queued"]  # else they would be sent again


def test_one_request_of_several_that_did_not_come_through() -> None:
    wanted = sending.many({"messages": [{"to": NUMBER, "message": "a"},
                                        {"to": NUMBER, "message": "b"}]})  # fmt: skip
    first, second = sending.batches(w for w in wanted if isinstance(w, Wanted))
    lost = errors.Unavailable("no answer", maybe_sent=True, timed_out=True)
    found = [*sent.ends(first, answered(row())), *sent.ends(second, lost)]
    rows = sent.answer_to_many(wanted, found, NOW)["messages"]
    assert [r["status"] for r in rows] == ["queued", "queued"]  # else it would be sent again
    assert rows[1]["error"]["code"] == "NETWORK_ERROR"
    assert "before you send it again" in rows[1]["error"]["message"]


@pytest.mark.parametrize(
    ("problem", "told", "code", "wait"),
    [
        (error("invalid_param", 1104), 400, "INVALID_PHONE_NUMBER", None),
        (error("invalid_param", 1116), 400, "INVALID_SCHEDULED_DATE", None),
        (error("invalid_param", 1199, invalid=["0"]), 400, "INVALID_PHONE_NUMBER", None),
        (error("invalid_param", 1105), 502, "NETWORK_ERROR", None),
        (error("insufficient_credit", 1113), 402, "NO_CREDIT", None),
        (error("no_coverage", 1119, 403), 403, "NO_COVERAGE", None),
        (error("rate_limit", None, 429), 429, "RATE_LIMIT_EXCEEDED", 9),
        (errors.TryLater("x", retry_after=3), 429, "RATE_LIMIT_EXCEEDED", 3),
        (error("invalid_api_key", None, 401), 502, "PROVIDER_REFUSED_US", None),
        (error("access_denied", 1118, 403), 400, "CANNOT_CANCEL_MESSAGE", None),
        (error("not_found", 1100, 404), 404, "MESSAGE_NOT_FOUND", None),
        (error("not_found", 2021, 404), 404, "OTP_NOT_FOUND", None),
        (error("unheard_of", 1114), 402, "NO_CREDIT", None),
        (errors.TryLater("x", status=402), 402, "NO_CREDIT", None),
        (error("otp_expired", 2025), 400, "OTP_EXPIRED", None),
        (error("otp_failed", 2026), 429, "OTP_MAX_ATTEMPTS", None),
        (error("server_error", None, 500), 502, "NETWORK_ERROR", None),
        (errors.Unavailable("x", maybe_sent=True, timed_out=True), 504, "NETWORK_ERROR", None),
        (errors.NotUnderstood("x", maybe_sent=True), 502, "NETWORK_ERROR", None),
        # Who obeyed it would send twice.
        (errors.Unavailable("x", maybe_sent=True, retry_after=7), 502, "NETWORK_ERROR", None),
        (errors.Unavailable("x", maybe_sent=False, retry_after=7), 502, "NETWORK_ERROR", 7),
    ],
)
def test_errors_in_zimsends_words(
    problem: errors.ProviderError, told: int, code: str, wait: float | None
) -> None:
    not_taken = sent.not_taken(problem)
    assert (not_taken.status, not_taken.code, not_taken.retry_after) == (told, code, wait)
    assert not_taken.maybe_sent is problem.maybe_sent


@pytest.mark.parametrize(
    "kind", [errors.Unavailable, errors.NotUnderstood, errors.RequestRefused, errors.TryLater]
)
def test_what_may_have_been_sent_is_told(kind: Any) -> None:
    """Whatever else is advised: who reads it must not send twice."""
    not_taken = sent.not_taken(kind("x", maybe_sent=True))
    assert "before you send it again" in not_taken.message
    surely_not = sent.not_taken(kind("x", maybe_sent=False))
    assert "before you send it again" not in surely_not.message


def test_no_request_to_send_misses_a_message() -> None:
    """`MESSAGE_NOT_FOUND` is for an id that the caller gave."""
    (end,) = sent.ends([sending.one(ASKED)], error("not_found", 1100, 404))
    assert end.problem is not None
    assert (end.problem.status, end.problem.code) == (502, "NETWORK_ERROR")


def test_metadata_that_is_nested_too_deep_to_be_kept() -> None:
    deep: dict[str, Any] = {}
    for _ in range(198):
        deep = {"x": deep}
    (end,) = ends([sending.one(ASKED | {"metadata": deep})], row())
    assert sent.answer_to_one(end, NOW)["success"]
    (event,) = sent.events([end], now=NOW, retention=RETENTION, text_mode="full")
    assert event.type == "sms.queued"
    assert "metadata" not in read(event.body)[1]


def test_codes_and_cancelling() -> None:
    otp = answers.otp(OTP | {"attempts": 1})
    assert sent.answer_to_otp(otp)["otp_id"] == "smscx:o1"
    assert sent.answer_to_otp(otp)["expires_at"] == "2026-11-20T08:20:42Z"
    assert sent.answer_to_check(False, otp)["attempts_remaining"] == 2
    assert sent.answer_to_check(True)["valid"] is True
    assert sent.answer_to_cancel("9b1e")["message_id"] == "smscx:9b1e"
    (event,) = sent.taken_back(
        "9b1e", {"creditReturned": 0.05}, NOW, now=NOW, retention=RETENTION, text_mode="full"
    )
    assert (event.type, event.timestamp) == ("sms.cancelled", NOW)
    assert event.says is not None
    assert status.describe(event.says)["cancelled_at"] == NOW
    (again,) = parse(event.body, received_at=NOW + times.SECOND, retention=RETENTION)
    assert again.id == event.id  # type: ignore[union-attr]
