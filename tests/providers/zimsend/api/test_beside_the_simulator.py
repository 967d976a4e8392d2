"""The client of ZimSend's API beside the simulator: what is sent, and what is made of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.api.errors import (
    CredentialsRefused,
    NotFound,
    NotPossible,
    RequestRefused,
    TryLater,
    ZimSendError,
)
from receiver.providers.zimsend.simulator import api as simulator
from receiver.providers.zimsend.simulator.running import Simulator
from receiver.providers.zimsend.simulator.world import Weather, World
from receiver.times import DAY, HOUR, SECOND, iso, to_datetime
from tests.canned import Canned, ok, status
from tests.providers.zimsend.api.calls import ID, KEY, NUMBER, Naps
from tests.server import eventually, free_port

BEGAN = 20_000 * DAY + 9 * HOUR


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
    monkeypatch.setattr("receiver.providers.zimsend.simulator.running.RATE_LIMIT", 0)
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
