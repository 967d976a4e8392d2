"""The client of SMS.CX's API: requests, answers, errors, and what is repeated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from receiver.providers.errors import (
    CredentialsRefused,
    NotFound,
    NotPossible,
    NotUnderstood,
    ProviderError,
    RequestRefused,
    TryLater,
    Unavailable,
)
from receiver.providers.smscx.api import SmsCx
from receiver.providers.smscx.api.errors import LONGEST_RESET, error_type
from tests.canned import Canned, Step, ok, reset, silent, status
from tests.providers.smscx.api.calls import CALLS, KEY, NUMBER, OTP, PAGE, ROW, SENT, UUID
from tests.providers.smscx.api.conftest import NOW
from tests.providers.zimsend.api.calls import BROKEN, Naps

GETS = [name for name, (*_, repeated) in CALLS.items() if repeated]
OTHERS = [name for name in CALLS if name not in GETS]


def refused(code: int, kind: str, number: Any = 1100, *headers: str, message: str = "no") -> Step:
    body = {"error": {"type": kind, "message": message, "uri": "u", "code": number}}
    return status(code, json.dumps(body).encode(), *headers)


def fails(client: SmsCx, name: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        CALLS[name][0](client)
    assert KEY not in f"{caught.value!r} {caught.value}"
    return caught.value


# --- requests and answers


@pytest.mark.parametrize("name", CALLS)
def test_requests(patient: SmsCx, server: Canned, name: str) -> None:
    call, method, target, body, answer, _ = CALLS[name]
    server.answers(ok(answer))
    call(patient)
    seen = server.last
    assert (seen.method, seen.path) == (method, target)
    assert (json.loads(seen.body) if seen.body else None) == body
    assert seen.headers["X-API-KEY"] == KEY
    assert NUMBER not in repr(patient)


def test_what_a_send_answers(patient: SmsCx, server: Canned) -> None:
    server.answers(ok(SENT))
    sent = patient.send(NUMBER, "x")
    assert (sent.campaign_id, sent.invalid) == ("c1", ("0", "17"))
    assert sent.dlr_callback_url == "https://example.org/h"
    assert len(sent.nameless) == 1
    (message,) = sent.messages
    assert (message.msg_id, message.status, message.track_data) == ("9b1e", "ACCEPTED", UUID)
    assert message.created_at == datetime(2026, 11, 20, 8, 15, 40, tzinfo=UTC)
    assert NUMBER not in repr(sent)


def test_what_reports_and_codes_answer(patient: SmsCx, server: Canned) -> None:
    server.answers(ok({"data": ROW}))
    row = patient.report("9b1e")
    assert (row.status, row.error_code, row.cost) == ("FAILED", "27", 0.05)
    server.answers(ok({"data": [ROW]}))
    assert patient.report("9b1e") == row
    server.answers(ok(OTP, 201))
    otp = patient.new_otp(NUMBER)
    assert (otp.otp_id, otp.status, otp.attempts) == ("o1", "PENDING", 0)
    assert NUMBER not in repr(otp)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "cancel otp"])
@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'"x"', b'{"data": 1, "info": 1}'])
def test_answers_that_are_not_theirs(
    patient: SmsCx, server: Canned, name: str, answer: bytes
) -> None:
    server.answers(status(200, answer))
    error = fails(patient, name)
    assert (type(error), error.maybe_sent) == (NotUnderstood, True)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.send(NUMBER, "x", track_data="order-17"),
        lambda s: s.send(NUMBER, "x", track_data=UUID.replace("4c35", "fc35")),
        lambda s: s.send(NUMBER, "x", idempotency_id=UUID.upper()),
        lambda s: s.new_otp(NUMBER, track_id="order-17"),
        lambda s: s.send(NUMBER, "x", scheduled_at=datetime(2026, 11, 20)),
        lambda s: s.report(".."),
        lambda s: SmsCx("a\nb"),
        lambda s: SmsCx("a", base_url="ftp://example.org"),
    ],
)
def test_what_no_request_can_hold(patient: SmsCx, server: Canned, call: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        call(patient)
    assert server.seen == []


# --- one-time codes


def test_a_wrong_pin_is_a_result(patient: SmsCx, server: Canned) -> None:
    server.answers(refused(400, "invalid_pin", 2029))
    assert patient.verify_otp("o1", "4829") is False
    server.answers(ok({"status": "VERIFIED"}))
    assert patient.verify_otp("o1", "4829") is True
    server.answers(refused(400, "otp_expired", 2025, message="4829 has expired"))
    error = fails(patient, "verify")
    assert type(error) is NotPossible
    assert "4829" not in str(error)


# --- errors


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (refused(400, "invalid_param", 1104), RequestRefused),
        (refused(400, "insufficient_credit", 1113), TryLater),
        (refused(400, "otp_verified", 2023), NotPossible),
        (refused(401, "invalid_api_key", None), CredentialsRefused),
        (refused(403, "insufficient_scope"), CredentialsRefused),
        (refused(403, "no_coverage", 1119), RequestRefused),
        (refused(403, "access_denied", 1118), NotPossible),
        (refused(404, "not_found", 1100), NotFound),
        (refused(405, "invalid_method"), RequestRefused),
        (refused(429, "rate_limit"), TryLater),
        (refused(500, "server_error"), Unavailable),
        (refused(400, "new_type"), RequestRefused),
        (refused(404, "new_type"), NotFound),
        (status(404), NotUnderstood),
        (status(401), CredentialsRefused),
        (status(502, b"<html>"), Unavailable),
        (status(302, b"", "Location: https://example.org"), NotUnderstood),
        (ok({"error": {"type": "insufficient_credit", "code": 1113}}), TryLater),
    ],
)
def test_errors_by_what_the_caller_can_do(
    patient: SmsCx, server: Canned, step: Step, kind: type[ProviderError]
) -> None:
    server.answers(step)
    error = fails(patient, "send")
    assert type(error) is kind
    assert error.maybe_sent is (kind is Unavailable)
    assert error.advice
    assert len(server.seen) == 1


def test_their_own_words(patient: SmsCx, server: Canned) -> None:
    server.answers(refused(400, "invalid_param", 1104, message=f"bad {KEY}\nthing"))
    error = fails(patient, "send")
    assert (error.code, error_type(error), error.message) == (
        "1104",
        "invalid_param",
        "bad *** thing",
    )
    server.answers(refused(401, "invalid_api_key", None))
    assert fails(patient, "send").code == "invalid_api_key"
    server.answers(refused(400, "x\n" * 100, [1]))
    assert fails(patient, "send").code is None
    server.answers(status(400))
    assert error_type(fails(patient, "send")) is None


# --- what is repeated


@pytest.mark.parametrize("step", [*BROKEN.values(), status(502), refused(500, "server_error")])
def test_what_only_reads_is_repeated_and_nothing_else(
    patient: SmsCx, server: Canned, step: Step
) -> None:
    for name, (call, *_, answer, repeated) in CALLS.items():
        server.answers(step, ok(answer))
        if repeated:
            call(patient)
        else:
            assert fails(patient, name).maybe_sent
        assert len(server.seen) == 1 + repeated


@pytest.mark.parametrize("name", OTHERS)
def test_what_timed_out_is_not_repeated(server: Canned, name: str) -> None:
    server.answers(silent)
    with SmsCx(KEY, base_url=server.url, timeout=0.5) as smscx:
        error = fails(smscx, name)
    assert isinstance(error, Unavailable)
    assert (error.timed_out, error.maybe_sent) == (True, True)
    assert len(server.seen) == 1
    server.released.set()


def test_a_key_of_ones_own_is_no_reason_to_repeat(patient: SmsCx, server: Canned) -> None:
    """What a repetition answers is not said in their documents."""
    server.answers(reset, ok(SENT))
    with pytest.raises(Unavailable):
        patient.send(NUMBER, "x", idempotency_id=UUID)
    assert len(server.seen) == 1


# --- their limit of requests


def limited(at: object, *headers: str) -> Step:
    return refused(429, "rate_limit", 1, f"X-Rate-Limit-Reset: {at}", *headers)


def test_the_reset_is_obeyed(patient: SmsCx, server: Canned, naps: Naps) -> None:
    server.answers(limited(NOW + 7), ok({"data": ROW}))
    patient.report("9b1e")
    assert naps.taken == [7]
    server.answers(limited(NOW + 20), ok(SENT))
    assert fails(patient, "send").retry_after == 20
    assert len(server.seen) == 1
    # Nobody else of the account asks before that, either.
    patient.within(timeout=5).send(NUMBER, "x")
    assert naps.taken == [7, 20]


def test_a_reset_that_is_further_than_patience(patient: SmsCx, server: Canned, naps: Naps) -> None:
    server.answers(limited(NOW + 600))
    assert fails(patient, "report").retry_after == 600
    error = fails(patient, "reports")
    assert isinstance(error, TryLater)
    assert error.retry_after is not None
    assert 590 < error.retry_after <= 600
    assert len(server.seen) == 1
    naps.time += 601
    server.answers(ok(PAGE))
    patient.reports()


def test_the_reset_counts_by_the_clock_that_set_it(patient: SmsCx, server: Canned) -> None:
    date = "Date: Fri, 20 Nov 2020 08:15:42 GMT"
    server.answers(limited(1_605_860_142 + 9, date))
    assert fails(patient, "send").retry_after == 9


@pytest.mark.parametrize(
    ("at", "wait"),
    [(NOW - 100, 0.0), (0, 0.0), (NOW + 10**9, LONGEST_RESET), ("soon", None), ("-1", None)],
)
def test_a_reset_that_makes_no_sense(
    patient: SmsCx, server: Canned, at: object, wait: float | None
) -> None:
    server.answers(limited(at))
    assert fails(patient, "send").retry_after == wait


def test_a_budget_is_asked_too(server: Canned, naps: Naps) -> None:
    class Budget:
        def take(self) -> float:
            return 60.0

    server.answers(ok(PAGE))
    with SmsCx(KEY, base_url=server.url, sleep=naps.sleep, clock=naps.clock) as smscx:
        smscx.reports()
        assert isinstance(fails(smscx.within(budget=Budget()), "reports"), TryLater)
        smscx.reports()
    assert len(server.seen) == 2


# --- cursors


def pages(cursors: Sequence[str | None]) -> list[Step]:
    return [
        ok({"data": [ROW | {"msgId": f"m{n}"}], "paging": {"next": cursor}})
        for n, cursor in enumerate(cursors)
    ]


@pytest.mark.parametrize("name", ["report_pages", "campaign_report_pages"])
def test_pages_follow_the_cursor_with_the_same_filter(
    patient: SmsCx, server: Canned, name: str
) -> None:
    server.answers(*pages(["a&b", "c", None]))
    if name == "report_pages":
        found = list(patient.report_pages(start_date="2026-11-20", end_date="2026-11-21"))
        filter_ = "/reports?start_date=2026-11-20&end_date=2026-11-21&limit=500"
    else:
        found, filter_ = list(patient.campaign_report_pages("x")), "/reports/campaigns/x?limit=500"
    assert [page.messages[0].msg_id for page in found] == ["m0", "m1", "m2"]
    assert [seen.path for seen in server.seen] == [
        filter_,
        f"{filter_}&next=a%26b",
        f"{filter_}&next=c",
    ]


def test_a_cursor_that_does_not_move_is_told(patient: SmsCx, server: Canned) -> None:
    server.answers(*pages(["a", "b", "a"]))
    with pytest.raises(NotUnderstood, match="cursor"):
        list(patient.report_pages(period="2026"))
    assert len(server.seen) == 3


def test_pages_go_on_from_a_cursor(patient: SmsCx, server: Canned) -> None:
    server.answers(*pages([None]))
    list(patient.report_pages(cursor="q", period="2026"))
    assert server.last.path == "/reports?period=2026&limit=500&next=q"
