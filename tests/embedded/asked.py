"""What is asked of the service alone and inside a Django project, and what must be the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from app import create_app
from receiver.parts import parts
from receiver.providers.zimsend.webhook import sign
from receiver.service import close
from tests.conftest import SECRET
from tests.embedded.djangos import Answer, Ask, over_wsgi
from tests.payloads import envelope, sms

PREFIX = "/sms"
KEY = {"x_api_key": "a key of the shop's"}
TOKEN = {"authorization": "Bearer a-token-of-32-characters-or-more"}
SAME_ORIGIN = {"sec_fetch_site": "same-origin"}
FORMS = {"content_type": "application/x-www-form-urlencoded"}
FILES = {"content_type": "multipart/form-data; boundary=x"}


def signed(body: bytes, **headers: str) -> dict[str, str]:
    return {
        "content_type": "application/json",
        "x_webhook_signature": sign(SECRET.encode(), body),
        **headers,
    }


def event(message_id: str = "m1", kind: str = "failed", **more: Any) -> bytes:
    return json.dumps(envelope(f"sms.{kind}", sms(kind, message_id), **more)).encode()


FAILED = event("m1", event_id="evt_1")
ODD = event("a/b", event_id="evt_2")
FORM = b"otp=1%2C2&x=\xff"

#: What is asked in this order, once alone and once inside.
ASKED: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("GET", "/webhooks/zimsend", b"", {}),
    ("HEAD", "/webhooks/zimsend", b"", {}),
    ("PUT", "/webhooks/zimsend", b"", {}),
    ("POST", "/webhooks/zimsend", FAILED, signed(FAILED)),
    ("POST", "/webhooks/zimsend", FAILED, signed(FAILED)),
    ("POST", "//webhooks//zimsend/", ODD, signed(ODD)),
    ("POST", "/webhooks/zimsend", FAILED + b" ", signed(FAILED)),
    ("POST", "/webhooks/zimsend", FORM, signed(FORM, **FORMS)),
    ("POST", "/webhooks/zimsend", b"--x--", signed(b"--x--", **FILES)),
    ("POST", "/webhooks/zimsend", b"{}", {}),
    ("POST", "/webhooks/zimsend", b"x" * 300_000, {}),
    ("POST", "/webhooks/zimsend", b"", {}),
    ("POST", "/webhooks/nobody", b"{}", {}),
    ("GET", "/v1/sms/history", b"", {}),
    ("GET", "/v1/sms/history?limit=1&status=failed", b"", KEY),
    ("HEAD", "/v1/sms/history", b"", KEY),
    ("GET", "/v1//sms/stats/", b"", KEY),
    ("GET", "/v1/sms/status/m1", b"", KEY),
    ("GET", "/v1/sms/status/a%2Fb", b"", KEY),
    ("GET", "/v1/sms/status/a/b", b"", KEY),
    ("GET", "/v1/sms/status/a//b", b"", KEY),
    ("GET", "/v1/sms/status/%FF", b"", KEY),
    ("GET", "/v1/sms/status/%25FF", b"", KEY),
    ("GET", "/v1/sms/status/%EF%BF%BD%C3%A9", b"", KEY),
    ("GET", "/v1/sms/status/x%0Ay", b"", KEY),
    ("GET", "/v1/sms/status/x?y%26=%FF", b"", KEY),
    ("POST", "/v1/sms/send", b'{"to": 1}', KEY),
    ("POST", "/v1/sms/send", b"not json" * 200_000, KEY),
    ("DELETE", "/v1/sms/none", b"", KEY),
    ("GET", "/v1/nothing", b"", KEY),
    ("GET", "/v1/nothing", b"", {}),
    ("GET", "/v1/reconciliation", b"", KEY),
    ("GET", "/healthz", b"", {}),
    ("GET", "/readyz", b"", {}),
    ("HEAD", "/readyz/", b"", {}),
    ("GET", "/metrics", b"", {}),
    ("GET", "/metrics", b"", TOKEN),
    ("GET", "/nothing", b"", {}),
    ("GET", "/", b"", {}),
    ("GET", "/messages?status=failed", b"", {}),
    ("GET", "/sign-in", b"", {}),
    ("GET", "/sign-in?lang=fr", b"", {}),
    ("POST", "/sign-in", b"password=wrong", SAME_ORIGIN | FORMS),
    ("POST", "/sign-in", b"password=wrong", {"sec_fetch_site": "cross-site"}),
    ("OPTIONS", "/sign-in", b"", {}),
    ("GET", "/assets/none.css", b"", {}),
]  # fmt: skip


OF_THE_HOST = ("x-frame-options", "referrer-policy")


def plain(answer: Answer, prefix: str) -> dict[str, Any]:
    """What must be the same, whatever the prefix is, and at whatever time it was asked."""

    def bare(text: str) -> str:
        text = text.replace(f"{prefix}/", "/") if prefix else text
        text = re.sub(r'value="[\w.-]{20,}"', "value=…", text)  # a form's token
        return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "…", text)

    kept = ("content-type", "retry-after", "allow", "www-authenticate", "location", "cache-control",
            "content-security-policy", *OF_THE_HOST)  # fmt: skip
    return {
        "status": answer.status,
        **{name: [bare(value) for value in answer.all(name)] for name in kept},
        "cookies": sorted(attributes(bare(cookie)) for cookie in answer.all("set-cookie")),
        "body": bare(answer.body.decode("utf-8", "replace")),
    }


def attributes(cookie: str) -> list[str]:
    """A cookie's name, and what is said of it."""
    name, *rest = re.sub(r"=[^;]*", "", cookie, count=1).strip().split("; ")
    return [name, *sorted(re.sub(r"expires=.*", "expires", part.lower()) for part in rest)]


@contextmanager
def alone(settings: dict[str, Any]) -> Iterator[Ask]:
    """The service with these settings, and without Django."""
    app = create_app({**settings, "HANDLERS": ",".join(settings["HANDLERS"])})
    parts(app).store.migrate()
    yield partial(over_wsgi, app)
    close(app)


def compare(embedded: Ask, alone: Ask) -> None:
    """Ask both in the same order; what they answer must be the same, but for the prefix."""
    for method, target, body, headers in ASKED:
        expected = plain(alone(method, target, body, **headers), "")
        got = plain(embedded(method, PREFIX + target, body, **headers), PREFIX)
        if target in ("/metrics", "/readyz"):
            expected["body"] = got["body"] = ""  # how long things took, and what waits
        got["cache-control"] = [v for v in got["cache-control"] if v != "private"]
        got["cache-control"] = [v.removesuffix(", private") for v in got["cache-control"]]
        got |= {name: [] for name in OF_THE_HOST if not expected[name]}  # it guards all it serves
        assert got == expected, (method, target)
