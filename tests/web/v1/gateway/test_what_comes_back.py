"""What comes back: ZimSend's answers as they are, and what is said when there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.canned import Canned, Step, raw, reset, silent, status
from tests.server import eventually, free_port
from tests.web.v1.gateway.asking import ALL, CALLS, HTML, MAYBE, SURELY_NOT, Gateway, problem, sent

CODES = {
    **dict.fromkeys(("INVALID_API_KEY", "INVALID_CLIENT_ID"), 401),
    **dict.fromkeys(("INVALID_DEVICE_ID", "OTP_NOT_FOUND", "MESSAGE_NOT_FOUND"), 404),
    **dict.fromkeys(("DEVICE_OFFLINE", "NO_DEVICE_AVAILABLE"), 503),
    **dict.fromkeys(
        (
            *("MISSING_AUTH_HEADERS", "INVALID_PHONE_NUMBER", "MESSAGE_TOO_LONG"),
            *("INVALID_PRIORITY", "INVALID_SCHEDULED_DATE", "OTP_EXPIRED", "INVALID_OTP"),
            *("CANNOT_CANCEL_MESSAGE", "TOO_MANY_RECIPIENTS", "INVALID_WEBHOOK_URL"),
        ),
        400,
    ),
    **dict.fromkeys(
        ("OTP_MAX_ATTEMPTS", "OTP_RATE_LIMIT", "RATE_LIMIT_EXCEEDED", "QUOTA_EXCEEDED"), 429
    ),
    "NETWORK_ERROR": 500,
    "NO_CREDIT": 402,
    "BLOCKED_NUMBER": 403,
    "SMS_SEND_TIMEOUT": 504,
}


@pytest.mark.parametrize(
    "shape",
    [
        b'{"success":false, "error":{"code":"%s","message":"Non !"}}',
        b'{"error": "Non !", "code": "%s", "details": {"n": 1.10}}',
    ],
)
@ALL
def test_each_documented_error_comes_back(
    here: Gateway, zimsend: Canned, name: str, shape: bytes
) -> None:
    method, path, asked, _ = CALLS[name]
    for code, http_status in CODES.items():
        body = shape % code.encode()
        zimsend.answers(status(http_status, body, "Content-Type: application/json; charset=utf-8"))
        response = here.call(method, path, json=asked)
        assert (response.status_code, response.data) == (http_status, body)
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert here.events == []


@pytest.mark.parametrize("code", [200, 201, 202])
def test_each_success_comes_back(here: Gateway, zimsend: Canned, code: int) -> None:
    body = b'{ "message_id":"msg_1", "n":1.10, "n":2 }'
    zimsend.answers(status(code, body, "X-Request-Id: 1", "Set-Cookie: a=b", "Retry-After: 7"))
    for method, path, asked, _ in CALLS.values():
        response = here.call(method, path, json=asked)
        assert (response.status_code, response.data) == (code, body)
        assert response.headers["Retry-After"] == "7"
        assert not {"X-Request-Id", "Set-Cookie"} & set(response.headers.keys())


def test_a_success_of_few_words(here: Gateway, zimsend: Canned) -> None:
    zimsend.answers(raw(b"HTTP/1.1 204 No Content\r\n\r\n", close=False))
    response = here.call("DELETE", "/sms/msg_1")
    assert (response.status_code, response.data) == (204, b"")
    assert here.message("msg_1")["status"] == "cancelled"


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (reset, MAYBE),
        (raw(b""), MAYBE),
        (raw(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n{"), MAYBE),
        (status(200, b"\x1f\x8b nonsense", "Content-Encoding: gzip"), MAYBE),
        # A page for people is no answer for a program: the same error, whatever its status.
        *((status(code, HTML, "Content-Type: text/html"), MAYBE) for code in (200, 502, 503, 504)),
        *((status(code, HTML), SURELY_NOT) for code in (301, 403, 404, 429)),
        (status(500), MAYBE),
        (status(200, b"[]"), MAYBE),
        (status(404), SURELY_NOT),
    ],
)
def test_no_answer_of_zimsends(here: Gateway, zimsend: Canned, step: Step, told: str) -> None:
    zimsend.answers(step)
    for method, path, asked, _ in CALLS.values():
        message = problem(here.call(method, path, json=asked), 502, "NETWORK_ERROR")
        assert told in message
        assert "html" not in message
    assert len(zimsend.seen) == len(CALLS)
    assert here.events == []


def test_nobody_listens(start: Callable[..., Gateway]) -> None:
    here = start(ZIMSEND_API_URL=f"http://127.0.0.1:{free_port()}/v1")
    for method, path, asked, _ in CALLS.values():
        assert SURELY_NOT in problem(here.call(method, path, json=asked), 502, "NETWORK_ERROR")


def test_no_answer_in_time(here: Gateway, zimsend: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.parts.zimsend._exchange, "_bounds", bounds(here, timeout=1))
    zimsend.answers(silent)
    assert MAYBE in problem(here.send(), 504, "NETWORK_ERROR")
    eventually(lambda: zimsend.seen)


def bounds(here: Gateway, **changes: Any) -> Any:
    return here.parts.zimsend.within(**changes)._exchange._bounds


def test_who_does_not_fit_is_told_at_once(start: Callable[..., Gateway], zimsend: Canned) -> None:
    here = start(WEB_THREADS="8")
    zimsend.answers(silent)
    with ThreadPoolExecutor(4) as threads:
        held = [threads.submit(here.send) for _ in range(4)]
        eventually(lambda: len(zimsend.seen) == 4)
        took = []
        for _ in range(3):
            began = time.monotonic()
            response = here.send()
            assert "Nothing was sent" in problem(response, 503, "SERVICE_UNAVAILABLE")
            assert int(response.headers["Retry-After"]) > 0
            problem(here.call("GET", "/sms/status/unknown"), 404, "MESSAGE_NOT_FOUND")
            took.append(time.monotonic() - began)
        assert min(took) < 1
        zimsend.released.set()
        assert [each.result().status_code for each in held] == [502] * 4
    assert len(zimsend.seen) == 4
    zimsend.answers(sent())
    for _ in range(3):
        assert here.send().status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: application/json\x01; a=b",
        "Content-Type: application/json\x7f",
        "Content-Type: \xe9",
        f"Content-Type: application/json; a={'b' * 300}",
        "Content-Type:",
    ],
)
def test_a_header_that_no_server_would_send_does_not_spoil_the_answer(
    here: Gateway, zimsend: Canned, header: str
) -> None:
    """The SMS is on its way by then."""
    step = b"HTTP/1.1 200 OK\r\n%b\r\nRetry-After: 5\x02\r\nContent-Length: 17\r\n\r\n%b"
    zimsend.answers(raw(step % (header.encode("latin-1"), b'{"success": true}')))
    answer = here.send()
    if answer.status_code == 200:
        assert answer.content_type == "application/json"
        assert "Retry-After" not in answer.headers
    else:  # the client refuses such a head
        assert MAYBE in problem(answer, 502, "NETWORK_ERROR")


@pytest.mark.parametrize("code", [600, 999])
def test_a_status_that_is_none_is_no_answer(here: Gateway, zimsend: Canned, code: int) -> None:
    zimsend.answers(status(code, b'{"success": true}'))
    assert here.send().status_code == 502
