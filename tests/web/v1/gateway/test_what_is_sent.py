"""What ZimSend is sent, and which requests never reach it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from app import create_app
from tests.canned import Canned
from tests.conftest import Clock
from tests.web.v1.gateway.asking import (
    ALL,
    CALLS,
    HEADERS,
    HOOK,
    KEYS,
    NUMBER,
    TEXT,
    Gateway,
    problem,
)


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
    response = here.call("POST", "/sms/send", data=b"x" * (2 * 1024 * 1024 + 1))
    problem(response, 413, "REQUEST_ENTITY_TOO_LARGE")
    response = here.call("POST", "/sms/send", json={}, headers={"X-Device-ID": "dev_é"})
    problem(response, 400, "INVALID_REQUEST")
    response = here.call("DELETE", "/sms/%2E%2E")
    problem(response, 400, "INVALID_REQUEST")
    assert zimsend.seen == []


@pytest.mark.parametrize("chunked", [False, True])
def test_as_much_as_zimsend_takes_is_passed_on_whatever_a_webhook_may_have(
    environ: dict[str, str], clock: Clock, fresh_canned: Canned, chunked: bool
) -> None:
    """100 texts of 1,600 `é`, which JSON may write with six characters each."""
    settings = {"MAX_BODY_BYTES": "1024", "ZIMSEND_API_URL": f"{fresh_canned.url}/v1", **KEYS}
    here = Gateway({**environ, **settings}, clock)
    texts = [{"to": f"+336000000{n:02}", "message": "é" * 1_600} for n in range(100)]
    body = json.dumps({"messages": texts}).encode()
    assert len(body) > 960_000
    more = {"Transfer-Encoding": "chunked"} if chunked else {}
    answer = here.call(
        "POST",
        "/sms/send-bulk-personalized",
        data=body,
        headers={"Content-Type": "application/json", **more},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == 200
    assert fresh_canned.last.body == body
    assert here.call("POST", "/sms/send", data=b"x" * (2 * 1024 * 1024 + 1)).status_code == 413
    here.close()


@pytest.mark.parametrize("call", ["send", "send-bulk", "send-bulk-personalized", "send-otp"])
@pytest.mark.parametrize(
    ("named", "status", "code"),
    [("smscx", 501, "NOT_SUPPORTED"), ("twilio", 400, "INVALID_PROVIDER"), ("", 400, None)],
)
def test_what_is_for_another_provider_is_not_given_to_zimsend(
    start: Callable[..., Gateway],
    zimsend: Canned,
    call: str,
    named: str,
    status: int,
    code: str | None,
) -> None:
    here = start()
    answer = here.call("POST", f"/sms/{call}", json={}, headers={"X-Provider": named})
    problem(answer, status, code or "INVALID_PROVIDER")
    assert zimsend.seen == []


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/sms/smscx:m1"), ("POST", "/sms/smscx:m1/resend")]
)
def test_another_provider_s_message_is_not_asked_of_zimsend(
    start: Callable[..., Gateway], zimsend: Canned, method: str, path: str
) -> None:
    problem(start().call(method, path), 501, "NOT_SUPPORTED")
    assert zimsend.seen == []
