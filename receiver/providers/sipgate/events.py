"""What was asked of sipgate and what its history tells, as events.

sipgate reports nothing. So what is stored was written here, in canonical JSON: either the request
that an SMS was sent with, or an entry of the history, each with the call for a name. A message that
was sent through this service has an id of its own in both; any other has its entry's. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from receiver import ids, status, times
from receiver.errors import Unusable
from receiver.event import LONGEST_ID, NOT_IN_AN_ID, Incoming, clean_id
from receiver.providers.contract import Item
from receiver.providers.sipgate.history import is_outgoing, number
from receiver.redaction import redact as hidden
from receiver.strict_json import canonical, read_signed, text_of

NAME = "sipgate"
Fields = Mapping[str, Any]

#: The call that an SMS is sent by, and the one that finds it again.
SEND = "POST /sessions/sms"
ENTRY = "GET /history"
#: How events that leave the mirror alone are called, where their call is known.
_OTHERS = {SEND: "send", ENTRY: "history"}


def wrap(name: str, item: Any, message_id: str | None = None) -> bytes:
    """What is stored of a request to send, or of an entry.

    :param message_id: ours; `None`: the message has its entry's id.
    """
    told = {"event": name, "data": item}
    return canonical(told if message_id is None else {**told, "message_id": message_id})


def queued_id(message_id: str) -> str:
    """The key of the event that a message of ours was queued."""
    return ids.key(NAME, clean_id(f"send:{message_id}"))


def sent_id(entry_id: str) -> str:
    """The key of the event that an entry stands for: the same, whosever message it turns out to be,
    so that an entry is used once."""
    return ids.key(NAME, clean_id(f"history:{entry_id}"))


def parse(
    body: bytes,
    *,
    received_at: int,
    retention: int,
    text_mode: str = "full",
    source: str = "poll",
) -> list[Item]:
    """Make an event of what `wrap` made. An entry of what went out is `sms.sent`, and `sms.queued`
    while it is scheduled for later than `received_at`; never more.

    :param received_at: when it was learnt; microseconds.
    :param retention: microseconds after which it is too old to be let in.
    :param text_mode: `full`, `masked` or `none`: what to keep of texts and one-time codes.
    :param source: see `Incoming.source`.
    :raises Unusable: if it is nothing of the kind, or too old.
    """
    payload = read_signed(body)
    if not isinstance(payload, dict):
        raise Unusable("the body is JSON, but not an object")
    name, item = payload.get("event"), payload.get("data")
    if type(name) is not str or not name:
        raise Unusable("the object has no string `event`")
    if not isinstance(item, dict):
        raise Unusable("the object has no object `data`")
    state, timestamp = _state(name, item, received_at), _timestamp(name, item, received_at)
    if timestamp is not None and timestamp < received_at - retention:
        days = retention // times.DAY
        raise Unusable(f"its time is older than {days} days")
    if timestamp is not None and timestamp > times.latest_from(received_at):
        timestamp = None
    given = text_of(payload.get("message_id")) or None
    message_id = given or (text_of(item.get("id")) if name == ENTRY else None) or None
    if state is None or message_id is None:
        state = message_id = None
    whole = wrap(name, item, given)
    original = None
    if text_mode != "full":
        original = hashlib.sha256(whole).hexdigest(), len(whole)
        item = hidden(item, text_mode)
    body = wrap(name, item, given)
    event_id = _event_id(name, item, state, message_id, body)
    event_type = f"sms.{state}" if state else _other_type(name)
    says = status.project(
        event_type,
        _ours(name, item),
        event_id=event_id,
        timestamp=timestamp,
        received_at=received_at,
        retention=retention,
    )
    return [
        Incoming(
            id=event_id,
            type=event_type,
            message_id=None if message_id is None else ids.key(NAME, clean_id(message_id)),
            occurred_at=received_at if timestamp is None else timestamp,
            received_at=received_at,
            timestamp=timestamp,
            reported_at=timestamp,
            has_error=False,
            body=body,
            redacted=text_mode != "full",
            says=says,
            source=source,
            original=original,
        )
    ]


def read(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """A stored body's request or entry as it came, and the same by the names of this service
    (`to`, `message`, `metadata`)."""
    told = read_signed(raw)
    item = told["data"]
    return item, _ours(told["event"], item)


def raw(body: bytes) -> bytes:
    """What a handler gets of a stored body: the request or the entry alone, in canonical JSON."""
    return canonical(read(body)[0])


# --- one item


def _state(name: str, item: Fields, now: int) -> str | None:
    if name == SEND:
        return "queued"
    if name != ENTRY or not is_outgoing(item):
        return None
    scheduled = times.read(item.get("scheduled"))
    return "queued" if scheduled is not None and scheduled > now else "sent"


def _timestamp(name: str, item: Fields, now: int) -> int | None:
    """When it was asked for; of an entry, when it went out."""
    if name == SEND:
        told = [times.read(item.get("askedAt"))]
    else:
        told = [times.read(item.get("created")), times.read(item.get("scheduled"))]
        if told[0] is None or (told[1] is not None and told[1] > now):
            told = told[:1]
    return max((at for at in told if at is not None and at >= times.YEAR_2000), default=None)


def _event_id(
    name: str, item: Fields, state: str | None, message_id: str | None, body: bytes
) -> str:
    if state is not None and message_id is not None:
        if name == SEND:
            return queued_id(message_id)
        entry_id = text_of(item.get("id"))
        if entry_id:
            if state == "sent":
                return sent_id(entry_id)
            return ids.key(NAME, clean_id(f"scheduled:{entry_id}"))
    return ids.key(NAME, f"sha256:{hashlib.sha256(body).hexdigest()}")


def _other_type(name: str) -> str:
    return f"{NAME}.{NOT_IN_AN_ID.sub('�', _OTHERS.get(name, name))}"[:LONGEST_ID]


def _ours(name: str, item: Any) -> dict[str, Any]:
    """A request or an entry by the names that this service has for what it tells."""
    if not isinstance(item, dict):
        return {}
    if name == SEND:
        to, ours = text_of(item.get("recipient")), {"message": item.get("message")}
        ours["metadata"] = item.get("metadata")
    else:
        to, ours = text_of(item.get("target")), {"message": item.get("smsContent")}
        if to is not None and to.lstrip().startswith(("+", "0")):  # else it is no whole number
            to = f"+{number(to)}"
    return {key: value for key, value in {"to": to, **ours}.items() if value is not None}
