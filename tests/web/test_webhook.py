"""`POST /webhooks/zimsend` against real gunicorn: every answer that the contract knows."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient

from receiver import status, times
from receiver.errors import StoreUnavailable
from receiver.event import ALIASES, Incoming, Rejected
from receiver.parts import Receiver
from receiver.providers.zimsend import webhook
from receiver.quarantine import retry
from receiver.store import Outcome, Selection, Store, open_store
from tests.conftest import SECRET, new_database, row_of
from tests.handlers import seen
from tests.payloads import DOCUMENTED, ago, body_of, envelope, new_message_id, sms
from tests.server import Server, eventually

LIMIT = 262_144
pytestmark = pytest.mark.each_engine


@pytest.fixture(scope="module")
def server(
    engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("webhook")
    with new_database(engine, request, folder) as url:
        server = Server(
            {
                "ZIMSEND_WEBHOOK_SECRET": f"another-secret-before-it,{SECRET}",
                "DATABASE_URL": url,
                "HANDLERS": "tests.handlers",
                "SEEN": str(folder),
                "WEB_CONCURRENCY": "2",
            },
            folder,
            SECRET,
        )
        server.start()
        yield server
        server.close()


@pytest.fixture
def another(server: Server) -> Iterator[Server]:
    """On the same database: of one server's processes, mostly one receives where it is SQLite's."""
    another = Server({**server.environ, "EMBEDDED_WORKER": "0"}, server.folder, SECRET)
    another.environ["PORT"] = str(another.port)
    another.start()
    yield another
    another.close()


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    """The server's database, read from outside."""
    store = open_store(server.environ["DATABASE_URL"])
    yield store
    store.close()


def handled(store: Store, event_id: str) -> dict[str, Any]:
    """The event, once all its work is done."""

    def ended() -> dict[str, Any] | None:
        (event,) = store.events(Selection(ids=[event_id]))
        return event if all(d["state"] == "done" for d in event["deliveries"]) else None

    event: dict[str, Any] = eventually(ended)
    return event


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_payload_is_accepted_stored_mirrored_and_handled(
    server: Server, store: Store, name: str
) -> None:
    payload = DOCUMENTED[name]
    answer = server.post(payload)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"status": "accepted", "event_id": payload["event_id"]}

    event = handled(store, payload["event_id"])
    kind = ALIASES.get(payload["event"], payload["event"])
    assert event["type"] == kind
    assert store.body(event["event_id"]) == json.dumps(payload).encode()
    handlers = {"first", "second"} if kind.startswith("sms.") else {"first"}
    assert {d["handler"] for d in event["deliveries"]} == handlers
    for handler in handlers:
        ids = [line["id"] for line in seen(server.folder, handler)]
        assert ids.count(payload["event_id"]) == 1
    message_id = payload["data"].get("message_id")
    if message_id is not None:
        registers = row_of(store, message_id)
        assert registers is not None
        row = status.describe(registers)
        assert row["status"] == status.STATE_OF_TYPE[kind]
        for field in ("to", "message", "device_id", "metadata"):
            assert row[field] == payload["data"].get(field)
        for state in ("sent", "delivered", "failed"):
            if f"{state}_at" in payload["data"]:
                assert times.iso(row[f"{state}_at"]) == payload["data"][f"{state}_at"]


def test_every_copy_of_64_at_once_gets_200_and_there_is_one_event(
    server: Server, another: Server, store: Store
) -> None:
    payload = envelope("sms.sent", sms("sent"))
    body = json.dumps(payload).encode()
    headers = {"X-Webhook-Signature": webhook.sign(SECRET.encode(), body)}

    def send(number: int) -> httpx.Response:
        url = f"{(server, another)[number % 2].url}/webhooks/zimsend"
        return httpx.post(url, content=body, headers=headers, timeout=30)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(send, range(64)))
    assert [a.status_code for a in answers] == [200] * 64
    assert [a.json()["status"] for a in answers].count("accepted") == 1
    event = handled(store, payload["event_id"])
    assert event["receipts"] == 64
    assert [(d["handler"], d["attempts"]) for d in event["deliveries"]] == [
        ("first", 1),
        ("second", 1),
    ]
    for handler in ("first", "second"):
        assert [e["id"] for e in seen(server.folder, handler)].count(payload["event_id"]) == 1


# --- signatures


def test_signature_is_taken_in_either_case_with_or_without_prefix(server: Server) -> None:
    for write in (str, str.upper, "sha256={}".format):
        payload = envelope("sms.sent", sms("sent"))
        body = json.dumps(payload).encode()
        value = write(webhook.sign(SECRET.encode(), body))
        assert server.post(body, **{"X-Webhook-Signature": value}).status_code == 200


def raw_request(server: Server, request: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes as they are, and read until the server closes or falls silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while b"\r\n\r\n" not in answer or not _complete(answer):
            received = connection.recv(65_536)
            if not received:
                break
            answer += received
        return answer


def _complete(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False


def head(*headers: bytes, length: int | None = None) -> bytes:
    lines = [b"POST /webhooks/zimsend HTTP/1.1", b"Host: localhost", *headers]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_malformed_signatures_all_get_the_same_401_and_store_nothing(
    server: Server, store: Store
) -> None:
    event_id = f"evt_unsigned_{times.now()}"
    body = json.dumps(envelope("sms.sent", sms("sent"), event_id=event_id)).encode()
    right = webhook.sign(SECRET.encode(), body).encode()
    wrong = webhook.sign(b"some other secret", body).encode()
    name = b"X-Webhook-Signature: "
    answers = set()
    for headers in (
        [],
        [name],
        [name + wrong],
        [name + right[:-1]],
        [name + right + b"0"],
        [name + right[:-1] + b"g"],
        [name + right[:-1] + b"\xe9"],
        [name + "é".encode() * 32],
        [name + b"sha1=" + right],
        [name + b"sha256=sha256=" + right],
        [name + right, name + wrong],
        [name + right + b", " + wrong],
        [name + b"a" * 5_000],
    ):
        answer = raw_request(server, head(*headers, length=len(body)) + body)
        first_line, _, rest = answer.partition(b"\r\n")
        assert b" 401 " in first_line, (headers, answer)
        answers.add(rest.partition(b"\r\n\r\n")[2])
    assert len(answers) == 1
    assert store.body(event_id) is None
    twice = raw_request(server, head(name + right, name + right, length=len(body)) + body)
    assert b" 200 " in twice.partition(b"\r\n")[0]


def test_unsigned_bodies_leave_no_trace_in_quarantine(server: Server, store: Store) -> None:
    before = list(store.quarantined())
    answer = server.client.post("/webhooks/zimsend", content=b"not json")
    assert answer.status_code == 401
    assert list(store.quarantined()) == before


# --- bodies that do not arrive whole


def signed_head(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    sign = webhook.sign(SECRET.encode(), body).encode()
    return head(b"X-Webhook-Signature: " + sign, *headers, length=length)


def big(size: int) -> bytes:
    """A usable event of exactly this size."""
    payload = envelope("sms.sent", sms("sent"), pad="")
    body = json.dumps(payload).encode()
    payload["pad"] = "x" * (size - len(body))
    return json.dumps(payload).encode()


def chunked(body: bytes, size: int = 10_000) -> bytes:
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def test_the_limit_holds_for_declared_and_for_chunked_bodies(server: Server) -> None:
    assert server.post(big(LIMIT)).status_code == 200
    assert server.post(big(LIMIT + 1)).status_code == 413
    as_large = big(LIMIT)
    too_large = big(LIMIT + 1)
    te = b"Transfer-Encoding: chunked"
    assert b" 200 " in raw_request(server, signed_head(as_large, te) + chunked(as_large))[:20]
    answer = raw_request(server, signed_head(too_large, te) + chunked(too_large))
    assert b" 413 " in answer[:20]
    assert b"application/problem+json" in answer
    # What is declared counts, also if it never comes.
    for declared in (LIMIT + 1, 10**26):
        request = signed_head(b"", length=declared) + b"some of it"
        assert b" 413 " in raw_request(server, request, half_close=True)[:20]
    # Over the limit comes before the signature, and much too large is no reset connection.
    answer = server.client.post("/webhooks/zimsend", content=b"x" * 3_000_000)
    assert answer.status_code == 413


def test_a_body_shorter_than_declared_is_refused(server: Server, store: Store) -> None:
    body = json.dumps(envelope("sms.sent", sms("sent"))).encode()
    for sent in (body, body[:-1], b"", b"{}"):
        request = signed_head(sent, length=len(body) + 10) + sent
        assert b" 400 " in raw_request(server, request, half_close=True)[:20]
    assert store.body(json.loads(body)["event_id"]) is None


@pytest.mark.parametrize(
    "sent",
    [
        b"zz\r\nabc\r\n0\r\n\r\n",
        b"-5\r\nabc\r\n0\r\n\r\n",
        b"5\r\nabc",
        b"5\r\nabcdeXX0\r\n\r\n",
        b"",
    ],
)
def test_broken_chunks_are_a_400(server: Server, sent: bytes) -> None:
    request = signed_head(b"", b"Transfer-Encoding: chunked") + sent
    assert b" 400 " in raw_request(server, request, half_close=True)[:20]


def test_half_sent_requests_give_their_threads_back(server: Server) -> None:
    """More of them than there are threads: after the receive time-out the service answers."""
    body = json.dumps(envelope("sms.sent", sms("sent"))).encode()
    stuck = []
    try:
        for index in range(80):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            half = signed_head(body, length=len(body))
            connection.sendall(half[: len(half) // 2] if index % 2 else half + body[:10])
            stuck.append(connection)
        began = time.monotonic()
        answer = httpx.post(
            f"{server.url}/webhooks/zimsend",
            content=body,
            headers={"X-Webhook-Signature": webhook.sign(SECRET.encode(), body)},
            timeout=60,
        )
        assert answer.status_code == 200
        assert time.monotonic() - began < 25  # at worst two rounds of 5 s
    finally:
        for connection in stuck:
            connection.close()


def test_other_methods_and_other_paths(server: Server) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = server.client.request(method, "/webhooks/zimsend")
        assert answer.status_code == 405, method
        assert answer.headers["Allow"] == "GET, HEAD, POST"
        assert answer.headers["Content-Type"] == "application/problem+json"
    for path in ("/webhooks", "/webhooks/zimsend/more", "/more/webhooks/zimsend"):
        assert server.client.post(path).status_code == 404, path
    assert server.client.get("/nowhere").headers["Content-Type"] == "application/problem+json"


def test_a_defect_costs_no_event_and_shows_nothing(
    client: FlaskClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the store refuses goes into quarantine; if it refuses that as well: 500."""
    body = body_of("sms.sent", sms("sent"))
    headers = {"X-Webhook-Signature": webhook.sign(SECRET.encode(), body)}
    ingest, broken = receiver.store.ingest, {Incoming}

    def refusing(items: Sequence[Incoming | Rejected], *args: Any) -> list[Outcome]:
        if any(type(item) in broken for item in items):
            raise RuntimeError("with a secret in it")
        return ingest(items, *args)

    monkeypatch.setattr(receiver.store, "ingest", refusing)
    answer = client.post("/webhooks/zimsend", data=body, headers=headers)
    assert answer.status_code == 400
    assert "quarantine retry" in answer.get_json()["detail"]
    (kept,) = receiver.store.quarantined()
    assert kept["digest"] == hashlib.sha256(body).hexdigest()

    broken.add(Rejected)
    answer = client.post("/webhooks/zimsend", data=body, headers=headers)
    assert answer.status_code == 500
    assert answer.content_type == "application/problem+json"
    assert "secret" not in answer.get_data(as_text=True)


def test_what_is_tried_again_during_a_shortage_is_not_called_of_no_use(
    client: FlaskClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = body_of("sms.sent", sms("sent"))
    headers = {"X-Webhook-Signature": webhook.sign(SECRET.encode(), body)}
    ingest, errors = receiver.store.ingest, list[Exception]([RuntimeError()])

    def failing(items: Sequence[Incoming | Rejected], *args: Any) -> list[Outcome]:
        if errors and any(isinstance(item, Incoming) for item in items):
            raise errors[-1]
        return ingest(items, *args)

    def again() -> list[Outcome]:
        (entry,) = receiver.store.quarantined()
        ends = retry(entry, receiver.store, receiver.ingest, receiver.config, receiver.now())
        return [outcome for _, outcome in ends]

    monkeypatch.setattr(receiver.store, "ingest", failing)
    assert client.post("/webhooks/zimsend", data=body, headers=headers).status_code == 400
    assert again() == []
    errors.append(MemoryError())
    with pytest.raises(StoreUnavailable):
        again()
    errors.clear()
    assert again() == ["accepted"]


# --- what a signed body can hold

NESTED = b'{"event": "sms.sent", "event_id": "%s", "deep": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"

UNUSABLE: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": b'{"event": "sms.sent", "x": \xff\xfe}',
    "UTF-16": '{"event": "sms.sent"}'.encode("utf-16"),
    "not JSON": b"event=sms.sent",
    "half": b'{"event": "sms.sent"',
    "two values": b'{"event": "a"} {"event": "b"}',
    "a bare NUL": b"\x00",
    "an array": b'[{"event": "sms.sent"}]',
    "a string": b'"sms.sent"',
    "null": b"null",
    "a number": b"17",
    "no event": b'{"event_id": "x"}',
    "event is null": b'{"event": null}',
    "event is a number": b'{"event": 5}',
    "event is an object": b'{"event": {}}',
    "NaN": b'{"event": "sms.sent", "x": NaN}',
    "Infinity": b'{"event": "sms.sent", "x": [-Infinity]}',
    "nested 30,000 deep": NESTED % b"deep",
    "older than the retention": json.dumps(
        envelope("sms.sent", sms("sent"), timestamp=ago(91 * 86_400))
    ).encode(),
    "long ago": b'{"event": "sms.sent", "timestamp": "2000-01-01T00:00:00Z"}',
    "long ago, as a number": b'{"event": "sms.sent", "timestamp": 946684800}',
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_bodies_are_kept_once_in_quarantine_and_get_400(
    server: Server, store: Store, name: str
) -> None:
    body = UNUSABLE[name]
    for _ in range(2):
        answer = server.post(body)
        assert answer.status_code == 400
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == 400
        assert problem["detail"]
    (entry,) = store.quarantined(hashlib.sha256(body).hexdigest())
    assert entry["receipts"] == 2
    assert entry["length"] == len(body)
    assert entry["reason"] == problem["detail"]


def weird(**changes: Any) -> bytes:
    return json.dumps(envelope("sms.sent", sms("sent")) | changes).encode()


def weird_data(**changes: Any) -> bytes:
    return json.dumps(envelope("sms.sent", sms("sent", **changes))).encode()


def own_bytes(text: str) -> bytes:
    """JSON written by hand, with a message and an event id of its own."""
    return text.replace("$ID", f"evt_{times.now()}").replace("$M", new_message_id()).encode()


ANYTHING: dict[str, bytes] = {
    "NUL in the text": weird_data(message="a\x00b"),
    "NUL in metadata's key": weird_data(metadata={"\x00": "\x00"}),
    "NUL in the message id": weird_data(message_id="m\x00"),
    "NUL in the event id": weird(event_id="e\x00"),
    "NUL in the type": weird(event="sms.\x00"),
    "lone surrogate in the text": own_bytes(
        r'{"event":"sms.sent","event_id":"$ID","data":{"message_id":"$M","message":"\ud800x"}}'
    ),
    "lone surrogate in the number": own_bytes(
        r'{"event":"sms.sent","event_id":"$ID","data":{"message_id":"$M","to":"\udfff"}}'
    ),
    "lone surrogate in the ids": own_bytes(
        r'{"event":"sms.sent","event_id":"\ud800$ID","data":{"message_id":"\ud800$M"}}'
    ),
    "lone surrogate in the type": own_bytes(r'{"event":"\ud800","event_id":"$ID"}'),
    "huge integers": weird_data(priority=10**400, metadata={"n": 2**63, "m": -(2**64)}),
    "an integer of 5,000 digits": own_bytes(
        '{"event":"sms.sent","event_id":"$ID","data":{"message_id":"$M","priority":%s}}'
        % ("9" * 5_000)
    ),
    "1e999": own_bytes(
        '{"event":"sms.sent","event_id":"$ID","data":{"message_id":"$M","metadata":{"n":1e999}}}'
    ),
    "nested 150 deep": own_bytes(
        '{"event":"sms.sent","event_id":"$ID","data":{"message_id":"$M","metadata":{"d":%s}}}'
        % ("[" * 150 + "]" * 150)
    ),
    "duplicate keys": own_bytes(
        '{"event":"x","event":"sms.sent","event_id":"no","event_id":"$ID","data":1,'
        '"data":{"message_id":"$M"}}'
    ),
    "a long text": weird_data(message="e" * 200_000),
    "a long event id": weird(event_id="e" * 100_000),
    "a long message id": weird_data(message_id="m" * 100_000),
    "a long type": weird(event="t" * 100_000),
    "an empty type": weird(event=""),
    "byte order mark": b"\xef\xbb\xbf" + weird(),
    "no event id": weird(event_id=None),
    "event id is a number": weird(event_id=5),
    "event id is empty": weird(event_id=""),
    "timestamp is a number": weird(timestamp=times.now() // times.SECOND),
    "timestamp is a huge number": weird(timestamp=10**400),
    "timestamp is a float": weird(timestamp=1e300),
    "timestamp is in a zone that is none": weird(timestamp="2026-11-20T08:15:42[../../etc/passwd]"),
    "the year 1": weird(timestamp="0001-01-01T00:00:00+23:59"),
    "bytes that are no UTF-8": weird(x="WRONG").replace(b"WRONG", b"caf\xe9 \xff"),
    "an id of bytes that are no UTF-8": weird(event_id="WRONG").replace(b"WRONG", b"\xff\xfe"),
    "two surrogates in UTF-8": weird(x="W").replace(b'"W"', b'"\xed\xa0\xbd\xed\xb1\x8b"'),
    "ids are huge numbers": weird(
        event_id=10**300, data={"message_id": 10**4_000, "to": -(10**99)}
    ),
    "ids are numbers too big for Python": weird(event_id=0).replace(
        b" 0,", b" %s," % (b"9" * 5_000)
    ),
    "metadata is JSON in a string": weird_data(metadata='{"a": ' * 300 + "1" + "}" * 300),
    "timestamp is no time": weird(timestamp="yesterday"),
    "the year 9999": weird(timestamp="9999-12-31T23:59:59.999999-23:59"),
    "own time in the year 1": weird_data(sent_at="0001-01-01T00:00:00+14:00"),
    "own time in the year 9999": weird_data(sent_at="9999-12-31T23:59:59-14:00"),
    "no data": weird(data=None),
    "data is an array": weird(data=[1, 2]),
    "data is a string": weird(data="x"),
    "every field a number": weird(data=dict.fromkeys(sms("failed"), 5)),
    "every field an array": weird(data={key: [1] for key in sms("failed")}),
    "every field an object": weird(data={key: {"a": 1} for key in sms("failed")}),
    "every field null": weird(data=dict.fromkeys(sms("failed"), None)),
    "every field true": weird(data=dict.fromkeys(sms("failed"), True)),
    "error with wrong types": weird(event="sms.failed", data=sms("failed", error={"code": [1]})),
    "error is half an object": weird(event="sms.failed", data=sms("failed", error='{"code":')),
    "unknown type and fields": weird(event="fax.sent", extra={"a": [None]}),
    "an sms event without a message": weird(data={"to": "+33612345678"}),
    "SQL in every id": weird_data(message_id="'; DROP TABLE events; --"),
}


@pytest.mark.parametrize("name", ANYTHING)
def test_whatever_else_a_signed_body_holds_is_stored_and_handled(
    server: Server, store: Store, name: str
) -> None:
    answer = server.post(ANYTHING[name])
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "accepted"
    event = handled(store, answer.json()["event_id"])
    assert len(event["event_id"]) <= 200
    assert {d["handler"] for d in event["deliveries"]} >= {"first"}
    again = server.post(ANYTHING[name])
    assert again.json() == {"status": "duplicate", "event_id": event["event_id"]}


def test_without_an_event_id_the_body_is_the_id(server: Server) -> None:
    body = weird(event_id=None)
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    assert server.post(body).json() == {"status": "accepted", "event_id": digest}


def test_the_first_body_stays(server: Server, store: Store) -> None:
    payload = envelope("sms.sent", sms("sent"))
    assert server.post(payload).json()["status"] == "accepted"
    changed = payload | {"data": payload["data"] | {"message": "another text"}}
    assert server.post(changed).json()["status"] == "duplicate"
    event = handled(store, payload["event_id"])
    assert store.body(payload["event_id"]) == json.dumps(payload).encode()
    assert event["receipts"] == 2


def test_an_id_of_another_event_loses_nothing(server: Server, store: Store) -> None:
    payload = envelope("sms.sent", sms("sent"))
    assert server.post(payload).json()["status"] == "accepted"
    other = json.dumps(payload | {"event": "sms.delivered"}).encode()
    own = "sha256:" + hashlib.sha256(other).hexdigest()
    assert server.post(other).json() == {"status": "accepted", "event_id": own}
    assert server.post(other).json() == {"status": "duplicate", "event_id": own}
    assert handled(store, own)["type"] == "sms.delivered"


def test_nothing_failed_by_a_defect_and_no_secret_or_text_is_logged(server: Server) -> None:
    """Runs last in this module: the log of all that came before."""
    log = Path(server.log).read_text()
    assert "defect" not in log
    ours = [line for line in re.split(r"\n(?=20\d\d-)", log) if "gunicorn.error" not in line]
    assert not [line for line in ours if "Traceback" in line]
    assert SECRET not in log
    assert "Bonjour" not in log
    assert "+33612345678" not in log
