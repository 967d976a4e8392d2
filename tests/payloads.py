"""The provider's documented payloads, as its customers get them."""

from __future__ import annotations

import itertools
import json
from typing import Any

from receiver import times

_numbers = itertools.count(1)


def envelope(event: str, data: Any, **changes: Any) -> dict[str, Any]:
    """An event of this moment with an id of its own."""
    return {
        "event": event,
        "event_id": f"evt_{next(_numbers)}_{times.now()}",
        "timestamp": ago(0),
        "data": data,
        **changes,
    }


def body_of(event: str, data: Any, **envelope_fields: Any) -> bytes:
    """A body with an id of its own, and nothing in the envelope that is not given."""
    fields = {"event": event, "event_id": f"evt_{next(_numbers)}", "data": data}
    return json.dumps(fields | envelope_fields).encode()


def ago(seconds: float) -> str:
    return times.iso(times.now() - int(seconds * times.SECOND))


def new_message_id() -> str:
    return f"msg_{next(_numbers)}_{times.now()}"


def sms(state: str, message_id: str | None = None, **changes: Any) -> dict[str, Any]:
    """`data` of a message's event, with the fields that the provider documents for it."""
    data: dict[str, Any] = {
        "message_id": message_id or new_message_id(),
        "status": state,
        "to": "+33612345678",
        "message": "Bonjour 👋 مرحبا, code 1234",
        "device_id": "dev_1",
        "metadata": {"order": 17, "tags": ["a", "b"]},
    }
    if state in ("sent", "delivered"):
        data["sent_at"] = ago(3)
    if state == "delivered":
        data["delivered_at"] = ago(1)
    if state == "failed":
        data["failed_at"] = ago(1)
        data["error"] = {"code": "NO_CREDIT", "message": "No credit left"}
    return data | changes


DEVICE = {
    "device_id": "dev_1",
    "device_name": "Pixel 8",
    "phone_number": "+33600000000",
}

#: Each documented payload: a name for the test, and the envelope without its own id.
DOCUMENTED: dict[str, dict[str, Any]] = {
    "sent": envelope("sms.sent", sms("sent")),
    "delivered": envelope("sms.delivered", sms("delivered")),
    "failed": envelope("sms.failed", sms("failed")),
    "failed, error as a string": envelope("sms.failed", sms("failed", error="INVALID_NUMBER")),
    "no metadata": envelope("sms.sent", {k: v for k, v in sms("sent").items() if k != "metadata"}),
    "per-message webhook: sent": envelope("sent", sms("sent")),
    "per-message webhook: delivered": envelope("delivered", sms("delivered")),
    "per-message webhook: failed": envelope("failed", sms("failed")),
    "device connected": envelope(
        "device.connected",
        DEVICE
        | {
            "android_version": "14",
            "app_version": "1.2.0",
            "connected_at": ago(2),
            "ip_address": "192.0.2.1",
        },
    ),
    "device disconnected": envelope(
        "device.disconnected",
        DEVICE | {"disconnected_at": ago(2), "reason": "BATTERY_SAVER", "last_seen": ago(60)},
    ),
    "expired": envelope("sms.expired", sms("expired")),
    "otp sent": envelope("otp.sent", {"otp_id": "otp_1"}),
    "otp verified": envelope("otp.verified", {"otp_id": "otp_1"}),
    "otp failed": envelope("otp.failed", {"otp_id": "otp_1"}),
    "test event with few fields": envelope(
        "sms.delivered", {"message_id": "msg_test_1"}, event_id="evt_test_1"
    ),
}
