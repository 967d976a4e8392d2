"""Events as ZimSend documents them, for trying the receiver out without an account."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from receiver.times import SECOND, iso

Payload = dict[str, Any]

_TEXT = "Votre commande est prête. Code 482913"
_DEVICE = {"device_id": "dev_test1", "device_name": "Galaxy A15", "phone_number": "+33600000001"}


def _message(status: str, **details: Callable[[int], Any]) -> Callable[[str, str, int], Payload]:
    def data(message_id: str, to: str, now: int) -> Payload:
        return {
            "message_id": message_id,
            "status": status,
            "to": to,
            "message": _TEXT,
            "device_id": _DEVICE["device_id"],
            **{name: make(now) for name, make in details.items()},
            "metadata": {"order_id": "CMD-1042"},
        }

    return data


def _device(**details: Callable[[int], Any]) -> Callable[[str, str, int], Payload]:
    return lambda message_id, to, now: {
        **_DEVICE,
        **{name: make(now) for name, make in details.items()},
    }


def _otp(status: str) -> Callable[[str, str, int], Payload]:
    return lambda message_id, to, now: {
        "otp_id": "otp_test1",
        "message_id": message_id,
        "to": to,
        "status": status,
    }


def _earlier(time_us: int) -> str:
    return iso(time_us - 2 * SECOND)


#: Every documented type. Where the provider documents no payload, one like its neighbours'.
SAMPLES: dict[str, Callable[[str, str, int], Payload]] = {
    "sms.queued": _message("queued", queued_at=iso),
    "sms.processing": _message("processing", processing_at=iso),
    "sms.sent": _message("sent", sent_at=iso),
    "sms.delivered": _message("delivered", sent_at=_earlier, delivered_at=iso),
    "sms.failed": _message(
        "failed",
        error=lambda now: {"code": "INVALID_NUMBER", "message": "The number does not exist"},
        failed_at=iso,
    ),
    "sms.expired": _message("expired"),
    "sms.cancelled": _message("cancelled", cancelled_at=iso),
    "device.connected": _device(
        android_version=lambda now: "14",
        app_version=lambda now: "2.3.1",
        connected_at=iso,
        ip_address=lambda now: "192.0.2.17",
    ),
    "device.disconnected": _device(
        disconnected_at=iso, reason=lambda now: "BATTERY_SAVER", last_seen=_earlier
    ),
    "otp.sent": _otp("sent"),
    "otp.verified": _otp("verified"),
    "otp.failed": _otp("failed"),
}


def sample(
    event_type: str, *, event_id: str, message_id: str, to: str, now: int, test: bool = False
) -> bytes:
    """A body as ZimSend would send it at this moment.

    :param test: whether it says that it is a test.
    :raises KeyError: for a type that is not documented.
    """
    envelope = {
        "event": event_type,
        "event_id": event_id,
        "timestamp": iso(now - now % SECOND),
        **({"test": True} if test else {}),
        "data": SAMPLES[event_type](message_id, to, now - now % SECOND),
    }
    return json.dumps(envelope, ensure_ascii=False).encode()
