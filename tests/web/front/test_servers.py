"""Every server gives the same answer to every request that is valid HTTP: gunicorn with the event
loop and with threads, waitress, and Flask's test client."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

import pytest
from flask import Flask

from receiver.parts import parts
from receiver.providers.zimsend.webhook import sign
from receiver.service import create_app
from tests.conftest import SECRET, new_database
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, eventually

WAITRESS = """\
import os
import waitress
from wsgi import app
waitress.serve(app, host="127.0.0.1", port=int(os.environ["PORT"]), threads=4)
"""
#: What is compared of an answer's headers.
CLOSED = ("X-Content-Type-Options", "Content-Security-Policy")
HEADERS = ("Content-Type", "Retry-After", "Allow", *CLOSED)
KEYS = {"X-API-Key": "key", "X-Client-ID": "client"}


@dataclass(frozen=True)
class Ask:
    """
    :param chunked: the body is sent in chunks.
    """

    method: str
    target: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False


def signed(body: bytes, target: str = "/webhooks/zimsend", chunked: bool = False) -> Ask:
    return Ask("POST", target, body, {"X-Webhook-Signature": sign(SECRET.encode(), body)}, chunked)


EVENT = json.dumps(envelope("sms.sent", sms("sent", message_id="m_1"), event_id="evt_1")).encode()
OTHER = b'{"event": "fax.sent", "event_id": "evt_2"}'
LARGE = b'{"event": "fax.sent", "event_id": "evt_3", "pad": "%b"}' % (b"x" * 200_000)
TOO_LARGE = b"x" * 262_145
ENORMOUS = b"x" * (2 * 1024 * 1024 + 2)
SENT = json.dumps({"to": "+33612345678", "message": "x"}).encode()
TOKEN = "token_0123456789_0123456789"
SMSCX = f"/webhooks/smscx/{TOKEN}"
REPORT = {"msgId": "m_1", "status": "SENT", "datetime": sms("sent")["sent_at"]}
ITEMS = json.dumps({"event": "dlr_update", "data": [REPORT, 5]}).encode()
ODD = ("PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "QUERY", "FOO", "M-SEARCH", "SOURCE")

#: In this order, for the webhook remembers.
TABLE: dict[str, Ask] = {
    "ready": Ask("GET", "/readyz"),
    "accepted": signed(EVENT),
    "duplicate": signed(EVENT),
    "accepted, in chunks": signed(OTHER, chunked=True),
    "duplicate, with a query": signed(OTHER, "/webhooks/zimsend?a=b&c"),
    "duplicate, slashes at the end": signed(OTHER, "/webhooks/zimsend//"),
    "duplicate, doubled slashes": signed(OTHER, "//webhooks//zimsend"),
    "too large, doubled slashes": signed(TOO_LARGE, "//webhooks//zimsend/"),
    "duplicate, percent-encoded": signed(OTHER, "/%77ebhooks%2Fzimsend"),
    "accepted, large": signed(LARGE),
    "duplicate, large, in chunks": signed(LARGE, chunked=True),
    "not JSON": signed(b"event=sms.sent"),
    "not UTF-8": signed(b'{"event": "\xff"}'),
    "empty": signed(b""),
    "empty, in chunks": signed(b"", chunked=True),
    "no event": signed(b"{}"),
    "SMS.CX": Ask("POST", SMSCX, ITEMS),
    "SMS.CX again, in chunks": Ask("PUT", SMSCX + "/", ITEMS, chunked=True),
    "SMS.CX, not JSON": Ask("POST", SMSCX, b"DELIVERED"),
    "SMS.CX, too large": Ask("POST", SMSCX, TOO_LARGE),
    "SMS.CX, is it there": Ask("GET", SMSCX),
    "SMS.CX, another method": Ask("DELETE", SMSCX),
    "SMS.CX, a wrong token": Ask("POST", SMSCX + "x", ITEMS),
    "SMS.CX, a wrong token, too large": Ask("POST", SMSCX + "x", TOO_LARGE),
    "SMS.CX, a wrong token, is it there": Ask("GET", SMSCX + "x"),
    "SMS.CX, no token": Ask("POST", "/webhooks/smscx", ITEMS),
    "SMS.CX, more than a token": Ask("POST", SMSCX + "/x", ITEMS),
    "unsigned": Ask("POST", "/webhooks/zimsend", EVENT),
    "unsigned, no body": Ask("POST", "/webhooks/zimsend"),
    "wrongly signed": Ask("POST", "/webhooks/zimsend", EVENT, {"X-Webhook-Signature": "0" * 64}),
    "signed with what is no hex": Ask(
        "POST", "/webhooks/zimsend", EVENT, {"X-Webhook-Signature": "\xe9" * 64}
    ),
    "too large": signed(TOO_LARGE),
    "too large, in chunks": signed(TOO_LARGE, chunked=True),
    "too large and unsigned": Ask("POST", "/webhooks/zimsend", TOO_LARGE),
    "enormous": signed(ENORMOUS),
    **{
        f"{method} {target}": Ask(method, target)
        for method in ("GET", "HEAD", *ODD)
        for target in ("/webhooks/zimsend", "/healthz", "/readyz", "/nowhere", "/v1/sms/stats")
        if (method, target) != ("GET", "/readyz")  # by now it tells of work that waits
    },
    **{
        f"POST {target} with {len(body)} bytes": Ask("POST", target, body)
        for target in ("/healthz", "/readyz", "/nowhere", "/v1/sms/send", "/v1/nowhere")
        for body in (b"", b"{}", TOO_LARGE, ENORMOUS)
    },
    **{
        f"GET {target}": Ask("GET", target)
        for target in (
            "/",
            "/healthz/",
            "/healthz?",
            "/healthz?a=b",
            "/%68ealthz",
            "/healthz%00",
            "/healthz;a=b",
            "//healthz",
            "/./healthz",
            "/v1/../healthz",
            "/webhooks",
            "/webhooks/zimsend/",
            "//webhooks/zimsend",
            "/nowhere%2F%2e%2E",
            "/%FF",
            "/%C3%A9?q=%FF",
            "/a%20b+c",
            "/100%",
            "/%zz",
            "/v1",
            "/v1/",
            "/v1/nowhere",
            "/%761/nowhere",
            "/v1?a",
        )
    },
    "GET with a body": Ask("GET", "/healthz", b"some body"),
    "GET with a body, to Flask": Ask("GET", "/v1/sms/stats", b"some body"),
    "GET with chunks": Ask("GET", "/nowhere", b"some body", chunked=True),
    "HEAD with a body": Ask("HEAD", "/healthz", b"some body"),
    "DELETE with a body": Ask("DELETE", "/healthz", b"some body"),
    "GET, enormous": Ask("GET", "/healthz", ENORMOUS),
    **{
        f"/v1: {method} {target}": Ask(method, f"/v1/sms/{target}", None, KEYS)
        for method, target in (
            ("GET", "status/m_1"),
            ("HEAD", "status/m_1"),
            ("GET", "status/a%2Fb%20%C3%A9%FF"),
            ("GET", "/status/m_1"),
            ("GET", "status//m_1"),
            ("GET", "status/m_1/"),
            ("GET", "history"),
            ("GET", "history/"),
            ("GET", "/history//?limit=1"),
            ("DELETE", "m_1/"),
            ("POST", "m%2F1/resend/"),
            ("DELETE", "%2E%2E%2Fm_1"),
            ("GET", "history?limit=1&status=sent"),
            ("GET", "history?limit=x"),
            ("GET", "history?from_date=%FF"),
            ("GET", "stats"),
            ("GET", "nowhere"),
            ("PUT", "stats"),
            ("FOO", "stats"),
        )
    },
    "/v1: wrong key": Ask("GET", "/v1/sms/stats", None, {**KEYS, "X-API-Key": "other"}),
    "/v1: wrong client": Ask("GET", "/v1/sms/stats", None, {**KEYS, "X-Client-ID": "\xe9"}),
    "/v1: one header": Ask("GET", "/v1/sms/stats", None, {"X-API-Key": "key"}),
    "/v1: send": Ask("POST", "/v1/sms/send", SENT, KEYS),
    "/v1: send, in chunks": Ask("POST", "/v1/sms/send", SENT, KEYS, chunked=True),
    "/v1: send nothing": Ask("POST", "/v1/sms/send", b"", KEYS),
    "/v1: send what is no JSON": Ask("POST", "/v1/sms/send", b"x", KEYS),
    "/v1: send too much": Ask("POST", "/v1/sms/send", ENORMOUS, KEYS),
    "/v1: send too much, in chunks": Ask("POST", "/v1/sms/send", ENORMOUS, KEYS, chunked=True),
}


@dataclass(frozen=True)
class Got:
    status: int
    headers: dict[str, str | None]
    body: bytes


class _Connection(http.client.HTTPConnection):
    def putrequest(self, method: str, url: str, *args: object, **kwargs: object) -> None:
        super().putrequest(method, url, skip_accept_encoding=True)


def over_http(port: int, ask: Ask) -> Got:
    connection = _Connection("127.0.0.1", port, timeout=30)
    try:
        body = ask.body
        pieces = [body] if ask.chunked and body else [] if ask.chunked else None
        with contextlib.suppress(ConnectionError):  # the answer may come before all is sent
            connection.request(
                ask.method,
                ask.target,
                body if pieces is None else iter(pieces),
                {**ask.headers, "Connection": "close"},
                encode_chunked=ask.chunked,
            )
        answer = connection.getresponse()
        headers = {name: answer.getheader(name) for name in HEADERS}
        return Got(answer.status, headers, _timeless(answer.read()))
    finally:
        connection.close()


def in_process(app: Flask, ask: Ask) -> Got:
    path, _, query = ask.target.partition("?")
    headers = dict(ask.headers)
    if ask.chunked:
        headers["Transfer-Encoding"] = "chunked"
    answer = app.test_client().open(
        # As the others have it; the client would look for a host in it.
        base_url="http://localhost",
        path="/",
        method=ask.method,
        data=ask.body,
        headers=headers,
        environ_overrides={
            "wsgi.input_terminated": True,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
        },
    )
    got = {name: answer.headers.get(name) for name in HEADERS}
    return Got(answer.status_code, got, _timeless(answer.data))


def _timeless(body: bytes) -> bytes:
    """They were asked one after the other."""
    return re.sub(rb'("received_at": )"[^"]*"', rb"\1", body)


ARGUMENTS = {
    "loop": ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"],
    "threads": [
        *("-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py")),
        *("--worker-class", "gthread", "--threads", "4", "tests.wrapped:app"),
    ],
    "waitress": ["-c", WAITRESS],
}


@pytest.fixture(scope="module")
def all_answers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Got]]:
    found = {}
    for name in [*ARGUMENTS, "client"]:
        folder = tmp_path_factory.mktemp(name)
        with new_database("sqlite", request, folder) as url:
            environ = {
                "ZIMSEND_WEBHOOK_SECRET": SECRET,
                "SMSCX_WEBHOOK_TOKEN": TOKEN,
                "DATABASE_URL": url,
                "HANDLERS": "handlers.log",
                "EMBEDDED_WORKER": "0",
                "ZIMSEND_API_KEY": KEYS["X-API-Key"],
                "ZIMSEND_CLIENT_ID": KEYS["X-Client-ID"],
                "ZIMSEND_API_URL": "http://127.0.0.1:9/v1",
            }
            app = create_app(environ)
            parts(app).store.migrate()
            if name == "client":
                found[name] = {key: in_process(app, ask) for key, ask in TABLE.items()}
            else:
                server = Server(environ, folder, SECRET)
                server.spawn(ARGUMENTS[name])
                eventually(server.ready)
                found[name] = {key: over_http(server.port, ask) for key, ask in TABLE.items()}
                server.close()
            parts(app).store.close()
    return found


@pytest.mark.parametrize("name", TABLE)
def test_the_answer_is_the_same(all_answers: dict[str, dict[str, Got]], name: str) -> None:
    expected = all_answers["client"][name]
    for server in ARGUMENTS:
        assert (server, all_answers[server][name]) == (server, expected)
    if expected.headers["Content-Type"] == "application/problem+json":
        sniffing, policy = (expected.headers[header] for header in CLOSED)
        assert (sniffing, str(policy).partition(";")[0]) == ("nosniff", "default-src 'none'")
