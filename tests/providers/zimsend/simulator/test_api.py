"""The API's calls about messages, one-time codes and webhooks, as they are documented."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any

import pytest

from receiver.providers.zimsend.samples import SAMPLES
from receiver.providers.zimsend.simulator.world import (
    REPORTS,
    Weather,
)
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from tests.providers.zimsend.simulator.asking import Api, is_time, shape
from tests.providers.zimsend.simulator.worlds import BEGAN, HOOK, NUMBER, only

# --- the API, without a network


def test_send(api: Api) -> None:
    answer = api("POST", "/sms/send", {"to": NUMBER, "message": "Bonjour"})
    assert shape(answer) == {
        "success": bool,
        "message_id": str,
        "status": str,
        "to": str,
        "queued_at": str,
        "estimated_delivery": str,
    }
    assert (answer["success"], answer["status"], answer["to"]) == (True, "queued", NUMBER)
    assert is_time(answer["queued_at"])
    assert is_time(answer["estimated_delivery"])
    assert only(api.world).id == answer["message_id"]


def test_send_with_everything(api: Api) -> None:
    at = iso(BEGAN + HOUR)
    api.send(
        priority=1,
        webhook_url="https://example.org/hook",
        metadata={"order": 1},
        scheduled_at=at,
        retry_attempts=5,
    )
    message = only(api.world)
    assert (message.priority, message.metadata) == (1, {"order": 1})
    assert (message.webhook_url, message.starts_at) == ("https://example.org/hook", BEGAN + HOUR)


@pytest.mark.parametrize("priority", [1, 2, 3, 4, 5, "low", "normal", "high"])
def test_each_documented_priority(api: Api, priority: Any) -> None:
    api.send(priority=priority)
    assert only(api.world).priority == priority


def test_with_a_device_and_with_any(api: Api) -> None:
    body = {"to": NUMBER, "message": "Bonjour"}
    for _ in range(2):
        api("POST", "/sms/send", body, X_Device_ID="dev_1")
    for _ in range(2):
        api("POST", "/sms/send", body)
    assert [m.device_id for m in api.world.messages.values()] == ["dev_1"] * 2 + ["dev_2"] * 2
    assert api.refused("POST", "/sms/send", body, status=404, X_Device_ID="dev_3") == (
        "INVALID_DEVICE_ID"
    )


BULK = {
    "success": bool,
    "batch_id": str,
    "total_recipients": int,
    "messages": [{"message_id": str, "to": str, "status": str}],
    "queued_at": str,
}


def test_send_bulk(api: Api) -> None:
    recipients = [f"+3361234{n:04}" for n in range(100)]
    answer = api("POST", "/sms/send-bulk", {"recipients": recipients, "message": "Bonjour"})
    assert shape(answer) == BULK
    assert answer["total_recipients"] == 100
    assert [m["to"] for m in answer["messages"]] == recipients
    assert [m["message_id"] for m in answer["messages"]] == list(api.world.messages)
    again = api("POST", "/sms/send-bulk", {"recipients": [NUMBER], "message": "Bonjour"})
    assert again["batch_id"] != answer["batch_id"]


def test_send_bulk_personalized(api: Api) -> None:
    messages = [
        {"to": NUMBER, "message": "un", "metadata": {"n": 1}},
        {"to": "+33600000002", "message": "deux"},
    ]
    answer = api("POST", "/sms/send-bulk-personalized", {"messages": messages, "priority": 1})
    assert shape(answer) == BULK
    told = [(m.to, m.text, m.metadata, m.priority) for m in api.world.messages.values()]
    assert told == [(NUMBER, "un", {"n": 1}, 1), ("+33600000002", "deux", None, 1)]


@pytest.mark.parametrize(
    "bad",
    [
        {"to": "x", "message": "trois"},
        {"to": NUMBER, "message": 3},
        {"to": NUMBER, "message": "trois", "priority": 9},
        {"to": NUMBER, "message": "trois", "webhook_url": "x"},
        {"to": NUMBER, "message": "trois", "scheduled_at": "x"},
        {"to": NUMBER, "message": "trois", "metadata": 3},
        "trois",
        None,
    ],
)
def test_of_a_bad_batch_nothing_is_queued(api: Api, bad: Any) -> None:
    messages = [{"to": NUMBER, "message": "un"}, bad]
    api.refused("POST", "/sms/send-bulk-personalized", {"messages": messages})
    assert not api.world.messages


def test_too_many_recipients(api: Api) -> None:
    body = {"recipients": [NUMBER] * 101, "message": "Bonjour"}
    assert api.refused("POST", "/sms/send-bulk", body) == "TOO_MANY_RECIPIENTS"
    messages = {"messages": [{"to": NUMBER, "message": "x"}] * 101}
    assert api.refused("POST", "/sms/send-bulk-personalized", messages) == "TOO_MANY_RECIPIENTS"
    assert not api.world.messages


def test_status(api: Api) -> None:
    message_id = api.send(metadata={"order": 1})
    api.wait(HOUR)
    answer = api("GET", f"/sms/status/{message_id}")
    names = ("message_id", "status", "to", "message", "created_at", "queued_at")
    assert shape(answer) == {
        "success": bool,
        "priority": int,
        "sent_at": str,
        "delivered_at": str,
        "metadata": {"order": int},
        **dict.fromkeys(names, str),
    }
    message = only(api.world)
    assert answer["status"] == "delivered"
    assert message.sent_at is not None
    assert answer["sent_at"] == iso(message.sent_at)
    assert api.refused("GET", "/sms/status/msg_x", status=404) == "MESSAGE_NOT_FOUND"


def test_history(api: Api) -> None:
    ids = []
    for n in range(5):
        ids.append(api.send(message=f"Été {n}", to=f"+3361234000{n}"))
        api.wait(DAY)
    api.send(message="pending", scheduled_at=iso(BEGAN + 20 * DAY))
    answer = api("GET", "/sms/history?limit=2&page=3")
    assert shape(answer) == {
        "success": bool,
        "data": [
            {
                "message_id": str,
                "status": str,
                "to": str,
                "message": str,
                "sent_at": str,
                "delivered_at": str,
            }
        ],
        "pagination": {
            "current_page": int,
            "per_page": int,
            "total_pages": int,
            "total_items": int,
        },
    }
    assert answer["pagination"] == {
        "current_page": 3,
        "per_page": 2,
        "total_pages": 3,
        "total_items": 6,
    }
    assert [row["message_id"] for row in answer["data"]] == [ids[1], ids[0]]  # newest first

    def found(query: str) -> set[str]:
        return {row["message"] for row in api("GET", f"/sms/history?{query}")["data"]}

    assert found("status=queued") == {"pending"}
    assert found("to=%2B33612340003") == {"Été 3"}
    assert found("search=ÉTÉ 2") == {"Été 2"}
    assert found("device_id=dev_9") == set()
    second = iso(BEGAN + DAY)[:10]
    assert found(f"from_date={second}&to_date={second}") == {"Été 1"}
    assert found(f"to_date={iso(BEGAN + DAY)}") == {"Été 0"}
    assert found("from_date=&to_date=&status=&page=&limit=&search=&to=&device_id=") == {
        "pending",
        *(f"Été {n}" for n in range(5)),
    }
    assert found("limit=1000&page=999999999999999") == set()
    assert api("GET", "/sms/history?limit=1000")["pagination"]["per_page"] == 100


def test_statistics(api: Api) -> None:
    api.send()
    api.wait(MINUTE)
    api.world.weather = Weather(failed=1)
    api.send()
    api.wait(MINUTE)
    api.send(scheduled_at=iso(BEGAN + DAY))
    answer = api("GET", "/sms/stats?from_date=2020-01-01")
    assert shape(answer) == {
        "success": bool,
        "period": {"from": str, "to": type(None)},
        "stats": {
            "total_sent": int,
            "delivered": int,
            "failed": int,
            "pending": int,
            "delivery_rate": float,
            "by_day": [{"date": str, "sent": int, "delivered": int, "failed": int}],
        },
    }
    assert answer["stats"] == {
        "total_sent": 2,
        "delivered": 1,
        "failed": 1,
        "pending": 1,
        "delivery_rate": 50.0,
        "by_day": [{"date": iso(BEGAN)[:10], "sent": 2, "delivered": 1, "failed": 1}],
    }
    empty = api("GET", f"/sms/stats?to_date={iso(BEGAN - DAY)}")["stats"]
    assert (empty["total_sent"], empty["pending"], empty["by_day"]) == (0, 0, [])


def test_cancel(api: Api) -> None:
    ids = [api.send() for _ in range(3)]
    answer = api("DELETE", f"/sms/{ids[2]}")
    assert shape(answer) == dict(zip(answer, (bool, str, str, str), strict=True))
    assert set(answer) == {"success", "message", "message_id", "status"}
    assert (answer["message_id"], answer["status"]) == (ids[2], "cancelled")
    assert api.refused("DELETE", f"/sms/{ids[2]}") == "CANNOT_CANCEL_MESSAGE"
    assert api.refused("DELETE", f"/sms/{ids[0]}") == "CANNOT_CANCEL_MESSAGE"  # processing
    assert api.refused("DELETE", "/sms/msg_x", status=404) == "MESSAGE_NOT_FOUND"


def test_resend(api: Api) -> None:
    api.world.weather = Weather(failed=1)
    message_id = api.send()
    assert api.refused("POST", f"/sms/{message_id}/resend") == "CANNOT_RESEND_MESSAGE"
    api.wait(MINUTE)
    answer = api("POST", f"/sms/{message_id}/resend", status=202)
    assert answer == {"success": True, "message_id": message_id, "status": "queued"}
    assert api.refused("POST", "/sms/msg_x/resend", status=404) == "MESSAGE_NOT_FOUND"


# --- one-time codes


def test_a_one_time_code(api: Api) -> None:
    asked = {"to": NUMBER, "length": 8, "expiry": 60, "template": "{{code}} est votre code"}
    answer = api("POST", "/sms/send-otp", asked)
    names = ("otp_id", "to", "expires_at", "message_id", "status")
    assert shape(answer) == {"success": bool, **dict.fromkeys(names, str)}
    assert answer["expires_at"] == iso(BEGAN + MINUTE)
    found = re.fullmatch(r"(\d{8}) est votre code", only(api.world).text)
    assert found
    verified = api("POST", "/sms/verify-otp", {"otp_id": answer["otp_id"], "code": found[1]})
    assert shape(verified) == {
        "success": bool,
        "valid": bool,
        "message": str,
        "attempts_remaining": int,
    }
    assert verified["valid"] is True
    api("POST", "/sms/send-otp", {"to": NUMBER})
    assert re.search(r"\b\d{6}\b", list(api.world.messages.values())[1].text)


def test_three_tries_at_a_code(api: Api) -> None:
    otp_id = api("POST", "/sms/send-otp", {"to": NUMBER})["otp_id"]
    wrong = {"otp_id": otp_id, "code": "x"}
    answers = [api("POST", "/sms/verify-otp", wrong) for _ in range(3)]
    assert [(a["valid"], a["attempts_remaining"]) for a in answers] == [
        (False, 2),
        (False, 1),
        (False, 0),
    ]
    assert api.refused("POST", "/sms/verify-otp", wrong, status=429) == "OTP_MAX_ATTEMPTS"


def test_codes_expire_and_are_limited(api: Api) -> None:
    asked = {"to": NUMBER, "expiry": 60}
    otp_id = api("POST", "/sms/send-otp", asked)["otp_id"]
    check = {"otp_id": otp_id, "code": "x"}
    api.wait(MINUTE)
    api("POST", "/sms/verify-otp", check)
    api.wait(1)
    assert api.refused("POST", "/sms/verify-otp", check) == "OTP_EXPIRED"
    unknown = {"otp_id": "otp_x", "code": "x"}
    assert api.refused("POST", "/sms/verify-otp", unknown, status=404) == "OTP_NOT_FOUND"

    for _ in range(9):
        api("POST", "/sms/send-otp", {"to": "+33 6 12 34 56 78"})
    assert api.refused("POST", "/sms/send-otp", asked, status=429) == "OTP_RATE_LIMIT"
    assert len(api.world.messages) == 10
    api("POST", "/sms/send-otp", {"to": "+33600000001"})
    api.wait(HOUR)
    api("POST", "/sms/send-otp", asked)


# --- webhooks by the API

WEBHOOK = {"webhook_id": str, "url": str, "events": [str], "status": str}


def test_webhooks_are_configured_listed_and_deleted(api: Api) -> None:
    asked = {"url": "https://example.org/hook", "events": ["sms.failed"], "secret": "my secret"}
    mine = api("POST", "/webhooks/configure", asked)
    assert shape(mine) == {**WEBHOOK, "secret": str}
    assert mine["secret"] == "my secret"
    made = api("POST", "/webhooks/configure", {"url": "https://example.org/other"})
    assert re.fullmatch(r"whsec_[0-9a-f]{32}", made["secret"])
    assert made["events"] == list(REPORTS)

    listed = api("GET", "/webhooks")["webhooks"]
    assert shape(listed) == [WEBHOOK]  # and no secret
    assert [w["webhook_id"] for w in listed] == ["wh_1", mine["webhook_id"], made["webhook_id"]]
    assert api("DELETE", f"/webhooks/{mine['webhook_id']}", status=204) is None
    gone = api.refused("DELETE", f"/webhooks/{mine['webhook_id']}", status=404)
    assert gone == "WEBHOOK_NOT_FOUND"
    another = api("POST", "/webhooks/configure", asked)
    assert another["webhook_id"] not in {w["webhook_id"] for w in listed}
    assert len(api("GET", "/webhooks")["webhooks"]) == 3


def test_a_test_event(api: Api) -> None:
    asked = {"url": "https://example.org/hook", "events": ["sms.failed"], "secret": "my secret"}
    webhook_id = api("POST", "/webhooks/configure", asked)["webhook_id"]
    before = api.world.truth()
    answer = api("POST", f"/webhooks/{webhook_id}/test")
    assert answer == {"message": "Test event sent", "response_status": 200}
    api.simulated.answer = "no answer in time"
    assert api("POST", f"/webhooks/{webhook_id}/test")["response_status"] is None
    first, second = api.simulated.sent
    body = json.loads(first.event.body)
    assert (first.event.url, body["event"]) == (asked["url"], "sms.failed")
    assert body["event_id"].startswith("evt_test")
    assert body["data"]["message_id"].startswith("msg_test")
    assert body["event_id"] != json.loads(second.event.body)["event_id"]
    expected = hmac.new(b"my secret", first.event.body, hashlib.sha256).hexdigest()
    assert first.headers["X-Webhook-Signature"] == expected
    assert api.world.truth() == before
    assert api.world.at_rest  # a test that fails is not tried again
    assert api.refused("POST", "/webhooks/wh_9/test", status=404) == "WEBHOOK_NOT_FOUND"


@pytest.mark.parametrize("event_type", SAMPLES)
def test_a_test_event_of_each_type(api: Api, event_type: str) -> None:
    asked = {"url": "https://example.org/hook", "events": [event_type]}
    webhook_id = api("POST", "/webhooks/configure", asked)["webhook_id"]
    api("POST", f"/webhooks/{webhook_id}/test")
    assert json.loads(api.simulated.sent[0].event.body)["event"] == event_type


def test_the_log_of_the_webhooks(api: Api) -> None:
    api.world.weather = Weather(failed=1, drop=1)
    api.send()
    api.wait(3 * SECOND)
    api.world.weather = Weather(failed=1, lost_answers=1)
    api.wait(MINUTE)
    api.world.weather = Weather(failed=1)
    api.wait(4 * MINUTE)
    api.send(webhook_url="https://example.org/mine")
    api.wait(MINUTE)
    api("POST", "/webhooks/wh_1/test")
    logs = api("GET", "/webhooks/logs")["logs"]
    assert [shape(line) for line in logs[:1]] == [
        {
            "log_id": str,
            "webhook_id": str,
            "event": str,
            "url": str,
            "response_status": int,
            "response_time_ms": int,
            "success": bool,
            "attempt": int,
            "timestamp": str,
        }
    ]
    told = ("webhook_id", "event", "url", "response_status", "success", "attempt")
    assert [tuple(line[name] for name in told) for line in logs] == [
        ("wh_1", "sms.sent", HOOK, 200, True, 1),
        (None, "sms.failed", "https://example.org/mine", 200, True, 1),
        ("wh_1", "sms.failed", HOOK, 200, True, 3),
        ("wh_1", "sms.failed", HOOK, None, False, 2),
        ("wh_1", "sms.failed", HOOK, None, False, 1),
    ]
    assert len({line["log_id"] for line in logs}) == 5
    tries = api.world.events[0].tries
    assert [line["timestamp"] for line in logs[:1:-1]] == [iso(attempt.at) for attempt in tries]
    assert api("GET", "/webhooks/logs?limit=2&page=2")["logs"] == logs[2:4]
    assert api("GET", "/webhooks/logs?page=9")["logs"] == []
    assert api.refused("GET", "/webhooks/logs?page=abc") == "INVALID_PARAMETER"
