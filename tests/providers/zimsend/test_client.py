"""The client of ZimSend's API: beside the simulator, and beside servers that misbehave."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.errors import ReceiverError
from receiver.providers.zimsend.api import ZimSend, exchange
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.api.errors import (
    CredentialsRefused,
    NotFound,
    NotPossible,
    NotUnderstood,
    RequestRefused,
    TryLater,
    Unavailable,
    ZimSendError,
)
from receiver.providers.zimsend.simulator import api as simulator
from receiver.providers.zimsend.simulator.api import Simulator
from receiver.providers.zimsend.simulator.world import Weather, World
from receiver.times import DAY, HOUR, SECOND, iso, to_datetime
from tests.canned import Canned, Handler, Step, ok, raw, reset, silent, status, trickle
from tests.server import ROOT, eventually, free_port

KEY, ID = "zs_test_0123456789", "client_0123456789"
NUMBER = "+33612345678"
BEGAN = 20_000 * DAY + 9 * HOUR


# --- beside the simulator


@pytest.fixture(scope="module")
def simulated() -> Iterator[SimpleNamespace]:
    """A ZimSend for which a second of ours is 1000."""
    sim = Simulator(World(began=BEGAN, devices=3), speed=1000, credentials=(KEY, ID))
    port = free_port()
    close = simulator.serve(sim, "127.0.0.1", port)
    yield SimpleNamespace(sim=sim, world=sim.world, url=f"http://127.0.0.1:{port}/v1")
    close()


@pytest.fixture(scope="module")
def zimsend(simulated: SimpleNamespace) -> Iterator[ZimSend]:
    with ZimSend(KEY, ID, base_url=simulated.url) as zimsend:
        yield zimsend


def ended(zimsend: ZimSend, message_id: str, *states: str) -> Message:
    message: Message = eventually(
        lambda: (shown := zimsend.status(message_id)).status in states and shown
    )
    return message


def test_a_message_from_beginning_to_end(simulated: SimpleNamespace, zimsend: ZimSend) -> None:
    sent = zimsend.send(
        NUMBER,
        "Bonjour 👋\ud83d",
        priority=1,
        metadata={"order": "CMD-1"},
        retry_attempts=2,
        device_id="dev_2",
    )
    real = simulated.world.messages[sent.message_id]
    assert (real.to, real.text, real.priority) == (NUMBER, "Bonjour 👋\ud83d", 1)
    assert (real.device_id, real.metadata) == ("dev_2", {"order": "CMD-1"})
    assert (sent.status, sent.to, sent.text) == ("queued", NUMBER, None)
    assert sent.queued_at == to_datetime(real.queued_at)
    assert sent.queued_at.tzinfo is UTC
    assert sent.estimated_delivery is not None
    assert sent.estimated_delivery > sent.queued_at
    assert sent.raw["success"] is True

    shown = ended(zimsend, sent.message_id, "delivered")
    assert (shown.to, shown.text, shown.priority) == (NUMBER, "Bonjour 👋\ud83d", 1)
    assert shown.metadata == {"order": "CMD-1"}
    assert shown.created_at == shown.queued_at == sent.queued_at
    assert shown.sent_at == to_datetime(real.sent_at or 0)
    assert shown.delivered_at == to_datetime(real.delivered_at or 0)
    assert (shown.failed_at, shown.device_id) == (None, None)
    assert "Bonjour" not in repr(shown)
    assert NUMBER not in repr(shown)
    assert {shown: 1}[shown] == 1


def test_a_message_of_later_and_its_end(simulated: SimpleNamespace, zimsend: ZimSend) -> None:
    starts_at = simulated.sim.now() + 20 * DAY
    at = to_datetime(starts_at)
    sent = zimsend.send(NUMBER, "x", scheduled_at=at.astimezone(timezone(timedelta(hours=5))))
    assert simulated.world.messages[sent.message_id].starts_at == starts_at
    told = zimsend.cancel(sent.message_id)
    assert (told.message_id, told.status, told.text) == (sent.message_id, "cancelled", None)
    assert zimsend.status(sent.message_id).status == "cancelled"
    with pytest.raises(NotPossible) as caught:
        zimsend.cancel(sent.message_id)
    assert (caught.value.code, caught.value.status) == ("CANNOT_CANCEL_MESSAGE", 400)
    with pytest.raises(NotPossible, match="CANNOT_RESEND_MESSAGE"):
        zimsend.resend(sent.message_id)


def test_a_message_that_fails_is_sent_again(
    simulated: SimpleNamespace, zimsend: ZimSend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated.world, "weather", Weather(failed=1))
    sent = zimsend.send(NUMBER, "x", webhook_url="http://127.0.0.1:9/mine")
    ended(zimsend, sent.message_id, "failed")
    monkeypatch.undo()
    told = zimsend.resend(sent.message_id)
    assert (told.message_id, told.status) == (sent.message_id, "queued")
    ended(zimsend, sent.message_id, "delivered")


def test_many_messages(simulated: SimpleNamespace, zimsend: ZimSend) -> None:
    numbers = [f"+3369999000{n}" for n in range(3)]
    result = zimsend.send_bulk(iter(numbers), "Bonjour", priority="high", metadata={"n": 1})
    assert result.batch_id
    assert (result.total, result.queued, result.failed) == (3, None, None)
    assert [(m.to, m.status) for m in result.messages] == [(n, "queued") for n in numbers]
    assert result.refused == ()
    assert result.queued_at is not None
    assert {m.priority for m in map(real(simulated), result.messages)} == {"high"}

    each = [{"to": n, "message": f"Bonjour {n}", "metadata": {"n": n}} for n in numbers]
    result = zimsend.send_bulk_personalized(each, device_id="dev_3")
    sent = list(map(real(simulated), result.messages))
    assert [{"to": m.to, "message": m.text, "metadata": m.metadata} for m in sent] == each
    assert {m.device_id for m in sent} == {"dev_3"}


def real(simulated: SimpleNamespace) -> Callable[[Message], Any]:
    return lambda message: simulated.world.messages[message.message_id]


def test_the_device_of_the_client(simulated: SimpleNamespace) -> None:
    with ZimSend(KEY, ID, device_id="dev_2", base_url=simulated.url + "/") as zimsend:
        for device, sent in (
            ("dev_2", zimsend.send(NUMBER, "x")),
            ("dev_2", zimsend.send_bulk([NUMBER], "x").messages[0]),
            ("dev_3", zimsend.send(NUMBER, "x", device_id="dev_3")),
        ):
            assert real(simulated)(sent).device_id == device


def test_one_time_codes(simulated: SimpleNamespace, zimsend: ZimSend) -> None:
    otp = zimsend.send_otp(
        "+33700000001", length=8, expiry=86_400, template="Le {{code}}", purpose="login"
    )
    message = real(simulated)(Message(otp.message_id or ""))
    assert re.fullmatch(r"Le [0-9]{8}", message.text)
    assert (otp.to, otp.status) == ("+33700000001", "queued")
    assert otp.expires_at == to_datetime(message.queued_at + DAY)
    wrong = zimsend.verify_otp(otp.otp_id, "wrong")
    assert (wrong.valid, wrong.attempts_remaining) == (False, 2)
    right = zimsend.verify_otp(otp.otp_id, message.text.removeprefix("Le "))
    assert right.valid
    assert right.message
    with pytest.raises(NotPossible) as caught:
        zimsend.verify_otp(otp.otp_id, "wrong")
    assert (caught.value.code, caught.value.status) == ("OTP_MAX_ATTEMPTS", 429)

    otp = zimsend.send_otp("+33700000001", expiry=1)
    since = simulated.sim.now()
    eventually(lambda: simulated.sim.now() > since + 2 * SECOND)
    with pytest.raises(NotPossible, match="OTP_EXPIRED"):
        zimsend.verify_otp(otp.otp_id, "1")


def test_the_history(zimsend: ZimSend) -> None:
    mark = "repère"
    made = zimsend.send_bulk([f"+336111111{n:02}" for n in range(25)], f"Un {mark} & co")
    ids = sorted(message.message_id for message in made.messages)
    page = zimsend.history(page=2, limit=10, search=mark)
    assert (page.page, page.limit, page.total_pages, page.total_items) == (2, 10, 3, 25)
    assert len(page.messages) == 10
    assert page.messages[0].text == f"Un {mark} & co"
    pages = list(zimsend.history_pages(limit=10, search=mark))
    assert [len(page.messages) for page in pages] == [10, 10, 5]
    assert sorted(m.message_id for page in pages for m in page.messages) == ids
    assert [page.page for page in zimsend.history_pages(page=2, limit=10, search=mark)] == [2, 3]
    assert list(zimsend.history_pages(search="there is no such text")) == []
    assert zimsend.history().limit == 50
    assert zimsend.history(search=mark, to="+33611111107").total_items == 1
    assert zimsend.history(search=mark, device_id="dev_none").total_items == 0
    assert zimsend.history(search=mark, status="cancelled").total_items == 0
    day = to_datetime(BEGAN).date()
    bounds: list[Any] = [day, day.isoformat(), f"{day}T00:00:00Z", to_datetime(BEGAN)]
    assert {zimsend.history(search=mark, from_date=d).total_items for d in bounds} == {25}
    assert {zimsend.history(search=mark, to_date=d).total_items for d in bounds[2:]} == {0}


def test_the_statistics(zimsend: ZimSend) -> None:
    ended(zimsend, zimsend.send(NUMBER, "x").message_id, "delivered")
    stats = zimsend.stats(from_date=to_datetime(BEGAN), to_date=date(2100, 1, 1))
    assert (stats.period_from, stats.period_to) == (iso(BEGAN), "2100-01-01")
    assert None not in (stats.pending, stats.failed)
    assert isinstance(stats.delivery_rate, float)
    assert stats.by_day[0].date == to_datetime(BEGAN).date().isoformat()
    for name in ("delivered", "failed"):
        assert getattr(stats, name) == sum(getattr(day, name) for day in stats.by_day)
    assert stats.total_sent == sum(day.sent or 0 for day in stats.by_day) > 0
    assert zimsend.stats(device_id="dev_none").total_sent == 0


def test_webhooks(simulated: SimpleNamespace, zimsend: ZimSend, server: Canned) -> None:
    eventually(lambda: simulated.sim.at_rest)  # else others' reports come in between
    server.answers(ok({}))
    url = f"{server.url}/hook"
    webhook = zimsend.configure_webhook(url, ["sms.failed"], secret="one of mine")
    assert (webhook.url, webhook.events, webhook.status) == (url, ("sms.failed",), "active")
    assert webhook.secret == "one of mine"
    assert "one of mine" not in repr(webhook)
    made = zimsend.configure_webhook(url, iter(["sms.sent", "sms.delivered"]))
    assert made.secret
    assert made.secret.startswith("whsec_")
    listed = {each.webhook_id: each for each in zimsend.webhooks()}
    assert listed[made.webhook_id].events == ("sms.sent", "sms.delivered")
    assert listed[made.webhook_id].secret is None
    assert zimsend.test_webhook(webhook.webhook_id).response_status == 200
    server.answers(status(503))
    assert zimsend.test_webhook(webhook.webhook_id).response_status == 503
    newer, older = zimsend.webhook_logs(limit=2)
    assert (newer.success, newer.response_status) == (False, 503)
    assert (older.success, older.response_status, older.attempt) == (True, 200, 1)
    assert (older.webhook_id, older.event, older.url) == (webhook.webhook_id, "sms.failed", url)
    assert older.log_id
    assert older.timestamp is not None
    assert older.response_time_ms is not None
    assert zimsend.webhook_logs(page=2, limit=1) == (older,)
    for webhook_id in listed:
        assert zimsend.delete_webhook(webhook_id) is None
    assert zimsend.webhooks() == ()
    with pytest.raises(NotFound, match="WEBHOOK_NOT_FOUND"):
        zimsend.delete_webhook(made.webhook_id)


LONG, MANY = "x" * 1_601, [NUMBER] * 101
REFUSALS: list[tuple[type[ZimSendError], str, int, Callable[[ZimSend], object]]] = [
    (NotFound, "MESSAGE_NOT_FOUND", 404, lambda z: z.status("nothing")),
    (NotFound, "MESSAGE_NOT_FOUND", 404, lambda z: z.cancel("nothing")),
    (NotFound, "MESSAGE_NOT_FOUND", 404, lambda z: z.resend("nothing")),
    (NotFound, "OTP_NOT_FOUND", 404, lambda z: z.verify_otp("nothing", "1")),
    (NotFound, "WEBHOOK_NOT_FOUND", 404, lambda z: z.test_webhook("nothing")),
    (NotFound, "INVALID_DEVICE_ID", 404, lambda z: z.send(NUMBER, "x", device_id="none")),
    (RequestRefused, "INVALID_PHONE_NUMBER", 400, lambda z: z.send("112", "x")),
    (RequestRefused, "INVALID_REQUEST", 400, lambda z: z.send(NUMBER, "")),
    (RequestRefused, "MESSAGE_TOO_LONG", 400, lambda z: z.send(NUMBER, LONG)),
    (RequestRefused, "INVALID_PRIORITY", 400, lambda z: z.send(NUMBER, "x", priority=0)),
    (RequestRefused, "INVALID_PARAMETER", 400, lambda z: z.send(NUMBER, "x", retry_attempts=9)),
    (
        RequestRefused,
        "INVALID_SCHEDULED_DATE",
        400,
        lambda z: z.send(NUMBER, "x", scheduled_at="2100-01-01"),
    ),
    (
        RequestRefused,
        "INVALID_WEBHOOK_URL",
        400,
        lambda z: z.send(NUMBER, "x", webhook_url="ftp://x"),
    ),
    (RequestRefused, "INVALID_WEBHOOK_URL", 400, lambda z: z.configure_webhook("x", ["sms.sent"])),
    (RequestRefused, "TOO_MANY_RECIPIENTS", 400, lambda z: z.send_bulk(MANY, "x")),
    (RequestRefused, "INVALID_PARAMETER", 400, lambda z: z.history(page=0)),
]


@pytest.mark.parametrize(
    ("kind", "code", "http_status", "call"), REFUSALS, ids=[row[1] for row in REFUSALS]
)
def test_what_the_simulator_refuses(
    zimsend: ZimSend,
    kind: type[ZimSendError],
    code: str,
    http_status: int,
    call: Callable[[ZimSend], object],
) -> None:
    with pytest.raises(ZimSendError) as caught:
        call(zimsend)
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.status, error.maybe_sent) == (code, http_status, False)
    assert error.message
    assert str(error) == f"{error.message} ({code}, HTTP {http_status}). {error.advice}"
    assert error.raw["error"]["code"] == code


def test_more_codes_than_a_number_gets(zimsend: ZimSend) -> None:
    for _ in range(10):
        zimsend.send_otp("+33700000002")
    with pytest.raises(TryLater, match="OTP_RATE_LIMIT"):
        zimsend.send_otp("+33700000002")


@pytest.mark.parametrize(
    ("key", "client_id", "code"),
    [("zs_test_other", ID, "INVALID_API_KEY"), (KEY, "client_other", "INVALID_CLIENT_ID")],
)
def test_credentials_that_are_refused(
    simulated: SimpleNamespace, key: str, client_id: str, code: str
) -> None:
    with (
        ZimSend(key, client_id, base_url=simulated.url) as zimsend,
        pytest.raises(CredentialsRefused) as caught,
    ):
        zimsend.webhooks()
    assert (caught.value.code, caught.value.status) == (code, 401)


def test_the_limit_of_requests(
    simulated: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, naps: Naps
) -> None:
    monkeypatch.setattr(simulator, "RATE_LIMIT", 0)
    with ZimSend(KEY, ID, base_url=simulated.url, sleep=naps.sleep, clock=naps.clock) as zimsend:
        with pytest.raises(TryLater, match="RATE_LIMIT_EXCEEDED"):
            zimsend.send(NUMBER, "x")
        assert naps.taken == []
        with pytest.raises(TryLater, match="RATE_LIMIT_EXCEEDED"):
            zimsend.status("x")
        assert len(naps.taken) == 3


def test_passing_on_to_the_simulator(simulated: SimpleNamespace, zimsend: ZimSend) -> None:
    asked = json.dumps({"to": NUMBER, "message": "x"}).encode()
    answer_status, headers, body = zimsend.forward(
        "POST", "/sms/send", asked, headers={"X-Device-ID": "dev_3", "X-API-Key": "another"}
    )
    sent = json.loads(body)
    assert answer_status == 200
    assert ("content-type", "application/json") in headers
    assert real(simulated)(Message(sent["message_id"])).device_id == "dev_3"
    refused = zimsend.forward("GET", "/sms/status/nothing")
    assert refused.status == 404
    assert json.loads(refused.body)["error"]["code"] == "MESSAGE_NOT_FOUND"
    page = zimsend.forward("GET", "/sms/history", query="limit=3&page=1")
    assert json.loads(page.body)["pagination"]["per_page"] == 3


# --- beside a server that answers as a test says

TRICKLES = {
    "in the body": trickle(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n"),
    "in the headers": trickle(b"HTTP/1.1 200 X\r\nX-Header: "),
    "in the status": trickle(b"HTTP/1.1 200 "),
    "not at all": silent,
}


@pytest.fixture
def server(fresh_canned: Canned) -> Canned:
    return fresh_canned


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


@pytest.fixture(scope="module")
def all_naps() -> Naps:
    return Naps()


@pytest.fixture
def naps(all_naps: Naps) -> Naps:
    all_naps.taken.clear()
    return all_naps


@pytest.fixture(scope="module")
def once(canned: Canned) -> Iterator[ZimSend]:
    """A client that tries once."""
    with ZimSend(KEY, ID, base_url=f"{canned.url}/v1", tries=1) as zimsend:
        yield zimsend


@pytest.fixture(scope="module")
def patient(canned: Canned, all_naps: Naps) -> Iterator[ZimSend]:
    """A client whose sleep takes no time."""
    with ZimSend(
        KEY, ID, base_url=f"{canned.url}/v1", sleep=all_naps.sleep, clock=all_naps.clock, tries=4
    ) as zimsend:
        yield zimsend


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


# --- the answers' other shapes


def test_the_other_shape_of_a_batch(once: ZimSend, server: Canned) -> None:
    counts = {"total_messages": 4, "queued_messages": 3, "failed_messages": 1}
    document = {"batch_id": "batch_7", **counts, "message_ids": ["msg_1", None, "msg_2", 3]}
    server.answers(ok(document))
    result = once.send_bulk([NUMBER] * 4, "x")
    assert (result.batch_id, result.total, result.queued, result.failed) == ("batch_7", 4, 3, 1)
    assert result.messages == (Message("msg_1"), Message("msg_2"))
    assert result.raw == document


def test_a_batch_of_which_not_all_are_queued(once: ZimSend, server: Canned) -> None:
    row = {"to": "112", "status": "failed", "error": {"code": "INVALID_NUMBER"}}
    rows = [{"message_id": "msg_1", "to": NUMBER, "status": "queued"}, row]
    server.answers(ok({"messages": rows, "total_recipients": 2}))
    result = once.send_bulk_personalized([])
    assert [message.message_id for message in result.messages] == ["msg_1"]
    assert result.refused == (row,)
    assert (result.batch_id, result.total) == (None, 2)


def test_the_other_shape_of_the_history(once: ZimSend, server: Canned) -> None:
    row = {
        "message_id": "msg_1",
        "status": "failed",
        "to": NUMBER,
        "message": "x",
        "priority": "high",
        "device_id": "dev_1",
        "queued_at": "2026-11-20T08:15:42.5Z",
        "failed_at": "2026-11-20 09:15:43+01:00",
        "sent_at": None,
        "metadata": {"a": [1]},
    }
    told = {"page": 3, "limit": 20, "total": 41, "pages": 3}
    server.answers(ok({"messages": [row], "pagination": told}))
    page = once.history()
    assert (page.page, page.limit, page.total_items, page.total_pages) == (3, 20, 41, 3)
    [message] = page.messages
    assert (message.priority, message.device_id, message.metadata) == ("high", "dev_1", {"a": [1]})
    assert message.queued_at == datetime(2026, 11, 20, 8, 15, 42, 500_000, tzinfo=UTC)
    assert message.failed_at == datetime(2026, 11, 20, 8, 15, 43, tzinfo=UTC)
    assert message.sent_at is None
    assert message.raw == row


def rows(*ids: str, **told: Any) -> Step:
    return ok({"data": [{"message_id": i} for i in ids], "pagination": told})


@pytest.mark.parametrize(
    ("steps", "pages"),
    [
        ([rows("a", pages=2), rows("b", pages=2), rows("c")], ["a", "b"]),
        ([rows("a", "b"), rows("c"), rows()], ["ab", "c"]),  # it tells no number of pages
        ([rows("a", "b", page=1)], ["ab"]),  # it passes over `page`
        ([rows("a", total_pages=1), rows("b")], ["a"]),
        ([rows("a", total_pages="many"), rows("b"), rows()], ["a", "b"]),
        ([rows(total_pages=9)], []),
    ],
)
def test_the_history_has_an_end(
    once: ZimSend, server: Canned, steps: list[Step], pages: list[str]
) -> None:
    server.answers(*steps)
    shown = [page.messages for page in islice(once.history_pages(), 9)]
    assert ["".join(m.message_id for m in messages) for messages in shown] == pages
    asked = [re.search(r"page=(\d+)&limit=(\d+)", seen.path) for seen in server.seen]
    assert [found and found.groups() for found in asked] == [
        (str(number), "100") for number in range(1, len(asked) + 1)
    ]


def test_pages_are_fetched_when_they_are_asked_for(once: ZimSend, server: Canned) -> None:
    server.answers(rows("a", pages=2), rows("b", pages=2))
    pages = once.history_pages()
    assert server.seen == []
    next(pages)
    assert len(server.seen) == 1


@pytest.mark.parametrize("key", ["webhooks", "data", None])
def test_the_shapes_of_a_list(once: ZimSend, server: Canned, key: str | None) -> None:
    listed = [{"webhook_id": "wh_1", "events": ["sms.sent", 5], "url": 5}]
    server.answers(ok({key: listed} if key else listed))
    [webhook] = once.webhooks()
    assert (webhook.webhook_id, webhook.events, webhook.url) == ("wh_1", ("sms.sent",), None)


def test_deleting_needs_no_body(once: ZimSend, server: Canned) -> None:
    server.answers(raw(b"HTTP/1.1 204 No Content\r\n\r\n", close=False))
    once.delete_webhook("wh_1")
    server.answers(status(200, b"deleted"))
    once.delete_webhook("wh_1")
    server.answers(ok({"success": False, "error": {"code": "WEBHOOK_NOT_FOUND"}}))
    with pytest.raises(RequestRefused):
        once.delete_webhook("wh_1")


@pytest.mark.parametrize(
    ("document", "left"),
    [
        ({"success": False, "error": {"code": "INVALID_OTP", "message": "no"}}, None),
        ({"error": "no", "code": "INVALID_OTP", "details": {"attempts_remaining": 2}}, 2),
        ({"error": "no", "code": "INVALID_OTP", "attempts_remaining": 0}, 0),
        ({"error": {"code": "INVALID_OTP", "message": "no", "attempts_remaining": 1}}, 1),
    ],
)
def test_a_wrong_code_as_an_error(
    once: ZimSend, server: Canned, document: Any, left: int | None
) -> None:
    server.answers(ok(document, 400))
    check = once.verify_otp("otp_1", "123456")
    assert (check.valid, check.message, check.attempts_remaining) == (False, "no", left)
    assert check.raw == document


def test_no_success_that_is_an_answer(once: ZimSend, server: Canned) -> None:
    server.answers(ok({"success": False, "valid": False, "attempts_remaining": 1}))
    assert once.verify_otp("otp_1", "1").attempts_remaining == 1
    server.answers(ok({"success": False, "message": "no answer", "response_status": None}))
    assert once.test_webhook("wh_1").response_status is None


def test_numbers_and_times_that_make_no_sense(once: ZimSend, server: Canned) -> None:
    odd = {"delivered": True, "failed": 1.5, "pending": "3", "total_sent": 10**400}
    server.answers(ok({"stats": {**odd, "delivery_rate": 10**400, "by_day": [{"sent": None}]}}))
    stats = once.stats()
    assert (stats.delivered, stats.failed, stats.pending) == (None, None, None)
    assert (stats.total_sent, stats.delivery_rate) == (10**400, None)
    times = {"sent_at": "0001-01-01T00:00:00+05:00", "queued_at": 5, "delivered_at": "soon"}
    server.answers(ok({"message_id": "a", "priority": [], "metadata": 1, "to": 5, **times}))
    assert once.status("a") == Message("a")


# --- errors

CODES = {
    **dict.fromkeys(("INVALID_API_KEY", "INVALID_CLIENT_ID"), (CredentialsRefused, 401)),
    "MISSING_AUTH_HEADERS": (CredentialsRefused, 400),
    **dict.fromkeys(("INVALID_DEVICE_ID", "OTP_NOT_FOUND", "MESSAGE_NOT_FOUND"), (NotFound, 404)),
    **dict.fromkeys(("DEVICE_OFFLINE", "NO_DEVICE_AVAILABLE"), (TryLater, 503)),
    **dict.fromkeys(
        (
            "INVALID_PHONE_NUMBER",
            "MESSAGE_TOO_LONG",
            "INVALID_PRIORITY",
            "INVALID_SCHEDULED_DATE",
            "TOO_MANY_RECIPIENTS",
            "INVALID_WEBHOOK_URL",
            "INVALID_OTP",
        ),
        (RequestRefused, 400),
    ),
    "BLOCKED_NUMBER": (RequestRefused, 403),
    "NETWORK_ERROR": (Unavailable, 500),
    "SMS_SEND_TIMEOUT": (Unavailable, 504),
    "NO_CREDIT": (TryLater, 402),
    **dict.fromkeys(("OTP_RATE_LIMIT", "RATE_LIMIT_EXCEEDED", "QUOTA_EXCEEDED"), (TryLater, 429)),
    **dict.fromkeys(("OTP_EXPIRED", "CANNOT_CANCEL_MESSAGE"), (NotPossible, 400)),
    "OTP_MAX_ATTEMPTS": (NotPossible, 429),
}


def error_shapes(code: str) -> list[Any]:
    return [
        {"success": False, "error": {"code": code, "message": "Non !"}},
        {"error": "Non !", "code": code, "details": {"field": "to"}},
    ]


@pytest.mark.parametrize("shape", [0, 1])
@pytest.mark.parametrize("code", CODES)
def test_the_codes(once: ZimSend, server: Canned, code: str, shape: int) -> None:
    kind, http_status = CODES[code]
    document = error_shapes(code)[shape]
    server.answers(ok(document, http_status))
    with pytest.raises(ZimSendError) as caught:
        once.send(NUMBER, "x")
    error = caught.value
    assert type(error) is kind
    assert isinstance(error, ReceiverError)
    assert (error.code, error.message, error.status) == (code, "Non !", http_status)
    assert error.maybe_sent == (kind is Unavailable)
    assert error.raw == document
    assert str(error) == f"Non ! ({code}, HTTP {http_status}). {error.advice}"
    server.answers(ok(document))  # with 200
    if document.get("success") is False:
        with pytest.raises(kind):
            once.send(NUMBER, "x")
    else:
        with pytest.raises(NotUnderstood):
            once.send(NUMBER, "x")


KINDS = {
    **dict.fromkeys((400, 405, 406, 413, 414, 415, 422, 431, 451, 499), RequestRefused),
    **dict.fromkeys((401, 403, 407), CredentialsRefused),
    **dict.fromkeys((402, 425, 429), TryLater),
    **dict.fromkeys((404, 410), NotFound),
    409: NotPossible,
    **dict.fromkeys((408, 500, 501, 502, 503, 504, 520, 524, 599), Unavailable),
    **dict.fromkeys((300, 301, 304, 307, 399), NotUnderstood),
}


@pytest.mark.parametrize(("http_status", "kind"), KINDS.items())
@pytest.mark.parametrize("shape", [0, 1])
def test_codes_that_nobody_knows(
    once: ZimSend, server: Canned, http_status: int, kind: type[ZimSendError], shape: int
) -> None:
    body = b"" if http_status == 304 else json.dumps(error_shapes("SOMETHING_NEW")[shape]).encode()
    server.answers(status(http_status, body))
    with pytest.raises(ZimSendError) as caught:
        once.send(NUMBER, "x")
    assert type(caught.value) is kind
    assert caught.value.status == http_status
    if body:
        assert caught.value.code == "SOMETHING_NEW"


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


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
@pytest.mark.parametrize("http_status", [400, 401, 404, 429, 500, 502, 503, 302])
def test_errors_of_others(once: ZimSend, server: Canned, http_status: int, body: bytes) -> None:
    server.answers(status(http_status, body, "Content-Type: text/html"))
    with pytest.raises(ZimSendError) as caught:
        once.status("msg_1")
    error = caught.value
    kind = KINDS.get(http_status, NotUnderstood)
    # Only ZimSend itself can say that there is no such message.
    if http_status == 404 and b'"error":' not in body.removeprefix(NO_JSON["Latin 1"]):
        kind = NotUnderstood
    assert type(error) is kind
    assert (error.code, error.status) == (None, http_status)
    assert error.maybe_sent == (http_status >= 500)
    assert error.message


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
@pytest.mark.parametrize("name", RESULTS)
def test_successes_that_are_none(once: ZimSend, server: Canned, name: str, body: bytes) -> None:
    call, *_ = CALLS[name]
    server.answers(status(200, body))
    if name in ("webhooks", "test_webhook") and (body == b"[]" or body.startswith(b'{"')):
        return  # an empty list, and no answer from the webhook
    with pytest.raises(NotUnderstood) as caught:
        call(once)
    assert (caught.value.status, caught.value.maybe_sent) == (200, True)
    assert caught.value.advice


def test_a_code_and_no_more(once: ZimSend, server: Canned) -> None:
    server.answers(ok({"success": False, "error": "QUOTA_EXCEEDED"}, 429))
    with pytest.raises(TryLater) as caught:
        once.send(NUMBER, "x")
    assert caught.value.code == "QUOTA_EXCEEDED"


@pytest.mark.parametrize("shape", [0, 1])
def test_no_error_shows_a_secret(once: ZimSend, server: Canned, shape: int) -> None:
    secret = "whsec_of_my_own"
    text = f"no {KEY} {ID} {secret}\r\n\x1b[31m" + "x" * 10_000
    for code in (f"KEY_{KEY}", "LINE\nBREAK", secret):
        document = error_shapes(code)[shape]
        if shape:
            document["error"] = text
        else:
            document["error"]["message"] = text
        server.answers(ok(document, 400))
        with pytest.raises(RequestRefused) as caught:
            once.configure_webhook("https://example.org", [], secret=secret)
        error = caught.value
        assert error.code is None
        shown = f"{error} {error!r} {error.message}"
        assert not any(hidden in shown for hidden in (KEY, ID, secret, "\n", "\x1b"))
        assert len(error.message) <= 300
    server.answers(ok({"error": "123456 is wrong", "code": "OTP_EXPIRED"}, 400))
    with pytest.raises(NotPossible) as otp:
        once.verify_otp("otp_1", "123456")
    assert "123456" not in str(otp.value)
    assert KEY not in repr(once)
    assert ID not in repr(once)


def test_the_log_shows_no_secret(
    once: ZimSend, server: Canned, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers(ok(MESSAGE))
    with caplog.at_level(logging.DEBUG):
        once.send(NUMBER, "Bonjour")
    assert not any(hidden in caplog.text for hidden in (KEY, ID, NUMBER, "Bonjour"))


# --- no answer


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


@pytest.mark.parametrize("step", BROKEN.values(), ids=BROKEN)
def test_answers_that_break_off(once: ZimSend, server: Canned, step: Step) -> None:
    server.answers(step)
    error = call(once, "send")
    assert type(error) is Unavailable
    assert (error.code, error.status, error.maybe_sent) == (None, None, True)
    assert not error.timed_out
    assert "before you send it again" in error.advice
    assert error.__cause__ is None
    assert len(server.seen) == 1


def test_an_answer_that_is_badly_compressed(once: ZimSend, server: Canned) -> None:
    server.answers(status(200, b"\x1f\x8b nonsense", "Content-Encoding: gzip"))
    error = call(once, "send")
    assert (type(error), error.maybe_sent) == (NotUnderstood, True)


def test_an_answer_that_is_too_large(
    once: ZimSend, server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LARGEST_ANSWER", 1_000)
    server.answers(ok({**MESSAGE, "more": "x" * 1_000}))
    error = call(once, "send")
    assert (type(error), error.status, error.maybe_sent) == (NotUnderstood, 200, True)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(once: ZimSend, server: Canned, code: int) -> None:
    there = f"Location: {server.url}/elsewhere"
    server.answers(status(code, b"", there), ok(MESSAGE))
    error = call(once, "send")
    assert (type(error), error.status, error.maybe_sent) == (NotUnderstood, code, False)
    assert "redirect" in str(error)
    assert len(server.seen) == 1
    server.answers(status(code, b"", there), ok(MESSAGE))
    assert once.forward("GET", "/x").status == code
    assert len(server.seen) == 1


@pytest.mark.parametrize("way", TRICKLES)
def test_nobody_is_held_up(server: Canned, way: str) -> None:
    server.answers(TRICKLES[way])
    with ZimSend(KEY, ID, base_url=server.url, timeout=1, tries=1) as zimsend:
        began = time.monotonic()
        error = call(zimsend, "send")
        assert 0.9 < time.monotonic() - began < 15
        assert (type(error), error.status, error.maybe_sent) == (Unavailable, None, True)
        assert error.timed_out
        assert re.search(r"no answer within 1 s|timed out", str(error))
        with pytest.raises(Unavailable):
            zimsend.forward("GET", "/x")
        server.released.set()


def test_what_is_given_up_is_not_sent_afterwards(
    server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = socket.getaddrinfo, threading.Event()

    def slow(*arguments: Any, **more: Any) -> Any:
        asked.set()
        server.released.wait(20)
        return resolve(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with ZimSend(KEY, ID, base_url=server.url, timeout=0.1, tries=1) as zimsend:
        error = call(zimsend, "send")
        assert (type(error), error.maybe_sent) == (Unavailable, False)
        assert asked.wait(15)
        server.released.set()
        eventually(lambda: not [t for t in threading.enumerate() if t.name == "zimsend-call"])
    assert server.seen == []


@pytest.mark.parametrize("name", CALLS)
def test_nobody_listens(naps: Naps, name: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with ZimSend(KEY, ID, base_url=url, tries=3, sleep=naps.sleep, clock=naps.clock) as zimsend:
        error = call(zimsend, name)
    assert (type(error), error.status, error.maybe_sent) == (Unavailable, None, False)
    assert len(naps.taken) == 2  # also what sends: it never left
    assert "before you send it again" not in str(error)


# --- once more

PASSING = {
    **BROKEN,
    "429": ok(error_shapes("RATE_LIMIT_EXCEEDED")[0], 429),
    "500": ok(error_shapes("NETWORK_ERROR")[1], 500),
    "502": status(502, NO_JSON["HTML"]),
    "503": ok(error_shapes("DEVICE_OFFLINE")[0], 503),
}


@pytest.mark.parametrize("step", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("name", ["status", "delete_webhook"])
def test_what_passes_is_tried_again(
    patient: ZimSend, server: Canned, naps: Naps, name: str, step: Step
) -> None:
    server.answers(step, step, step, ok(CALLS[name][4]))
    CALLS[name][0](patient)
    assert len(server.seen) == 4
    ceilings = [exchange.FIRST_PAUSE * 2**n for n in range(3)]
    assert all(0 <= nap <= most for nap, most in zip(naps.taken, ceilings, strict=True))


@pytest.mark.parametrize("step", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("name", ["send", "verify_otp", "cancel"])
def test_what_may_have_happened_is_not_tried_again(
    patient: ZimSend, server: Canned, naps: Naps, name: str, step: Step
) -> None:
    server.answers(step, ok(CALLS[name][4]))
    call(patient, name)
    assert (len(server.seen), naps.taken) == (1, [])


@pytest.mark.parametrize("name", REPEATED)
def test_what_is_repeated(patient: ZimSend, server: Canned, name: str) -> None:
    server.answers(status(502))
    error = call(patient, name)
    assert type(error) is Unavailable
    assert len(server.seen) == 4
    assert len({seen.path for seen in server.seen}) == 1


@pytest.mark.parametrize("name", NOT_REPEATED)
def test_what_is_not_repeated(patient: ZimSend, server: Canned, name: str) -> None:
    server.answers(status(502))
    call(patient, name)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "step", [status(400), status(401), ok(error_shapes("X")[0], 404), status(301), ok([])]
)
def test_what_does_not_pass_is_not_tried_again(
    patient: ZimSend, server: Canned, naps: Naps, step: Step
) -> None:
    server.answers(step)
    call(patient, "status")
    assert (len(server.seen), naps.taken) == (1, [])


def test_pauses_differ_and_grow(patient: ZimSend, server: Canned, naps: Naps) -> None:
    server.answers(status(502))
    for _ in range(40):
        call(patient, "status")
    for number in range(3):
        pauses = naps.taken[number::3]
        most = exchange.FIRST_PAUSE * 2**number
        assert len(set(pauses)) == 40
        assert min(pauses) < most / 3
        assert most * 2 / 3 < max(pauses) <= most


def test_patience_has_an_end(server: Canned, naps: Naps) -> None:
    server.answers(status(502))
    with ZimSend(
        KEY,
        ID,
        base_url=server.url,
        tries=1_000,
        patience=20,
        sleep=naps.sleep,
        clock=naps.clock,
    ) as zimsend:
        call(zimsend, "status")
    assert 3 < len(naps.taken) < 1_000
    assert 10 < sum(naps.taken) <= 20
    assert max(naps.taken) <= exchange.LONGEST_PAUSE


def test_a_server_that_says_when(patient: ZimSend, server: Canned, naps: Naps) -> None:
    def limited(seconds: str) -> Step:
        body = json.dumps(error_shapes("RATE_LIMIT_EXCEEDED")[0]).encode()
        return status(429, body, f"Retry-After: {seconds}")

    server.answers(limited("7"), limited("soon"), ok(MESSAGE))
    patient.status("msg_1")
    assert 7 == naps.taken[0] > naps.taken[1]
    server.answers(limited("31"))
    assert call(patient, "status").retry_after == 31  # longer than patience is
    assert (len(server.seen), len(naps.taken)) == (1, 2)
    server.answers(limited("5"))
    error = call(patient, "send")
    assert (type(error), error.retry_after) == (TryLater, 5)


def test_a_webhook_that_an_earlier_try_removed(patient: ZimSend, server: Canned) -> None:
    gone = ok(error_shapes("WEBHOOK_NOT_FOUND")[0], 404)
    server.answers(reset, gone)
    patient.delete_webhook("wh_1")
    server.answers(status(502), ok(error_shapes("RATE_LIMIT_EXCEEDED")[0], 429), gone)
    patient.delete_webhook("wh_1")
    server.answers(ok(error_shapes("RATE_LIMIT_EXCEEDED")[0], 429), gone)
    with pytest.raises(NotFound) as caught:
        patient.delete_webhook("wh_1")
    assert isinstance(caught.value.__cause__, TryLater)
    server.answers(gone)
    with pytest.raises(NotFound):
        patient.delete_webhook("wh_1")


# --- a budget


class Tokens:
    """Gives what the list says, then always lets go."""

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)
        self.asked = 0

    def take(self) -> float:
        self.asked += 1
        return self.waits.pop(0) if self.waits else 0.0


@pytest.mark.parametrize("name", CALLS)
def test_every_call_takes_from_the_budget(server: Canned, naps: Naps, name: str) -> None:
    tokens = Tokens(2.0, 0.5)
    server.answers(ok(CALLS[name][4]))
    with ZimSend(
        KEY, ID, base_url=server.url, budget=tokens, sleep=naps.sleep, clock=naps.clock
    ) as zimsend:
        CALLS[name][0](zimsend)
        assert (tokens.asked, naps.taken) == (3, [2.0, 0.5])
        zimsend.forward("GET", "/x")
        assert tokens.asked == 4


def test_every_try_takes_from_the_budget(server: Canned, naps: Naps) -> None:
    tokens = Tokens()
    server.answers(status(502))
    with ZimSend(
        KEY, ID, base_url=server.url, budget=tokens, sleep=naps.sleep, clock=naps.clock, tries=3
    ) as zimsend:
        call(zimsend, "status")
        assert tokens.asked == 3
        tokens.waits = [0.0, 60.0]
        assert call(zimsend, "status").status == 502  # rather than what the budget says


def test_one_account_within_other_bounds(server: Canned, patient: ZimSend, naps: Naps) -> None:
    tokens = Tokens()
    hurried = patient.within(tries=2, budget=tokens)
    server.answers(status(502))
    call(hurried, "status")
    assert (len(server.seen), tokens.asked, len(naps.taken)) == (2, 2, 1)
    call(patient, "status")
    assert (len(server.seen), tokens.asked) == (6, 2)
    with pytest.raises(ValueError, match="timeout"):
        patient.within(timeout=0)


@pytest.mark.parametrize("waits", [[31.0], [20.0, 11.0], [float("inf")]])
def test_a_budget_that_is_used_up(server: Canned, naps: Naps, waits: list[float]) -> None:
    with ZimSend(
        KEY, ID, base_url=server.url, budget=Tokens(*waits), sleep=naps.sleep, clock=naps.clock
    ) as zimsend:
        error = call(zimsend, "send")
    assert (type(error), error.status, error.maybe_sent) == (TryLater, None, False)
    assert error.retry_after == waits[-1]
    assert sum(naps.taken) == sum(waits[:-1])
    assert server.seen == []


# --- passing on


def test_what_is_passed_on(once: ZimSend, server: Canned) -> None:
    server.answers(
        status(418, b"\x00\xff", "X-One: 1", "X-One: 2", "Connection: keep-alive", "X-Two: é")
    )
    answer = once.forward(
        "PUT",
        "/sms/a%2Fb/c+d",
        b"\xff\x00",
        headers={
            "content-type": "text/x",
            "x-api-key": "another",
            "X-CLIENT-ID": "another",
            "Host": "example.org",
            "Cookie": "a=b",
            "Authorization": "Basic x",
            "Connection": "close",
            "Transfer-Encoding": "chunked",
            "Content-Length": "9",
            "X-Request-Id": "r 1",
        },
        query="a=%20&b=1+2&b",
    )
    [seen] = server.seen
    assert (seen.method, seen.path) == ("PUT", "/v1/sms/a%2Fb/c+d?a=%20&b=1+2&b")
    assert seen.body == b"\xff\x00"
    assert seen.headers.get_all("X-API-Key") == [KEY]
    assert seen.headers.get_all("X-Client-ID") == [ID]
    assert seen.headers.get_all("Content-Type") == ["text/x"]
    assert seen.headers["X-Request-Id"] == "r 1"
    assert seen.headers["Host"] == server.url.removeprefix("http://")
    assert not {"Cookie", "Authorization", "Transfer-Encoding"} & set(seen.headers)
    assert answer.status == 418
    assert answer.body == b"\x00\xff"
    assert [value for name, value in answer.headers if name == "x-one"] == ["1", "2"]
    assert not {"connection", "content-length"} & {name for name, _ in answer.headers}


def test_the_device_of_what_is_passed_on(server: Canned) -> None:
    with ZimSend(KEY, ID, device_id="dev_1", base_url=server.url) as zimsend:
        zimsend.forward("POST", "/sms/send", b"{}")
        assert server.last.headers.get_all("X-Device-ID") == ["dev_1"]
        assert server.last.headers["Content-Type"] == "application/json"
        zimsend.forward("GET", "/x", headers={"x-device-id": "dev_2"})
        assert server.last.headers.get_all("X-Device-ID") == ["dev_2"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "query"),
    [
        ("GET", "x", {}, ""),
        ("GET", "", {}, ""),
        ("GET", "@example.org/", {}, ""),
        ("GET", "/a/../b", {}, ""),
        ("GET", "/a/%2e%2E", {}, ""),
        ("GET", "/.", {}, ""),
        ("GET", "/a?b", {}, ""),
        ("GET", "/a#b", {}, ""),
        ("GET", "/a b", {}, ""),
        ("GET", "/é", {}, ""),
        ("GET", "/a", {}, "b#c"),
        ("GET", "/a", {}, "b\r\nc"),
        ("GET", "/" + "a" * 70_000, {}, ""),
        ("GET\r\n", "/a", {}, ""),
        ("", "/a", {}, ""),
        ("GET", "/a", {"X-A": "b\r\nX-C: d"}, ""),
        ("GET", "/a", {"X-A\r\nX-C": "d"}, ""),
        ("GET", "/a", {"": "d"}, ""),
        ("GET", "/a", {"X-A": "é"}, ""),
    ],
)
def test_what_cannot_be_passed_on(
    once: ZimSend, server: Canned, method: str, path: str, headers: dict[str, str], query: str
) -> None:
    with pytest.raises(ValueError, match=r"path and query|URL|HTTP method|header|ascii"):
        once.forward(method, path, headers=headers, query=query)
    assert server.seen == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_passing_on_is_done_once(patient: ZimSend, server: Canned, method: str) -> None:
    server.answers(status(502, b"x"), ok({}))
    assert patient.forward(method, "/x").status == 502
    server.answers(reset, ok({}))
    with pytest.raises(Unavailable) as caught:
        patient.forward(method, "/x")
    assert caught.value.maybe_sent
    assert len(server.seen) == 1


# --- the client itself


@pytest.mark.parametrize(
    "url",
    [
        *("", "api.zimsend.com", "ftp://example.org", "//example.org", "https://", "https:///v1"),
        *(
            "http://[",
            "https://exa mple.org",
            "file:///etc/passwd",
            "https://key@example.org",
            "https://u:p@example.org",
        ),
        *("https://example.org?a=1", "https://example.org/#a", "http://example.org:x"),
    ],
)
def test_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        ZimSend(KEY, ID, base_url=url)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "client_id", "device_id"),
    [
        ("", ID, None),
        (KEY, "", None),
        (KEY, ID, ""),
        ("zs_test_secret\n", ID, None),
        ("zs_test_secret\r\nX: 1", ID, None),
        (KEY, "client_é", None),
        (KEY, ID, "dev\x00"),
        (" zs_test_secret", ID, None),
    ],
)
def test_credentials_that_no_header_can_hold(
    key: str, client_id: str, device_id: str | None
) -> None:
    with pytest.raises(ValueError, match="header") as caught:
        ZimSend(key, client_id, device_id=device_id)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "odd",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"tries": 0},
        {"patience": -1},
    ],
)
def test_bounds_that_make_no_sense(odd: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="timeout"):
        ZimSend(KEY, ID, **odd)


def test_threads_share_a_client(server: Canned) -> None:
    def echo(handler: Handler) -> None:
        ok({"message_id": handler.path.rpartition("/")[2]})(handler)

    server.answers(echo)
    ids = [f"msg_{number}" for number in range(200)]
    # With its tries: once a read met a closed descriptor here (EBADF), for a reason not yet found.
    with (
        ZimSend(KEY, ID, base_url=server.url) as zimsend,
        ThreadPoolExecutor(24) as threads,
    ):
        assert [m.message_id for m in threads.map(zimsend.status, ids)] == ids


def test_connections_are_kept(once: ZimSend, server: Canned) -> None:
    ports = set()

    def note(handler: Handler) -> None:
        ports.add(handler.client_address)
        ok(MESSAGE)(handler)

    server.answers(note)
    for _ in range(10):
        once.status("msg_1")
    assert len(ports) == 1


def test_a_client_that_is_closed(server: Canned) -> None:
    zimsend = ZimSend(KEY, ID, base_url=server.url)
    zimsend.close()
    with pytest.raises(RuntimeError):
        zimsend.stats()


def test_the_package_does_without_http() -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, receiver.providers.zimsend.samples; assert 'httpx' not in sys.modules;"
            "from receiver.providers.zimsend.api import ZimSend; assert 'flask' not in sys.modules",
        ],
        cwd=ROOT,
        check=False,
    )
    assert ran.returncode == 0


# --- whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        *("success", "error", "code", "message", "details", "message_id", "status", "to", "data"),
        *("messages", "message_ids", "batch_id", "pagination", "stats", "by_day", "period"),
        *("delivery_rate", "otp_id", "valid", "webhook_id", "webhooks", "events", "logs"),
        *("sent_at", "timestamp", "metadata", "attempts_remaining", "current_page", "total"),
    ]
)
LIKELY = st.sampled_from([True, False, "msg_1", "2026-11-20T08:15:42Z", 3, {}, [], "INVALID_OTP"])
LIKE_AN_ANSWER = st.recursive(
    LIKELY | JSON,
    lambda inner: st.dictionaries(NAMES, inner, max_size=8) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(sorted(CALLS)), LIKE_AN_ANSWER | JSON, st.sampled_from([200, 202, 400, 503]))
@example("webhooks", {"webhooks": {}, "data": 5}, 200)
@example("verify_otp", {"code": "INVALID_OTP", "error": 5}, 400)
@example("cancel", {"error": " "}, 400)
@example("stats", {"stats": {"delivery_rate": float("inf"), "by_day": 5}}, 200)
def test_any_answer_is_a_result_or_an_error(
    once: ZimSend, canned: Canned, name: str, document: Any, http_status: int
) -> None:
    canned.answers(ok(document, http_status))
    error = None
    try:
        result = CALLS[name][0](once)
    except ZimSendError as raised:
        error = raised
    if error is None:
        assert repr(result)
        assert http_status < 300 or result.valid is False
    else:
        assert error.message
        assert str(error).isprintable()


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_result_or_an_error(once: ZimSend, canned: Canned, data: bytes) -> None:
    for step in (raw(data), status(200, data)):
        canned.answers(step)
        with pytest.raises((NotUnderstood, Unavailable)):
            once.status("msg_1")
