"""Every call that the client of ZimSend's API can make, and what the tests of it share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.errors import (
    ZimSendError,
)
from tests.canned import raw, reset, status

KEY, ID = "zs_test_0123456789", "client_0123456789"
NUMBER = "+33612345678"


class Naps:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.time = 1000.0

    def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.time += seconds

    def clock(self) -> float:
        return self.time


MESSAGE = {"success": True, "message_id": "msg_1", "status": "queued"}
BULK = {"success": True, "batch_id": "batch_1", "messages": []}
OTP = {"success": True, "otp_id": "otp_1"}
CHECK = {"success": True, "valid": True}
PAGE = {"success": True, "data": [], "pagination": {}}
STATS: dict[str, Any] = {"success": True, "stats": {}}
WEBHOOK = {"webhook_id": "wh_1"}
WHEN = datetime(2026, 11, 20, 9, 15, 42, tzinfo=timezone(timedelta(hours=1)))

#: Every call: how it is made, its method and path, its body, its answer; whether it is repeated.
CALLS: dict[str, tuple[Callable[[ZimSend], object], str, str, Any, Any, bool]] = {
    "send": (
        lambda z: z.send(
            NUMBER,
            "x",
            priority="low",
            webhook_url="https://example.org/h",
            metadata={},
            scheduled_at=WHEN,
            retry_attempts=1,
        ),
        "POST",
        "/sms/send",
        {
            "to": NUMBER,
            "message": "x",
            "priority": "low",
            "webhook_url": "https://example.org/h",
            "metadata": {},
            "scheduled_at": "2026-11-20T08:15:42Z",
            "retry_attempts": 1,
        },
        MESSAGE,
        False,
    ),
    "send_bulk": (
        lambda z: z.send_bulk(
            [NUMBER], "x", priority=5, webhook_url="https://example.org/h", metadata={"a": 1}
        ),
        "POST",
        "/sms/send-bulk",
        {
            "recipients": [NUMBER],
            "message": "x",
            "priority": 5,
            "webhook_url": "https://example.org/h",
            "metadata": {"a": 1},
        },
        BULK,
        False,
    ),
    "send_bulk_personalized": (
        lambda z: z.send_bulk_personalized([{"to": NUMBER, "message": "x"}]),
        "POST",
        "/sms/send-bulk-personalized",
        {"messages": [{"to": NUMBER, "message": "x"}]},
        BULK,
        False,
    ),
    "send_otp": (
        lambda z: z.send_otp(
            NUMBER, length=4, expiry=60, template="{{code}}", purpose="login", metadata={"a": 1}
        ),
        "POST",
        "/sms/send-otp",
        {
            "to": NUMBER,
            "length": 4,
            "expiry": 60,
            "template": "{{code}}",
            "purpose": "login",
            "metadata": {"a": 1},
        },
        OTP,
        False,
    ),
    "verify_otp": (
        lambda z: z.verify_otp("otp_1", "123456"),
        "POST",
        "/sms/verify-otp",
        {"otp_id": "otp_1", "code": "123456"},
        CHECK,
        False,
    ),
    "status": (lambda z: z.status("msg_1"), "GET", "/sms/status/msg_1", None, MESSAGE, True),
    "history": (
        lambda z: z.history(
            page=2, limit=3, status="sent", to=NUMBER, from_date=WHEN, device_id="d", search="a b&é"
        ),
        "GET",
        "/sms/history?page=2&limit=3&status=sent&to=%2B33612345678"
        "&from_date=2026-11-20T08%3A15%3A42Z&device_id=d&search=a+b%26%C3%A9",
        None,
        PAGE,
        True,
    ),
    "stats": (
        lambda z: z.stats(from_date=date(2026, 11, 1), to_date="2026-11-20", device_id="d"),
        "GET",
        "/sms/stats?from_date=2026-11-01&to_date=2026-11-20&device_id=d",
        None,
        STATS,
        True,
    ),
    "cancel": (lambda z: z.cancel("msg_1"), "DELETE", "/sms/msg_1", None, MESSAGE, False),
    "resend": (lambda z: z.resend("msg_1"), "POST", "/sms/msg_1/resend", None, MESSAGE, False),
    "configure_webhook": (
        lambda z: z.configure_webhook("https://example.org/h", ["sms.sent"], secret="s"),
        "POST",
        "/webhooks/configure",
        {"url": "https://example.org/h", "events": ["sms.sent"], "secret": "s"},
        WEBHOOK,
        False,
    ),
    "webhooks": (lambda z: z.webhooks(), "GET", "/webhooks", None, {"webhooks": []}, True),
    "delete_webhook": (
        lambda z: z.delete_webhook("wh_1"),
        "DELETE",
        "/webhooks/wh_1",
        None,
        {},
        True,
    ),
    "test_webhook": (
        lambda z: z.test_webhook("wh_1"),
        "POST",
        "/webhooks/wh_1/test",
        None,
        {"message": "sent", "response_status": 200},
        False,
    ),
    "webhook_logs": (
        lambda z: z.webhook_logs(page=2, limit=3),
        "GET",
        "/webhooks/logs?page=2&limit=3",
        None,
        {"logs": []},
        True,
    ),
}
ALL = pytest.mark.parametrize("name", CALLS)
REPEATED = [name for name in CALLS if CALLS[name][5]]
NOT_REPEATED = [name for name in CALLS if not CALLS[name][5]]
#: Calls with a result that has to have something in it.
RESULTS = [name for name in CALLS if name != "delete_webhook"]


def error_shapes(code: str) -> list[Any]:
    return [
        {"success": False, "error": {"code": code, "message": "Non !"}},
        {"error": "Non !", "code": code, "details": {"field": "to"}},
    ]


NO_JSON = {
    "HTML": b"<html><h1>502 Bad Gateway</h1></html>",
    "nothing": b"",
    "half": b'{"success": fal',
    "null": b"null",
    "a list": b"[]",
    "a text": b'"error"',
    "NaN": b'{"code": NaN}',
    "Latin 1": b'{"error": "\xe9"}',
    "deep": b"[" * 100_000,
    "an object of others": b'{"detail": "Not Found"}',
    "odd types": b'{"error": [1], "code": {}, "message": 3}',
    "odd inside": b'{"error": {"code": 5, "message": []}}',
}


def call(zimsend: ZimSend, name: str) -> ZimSendError:
    with pytest.raises(ZimSendError) as caught:
        CALLS[name][0](zimsend)
    return caught.value


TRUNCATED = raw(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\n{")
BROKEN = {
    "reset": reset,
    "closed": raw(b""),
    "truncated": TRUNCATED,
    "chunks without an end": raw(
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
    ),
    "no HTTP": raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "odd redirect": status(302, b"", "Location: http://example.org:x/"),
}
