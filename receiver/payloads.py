"""Events as ZimSend documents them: what samples of every kind are made of. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypedDict, cast

from receiver import ids, status
from receiver.redaction import redact
from receiver.times import SECOND, iso

Payload = dict[str, Any]


class Said(TypedDict, total=False):
    """What somebody may want a sample to say, beside its ids, its number and its time; `None`
    leaves it out. Names as those of an `Event`, but for the SMS text, which it has in `data`."""

    error_code: str | None
    error_message: str | None
    text: str | None
    metadata: Mapping[str, Any] | None
    device_id: str | None


class Attributes(Said, total=False):
    """All that `Event.sample` may be given. `None` leaves out what is a part of `data`."""

    id: str | None
    message_id: str | None
    to: str | None
    status: str | None
    data: Mapping[str, Any]
    occurred_at: datetime
    received_at: datetime
    source: str
    late: bool
    redacted: bool
    attempt: int
    provider: str
    test: bool


_TEXT = "Votre commande est prête. Code 482913"
_DEVICE = {"device_id": "dev_test1", "device_name": "Galaxy A15", "phone_number": "+33600000001"}

#: What a message's own event says, where the type has the field.
_FIELDS = {"text": "message", "metadata": "metadata", "device_id": "device_id"}


def _message(state: str, **details: Callable[[int], Any]) -> Callable[[str, str, int], Payload]:
    def data(message_id: str, to: str, now: int) -> Payload:
        return {
            "message_id": message_id,
            "status": state,
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


def _otp(state: str) -> Callable[[str, str, int], Payload]:
    return lambda message_id, to, now: {
        "otp_id": "otp_test1",
        "message_id": message_id,
        "to": to,
        "status": state,
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


def data_of(
    event_type: str, *, message_id: str, to: str, now: int, said: Said | None = None
) -> Payload:
    """`data` of an event of this moment, as ZimSend documents it.

    :param event_type: one that is not documented has only what is said.
    :param now: microseconds.
    :raises ValueError: if events of this type say no such thing.
    """
    make = SAMPLES.get(event_type)
    data = make(message_id, to, now) if make is not None else {}
    said = {} if said is None else said
    if "error_code" in said or "error_message" in said:
        data["error"] = _error(event_type, data.get("error"), said)
    for name, field in _FIELDS.items():
        if name in said:
            if make is not None and field not in data:
                raise ValueError(f"{event_type} has no {name}")
            data[field] = said[name]  # type: ignore[literal-required]
    return {field: value for field, value in data.items() if value is not None}


def _error(event_type: str, usual: Payload | None, said: Said) -> Payload | None:
    code, message = said.get("error_code"), said.get("error_message")
    if status.STATE_OF_TYPE.get(event_type) != "failed":
        if (code, message) == (None, None):
            return None
        raise ValueError(f"{event_type} has no error: only sms.failed and sms.expired tell of one")
    if event_type == "sms.expired" and code not in (None, "EXPIRED"):
        raise ValueError("the error_code of sms.expired is always EXPIRED")
    error = dict(usual or {})
    if "error_code" in said:
        # Another reason has other words.
        error = {"code": code}
    if "error_message" in said:
        error["message"] = message
    return {name: value for name, value in error.items() if value is not None} or None


def envelope(event_type: str, data: Payload, *, event_id: str | None, now: int) -> Payload:
    """What ZimSend puts around `data`.

    :param event_id: `None` leaves it out, as one of the documents does.
    """
    named = {} if event_id is None else {"event_id": event_id}
    return {"event": event_type, **named, "timestamp": iso(now), "data": data}


def written(envelope: Payload) -> bytes:
    """The bytes of an envelope; half a surrogate pair is escaped, as JavaScript writes it.

    :raises ValueError: for a number that JSON does not have, like infinity.
    """
    text = json.dumps(envelope, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


# --- `Event.sample`

#: When what happens in samples happens, unless somebody says when.
_MOMENT = datetime(2026, 11, 20, 8, 15, 42, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SOURCES = ("webhook", "gateway", "reconciliation", "poll")
_NUMBER = "+33612345678"


def refuse_unknown(names: Collection[str], known: Collection[str], what: str) -> None:
    """
    :param what: what has no such name, for people.
    :raises TypeError: for a name that is not known.
    """
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise TypeError(f"{what} has no {unknown[0]!r}; it can be given {', '.join(sorted(known))}")


def refuse_impossible(attributes: Attributes) -> None:
    """
    :raises TypeError: for what an event does not have.
    :raises ValueError: for a value that no event has.
    """
    refuse_unknown(attributes, Attributes.__annotations__, "a sample of an event")
    source, provider = attributes.get("source", "webhook"), attributes.get("provider", ids.FIRST)
    if source not in _SOURCES:
        raise ValueError(f"source={source!r} is none of {', '.join(_SOURCES)}")
    if provider not in ids.NAMES:
        raise ValueError(f"provider={provider!r} is none of {', '.join(sorted(ids.NAMES))}")
    if attributes.get("attempt", 1) < 1:
        raise ValueError("attempt counts from 1 on")


def sample_body(event_type: str, attributes: Attributes) -> tuple[bytes, datetime, datetime]:
    """The body of a sample, when what it tells happened, and when it was received.

    :raises ValueError: if events of this type say no such thing.
    """
    received_at = attributes.get("received_at")
    occurred_at = _utc(attributes.get("occurred_at") or received_at or _MOMENT)
    now = (occurred_at - _EPOCH) // datetime.resolution
    said = {name: value for name, value in attributes.items() if name in Said.__annotations__}
    data = data_of(
        event_type, message_id="msg_sample", to=_NUMBER, now=now, said=cast("Said", said)
    )
    if "device_id" in data:
        data["device_id"] = attributes.get("device_id", "dev_sample")
    for name in ("message_id", "to", "status"):
        if name in attributes:
            data[name] = attributes[name]
    data |= attributes.get("data", {})
    data = {name: value for name, value in data.items() if value is not None}
    event_id = attributes.get("id", "evt_sample")
    payload = envelope(event_type, data, event_id=event_id, now=now)
    if attributes.get("test"):
        payload["test"] = True
    if attributes.get("redacted"):  # as `STORE_TEXT=masked` stores it
        hidden = redact(payload, "masked")
        raw = json.dumps(hidden, separators=(",", ":"), allow_nan=False).encode("ascii")
    else:
        raw = written(payload)
    return raw, occurred_at, occurred_at if received_at is None else _utc(received_at)


def refuse_contradictions(event: object, attributes: Attributes) -> None:
    """
    :raises ValueError: if an event has not what was asked for: its type says otherwise, or `data`.
    """
    # Ids that no database holds become what the webhook makes of them.
    unasked = {"data", "text", "id", "message_id"}
    if attributes.get("redacted"):
        unasked |= {"metadata", "error_code", "error_message"}  # they may have hidden parts
    for name, wanted in attributes.items():
        if wanted is None or name in unasked:
            continue
        has = getattr(event, name)
        if has != (_utc(wanted) if isinstance(wanted, datetime) else wanted):
            told = f"{getattr(event, 'type', None)} cannot have {name}={wanted!r}"
            raise ValueError(f"{told}: by its type and its data it has {has!r}")


def _utc(moment: datetime) -> datetime:
    """A time without a zone is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
