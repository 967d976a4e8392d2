"""The client beside a simulated SMS.CX, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from receiver import times
from receiver.providers.errors import (
    CredentialsRefused,
    NotFound,
    NotPossible,
    RequestRefused,
    TryLater,
)
from receiver.providers.smscx import sending, sent
from receiver.providers.smscx.api import SmsCx
from receiver.providers.smscx.simulator import running
from receiver.providers.smscx.simulator.api import serve
from receiver.providers.smscx.simulator.running import Simulator
from receiver.providers.smscx.simulator.world import World
from receiver.providers.smscx.webhook import parse
from tests.providers.smscx.api.calls import KEY, NUMBER, UUID
from tests.providers.smscx.simulator.mirror import RETENTION, Mirror
from tests.server import eventually, free_port


class Here:
    def __init__(self) -> None:
        self.port = free_port()
        self.world = World(began=times.now(), seed=7)
        self.simulator = Simulator(self.world, speed=20, api_key=KEY)
        self.close = serve(self.simulator, "127.0.0.1", self.port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = SmsCx(KEY, sender="Boutique", base_url=self.url, sleep=lambda _: None)

    def truth(self) -> Any:
        return httpx.get(f"{self.url}/truth", trust_env=False).json()


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    here = Here()
    yield here
    here.client.close()
    here.close()


def test_from_a_request_to_its_end(here: Here) -> None:
    """Each recipient has its own result, callbacks come in batches, reports tell the same."""
    mirror, got = Mirror(), []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    hook = HTTPServer(("127.0.0.1", 0), Hook)
    thread = Thread(target=hook.serve_forever, args=(0.02,))
    thread.start()
    numbers = [NUMBER, "+33600000000", "06", "+9912345678", "+33612345679"]
    wanted = sending.many({"recipients": numbers, "message": "Bonjour", "metadata": {"a": 1}})
    (batch,) = sending.batches(w for w in wanted if isinstance(w, sending.Wanted))
    told = sending.arguments(
        batch,
        webhook_url=f"http://127.0.0.1:{hook.server_port}/",
        track_data=UUID,
        idempotency_id=UUID,
    )
    ends = sent.ends(batch, here.client.send(**told))
    answer = sent.answer_to_many(wanted, ends, times.now())
    codes = [row.get("error", {}).get("code") for row in answer["messages"]]
    assert codes == [None, "BLOCKED_NUMBER", "INVALID_PHONE_NUMBER", "NO_COVERAGE", None]
    now = here.simulator.now()
    mirror.take(sent.events(ends, now=now, retention=RETENTION, text_mode="full"))
    assert len(mirror.rows) == 4
    eventually(lambda: here.truth()["at_rest"])
    hook.shutdown()
    hook.server_close()
    thread.join()
    items = [item for body in got for item in json.loads(body)["data"]]
    assert {item["trackData"] for item in items} == {UUID}
    for body in got:
        mirror.take(parse(body, received_at=here.simulator.now(), retention=RETENTION))
    states = {message.id: message for message in here.world.messages.values()}
    for end in ends:
        assert end.message is not None
        report = here.client.report(end.message.msg_id)
        assert report.status == states[report.msg_id].status
    campaign = here.client.campaign_reports(states[report.msg_id].campaign_id)
    assert len(campaign.messages) == 4


def test_pages_show_every_row_once_while_more_are_sent(here: Here) -> None:
    here.client.send([f"+3361{n:07}" for n in range(25)], "x")
    day = times.iso(here.world.began)[:10]
    seen = []
    for page in here.client.report_pages(
        start_date=day, end_date="2099-01-01", limit=10, channel="sms"
    ):
        seen += [message.msg_id for message in page.messages]
        here.client.send(NUMBER, "meanwhile")
    assert len(seen) == len(set(seen))
    assert len(seen) >= 25
    failed = here.client.reports(period=day[:4], delivery_report="failed")
    assert all(message.status == "FAILED" for message in failed.messages)


def test_a_scheduled_message_is_taken_back_once(here: Here) -> None:
    later = times.to_datetime(here.simulator.now() + times.DAY)
    (message,) = here.client.send(NUMBER, "x", scheduled_at=later).messages
    assert message.status == "SCHEDULED"
    assert message.scheduled_at == later.replace(microsecond=0)
    assert here.client.delete_scheduled(message.msg_id)["msgId"] == message.msg_id
    with pytest.raises(NotFound):
        here.client.delete_scheduled(message.msg_id)
    with pytest.raises(NotFound):
        here.client.report(message.msg_id)
    (gone,) = here.client.send(NUMBER, "x").messages
    with pytest.raises(NotPossible):
        here.client.delete_scheduled(gone.msg_id)
    here.world.groups[3] = [NUMBER, "+33612345679"]
    campaign = here.client.send_campaign([3], "x", scheduled_at=later)
    assert campaign.campaign_id is not None
    told = here.client.delete_scheduled_campaign(campaign.campaign_id)
    assert told["phoneNumbersDeleted"] == 2


def test_one_time_codes(here: Here) -> None:
    asked = sending.otp_arguments({"to": NUMBER, "length": 4}, track_id=UUID)
    otp = here.client.new_otp(**asked)
    pin = here.world.codes[otp.otp_id].pin
    assert (len(pin), otp.track_id) == (4, UUID)
    assert here.client.verify_otp(otp.otp_id, "x") is False
    assert here.client.otp(otp.otp_id).attempts == 1
    assert here.client.verify_otp(otp.otp_id, pin) is True
    with pytest.raises(NotPossible) as caught:
        here.client.verify_otp(otp.otp_id, pin)
    assert sent.not_taken(caught.value).code == "OTP_EXPIRED"
    other = here.client.new_otp(NUMBER)
    here.client.cancel_otp(other.otp_id)
    with pytest.raises(NotPossible):
        here.client.verify_otp(other.otp_id, "x")
    with pytest.raises(NotFound):
        here.client.otp("nobody")
    third = here.client.new_otp(NUMBER, max_attempts=1)
    assert here.client.verify_otp(third.otp_id, "x") is False
    with pytest.raises(NotPossible) as caught:
        here.client.verify_otp(third.otp_id, "x")
    assert sent.not_taken(caught.value).code == "OTP_MAX_ATTEMPTS"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"to": "06"}, "1104"),
        ({"to": [NUMBER, "06"]}, "1104"),
        ({"text": ""}, "1107"),
        ({"text": "{{nobody}}"}, "1136"),
        ({"sender": "ab"}, "1105"),
        ({"scheduled_at": "2001-01-01 00:00:00"}, "1116"),
        ({"scheduled_at": "soon"}, "1108"),
        ({"dlr_callback_url": "nowhere"}, "1109"),
    ],
)
def test_what_it_refuses(here: Here, how: dict[str, Any], code: str) -> None:
    before = len(here.world.messages)
    asked = {"to": NUMBER, "text": "x", **how}
    with pytest.raises(RequestRefused) as caught:
        here.client.send(**asked)
    assert caught.value.code == code
    assert len(here.world.messages) == before


def test_its_template_is_why_braces_are_refused(here: Here) -> None:
    (message,) = here.client.send(NUMBER, "On {{today}}").messages
    assert message.text is not None
    assert "{{" not in message.text


def test_who_is_let_in_and_how_often(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    with SmsCx("another", base_url=here.url) as stranger, pytest.raises(CredentialsRefused):
        stranger.otp("x")
    here.world.credit = 1
    with pytest.raises(TryLater) as caught:
        here.client.send([NUMBER, "+33612345679"], "x")
    assert sent.not_taken(caught.value).code == "NO_CREDIT"
    here.world.credit = None
    monkeypatch.setattr(running, "RATE_LIMIT", 0)
    with SmsCx(KEY, base_url=here.url, tries=1) as client:
        with pytest.raises(TryLater) as caught:
            client.otp("x")
        assert caught.value.retry_after is not None
        assert 0 <= caught.value.retry_after <= 5  # a minute of the world's
