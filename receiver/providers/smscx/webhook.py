"""SMS.CX's callbacks: who may speak, what each item says, and what is answered.

A callback is `{"event": name, "data": [item, ...]}`, unsigned. Each item becomes an event of its
own. What is stored of one is the callback that would have brought it alone, in canonical JSON, so
that `parse` makes the same event of a stored body again. What was learnt by a call to the API is
stored in the same form, with the call for a name. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from receiver import ids, status, times
from receiver.config import Config
from receiver.errors import Refused, Unusable
from receiver.event import LONGEST_ID, NOT_IN_AN_ID, Incoming, Rejected, clean_id, reject
from receiver.providers.contract import Item
from receiver.redaction import redact as hidden
from receiver.strict_json import canonical, read_signed, text_of

NAME = "smscx"
PATH = "/webhooks/smscx"
Fields = Mapping[str, Any]

#: The callback that reports what became of SMS.
REPORT = "dlr_update"
#: The calls whose answers tell the same, each named as a callback would be.
SEND = "POST /sms"
ROW = "GET /reports"
TAKEN_BACK = "DELETE /sms/scheduled"

#: SMS.CX sends up to 200 items at once. More are taken, up to what one transaction can hold.
MOST_ITEMS = 2_000

STATES = {
    "ACCEPTED": "queued",
    "SCHEDULED": "queued",
    "SENT": "sent",
    "DELIVERED": "delivered",
    "FAILED": "failed",
    "REJECTED": "failed",
    "NO COVERAGE": "failed",
}
#: `error` of the statuses that are final at once, whatever `errorCode` says.
_REFUSALS = {
    "REJECTED": {"code": "REJECTED", "message": "The recipient has opted out"},
    "NO COVERAGE": {"code": "NO_COVERAGE", "message": "SMS.CX does not reach this number"},
}
#: Where an item says when it was: the first of these that can be read.
_TIMES = {SEND: ("createdAt",), ROW: ("updatedAt", "createdAt"), TAKEN_BACK: ("deletedAt",)}
_CALLBACK_TIMES = ("datetime", "receivedAt")
#: The ids of what a call told begin with how it was learnt.
_LEARNT = {SEND: "gateway", TAKEN_BACK: "gateway", ROW: "api"}


class RejectedItem(Rejected):
    """One item on its way into quarantine; the others of its callback are not."""

    __slots__ = ()


# --- who may speak


def authenticate(tokens: Sequence[bytes], claimed: str) -> bool:
    """Whether the last part of the path is one of the tokens.

    Digests of equal length are compared, with every token, so that the time taken tells nothing
    of any of them.
    """
    digest = hashlib.sha256(claimed.encode("utf-8", "surrogatepass")).digest()
    matches = [hmac.compare_digest(hashlib.sha256(token).digest(), digest) for token in tokens]
    return any(matches)


def address(config: Config) -> str:
    """Where its callbacks go, below this service's own address: a secret."""
    return f"{PATH}/{config.smscx_tokens[0].decode()}"


# --- what was said


def parse(
    body: bytes,
    *,
    received_at: int,
    retention: int,
    text_mode: str = "full",
    source: str = "webhook",
) -> list[Item]:
    """Make events of an authenticated body, or of a stored one; one for each item.

    :param received_at: when it was first received; microseconds.
    :param retention: microseconds after which an item is too old to be let in.
    :param text_mode: `full`, `masked` or `none`: what to keep of texts and one-time codes.
    :param source: see `Incoming.source`.
    :returns: in the order of the items; `Rejected` for those that are of no use.
    :raises Unusable: if the body is of no use as a whole.
    """
    payload = read_signed(body)
    if not isinstance(payload, dict):
        raise Unusable("the body is JSON, but not an object")
    name, items = payload.get("event"), payload.get("data")
    if type(name) is not str or not name:
        raise Unusable("the object has no string `event`")
    if isinstance(items, dict):
        items = [items]
        read_signed(wrap(name, items[0]))  # one level deeper than it came
    if not isinstance(items, list):
        raise Unusable("the object has no list `data`")
    if len(items) > MOST_ITEMS:
        raise Unusable(f"`data` holds more than {MOST_ITEMS} items")
    test = payload.get("test") is True
    how = _How(received_at, retention, text_mode, source)
    return [how.take(name, item, test) for item in items]


class _How:
    """How items become events; see `parse`."""

    def __init__(self, received_at: int, retention: int, text_mode: str, source: str) -> None:
        self.received_at = received_at
        self.retention = retention
        self.text_mode = text_mode
        self.source = source

    def take(self, name: str, item: Any, test: bool) -> Item:
        if not isinstance(item, dict):
            return self._reject(wrap(name, item, test), "an item of `data` is not an object")
        timestamp = time_of(name, item)
        if timestamp is not None and timestamp < self.received_at - self.retention:
            days = self.retention // times.DAY
            return self._reject(
                wrap(name, item, test),
                f"its time is older than {days} days, so it may be a replay of an event that has "
                "been forgotten",
            )
        if timestamp is not None and timestamp > self.received_at + times.DAY:
            timestamp = None
        original = None
        if self.text_mode != "full":
            whole = wrap(name, item, test)
            original = hashlib.sha256(whole).hexdigest(), len(whole)
            item = hidden(item, self.text_mode)
        return self._event(name, item, timestamp, wrap(name, item, test), original)

    def _event(
        self,
        name: str,
        item: Fields,
        timestamp: int | None,
        body: bytes,
        original: tuple[str, int] | None,
    ) -> Incoming:
        event_type, own_id = _type(name, item), _id(item)
        event_id = ids.key(NAME, _event_id(name, event_type, item, own_id, timestamp))
        says = None
        if own_id is not None:
            says = status.project(
                event_type,
                _ours(name, item),
                event_id=event_id,
                timestamp=timestamp,
                received_at=self.received_at,
                retention=self.retention,
            )
        return Incoming(
            id=event_id,
            type=event_type,
            message_id=None if own_id is None else ids.key(NAME, own_id),
            occurred_at=self.received_at if timestamp is None else timestamp,
            received_at=self.received_at,
            timestamp=timestamp,
            reported_at=timestamp,
            has_error=says is not None and "error" in says,
            body=body,
            redacted=self.text_mode != "full",
            says=says,
            source=self.source,
            original=original,
        )

    def _reject(self, body: bytes, reason: str) -> Rejected:
        return RejectedItem(
            *reject(
                body,
                reason,
                received_at=self.received_at,
                text_mode=self.text_mode,
                provider=NAME,
            )
        )


def wrap(name: str, item: Any, test: bool = False) -> bytes:
    """The callback that brings one item alone, in canonical JSON."""
    callback = {"event": name, "data": [item]}
    return canonical({**callback, "test": True} if test else callback)


def read(raw: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """A stored body's item as it came, and the same by the names of this service (`to`, `message`,
    `status`, `error`, `metadata`, `<state>_at`)."""
    callback = read_signed(raw)
    (item,) = callback["data"]
    return item, _ours(callback["event"], item)


def answer(items: Sequence[Item], outcomes: Sequence[str]) -> str:
    """The JSON of the 200.

    :param outcomes: what became of each item: `accepted`, `duplicate`, or anything else for what
        went into quarantine.
    :raises Refused: 400 if all there is is a body that went into quarantine whole.
    """
    if len(items) == 1 and type(items[0]) is Rejected:
        raise Refused(400, items[0].reason)
    ends = [
        "quarantined" if isinstance(item, Rejected) else outcome
        for item, outcome in zip(items, outcomes, strict=True)
    ]
    accepted, duplicates = ends.count("accepted"), ends.count("duplicate")
    return json.dumps(
        {
            "status": "accepted",
            "accepted": accepted,
            "duplicates": duplicates,
            "quarantined": len(ends) - accepted - duplicates,
        }
    )


# --- one item


def time_of(name: str, item: Fields) -> int | None:
    """When it was that an item tells of; microseconds."""
    for field in _TIMES.get(name, _CALLBACK_TIMES):
        moment = times.read(item.get(field))
        if moment is not None and moment >= times.YEAR_2000:
            return moment
    return None


def _state(name: str, item: Fields) -> str | None:
    """The state of an SMS that an item reports; `None` if it reports none that is known."""
    if name == TAKEN_BACK:
        return "cancelled"
    if name == SEND:  # whatever else it says, it was taken
        return STATES.get(status_of(item), "queued")
    return STATES.get(status_of(item)) if name in (REPORT, ROW) else None


def _type(name: str, item: Fields) -> str:
    """`sms.…` where it reports a state of an SMS that it names, else `smscx.` and its name."""
    state = _state(name, item)
    if state is not None and _id(item) is not None:
        return f"sms.{state}"
    if name in _LEARNT:
        name = REPORT
    return f"{NAME}.{NOT_IN_AN_ID.sub('�', name)}"[:LONGEST_ID]


def _id(item: Fields) -> str | None:
    own_id = text_of(item.get("msgId"))
    return clean_id(own_id) if own_id else None


def _event_id(
    name: str, event_type: str, item: Fields, own_id: str | None, timestamp: int | None
) -> str:
    """Callbacks have none: the same item is the same event, whatever batch it comes in. What an
    API answer tells is the same fact however the answer is written."""
    learnt = _LEARNT.get(name)
    if learnt is not None and own_id is not None:
        second = "" if timestamp is None else f":{times.iso(timestamp - timestamp % times.SECOND)}"
        return clean_id(f"{learnt}:{own_id}:{event_type}{second}")
    # Another callback may bring an item that looks the same and means something else.
    told = canonical(item) if name == REPORT else wrap(name, item)
    return f"sha256:{hashlib.sha256(told).hexdigest()}"


def status_of(item: Fields) -> str:
    """SMS.CX's word for a message's state, however it is written."""
    told = item.get("status")
    return " ".join(told.upper().replace("_", " ").split()) if type(told) is str else ""


def _ours(name: str, item: Any) -> dict[str, Any]:
    """An item by the names that this service has for what it tells."""
    if not isinstance(item, dict):
        return {}
    state = _state(name, item)
    ours = {
        "to": text_of(item.get("to")) or text_of(item.get("phoneNumber")),
        "message": item.get("text"),
        "status": state or item.get("status"),
        "error": _error(item) if state == "failed" else None,
    }
    if name in (SEND, ROW):
        ours["queued_at"] = item.get("createdAt")
    if name == SEND:
        ours["metadata"] = item.get("metadata")
    if name == TAKEN_BACK:
        ours["cancelled_at"] = item.get("deletedAt")
    return {name: value for name, value in ours.items() if value is not None}


def _error(item: Fields) -> dict[str, str]:
    refusal = _REFUSALS.get(status_of(item))
    if refusal is not None:
        return refusal
    code = (text_of(item.get("errorCode")) or "").strip()
    return {"code": code if code.strip("0") else "FAILED"}
