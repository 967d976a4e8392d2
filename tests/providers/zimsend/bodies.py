"""Bodies as ZimSend documents them, and the events that they become."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from receiver import Event, times
from receiver.event import Incoming
from receiver.providers.zimsend.webhook import parse
from receiver.store import Claim
from receiver.worker import event_of

steady = settings(derandomize=True, deadline=None, max_examples=150)

RETENTION = 90 * times.DAY
NOW = 1_795_162_542 * times.SECOND  # 2026-11-20T08:15:42Z


def at(seconds: float) -> int:
    return NOW + int(seconds * times.SECOND)


def iso(seconds: float) -> str:
    return times.iso(at(seconds))


def incoming(body: Any, *, text_mode: str = "full") -> Incoming:
    """Parse a body, or the JSON of an object, as if it were received NOW."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return parse(body, received_at=NOW, retention=RETENTION, text_mode=text_mode)


def handed(arrived: Incoming, **changes: Any) -> Event:
    """The event as a handler gets it."""
    return event_of(
        Claim(
            **{
                "event_seq": 1,
                "handler": "h",
                "fence": 1,
                "attempt": 3,
                "event_id": arrived.id,
                "event_type": arrived.type,
                "message_id": arrived.message_id,
                "occurred_at": arrived.occurred_at,
                "received_at": arrived.received_at,
                "source": arrived.source,
                "late": False,
                "redacted": arrived.redacted,
                "body": arrived.body,
                **changes,
            }
        )
    )


def digest(text: str | bytes) -> str:
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    return "sha256:" + hashlib.sha256(text).hexdigest()


SENT = {
    "message_id": "msg_1",
    "status": "sent",
    "to": "+33612345678",
    "message": "Bonjour 👋 مرحبا, code 4829",
    "device_id": "dev_1",
    "sent_at": iso(-3),
    "metadata": {"order": 17, "tags": ["a", "b"]},
}
DELIVERED = SENT | {"status": "delivered", "delivered_at": iso(-1)}
FAILED = {name: value for name, value in SENT.items() if name != "sent_at"} | {
    "status": "failed",
    "error": {"code": "NO_CREDIT", "message": "No credit left"},
    "failed_at": iso(-2),
}
CONNECTED = {
    "device_id": "dev_1",
    "device_name": "Pixel 8",
    "phone_number": "+33600000000",
    "android_version": "14",
    "app_version": "1.2.0",
    "connected_at": iso(-4),
    "ip_address": "192.0.2.1",
}
DISCONNECTED = {
    "device_id": "dev_1",
    "device_name": "Pixel 8",
    "phone_number": "+33600000000",
    "disconnected_at": iso(-5),
    "reason": "BATTERY_SAVER",
    "last_seen": iso(-60),
}


def envelope(event: Any = "sms.sent", data: Any = SENT, **changes: Any) -> dict[str, Any]:
    return {"event": event, "event_id": "evt_1", "timestamp": iso(-10), "data": data, **changes}


PLAIN_IDS = [
    "evt_7f3k2",
    "e",
    " ",
    "e" * 200,
    "😀" * 200,
    "évt-ñ-事件",
    "'; DROP TABLE events; --",
    "%2C",
    "sha256:x",
]
DIRTY_IDS = [
    "e" * 201,
    "😀" * 201,
    "e" * 100_000,
    "e\x00",
    "\n",
    "e\r\nx: y",
    "e\x1b[31m",
    "e\x7f",
    "e\x85",
    "\ud800",
    "e\udfff",
]

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
