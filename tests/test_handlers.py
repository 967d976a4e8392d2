"""The built-in handlers: what `log` writes, and what `forward` sends and makes of the answer."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from pythonjsonlogger.json import JsonFormatter
from standardwebhooks import Webhook, WebhookVerificationError

import handlers
from handlers import forward, log
from receiver import ConfigError, Event, HandlerError, Registry

NUMBER = "+33612345678"
TEXT = "Bonjour, code 4829"
RECEIVED = datetime(2026, 11, 20, 8, 15, 42, tzinfo=UTC)


def event_with(
    data: dict[str, Any] | None = None,
    *,
    id: str = "evt_1",
    kind: str = "sms.sent",
    raw: bytes | None = None,
    message_id: str | None = "msg_1",
    late: bool = False,
) -> Event:
    envelope = {"event": kind, "event_id": id, "data": data or {}}
    return Event(
        id=id,
        type=kind,
        occurred_at=RECEIVED,
        received_at=RECEIVED,
        message_id=message_id,
        source="webhook",
        late=late,
        redacted=False,
        raw=json.dumps(envelope).encode() if raw is None else raw,
        attempt=1,
    )


@pytest.mark.usefixtures("target")
def test_the_built_in_list(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Registry()
    handlers.register(alone)
    assert alone.wanting("sms.sent") == ("log",)
    monkeypatch.setenv("FORWARD_URL", "https://example.com/in")
    monkeypatch.setenv("FORWARD_SECRET", SECRET)
    both = Registry()
    handlers.register(both)
    assert both.wanting("sms.sent") == ("log", "forward")


# --- handlers.log


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Any:
    """Log an event; returns the one record."""
    caplog.set_level(logging.INFO, logger="handlers.log")

    def one(event: Event) -> logging.LogRecord:
        caplog.clear()
        log.log_event(event)
        (record,) = caplog.records
        return record

    return one


def test_log_wants_everything() -> None:
    registry = Registry()
    log.register(registry)
    assert registry.wanting("sms.sent") == registry.wanting("fax.sent") == ("log",)


def test_the_line(logged: Any) -> None:
    data = {"to": NUMBER, "message": TEXT, "device_id": "dev_1", "error": {"code": "NO_CREDIT"}}
    record = logged(event_with(data, kind="sms.failed", late=True))
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "event=sms.failed event_id=evt_1 message_id=msg_1 to=+33*******78 device_id=dev_1 "
        "error_code=NO_CREDIT late=True"
    )


def test_what_is_unknown_is_left_out(logged: Any) -> None:
    record = logged(event_with(kind="device.connected", message_id=None))
    assert record.getMessage() == "event=device.connected event_id=evt_1"


HOSTILE = [
    "x\nlevel=ERROR event=sms.failed",
    "x\r\n2026-11-20 ERROR",
    "x\x0bx",
    "x\x0cx",
    "x\x1b[2J",
    "x\x85x",
    "x\u2028x",
    "x\u2029x",
    "x\x00x",
    "\ud800",
    "é",
    "事件",
    "two words",
    'x" event="sms.delivered',
    "a=b",
    "%s %d %(message)s",
    "{message}",
    "",
    "x" * 100_000,
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value)[:30])
@pytest.mark.parametrize("where", ["to", "device_id", "error_code", "message_id", "type", "id"])
def test_no_value_breaks_its_line(logged: Any, where: str, value: str) -> None:
    """Neither a second line, nor a second field, nor an end of it."""
    data: dict[str, Any] = {"device_id": "dev_1", "error": {"code": "NO_CREDIT"}, "to": NUMBER}
    if where == "error_code":
        data["error"] = {"code": value}
    elif where in data:
        data[where] = value
    record = logged(
        event_with(
            data,
            kind=value if where == "type" else "sms.failed",
            id=value if where == "id" else "evt_1",
            message_id=value if where == "message_id" else "msg_1",
        )
    )
    line = record.getMessage()
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 2_000
    decoder, names, rest = json.JSONDecoder(), [], line
    while rest:
        name, _, rest = rest.partition("=")
        names.append(name)
        if rest.startswith('"'):
            _, end = decoder.raw_decode(rest)
        else:
            end = rest.find(" ") if " " in rest else len(rest)
        assert rest[end : end + 1] in ("", " ")
        rest = rest[end + 1 :]
    assert set(names) <= {"event", "event_id", "message_id", "to", "device_id", "error_code"}
    assert len(names) == len(set(names))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_neither_format_shows_the_text_or_the_number(logged: Any, log_format: str) -> None:
    data = {"to": NUMBER, "message": TEXT, "metadata": {"name": "Amina"}, "device_id": "a\nb"}
    record = logged(event_with(data | {"error": {"message": TEXT}}, kind="sms.failed"))
    formatter = (
        JsonFormatter("%(levelname)s %(message)s")
        if log_format == "json"
        else logging.Formatter("%(levelname)s %(message)s")
    )
    line = formatter.format(record)
    assert len(line.splitlines()) == 1
    for hidden in (TEXT, "4829", NUMBER, "612345", "Amina"):
        assert hidden not in line
    if log_format == "json":
        fields = json.loads(line)
        assert fields["event"] == "sms.failed"
        assert fields["event_id"] == "evt_1"
        assert fields["to"] == "+33*******78"
        assert fields["device_id"] == "a\nb"


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        (NUMBER, "+33*******78"),
        ("0612345678", "061*****78"),
        ("12345678", "123***78"),
        ("1234567", "*****"),
        ("38600", "*****"),
        ("", "*****"),
        ("9" * 32, "999" + "*" * 27 + "99"),
        ("9" * 33, "*****"),
        (None, None),
    ],
)
def test_numbers_are_masked(number: str | None, masked: str | None) -> None:
    assert log.mask(number) == masked


# --- handlers.forward

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Target:
    """A program that events are forwarded to."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture(scope="module")
def listening() -> Iterator[Target]:
    target = Target()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            target.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(target.status)
            for name, value in target.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    target.url = f"http://127.0.0.1:{server.server_port}/in?a=b"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield target
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def target(listening: Target, monkeypatch: pytest.MonkeyPatch) -> Target:
    for name in ("FORWARD_URL", "FORWARD_SECRET"):
        monkeypatch.delenv(name, raising=False)
    listening.status, listening.headers = 200, {}
    listening.requests.clear()
    return listening


def forwarder(url: str, secret: str = SECRET) -> Any:
    registry = Registry()
    forward.register(registry, {"FORWARD_URL": url, "FORWARD_SECRET": secret})
    handler = registry.get("forward")
    assert handler is not None
    return handler.function


@pytest.fixture(scope="module", autouse=True)
def _no_proxy() -> Iterator[None]:
    """None of the person who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        yield


@pytest.fixture(scope="module")
def send(listening: Target) -> Iterator[Any]:
    """The registered handler, called as the worker calls it."""
    function = forwarder(listening.url)
    yield function
    close(function)


def close(function: Any) -> None:
    """A handler lives as long as its process; the tests' ones must not leave connections."""
    vars(function)["_client"].close()


def failure(send: Any, event: Event | None = None) -> HandlerError:
    with pytest.raises(HandlerError) as caught:
        send(event or event_with())
    return caught.value


def test_it_sends_the_body_signed(send: Any, target: Target) -> None:
    event = event_with({"to": NUMBER, "message": TEXT})
    assert send(event) is None
    ((headers, body),) = target.requests
    assert body == event.raw
    assert headers["webhook-id"] == "evt_1"
    assert headers["content-type"] == "application/json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert Webhook(SECRET).verify(body, headers) == json.loads(event.raw)


def test_a_body_that_is_no_utf_8_is_signed_byte_by_byte(send: Any, target: Target) -> None:
    event = event_with(raw=b'{"event": "sms.sent", "x": "caf\xe9"}')
    assert send(event) is None
    ((headers, body),) = target.requests
    assert body == event.raw
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    told = base64.b64decode(headers["webhook-signature"].removeprefix("v1,"))
    assert told == hmac.digest(key, signed, "sha256")


@pytest.mark.parametrize(
    "raw",
    [
        b'{ "event" :\t"sms.sent",\n\n "data":{ } }',
        '{"event":"sms.sent","data":{"message":"👋 مرحبا"}}'.encode(),
        b'{"event":"sms.sent","data":{"message":"\\ud83d\\u0000\\ud800"}}',
        b'{"event":"a","event":"sms.sent","n":1.0,"m":1E2,"k":1e999}',
        b"\xef\xbb\xbf" + b'{"event":"sms.sent"}',
        b'{"event":"sms.sent"}\r\n',
        b'{"event":"sms.sent","x":"%s"}' % (b"x" * 200_000),
    ],
    ids=lambda raw: repr(raw)[:40],
)
def test_the_body_is_sent_byte_by_byte(send: Any, target: Target, raw: bytes) -> None:
    send(event_with(raw=raw))
    ((headers, body),) = target.requests
    assert body == raw
    assert int(headers["content-length"]) == len(raw)
    Webhook(SECRET).verify(body, headers, json_parse=False)


@pytest.mark.parametrize(
    "event_id",
    [
        "evt_7f3k2",
        "a.b.c",
        "100%",
        "a/b?c=d&e",
        "évt",
        "事件-😀",
        "é" * 200,
        " evt",
        "evt ",
        "two words",
        " ",
        "\xa0",
        "\u2028",
        "sha256:" + "0" * 64,
    ],
)
def test_any_id_can_be_sent(send: Any, target: Target, event_id: str) -> None:
    send(event_with(id=event_id))
    ((headers, body),) = target.requests
    Webhook(SECRET).verify(body, headers)
    sent = headers["webhook-id"]
    assert sent.isascii()
    if event_id.isascii() and " " not in event_id:
        assert sent == event_id
    else:
        assert unquote(sent) == event_id


def test_another_secret_does_not_verify(send: Any, target: Target) -> None:
    send(event_with())
    ((headers, body),) = target.requests
    other = "whsec_" + base64.b64encode(KEY[::-1]).decode()
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, headers | {"webhook-id": "evt_2"})


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_done(send: Any, target: Target, status: int) -> None:
    target.status = status
    assert send(event_with()) is None
    assert len(target.requests) == 1


@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 405, 409, 410, 413, 422, 451, 499, 301, 308]
)
def test_a_4xx_and_a_move_for_good_are_permanent(send: Any, target: Target, status: int) -> None:
    target.status = status
    error = failure(send)
    assert error.permanent is True
    assert str(status) in str(error)
    assert len(target.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599, 300, 302, 303, 304, 307])
def test_the_rest_is_tried_again(send: Any, target: Target, status: int) -> None:
    """A redirect for now, too."""
    target.status = status
    target.headers = {"Location": target.url}
    error = failure(send)
    assert error.permanent is False
    assert error.retry_after is None
    assert str(status) in str(error)
    assert len(target.requests) == 1


def test_a_refused_connection_is_tried_again() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        send = forwarder(f"http://127.0.0.1:{bound.getsockname()[1]}/")
        try:
            error = failure(send)
        finally:
            close(send)
    assert error.permanent is False
    assert error.retry_after is None
    assert "ConnectError" in str(error)


def test_an_answer_that_is_no_http_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"what?\r\n\r\n")

        thread = threading.Thread(target=hang_up)
        thread.start()
        send = forwarder(f"http://127.0.0.1:{server.getsockname()[1]}/")
        try:
            error = failure(send)
        finally:
            close(send)
            thread.join()
    assert error.permanent is False


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("2592000", 2_592_000),
        ("2592001", 2_592_000),
        ("9" * 400, 2_592_000),
        ("Fri, 20 Nov 1998 08:15:42 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 2_592_000),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 2_592_000),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("Mon", None),
        ("Fri, 20 Nov 99999999999999999999 08:15:42 GMT", None),
        ("Fri, 20 Nov 2026 08:15:42 +999999999999999999999", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(
    send: Any, target: Target, status: int, header: str, seconds: float | None
) -> None:
    target.status, target.headers = status, {"Retry-After": header}
    error = failure(send)
    assert error.permanent is False
    assert error.retry_after == seconds


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("form", ["IMF-fixdate", "RFC 850", "asctime"])
@pytest.mark.usefixtures("far_from_greenwich")
def test_retry_after_as_a_date(send: Any, target: Target, form: str) -> None:
    """In each of the three forms that RFC 9110 wants read; all of them are UTC."""
    moment = datetime.now(UTC) + timedelta(seconds=1_000)
    header = {
        "IMF-fixdate": format_datetime(moment, usegmt=True),
        "RFC 850": moment.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        "asctime": moment.strftime("%a %b %d %H:%M:%S %Y"),
    }[form]
    target.status, target.headers = 503, {"Retry-After": header}
    error = failure(send)
    assert error.retry_after is not None
    assert 900 < error.retry_after <= 1_000


def test_the_error_holds_nothing_of_the_event(send: Any, target: Target) -> None:
    target.status = 500
    error = failure(send, event_with({"to": NUMBER, "message": TEXT}))
    assert TEXT not in str(error)
    assert NUMBER not in str(error)


# --- its settings


@pytest.mark.parametrize("environ", [{}, {"FORWARD_URL": ""}, {"FORWARD_SECRET": SECRET}])
def test_without_a_url_it_registers_nothing(environ: dict[str, str]) -> None:
    registry = Registry()
    forward.register(registry, environ)
    assert len(registry) == 0


def test_with_one_it_wants_everything(target: Target) -> None:
    registry = Registry()
    forward.register(registry, {"FORWARD_URL": target.url, "FORWARD_SECRET": SECRET})
    assert registry.wanting("sms.sent") == registry.wanting("fax.sent") == ("forward",)


def refused(url: str, secret: str | None) -> ConfigError:
    environ = {"FORWARD_URL": url} | ({} if secret is None else {"FORWARD_SECRET": secret})
    registry = Registry()
    with pytest.raises(ConfigError) as caught:
        forward.register(registry, environ)
    assert len(registry) == 0
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "/in",
        "ftp://example.com/",
        "http://",
        "https:///in",
        "http://[::1",
        "http://example.com:port/",
        "https://example.com/\n",
        " https://example.com/",
        "http://\udcff/",
        "é",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    assert refused(url, SECRET).name == "FORWARD_URL"


@pytest.mark.parametrize(
    "secret",
    [
        None,
        "",
        "whsec_",
        "hunter2",
        "whsec_hunter2",
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_" + base64.b64encode(bytes(32)).decode().rstrip("="),
        "whsec_" + "hunter2!" * 6,
        "whsec_whsec_" + base64.b64encode(bytes(33)).decode(),
        "é" * 40,
        f"{SECRET}\n",
        "\udcff" * 40,
    ],
    ids=lambda secret: ascii(secret)[:40],
)
def test_a_missing_or_weak_secret_is_refused_and_not_told(secret: str | None) -> None:
    error = refused("https://example.com/in", secret)
    assert error.name == "FORWARD_SECRET"
    assert "24 to 64 bytes" in error.problem
    if secret and len(secret) > 6:
        assert secret not in str(error)
        assert "hunter2" not in str(error)


@pytest.mark.parametrize("length", [24, 32, 64])
@pytest.mark.parametrize("prefix", ["whsec_", ""])
def test_a_strong_secret_is_taken(length: int, prefix: str, target: Target) -> None:
    secret = prefix + base64.b64encode(bytes(range(length))).decode()
    send = forwarder(target.url, secret)
    try:
        send(event_with())
    finally:
        close(send)
    ((headers, body),) = target.requests
    Webhook(secret).verify(body, headers)
