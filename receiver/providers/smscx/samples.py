"""Callbacks as SMS.CX documents them, for trying the receiver out without an account."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any, Unpack

from receiver import times
from receiver.payloads import Said
from receiver.providers.smscx.webhook import REPORT, STATES

Fields = dict[str, Any]
Make = Callable[[str, str, str, str], Fields]

_CAMPAIGN = "5f0c2a4e-9d1b-4c35-8e6f-0a7b1c2d3e4f"
_GROUP = {"campaignId": _CAMPAIGN, "channel": "sms"}
_TEXT = "Votre commande est prête. Code 482913"


def _report(status: str, code: int | None = None) -> Make:
    number = list(STATES).index(status) + 1  # theirs are not published
    return lambda message_id, to, at, track: {
        "campaignId": _CAMPAIGN,
        "msgId": message_id,
        "statusCode": number,
        "status": status,
        "errorCode": code,
        "datetime": at,
        "trackData": track,
    }


def _received(message_id: str, to: str, at: str, track: str) -> Fields:
    return {"msgId": message_id, "from": to, "to": "+33600000001", "text": _TEXT, "receivedAt": at}


def _hit(message_id: str, to: str, at: str, track: str) -> Fields:
    return {**_GROUP, "msgId": message_id, "phoneNumber": to, "datetime": at, "hits": 1}


def _opted_out(message_id: str, to: str, at: str, track: str) -> Fields:
    return {"phoneNumber": to, "datetime": at}


def _otp(message_id: str, to: str, at: str, track: str) -> Fields:
    return {
        "otpId": track,
        "trackId": None,
        "phoneNumber": to,
        "countryIso": "FR",
        "status": "VERIFIED",
        "cost": 0.045,
        "parts": 1,
        "maxAttempts": 3,
        "attempts": 1,
        "ttl": 300,
        "dateCreated": at,
        "dateExpires": at,
    }


#: The reports, by SMS.CX's statuses.
REPORTS: dict[str, Make] = {
    status: _report(status, 27 if status == "FAILED" else None) for status in STATES
}
#: Every type that a documented callback becomes, with the callback and one of its items. Where
#: SMS.CX documents no item, one like its neighbours'.
SAMPLES: dict[str, tuple[str, Make]] = {
    "sms.queued": (REPORT, REPORTS["ACCEPTED"]),
    "sms.sent": (REPORT, REPORTS["SENT"]),
    "sms.delivered": (REPORT, REPORTS["DELIVERED"]),
    "sms.failed": (REPORT, REPORTS["FAILED"]),
    **{f"smscx.{name}": (name, _received)
       for name in ("receive_sms", "receive_viber", "receive_whatsapp")},
    **{f"smscx.{name}": (name, _hit)
       for name in ("shortlink_hit", "shortlink_hit_update",
                    "attachment_hit", "attachment_hit_update")},
    "smscx.new_optout": ("new_optout", _opted_out),
    "smscx.otp_update": ("otp_update", _otp),
}  # fmt: skip


#: What an item has of what can be said.
_SAID = {"error_code": "errorCode", "text": "text"}


def _number(code: object) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", str(code)):
        raise ValueError(f"SMS.CX's error codes are numbers, like 27, not {code!r}")
    return int(str(code))


def sample(
    event_type: str,
    *,
    event_id: str,
    message_id: str,
    to: str,
    now: int,
    status: str | None = None,
    test: bool = False,
    **said: Unpack[Said],
) -> bytes:
    """A callback with one item, as SMS.CX would send it at this moment.

    :param event_id: SMS.CX has none; another one makes another `trackData` of it.
    :param test: whether it says that it is a test.
    :param status: of several that become the same type, this one of SMS.CX's (see `REPORTS`).
    :param said: what it says beside that; its reports have an error's number, and no more.
    :raises KeyError: for a type or a status that is not documented.
    :raises ValueError: if callbacks of this type say no such thing.
    """
    name, make = SAMPLES[event_type]
    if status is not None:
        make = REPORTS[status]
    track = str(uuid.uuid5(uuid.NAMESPACE_URL, event_id))
    at = times.iso(now - now % times.SECOND).rstrip("Z").replace("T", " ")
    item = make(message_id, to, at, track)
    for wanted, value in said.items():
        field = _SAID.get(wanted, "")
        if item.get(field) is None:
            raise ValueError(f"SMS.CX's {event_type} has no {wanted}")
        item[field] = _number(value) if field == "errorCode" else value
    callback: dict[str, Any] = {"event": name, "data": [item]}
    if test:
        callback["test"] = True
    return json.dumps(callback, ensure_ascii=False).encode()
