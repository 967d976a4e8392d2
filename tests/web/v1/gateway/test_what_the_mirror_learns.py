"""What the mirror learns from the calls that go on to ZimSend."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from receiver.errors import StoreUnavailable
from receiver.providers.zimsend import webhook
from receiver.times import MINUTE, SECOND, iso
from tests.canned import Canned, ok
from tests.conftest import SECRET, Clock
from tests.payloads import envelope, sms
from tests.web.v1.gateway.asking import CALLS, NUMBER, TEXT, Gateway, sent

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
