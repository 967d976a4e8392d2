"""A receiver with an account at ZimSend, the calls that it passes on, and ZimSend's answers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from receiver.store import Selection
from tests.canned import Step, ok
from tests.conftest import Clock

KEYS = {"ZIMSEND_API_KEY": "zs_test_real", "ZIMSEND_CLIENT_ID": "client_real"}
HEADERS = {"X-API-Key": "zs_test_real", "X-Client-ID": "client_real"}
PUBLIC = "https://sms.example.com"
HOOK = f"{PUBLIC}/webhooks/zimsend"
NUMBER, TEXT = "+33612345678", "Bonjour 👋, code 1234"
TOKEN = "t0k3n_of_thirty-two_characters__"
#: What SMS.CX is sent through with, beside its URL.
SMSCX = {
    "SMSCX_WEBHOOK_TOKEN": TOKEN,
    "SMSCX_API_KEY": "key_0123456789",
    "SMSCX_FROM": "Boutique",
}
HTML = b"<html><h1>502 Bad Gateway</h1></html>"


class Gateway:
    """A receiver in this process, with an account at that ZimSend."""

    def __init__(self, environ: dict[str, str], clock: Clock) -> None:
        self.clock = clock
        self.app = create_app(environ, clock)
        self.parts = self.app.extensions["receiver"]
        self.parts.store.migrate()
        self.client: FlaskClient = self.app.test_client()

    def call(self, method: str, path: str, **request: Any) -> TestResponse:
        headers = HEADERS | request.pop("headers", {})
        return self.client.open(f"/v1{path}", method=method, headers=headers, **request)

    def send(self, **changes: Any) -> TestResponse:
        return self.call("POST", "/sms/send", json={"to": NUMBER, "message": TEXT} | changes)

    def message(self, message_id: str) -> Any:
        answer = self.call("GET", f"/sms/status/{message_id}")
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    @property
    def events(self) -> list[dict[str, Any]]:
        return list(self.parts.store.events(Selection()))

    def close(self) -> None:
        for sender in self.parts.senders.values():
            sender.client.close()
        self.parts.store.close()


def sent(message_id: str = "msg_1", **more: Any) -> Step:
    answer = {"success": True, "message_id": message_id, "status": "queued", "to": NUMBER}
    return ok(answer | more)


#: Every call: method, path, body, and whether it takes a `webhook_url` (PROVIDER, section 3).
CALLS: dict[str, tuple[str, str, Any, bool]] = {
    "send": ("POST", "/sms/send", {"to": NUMBER, "message": TEXT}, True),
    "send-bulk": ("POST", "/sms/send-bulk", {"recipients": [NUMBER], "message": TEXT}, True),
    "send-bulk-personalized": (
        "POST",
        "/sms/send-bulk-personalized",
        {"messages": [{"to": NUMBER, "message": TEXT}]},
        False,
    ),
    "send-otp": ("POST", "/sms/send-otp", {"to": NUMBER}, False),
    "verify-otp": ("POST", "/sms/verify-otp", {"otp_id": "otp_1", "code": "123456"}, False),
    "resend": ("POST", "/sms/msg_1/resend", None, False),
    "cancel": ("DELETE", "/sms/msg_1", None, False),
}
ALL = pytest.mark.parametrize("name", CALLS)


def problem(response: TestResponse | httpx.Response, code: int, name: str) -> str:
    """The message of an error in ZimSend's shape."""
    assert response.status_code == code
    assert response.headers["Content-Type"] == "application/json"
    body = json.loads(response.text)
    assert body.keys() == {"success", "error"}
    assert body["success"] is False
    assert body["error"].keys() == {"code", "message"}
    assert body["error"]["code"] == name
    message: str = body["error"]["message"]
    return message


MAYBE, SURELY_NOT = "may have been sent", "Nothing was sent"
