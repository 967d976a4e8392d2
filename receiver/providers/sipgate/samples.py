"""What is stored of a send and of an entry, as sipgate documents them, for trying without an
account."""

from __future__ import annotations

from receiver import times
from receiver.providers.sipgate.events import ENTRY, SEND, wrap

SAMPLES = ("sms.queued", "sms.sent")
_TEXT = "Ihre Bestellung ist fertig. Code 482913"


def sample(event_type: str, *, event_id: str, message_id: str, to: str, now: int) -> bytes:
    """What would be stored of a message of ours at this moment.

    :param event_id: the entry's id; a send has only its message's.
    :raises KeyError: for a type that sipgate does not tell of.
    """
    at = times.iso(now - now % times.SECOND)
    if event_type == "sms.queued":
        return wrap(
            SEND,
            {"smsId": "s0", "recipient": to, "message": _TEXT, "askedAt": at},
            message_id,
        )
    if event_type != "sms.sent":
        raise KeyError(event_type)
    entry = {
        "id": event_id,
        "type": "SMS",
        "direction": "OUTGOING",
        "incoming": False,
        "source": "+4915799000001",
        "target": to,
        "sourceAlias": "SMS",
        "targetAlias": "",
        "created": at,
        "lastModified": at,
        "status": "PICKUP",
        "connectionIds": ["s0"],
        "read": True,
        "archived": False,
        "note": None,
        "endpoints": [],
        "starred": False,
        "labels": [],
        "smsContent": _TEXT,
        "scheduled": None,
    }
    return wrap(ENTRY, entry, message_id)
