"""The calls that go on to ZimSend: what it is sent, what comes back, what the mirror learns."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import settings
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
)
from werkzeug.test import TestResponse

from app import create_app
from receiver import times
from receiver.errors import StoreUnavailable
from receiver.providers.zimsend import webhook
from receiver.providers.zimsend.simulator import api as simulator
from receiver.providers.zimsend.simulator.api import Simulator
from receiver.providers.zimsend.simulator.world import World
from receiver.store import Selection
from receiver.times import HOUR, MINUTE, SECOND, iso
from receiver.web.v1 import gateway
from tests.canned import Canned, Step, ok, raw, reset, silent, status
from tests.conftest import SECRET, Clock, Provider
from tests.payloads import envelope, sms
from tests.server import Server, eventually, free_port, simulating
from tests.web.test_openapi import API

KEYS = {"ZIMSEND_API_KEY": "zs_test_real", "ZIMSEND_CLIENT_ID": "client_real"}
HEADERS = {"X-API-Key": "zs_test_real", "X-Client-ID": "client_real"}
PUBLIC = "https://sms.example.com"
HOOK = f"{PUBLIC}/webhooks/zimsend"
NUMBER, TEXT = "+33612345678", "Bonjour 👋, code 1234"
HTML = b"<html><h1>502 Bad Gateway</h1></html>"


@pytest.fixture
def zimsend(fresh_canned: Canned) -> Canned:
    return fresh_canned


class Gateway:
    """A receiver in this process, with an account at that ZimSend."""

    def __init__(self, environ: dict[str, str], clock: Clock) -> None:
        self.app = create_app(environ, clock)
        self.parts = self.app.extensions["receiver"]
        self.parts.store.migrate()
        self.client: FlaskClient = self.app.test_client()

    def call(self, method: str, path: str, **request: Any) -> TestResponse:
        headers = HEADERS | request.pop("headers", {})
        return self.client.open(f"/v1{path}", method=method, headers=headers, **request)

    def send(self, **changes: Any) -> TestResponse:
        return self.call("POST", "/sms/send", json={"to": NUMBER, "message": TEXT} | changes)

    def message(self, message_id: str) -> Any:
        answer = self.call("GET", f"/sms/status/{message_id}")
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.parts.store.events(Selection()))

    def close(self) -> None:
        self.parts.zimsend.close()
        self.parts.store.close()


@pytest.fixture
def start(
    environ: dict[str, str], clock: Clock, zimsend: Canned
) -> Iterator[Callable[..., Gateway]]:
    started = []

    def start(**settings: str) -> Gateway:
        url = {"ZIMSEND_API_URL": f"{zimsend.url}/v1", "PUBLIC_URL": PUBLIC}
        started.append(Gateway({**environ, **KEYS, **url, **settings}, clock))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def here(start: Callable[..., Gateway]) -> Gateway:
    return start()


def sent(message_id: str = "msg_1", **more: Any) -> Step:
    answer = {"success": True, "message_id": message_id, "status": "queued", "to": NUMBER}
    return ok(answer | more)


#: Every call: method, path, body, and whether it takes a `webhook_url` (PROVIDER, section 3).
CALLS: dict[str, tuple[str, str, Any, bool]] = {
    "send": ("POST", "/sms/send", {"to": NUMBER, "message": TEXT}, True),
    "send-bulk": ("POST", "/sms/send-bulk", {"recipients": [NUMBER], "message": TEXT}, True),
    "send-bulk-personalized": (
        "POST",
        "/sms/send-bulk-personalized",
        {"messages": [{"to": NUMBER, "message": TEXT}]},
        False,
    ),
    "send-otp": ("POST", "/sms/send-otp", {"to": NUMBER}, False),
    "verify-otp": ("POST", "/sms/verify-otp", {"otp_id": "otp_1", "code": "123456"}, False),
    "resend": ("POST", "/sms/msg_1/resend", None, False),
    "cancel": ("DELETE", "/sms/msg_1", None, False),
}
ALL = pytest.mark.parametrize("name", CALLS)


# --- what ZimSend is sent


@ALL
def test_a_request_goes_on_as_it_came(here: Gateway, zimsend: Canned, name: str) -> None:
    method, path, _, takes_webhook = CALLS[name]
    body = b'{ "to":"+33612345678", "n":1.10, "n":1E400, "s":"\\ud83d" }'
    here.call(
        method,
        f"{path}?a=%20&b=1+2&b",
        data=body,
        content_type="application/json; charset=utf-8",
        headers={"X-Other": "1", "Cookie": "a=b", "Authorization": "Basic x"},
    )
    [seen] = zimsend.seen
    assert (seen.method, seen.path) == (method, f"/v1{path}?a=%20&b=1+2&b")
    hook = b'"webhook_url": "%s", ' % HOOK.encode() if takes_webhook else b""
    assert seen.body == b"{" + hook + body[1:]
    assert seen.headers.get_all("Content-Type") == ["application/json; charset=utf-8"]
    assert seen.headers.get_all("X-API-Key") == ["zs_test_real"]
    assert seen.headers.get_all("X-Client-ID") == ["client_real"]
    assert not {"X-Other", "Cookie", "Authorization", "X-Device-ID"} & set(seen.headers)


@ALL
def test_the_caller_names_the_webhook_and_the_phone(
    start: Callable[..., Gateway], zimsend: Canned, name: str
) -> None:
    here = start(ZIMSEND_DEVICE_ID="dev_1")
    method, path, _, _ = CALLS[name]
    body = b'{"webhook_url": "https://example.com/mine"}'
    here.call(method, path, data=body)
    assert zimsend.last.body == body
    assert zimsend.last.headers.get_all("X-Device-ID") == ["dev_1"]
    here.call(method, path, data=b"no object", headers={"X-Device-ID": "dev_2"})
    assert zimsend.last.body == b"no object"
    assert zimsend.last.headers.get_all("X-Device-ID") == ["dev_2"]
    here.call(method, path)
    assert zimsend.last.body == b""


def test_nobody_has_said_where_this_service_is(
    start: Callable[..., Gateway], zimsend: Canned
) -> None:
    start(PUBLIC_URL="").send()
    assert json.loads(zimsend.last.body) == {"to": NUMBER, "message": TEXT}


def test_an_id_stays_in_its_place(here: Gateway, zimsend: Canned) -> None:
    here.call("DELETE", "/sms/a%3Fb%20é")
    assert zimsend.last.path == "/v1/sms/a%3Fb%20%C3%A9"
    here.call("POST", "/sms/a%2523/resend")
    assert zimsend.last.path == "/v1/sms/a%2523/resend"


def test_a_compressed_body_stays_so(here: Gateway, zimsend: Canned) -> None:
    here.call("POST", "/sms/send", data=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert zimsend.last.headers["Content-Encoding"] == "gzip"
    assert zimsend.last.body == b"\x1f\x8b"


def problem(response: TestResponse | httpx.Response, code: int, name: str) -> str:
    """The message of an error in ZimSend's shape."""
    assert response.status_code == code
    assert response.headers["Content-Type"] == "application/json"
    body = json.loads(response.text)
    assert body.keys() == {"success", "error"}
    assert body["success"] is False
    assert body["error"].keys() == {"code", "message"}
    assert body["error"]["code"] == name
    message: str = body["error"]["message"]
    return message


@pytest.mark.parametrize(
    ("headers", "code", "error"),
    [
        ({}, 400, "MISSING_AUTH_HEADERS"),
        (HEADERS | {"X-API-Key": "zs_test_other"}, 401, "INVALID_API_KEY"),
        (HEADERS | {"X-Client-ID": "client_other"}, 401, "INVALID_CLIENT_ID"),
    ],
)
def test_who_is_not_let_in_reaches_nobody(
    here: Gateway, zimsend: Canned, headers: dict[str, str], code: int, error: str
) -> None:
    for method, path, body, _ in CALLS.values():
        response = here.client.open(f"/v1{path}", method=method, headers=headers, json=body)
        problem(response, code, error)
    assert zimsend.seen == []


def test_without_an_account_it_is_closed(environ: dict[str, str]) -> None:
    client = create_app(environ).test_client()
    for method, path, body, _ in CALLS.values():
        response = client.open(f"/v1{path}", method=method, headers=HEADERS, json=body)
        problem(response, 503, "NOT_CONFIGURED")


def test_what_cannot_be_passed_on(start: Callable[..., Gateway], zimsend: Canned) -> None:
    here = start(MAX_BODY_BYTES="2000")
    response = here.call("POST", "/sms/send", data=b"x" * 2_001)
    problem(response, 413, "REQUEST_ENTITY_TOO_LARGE")
    response = here.call("POST", "/sms/send", json={}, headers={"X-Device-ID": "dev_é"})
    problem(response, 400, "INVALID_REQUEST")
    response = here.call("DELETE", "/sms/%2E%2E")
    problem(response, 400, "INVALID_REQUEST")
    assert zimsend.seen == []


# --- what comes back

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


MAYBE, SURELY_NOT = "may have been sent", "Nothing was sent"


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
    with ThreadPoolExecutor(2) as threads:
        held = [threads.submit(here.send) for _ in range(2)]
        eventually(lambda: len(zimsend.seen) == 2)
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
        assert [each.result().status_code for each in held] == [502, 502]
    assert len(zimsend.seen) == 2
    zimsend.answers(sent())
    for _ in range(3):
        assert here.send().status_code == 200


# --- what the mirror learns

UNKNOWN = {"device_id": None, "metadata": None, "priority": None, "message": None}


def test_a_message_is_known_at_once(here: Gateway, zimsend: Canned, clock: Clock) -> None:
    queued_at = iso(clock.time // SECOND * SECOND - 2 * SECOND)
    zimsend.answers(sent(queued_at=queued_at))
    here.send(metadata={"order": [1]}, priority="high")
    shown = here.message("msg_1")
    assert shown["status"] == "queued"
    assert shown["queued_at"] == shown["created_at"] == queued_at
    assert (shown["to"], shown["message"]) == (NUMBER, TEXT)
    assert (shown["metadata"], shown["priority"]) == ({"order": [1]}, "high")
    assert shown["device_id"] is None
    [event] = shown["events"]
    assert event["event_id"] == f"gateway:msg_1:queued:{queued_at}"
    assert (event["type"], event["source"]) == ("sms.queued", "gateway")
    [stored] = here.events
    assert [each["state"] for each in stored["deliveries"]] == ["pending", "pending"]
    here.send()  # the same answer again is the same event
    assert here.message("msg_1")["events"][0]["receipts"] == 2


def test_the_phone_is_known_where_it_was_named(
    start: Callable[..., Gateway], zimsend: Canned
) -> None:
    here = start(ZIMSEND_DEVICE_ID="dev_1")
    zimsend.answers(sent("msg_1"), sent("msg_2"), sent("msg_3", device_id="dev_3"))
    here.send()
    here.call("POST", "/sms/send", json={"to": NUMBER}, headers={"X-Device-ID": "dev_2"})
    here.send()
    devices = [here.message(f"msg_{n}")["device_id"] for n in (1, 2, 3)]
    assert devices == ["dev_1", "dev_2", "dev_3"]


@pytest.mark.parametrize(
    "queued_at", [None, 5, "soon", "1999-01-01T00:00:00Z", "2999-01-01T00:00:00Z"]
)
def test_a_time_that_is_of_no_use(
    here: Gateway, zimsend: Canned, clock: Clock, queued_at: Any
) -> None:
    zimsend.answers(sent(queued_at=queued_at))
    here.send()
    assert here.message("msg_1")["queued_at"] == iso(clock.time)


@pytest.mark.parametrize("name", ["send-bulk", "send-bulk-personalized"])
@pytest.mark.parametrize("rows", [True, False])
def test_hundreds_of_messages_in_few_commits(
    here: Gateway, zimsend: Canned, monkeypatch: pytest.MonkeyPatch, name: str, rows: bool
) -> None:
    ids = [f"msg_{number}" for number in range(300)]
    numbers = [f"+336{number:08}" for number in range(300)]
    told = [{"message_id": i, "to": n, "status": "queued"} for i, n in zip(ids, numbers, strict=1)]
    zimsend.answers(ok({"batch_id": "b", "messages": told} if rows else {"message_ids": ids}))
    groups = []
    ingest = here.parts.store.ingest

    def count(items: Any, *arguments: Any) -> Any:
        groups.append(len(items))
        return ingest(items, *arguments)

    monkeypatch.setattr(here.parts.store, "ingest", count)
    asked: dict[str, Any] = {"recipients": numbers, "message": TEXT, "metadata": {"n": 1}}
    if name == "send-bulk-personalized":
        asked = {"messages": [{"to": n, "message": n, "metadata": {"n": n}} for n in numbers]}
    assert here.call("POST", CALLS[name][1], json=asked).status_code == 200
    assert sum(groups) == 300
    assert len(groups) == 3
    answer = here.call("GET", "/sms/history?limit=100").get_json()
    assert answer["pagination"]["total_items"] == 300
    for message in answer["data"]:
        to = numbers[ids.index(message["message_id"])]
        own = name == "send-bulk-personalized"
        expected = (to, to, {"n": to}) if own else (to, TEXT, {"n": 1})
        assert (message["to"], message["message"], message["metadata"]) == expected


def test_the_code_is_never_kept(here: Gateway, zimsend: Canned) -> None:
    zimsend.answers(sent(otp_id="otp_1"), ok({"success": True, "valid": True}))
    otp = {"to": NUMBER, "template": "Code {{code}}", "message": "x", "metadata": {"n": 1}}
    here.call("POST", "/sms/send-otp", json=otp)
    shown = here.message("msg_1")
    assert (shown["status"], shown["to"], shown["message"]) == ("queued", NUMBER, None)
    assert shown["metadata"] == {"n": 1}
    here.call("POST", "/sms/verify-otp", json={"otp_id": "otp_1", "code": "482913"})
    [event] = here.events
    body = here.parts.store.body(event["event_id"])
    assert b"template" not in body
    assert b"482913" not in body


@pytest.mark.parametrize(("mode", "text"), [("masked", "Bonjour 👋, code ****"), ("none", None)])
def test_texts_are_kept_as_the_settings_say(
    start: Callable[..., Gateway], zimsend: Canned, mode: str, text: str | None
) -> None:
    here = start(STORE_TEXT=mode)
    zimsend.answers(sent())
    here.send()
    assert json.loads(zimsend.last.body)["message"] == TEXT
    assert here.message("msg_1")["message"] == text
    assert b"code 1234" not in here.parts.store.body(here.events[0]["event_id"])


def provide(here: Gateway, event_type: str, at: int, **data: Any) -> None:
    state = event_type.removeprefix("sms.")
    own = {f"{state}_at": iso(at), **data}
    body = json.dumps(envelope(event_type, sms(state, "msg_1", **own), timestamp=iso(at))).encode()
    headers = {"X-Webhook-Signature": webhook.sign(SECRET.encode(), body)}
    assert here.client.post("/webhooks/zimsend", data=body, headers=headers).status_code == 200


def test_a_failed_message_is_sent_again(here: Gateway, zimsend: Canned, clock: Clock) -> None:
    clock.time = clock.time // SECOND * SECOND
    queued_at = iso(clock.time)
    zimsend.answers(sent(queued_at=queued_at), ok({"message_id": "msg_1", "status": "queued"}, 202))
    here.send()
    clock.time += MINUTE
    provide(here, "sms.failed", clock.time, sent_at=None)
    assert here.message("msg_1")["status"] == "failed"
    clock.time += MINUTE
    assert here.call("POST", "/sms/msg_1/resend").status_code == 202
    shown = here.message("msg_1")
    assert (shown["status"], shown["queued_at"]) == ("queued", iso(clock.time))
    assert (shown["message"], shown["error"]) == ("Bonjour 👋 مرحبا, code 1234", None)
    assert shown["events"][-1]["event_id"] == f"gateway:msg_1:queued:{iso(clock.time)}"
    assert not shown["events"][-1]["repeat"]
    clock.time += SECOND
    provide(here, "sms.sent", clock.time)
    assert here.message("msg_1")["status"] == "sent"


def test_a_message_is_taken_back(here: Gateway, zimsend: Canned, clock: Clock) -> None:
    cancelled = {"success": True, "message": "cancelled", "message_id": "msg_1"}
    zimsend.answers(sent(), ok({**cancelled, "status": "cancelled"}))
    here.send()
    here.call("DELETE", "/sms/msg_1")
    shown = here.message("msg_1")
    assert (shown["status"], shown["cancelled_at"]) == ("cancelled", iso(clock.time))
    assert shown["message"] == TEXT  # not the answer's own `message`
    zimsend.answers(ok({"success": False, "message_id": "msg_2"}))
    here.call("DELETE", "/sms/msg_2")
    assert len(here.events) == 2


def test_the_answer_comes_back_whatever_becomes_of_the_mirror(
    here: Gateway,
    zimsend: Canned,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = [OverflowError("no column holds this"), StoreUnavailable("locked")]

    def refuse(*_: Any) -> None:
        raise errors[0]

    zimsend.answers(sent())
    monkeypatch.setattr(here.parts.store, "ingest", refuse)
    while errors:
        response = here.send()
        assert (response.status_code, response.get_json()["message_id"]) == (200, "msg_1")
        monkeypatch.setattr(here.parts.store, "take", refuse)
        del errors[0]
    assert "the mirror does not know" in caplog.text
    assert NUMBER not in caplog.text
    assert "Bonjour" not in caplog.text


def test_what_comes_as_no_json_teaches_nothing(here: Gateway, zimsend: Canned) -> None:
    zimsend.answers(sent())
    here.call("POST", "/sms/send", data=b"to=1&message=x")
    assert here.message("msg_1") == here.message("msg_1") | UNKNOWN | {"to": NUMBER}


def test_calls_are_counted_and_never_held_up(
    here: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms: list[int | None] = []
    monkeypatch.setattr(here.parts.store, "take", lambda *asked: rooms.append(asked[-1]) or 5)
    for method, path, asked, _ in CALLS.values():
        assert here.call(method, path, json=asked).status_code == 200
    assert rooms == [None] * len(CALLS)


# --- a message that the mirror does not have


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
    assert not list(here.parts.store.learnt())  # nothing was missed
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


# --- the description


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A service that sends through a simulated ZimSend, for which a second of ours is 1000."""
    world = World(began=times.now())
    simulated = Simulator(world, speed=1000, credentials=tuple(KEYS.values()))
    port = free_port()
    close = simulator.serve(simulated, "127.0.0.1", port)
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": f"sqlite:///{tmp_path_factory.mktemp('described') / 'receiver.db'}",
        "HANDLERS": "tests.handlers",
        "ZIMSEND_API_URL": f"http://127.0.0.1:{port}/v1",
        **KEYS,
    }
    here = Gateway(environ, Clock())
    yield here.app
    here.close()
    close()


@API.include(tag="gateway").parametrize()
@settings(max_examples=25, derandomize=True, deadline=None)
def test_any_request_is_answered_as_described(case: schemathesis.Case, described: Any) -> None:
    # What is allowed in a request is for ZimSend to say.
    excluded = [ignored_auth, positive_data_acceptance, negative_data_rejection]
    case.call_and_validate(app=described, headers=HEADERS, excluded_checks=excluded)


# --- beside a ZimSend and as a service


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A simulated ZimSend and a receiver, each in a process of its own."""
    folder = tmp_path_factory.mktemp("beside")
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
        "HANDLERS": "tests.handlers",
        **KEYS,
    }
    server = Server(environ, folder, SECRET)
    server.environ["PUBLIC_URL"] = server.url
    options = "--seed 1 --speed 20 --devices 3 --failed 0.3"
    with (
        simulating(server, *options.split()) as ran,
        httpx.Client(base_url=ran.url, headers=HEADERS, timeout=30) as direct,
    ):
        server.environ["ZIMSEND_API_URL"] = f"{ran.url}/v1"
        server.start()
        yield SimpleNamespace(server=server, url=ran.url, direct=direct)
        server.close()
    assert ran.status == 0, ran.output


def truth(beside: SimpleNamespace) -> dict[str, dict[str, Any]]:
    """What really became of each message."""
    told = beside.direct.get("/truth").json()
    return {message["message_id"]: message for message in told["messages"]}


def program(base_url: str, read_sms: Callable[[str], str]) -> tuple[list[str], list[Any]]:
    """A program that knows ZimSend's documents, and nothing else.

    :returns: the ids of its messages; and the shape of all that it was answered.
    """
    shapes: list[Any] = []
    ids: list[str] = []
    with httpx.Client(headers=HEADERS, timeout=15) as http:

        def call(method: str, path: str, **body: Any) -> Any:
            answer = http.request(method, base_url + path, json=body or None)
            assert answer.headers["Content-Type"] == "application/json"
            told = answer.json()
            if method != "GET":
                shapes.append((answer.status_code, sorted(told), told.get("error")))
            return told

        def ended() -> dict[str, str]:
            time.sleep(0.1)
            rows = call("GET", "/sms/history?limit=100")["data"]
            found = {row["message_id"]: row["status"] for row in rows if row["message_id"] in ids}
            over = {"delivered", "failed", "cancelled"}
            return found if len(found) == len(ids) and set(found.values()) <= over else {}

        one = call("POST", "/sms/send", to=NUMBER, message=TEXT, metadata={"n": 1}, priority=1)
        assert (one["success"], one["status"], one["to"]) == (True, "queued", NUMBER)
        assert call("GET", f"/sms/status/{one['message_id']}")["message"] == TEXT
        numbers = [f"+336555500{n:02}" for n in range(12)]
        bulk = call("POST", "/sms/send-bulk", recipients=numbers, message=TEXT)
        assert [message["to"] for message in bulk["messages"]] == numbers
        each = [{"to": to, "message": f"Bonjour {to}", "metadata": {"to": to}} for to in numbers]
        own = call("POST", "/sms/send-bulk-personalized", messages=each)
        ids += [m["message_id"] for m in [one, *bulk["messages"], *own["messages"]]]

        otp = call("POST", "/sms/send-otp", to="+33700000001", length=6)
        ids.append(otp["message_id"])
        code = re.findall(r"[0-9]{6}", read_sms(otp["message_id"]))[-1]
        assert call("POST", "/sms/verify-otp", otp_id=otp["otp_id"], code="x")["valid"] is False
        assert call("POST", "/sms/verify-otp", otp_id=otp["otp_id"], code=code)["valid"] is True

        tomorrow = iso(times.now() + 24 * HOUR)
        later = call("POST", "/sms/send", to=NUMBER, message="x", scheduled_at=tomorrow)
        assert call("DELETE", f"/sms/{later['message_id']}")["status"] == "cancelled"
        assert call("GET", f"/sms/status/{later['message_id']}")["status"] == "cancelled"
        assert call("DELETE", f"/sms/{later['message_id']}")["success"] is False
        ids.append(later["message_id"])

        failed = [i for i, status in eventually(ended).items() if status == "failed"]
        for message_id in failed[:2]:
            assert call("POST", f"/sms/{message_id}/resend")["status"] == "queued"
        assert call("POST", "/sms/send", to="112", message="x")["success"] is False
        assert call("GET", "/sms/stats")["stats"]["delivered"] > 0
    return ids, shapes


def test_a_program_changes_its_base_url_and_nothing_else(beside: SimpleNamespace) -> None:
    def read_sms(message_id: str) -> str:
        text: str = truth(beside)[message_id]["message"]
        return text

    _, expected = program(f"{beside.url}/v1", read_sms)
    ids, shapes = program(f"{beside.server.url}/v1", read_sms)
    # How many of its messages fail is chance.
    assert [s for s in shapes if s[0] != 202] == [s for s in expected if s[0] != 202]
    assert (202, ["message_id", "status", "success"], None) in shapes

    eventually(lambda: beside.direct.get("/truth").json()["at_rest"])
    real = truth(beside)

    def mirror() -> dict[str, Any]:
        path = "/v1/sms/status/"
        asked = (beside.server.client.get(path + i, headers=HEADERS).json() for i in ids)
        return {message["message_id"]: message for message in asked}

    eventually(lambda: {i: m["status"] for i, m in mirror().items()} == states(real, ids))
    for message_id, message in mirror().items():
        for name in ("to", "message", "metadata", "sent_at", "delivered_at", "error"):
            assert message[name] == real[message_id][name], name
        learnt = [event["type"] for event in message["events"] if event["source"] == "gateway"]
        assert learnt[0] == "sms.queued"
        assert message["queued_at"]
        assert (message["status"] == "cancelled") == ("sms.cancelled" in learnt)
    log = beside.server.log.read_text()
    assert NUMBER not in log
    assert TEXT not in log


def states(real: dict[str, dict[str, Any]], ids: list[str]) -> dict[str, str]:
    return {message_id: real[message_id]["status"] for message_id in ids}


def test_a_sick_zimsend_is_no_trouble_of_the_webhook(
    serve: Callable[..., Server], zimsend: Canned
) -> None:
    server = serve(**KEYS, ZIMSEND_API_URL=f"{zimsend.url}/v1", WEB_THREADS="8")

    def call(method: str, path: str) -> tuple[httpx.Response, float]:
        body = {"to": NUMBER, "message": TEXT} if method == "POST" else None
        began = time.monotonic()
        url = f"{server.url}/v1/sms/{path}"
        answer = httpx.request(method, url, json=body, headers=HEADERS, timeout=20)
        return answer, time.monotonic() - began

    def webhook() -> float:
        began = time.monotonic()
        assert server.post(envelope("sms.sent", sms("sent"))).status_code == 200
        return time.monotonic() - began

    def asked(path: str) -> bool:
        return any(seen.path.endswith(path) for seen in zimsend.seen)

    calm = [webhook() for _ in range(200)][100:]
    zimsend.answers(silent)
    with ThreadPoolExecutor(8) as threads:
        held = threads.submit(call, "POST", "send")
        unknown = threads.submit(call, "GET", "status/nobody")
        eventually(lambda: asked("/send") and asked("/nobody"))
        answer, took = unknown.result()
        problem(answer, 404, "MESSAGE_NOT_FOUND")
        assert took < 8
        other = threads.submit(call, "POST", "send")
        eventually(lambda: sum(seen.path.endswith("/send") for seen in zimsend.seen) == 2)
        refused = [call("POST", "send-bulk") for _ in range(3)]  # two of eight threads wait
        for answer, _ in refused:
            problem(answer, 503, "SERVICE_UNAVAILABLE")
        assert min(took for _, took in refused) < 1
        sick = []
        while not held.done():
            sick.append(webhook())
        answer, took = held.result()
        assert MAYBE in problem(answer, 504, "NETWORK_ERROR")
        assert 9 < took < 19
        assert other.result()[0].status_code == 504
    assert len(sick) > 50
    assert median(sick) < 3 * median(calm) + 0.05
    assert sorted(sick)[len(sick) * 99 // 100] < 1

    limited = {"success": False, "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "no"}}
    for step, code, name in (
        (reset, 502, "NETWORK_ERROR"),
        (status(502, HTML, "Content-Type: text/html"), 502, "NETWORK_ERROR"),
        (ok(limited, 429), 429, "RATE_LIMIT_EXCEEDED"),
    ):
        zimsend.answers(step)
        for number in range(10):
            answer, took = call("POST", "send")
            problem(answer, code, name)
            assert took < 7
            problem(call("GET", f"status/{code}_{name}_{number}")[0], 404, "MESSAGE_NOT_FOUND")
        sick = [webhook() for _ in range(50)]
        assert median(sick) < 3 * median(calm) + 0.05
    zimsend.answers(sent())
    assert call("POST", "send")[0].status_code == 200
    assert call("GET", "status/msg_1")[0].json()["message"] == TEXT
