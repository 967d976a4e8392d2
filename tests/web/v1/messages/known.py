"""The messages that are asked for, a service that knows them, and how it is asked."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from receiver import status, times
from receiver.times import DAY, HOUR
from tests.conftest import SECRET
from tests.payloads import body_of
from tests.web.v1.openapi import API, DESCRIPTION

KEY = {"X-API-Key": "zs_test_0123"}
CLIENT = {"X-Client-ID": "client_0123"}
BOTH = KEY | CLIENT
CREDENTIALS = {"ZIMSEND_API_KEY": KEY["X-API-Key"], "ZIMSEND_CLIENT_ID": CLIENT["X-Client-ID"]}

STATUS = "/v1/sms/status/{message_id}"
HISTORY = "/v1/sms/history"
STATS = "/v1/sms/stats"

#: The service's clock: 2026-11-20, 11:00. It stands still, so that each run answers the same.
NOW = 20_777 * DAY + 11 * HOUR


def report(kind: str, message_id: str, before: int, **changes: Any) -> bytes:
    """An event with all that ZimSend documents for it.

    :param before: hours before `NOW`.
    """
    time = times.iso(NOW - before * HOUR)
    data = {
        "message_id": message_id,
        "to": "+33612345678",
        "message": "Bonjour, votre code est 1234",
        "device_id": "dev_1",
        "metadata": {"order": 17, "tags": ["a", "b"]},
        "priority": 3,
        f"{status.STATE_OF_TYPE[kind]}_at": time,
    }
    return body_of(kind, data | changes, timestamp=time)


#: What is reported of a message, and how many hours before `NOW` it happened.
STORIES: dict[str, dict[str, int]] = {
    "queued": {"sms.queued": 4},
    "processing": {"sms.queued": 4, "sms.processing": 3},
    "sent": {"sms.queued": 4, "sms.sent": 2},
    "delivered": {"sms.queued": 4, "sms.sent": 2, "sms.delivered": 1},
    "failed": {"sms.queued": 4, "sms.failed": 1},
    "expired": {"sms.queued": 4, "sms.expired": 1},
    "cancelled": {"sms.queued": 4, "sms.cancelled": 1},
    "resent": {"sms.sent": 4, "sms.failed": 3, "sms.queued": 2},
}
DAYS = 4
REASON = {"code": "NO_CREDIT", "message": "No credit left"}
STORY_MESSAGES = {
    f"msg_{story}_{day}": {"expired": "failed", "resent": "queued"}.get(story, story)
    for story in STORIES
    for day in range(DAYS)
}

#: What a signed body may hold as well; each is a message that was sent.
ODD: dict[str, dict[str, Any]] = {
    "emoji": {"message": "👋🏽 👨‍👩‍👧", "metadata": {"👋": ["🏽"]}},
    "NUL": {"message": "a\0b", "metadata": {"\0": "\0"}, "device_id": "dev\0"},
    "half of a surrogate pair": {"message": "\ud83d", "metadata": {"\udc4b": "\ud83d"}},
    "right to left": {"message": "שלום \u202eמרחבא", "to": "\u200f+33612345678"},
    "long": {"message": "x" * 10_000, "metadata": {"x" * 1_000: ["x"] * 1_000}},
    "empty": {"message": "", "metadata": {}, "to": "", "device_id": ""},
    "markup": {"message": "<b>\"';--%_\\", "to": "ZimSend"},
    "huge numbers": {"metadata": {"n": [10**400, 1e308, -0.0]}, "priority": 10**400},
    "a word": {"priority": "high"},
    "wrong types": {
        "to": 33612345678.5,
        "message": ["a"],
        "device_id": {},
        "metadata": "a",
        "priority": 1.5,
        "sent_at": 5,
    },
    "all null": dict.fromkeys(("to", "message", "device_id", "metadata", "priority")),
}
ODD_IDS = (
    "with/slash",
    "with space",
    "+?#&%25",
    "é👋",
    "tab\t",
    "x" * 300,
    "slash/",
    "/leading",
    "line\nbreak",
)
#: Failures, by the forms in which the reason comes; and the reason.
REASONS: dict[str, tuple[Any, dict[str, str | None] | None]] = {
    "object": (REASON, REASON),
    "code": ("NO_CREDIT", {"code": "NO_CREDIT", "message": None}),
    "text": ("no credit left", {"code": None, "message": "no credit left"}),
    "printed object": ('{"code": "NO_CREDIT"}', {"code": "NO_CREDIT", "message": None}),
    "none": (None, None),
    "odd": ({"code": 5, "message": "\ud83d\0"}, {"code": "5", "message": "\ufffd\0"}),
}
#: Nothing in it tells when: `sms.sent` without any time, and with nothing but an id.
TIMELESS, BARE = "msg_timeless", "msg_bare"
#: The one that the description shows.
EXAMPLE = "msg_7f3k2"


def reports() -> list[bytes]:
    bodies = [
        report(
            kind,
            f"msg_{story}_{day}",
            day * 24 + hours,
            device_id=f"dev_{day % 2 + 1}",
            **({"error": REASON} if kind == "sms.failed" else {}),
        )
        for story, events in STORIES.items()
        for day in range(DAYS)
        for kind, hours in events.items()
    ]
    bodies += [report("sms.sent", f"msg_{name}", 5, **changes) for name, changes in ODD.items()]
    bodies += [report("sms.sent", message_id, 5) for message_id in (*ODD_IDS, EXAMPLE)]
    bodies += [
        report("sms.failed", f"msg_reason_{form}", 5, error=error)
        for form, (error, _) in REASONS.items()
    ]
    bodies.append(body_of("sms.sent", {"message_id": TIMELESS, "message": "Bonjour"}))
    bodies.append(body_of("sms.sent", {"message_id": BARE}))
    return bodies


MESSAGES = (
    *STORY_MESSAGES,
    *(f"msg_{name}" for name in ODD),
    *ODD_IDS,
    EXAMPLE,
    *(f"msg_reason_{form}" for form in REASONS),
    TIMELESS,
    BARE,
)


def start(database_url: str, **environ: str) -> Flask:
    return create_app(
        {
            "ZIMSEND_WEBHOOK_SECRET": SECRET,
            "DATABASE_URL": database_url,
            "HANDLERS": "tests.handlers",
            "ZIMSEND_API_URL": "http://127.0.0.1:9/v1",  # nobody is there
            **environ,
        },
        lambda: NOW,
    )


def get(client: FlaskClient, path: str, message_id: str = "", **query: Any) -> Any:
    """What is answered to the holder of the right headers, held to the description."""
    url = path.replace("{message_id}", quote(message_id, safe=""))
    response = client.get(url, query_string=query or None, headers=BOTH)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    API[path.partition("?")[0]]["GET"].validate_response(response)
    return response.get_json()


def refusal(response: TestResponse, code: int, name: str, path: str | None = None) -> str:
    """The message of an error that has ZimSend's shape and that the description knows."""
    assert response.status_code == code
    assert response.content_type == "application/json"
    body = response.get_json()
    assert body.keys() == {"success", "error"}
    assert body["success"] is False
    assert body["error"].keys() == {"code", "message"}
    assert body["error"]["code"] == name
    message: str = body["error"]["message"]
    assert message
    if path is not None:
        assert str(code) in DESCRIPTION["paths"][path]["get"]["responses"]
        API[path]["GET"].validate_response(response)
    return message
