"""From the bytes of a verified body to an event, and from a stored event to a handler's `Event`.

Pure: no Flask, no database, no clock.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

from receiver import status, times
from receiver.errors import Unusable

#: The names that one of the provider's documents gives the events of a per-message webhook.
ALIASES = {"sent": "sms.sent", "delivered": "sms.delivered", "failed": "sms.failed"}

#: Where the devices' events keep their own time; a message's events: see `status.project`.
_DEVICE_TIMES = {"device.connected": "connected_at", "device.disconnected": "disconnected_at"}

LONGEST_ID = 200
#: Python reads, writes and walks JSON by recursion; this stays far below its limit everywhere.
DEEPEST_NESTING = 200

_NOT_IN_AN_ID = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DIGIT = re.compile(r"\d")

TEXT_MODES = ("full", "masked", "none")


class Incoming(NamedTuple):
    """An event on its way into the store. Times are microseconds."""

    id: str
    type: str
    message_id: str | None
    occurred_at: int
    received_at: int
    #: The envelope's own time, if it can be believed.
    timestamp: int | None
    #: The time by which repeats are told: the state's own, else the envelope's.
    reported_at: int | None
    has_error: bool
    body: bytes
    redacted: bool
    #: What it says of its message; `None` if it leaves the mirror alone.
    says: status.Row | None
    #: `webhook`, or how else it was learnt: `gateway`, `reconciliation`.
    source: str = "webhook"
    #: Digest and length of the body as it came, where another one is stored.
    original: tuple[str, int] | None = None


class Rejected(NamedTuple):
    """A signed body on its way into quarantine."""

    digest: str
    length: int
    reason: str
    received_at: int
    #: `None` where SMS texts are not to be stored as they came.
    body: bytes | None


def parse(
    body: bytes,
    *,
    received_at: int,
    retention: int,
    text_mode: str = "full",
    source: str = "webhook",
) -> Incoming:
    """Make an event of a verified body.

    :param received_at: when it was first received.
    :param retention: microseconds after which an event is too old to be let in.
    :param text_mode: `full`, `masked` or `none`: what to keep of the SMS text.
    :param source: see `Incoming.source`.
    :raises Unusable: if the body is not an event, or one that is too old.
    """
    payload = read_json(body)
    if not isinstance(payload, dict):
        raise Unusable("the body is JSON, but not an object")
    named = payload.get("event")
    if type(named) is not str:
        raise Unusable("the object has no string `event`")
    timestamp = times.parse(payload.get("timestamp"))
    if timestamp is not None and timestamp < received_at - retention:
        days = retention // times.DAY
        raise Unusable(
            f"its `timestamp` is older than {days} days, so it may be a replay of an event "
            "whose id has been forgotten"
        )
    if timestamp is not None and timestamp > received_at + times.DAY:
        timestamp = None
    original = None
    if text_mode != "full":
        original = hashlib.sha256(body).hexdigest(), len(body)
        body = _redact(payload, text_mode)

    event_type = _clean_type(ALIASES.get(named, named))
    event_id = payload.get("event_id")
    if type(event_id) is not str or not event_id:
        event_id = "sha256:" + hashlib.sha256(body).hexdigest()
    event_id = clean_id(event_id)
    data = payload.get("data")
    if not isinstance(data, dict):
        data = {}
    message_id = data.get("message_id")
    message_id = clean_id(message_id) if type(message_id) is str and message_id else None

    own_time = _own_time(event_type, data, received_at, retention)
    reported_at = own_time if own_time is not None else timestamp
    says = None
    if message_id is not None:
        says = status.project(
            event_type,
            data,
            event_id=event_id,
            timestamp=timestamp,
            received_at=received_at,
            retention=retention,
        )
    return Incoming(
        id=event_id,
        type=event_type,
        message_id=message_id,
        occurred_at=reported_at if reported_at is not None else received_at,
        received_at=received_at,
        timestamp=timestamp,
        reported_at=reported_at,
        has_error=says is not None and "error" in says,
        body=body,
        redacted=text_mode != "full",
        says=says,
        source=source,
        original=original,
    )


def reject(body: bytes, reason: str, *, received_at: int, text_mode: str = "full") -> Rejected:
    """What quarantine keeps of a verified body that is of no use."""
    return Rejected(
        digest=hashlib.sha256(body).hexdigest(),
        length=len(body),
        reason=reason,
        received_at=received_at,
        body=body if text_mode == "full" else None,
    )


#: Why the store refuses an event whose id it may have forgotten.
EXPIRED = (
    "its `timestamp` is not later than that of an event that has expired, so it may be a replay "
    "of an event whose id has been forgotten"
)


def reject_expired(item: Incoming) -> Rejected:
    """What quarantine keeps of an event that came too late to tell whether it is a replay."""
    if item.original is not None:
        return Rejected(*item.original, EXPIRED, item.received_at, None)
    return reject(item.body, EXPIRED, received_at=item.received_at)


def clean_id(value: str) -> str:
    """An id that every database, log and terminal can hold: itself, or its SHA-256."""
    if len(value) <= LONGEST_ID and not _NOT_IN_AN_ID.search(value):
        return value
    return "sha256:" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def _clean_type(value: str) -> str:
    return _NOT_IN_AN_ID.sub("\ufffd", value)[:LONGEST_ID]


def _own_time(
    event_type: str, data: Mapping[str, Any], received_at: int, retention: int
) -> int | None:
    state = status.STATE_OF_TYPE.get(event_type)
    key = f"{state}_at" if state else _DEVICE_TIMES.get(event_type)
    return status.usable_time(data.get(key), received_at, retention) if key else None


def _redact(payload: dict[str, Any], text_mode: str) -> bytes:
    """Hide the SMS text in the payload itself, and return it as the JSON that is stored."""
    data = payload.get("data")
    if "data" in payload and not isinstance(data, dict):
        payload["data"] = None  # no known shape, so nobody can say where the text is
    for holder in (payload, data):
        if isinstance(holder, dict) and "message" in holder:
            text = holder["message"]
            masked = text_mode == "masked" and isinstance(text, str)
            holder["message"] = _DIGIT.sub("*", text) if masked else None
    return json.dumps(payload, separators=(",", ":")).encode("ascii")


# --- JSON


def read_json(body: bytes) -> Any:
    """Read JSON as strictly as RFC 8259 is written, and as widely as Python can hold it.

    A number beyond what Python can hold (a double's range, 4,300 digits) comes as the string of
    its digits: it stays exact, and can be written as JSON again. Of duplicate keys the last one
    counts. A byte order mark is passed over.

    :raises Unusable: if this is not JSON, or nested more than 200 levels deep.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unusable("the body is not UTF-8") from None
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise Unusable(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise Unusable(f"the body is not JSON: line {error.lineno}, column {error.colno}") from None
    # Cheap first: so few brackets cannot nest that deep.
    if text.count("[") + text.count("{") > DEEPEST_NESTING and _nesting(value) > DEEPEST_NESTING:
        raise Unusable(_TOO_DEEP)
    return value


_TOO_DEEP = f"the body is nested more than {DEEPEST_NESTING} levels deep"


def _nesting(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


class Digits(str):
    """A number that Python cannot hold. No text: `type(value) is str` tells them apart."""

    __slots__ = ()


def _integer(digits: str) -> int | Digits:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        return Digits(digits)


def _float(digits: str) -> float | Digits:
    number = float(digits)
    return number if math.isfinite(number) else Digits(digits)


def _no_constant(name: str) -> NoReturn:
    raise Unusable(f"the body is not JSON: it holds {name}")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_no_constant)


class _Frozen:
    """Refuses what would change a dict or a list; a copy is an ordinary one."""

    __slots__ = ()

    def _refuse(self, *_args: object, **_kwargs: object) -> NoReturn:
        raise TypeError("an event cannot be changed; copy the part you want to change")

    __setitem__ = __delitem__ = __ior__ = __iadd__ = __imul__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse
    append = extend = insert = remove = reverse = sort = _refuse

    # By `__reduce__` it takes so many frames a level that 200 levels come near Python's limit.
    def __deepcopy__(self, _memo: dict[int, Any]) -> Any:
        return _thaw(self)


class FrozenDict(_Frozen, dict[str, Any]):
    """A `dict` that refuses to change. `json.dumps`, `==` and `isinstance` see a dict."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:  # copy, pickle
        return dict, (dict(self),)


class FrozenList(_Frozen, list[Any]):
    """A `list` that refuses to change. `json.dumps`, `==` and `isinstance` see a list."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def _freeze(value: Any) -> Any:
    if isinstance(value, dict):
        return FrozenDict({key: _freeze(item) for key, item in value.items()})
    if isinstance(value, list):
        return FrozenList(_freeze(item) for item in value)
    return value


def _thaw(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _thaw(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_thaw(item) for item in value]
    return value


# --- what a handler gets


@dataclass(frozen=True)
class Event:
    """One event, as a handler sees it. Nothing in it can be changed.

    `id` is the same for every attempt and every redelivery: the key to being idempotent.
    """

    id: str
    #: As the provider names it, with `sms.` in front where a document leaves it out.
    type: str
    #: The state's own time, else the envelope's `timestamp`, else the receipt. UTC.
    occurred_at: datetime
    #: When it was first received. UTC.
    received_at: datetime
    message_id: str | None
    #: `webhook`, `gateway` or `reconciliation`.
    source: str
    #: The message was already further when this event was stored.
    late: bool
    #: `STORE_TEXT` hid the SMS text; `raw` and `data` are the redacted ones.
    redacted: bool
    #: The body's bytes.
    raw: bytes
    #: 1 for the first attempt of this handler at this event.
    attempt: int

    @cached_property
    def data(self) -> Mapping[str, Any]:
        """The envelope's `data` as it came; empty if it was not an object."""
        data = read_json(self.raw).get("data")
        return FrozenDict(_freeze(data)) if isinstance(data, dict) else FrozenDict()

    @property
    def to(self) -> str | None:
        """The recipient's number."""
        return self._text("to")

    @property
    def status(self) -> str | None:
        """The state that this event reports (not the message's: another may have overtaken it)."""
        return status.STATE_OF_TYPE.get(self.type) or self._text("status")

    @property
    def device_id(self) -> str | None:
        return self._text("device_id")

    @property
    def error_code(self) -> str | None:
        error = status.read_error(self.type, self.data)
        return error["code"] if error else None

    @property
    def error_message(self) -> str | None:
        error = status.read_error(self.type, self.data)
        return error["message"] if error else None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The object that was given when the message was sent; empty if there was none."""
        metadata = self.data.get("metadata")
        return metadata if isinstance(metadata, dict) else FrozenDict()

    def _text(self, key: str) -> str | None:
        value = self.data.get(key)
        return value if isinstance(value, str) else None
