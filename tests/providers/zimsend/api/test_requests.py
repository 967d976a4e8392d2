"""What the client sends: each call's request, and what no request can hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest

from receiver.providers.zimsend.api import ZimSend
from tests.canned import Canned, ok
from tests.providers.zimsend.api.calls import ALL, CALLS, ID, KEY, MESSAGE, NUMBER


@ALL
def test_the_request(once: ZimSend, server: Canned, name: str) -> None:
    call, method, path, body, answer, _ = CALLS[name]
    server.answers(ok(answer))
    call(once)
    [seen] = server.seen
    assert (seen.method, seen.path) == (method, f"/v1{path}")
    assert seen.headers.get_all("X-API-Key") == [KEY]
    assert seen.headers.get_all("X-Client-ID") == [ID]
    assert "X-Device-ID" not in seen.headers
    assert seen.headers["Accept"] == "application/json"
    assert seen.headers["Accept-Encoding"] == "identity"
    if body is None:
        assert seen.body == b""
    else:
        assert seen.headers["Content-Type"] == "application/json"
        assert json.loads(seen.body) == body


@pytest.mark.parametrize("code", [200, 201, 202])
@ALL
def test_any_success_is_one(once: ZimSend, server: Canned, name: str, code: int) -> None:
    call, *_, answer, _ = CALLS[name]
    server.answers(ok({**answer, "something": [None, {"else": 1}]}, code))
    call(once)


def test_what_is_not_given_is_not_said(once: ZimSend, server: Canned) -> None:
    server.answers(ok(MESSAGE))
    once.send(NUMBER, "x")
    assert json.loads(server.last.body) == {"to": NUMBER, "message": "x"}


@pytest.mark.parametrize(
    ("message_id", "path"),
    [
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("../x?y#z", "..%2Fx%3Fy%23z"),
        ("é b", "%C3%A9%20b"),
        ("...", "..."),
        ("a:b@c", "a%3Ab%40c"),
    ],
)
def test_any_id_stays_in_its_place(
    once: ZimSend, server: Canned, message_id: str, path: str
) -> None:
    server.answers(ok(MESSAGE))
    once.status(message_id)
    once.cancel(message_id)
    once.resend(message_id)
    once.delete_webhook(message_id)
    once.test_webhook(message_id)
    assert [seen.path for seen in server.seen] == [
        f"/v1/sms/status/{path}",
        f"/v1/sms/{path}",
        f"/v1/sms/{path}/resend",
        f"/v1/webhooks/{path}",
        f"/v1/webhooks/{path}/test",
    ]


@pytest.mark.parametrize("message_id", ["", ".", "..", "\ud83d"])
def test_what_cannot_be_an_id(once: ZimSend, server: Canned, message_id: str) -> None:
    for call in (once.status, once.cancel, once.resend, once.delete_webhook, once.test_webhook):
        with pytest.raises(ValueError, match=r"is no id|surrogates not allowed"):
            call(message_id)
    assert server.seen == []


@pytest.mark.parametrize(
    "call",
    [
        lambda z: z.send(NUMBER, "x", scheduled_at=datetime(2026, 11, 20)),
        lambda z: z.history(from_date=datetime(2026, 11, 20)),
        lambda z: z.history(to_date=datetime(2026, 11, 20)),
        lambda z: z.stats(from_date=datetime(2026, 11, 20)),
        lambda z: z.stats(to_date=datetime(2026, 11, 20)),
        lambda z: z.stats(to_date=datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))),
        lambda z: z.send(NUMBER, "x", device_id="a\r\nX-Other: 1"),
        lambda z: z.send(NUMBER, "x", device_id=""),
        lambda z: z.send(NUMBER, "x", metadata={"a": float("nan")}),
        lambda z: z.history(search="x" * 70_000),
    ],
)
def test_arguments_that_no_request_can_hold(
    once: ZimSend, server: Canned, call: Callable[[ZimSend], object]
) -> None:
    with pytest.raises(ValueError, match=r"time zone|range|header|JSON|URL"):
        call(once)
    assert server.seen == []
