"""An event on its way into the store, and the `Event` that a handler gets.

Pure: no Flask, no database, no clock.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, NoReturn, Unpack

from receiver import ids, status
from receiver.errors import Unusable
from receiver.payloads import Attributes, refuse_contradictions, refuse_impossible, sample_body
from receiver.strict_json import read_signed, text_of

#: The names that one of the provider's documents gives the events of a per-message webhook.
ALIASES = {"sent": "sms.sent", "delivered": "sms.delivered", "failed": "sms.failed"}

LONGEST_ID = 200
NOT_IN_AN_ID = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
TEXT_MODES = ("full", "masked", "none")


class Came(NamedTuple):
    """What an event had before a number was taken out of it: what was stored before is found by
    these.

    :param own_id: see `own_id`.
    """

    id: str
    message_id: str | None
    own_id: str


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
    #: `webhook`, or how else it was learnt: `gateway`, `reconciliation`, `poll`.
    source: str = "webhook"
    #: Digest and length of the body as it came, where another one is stored.
    original: tuple[str, int] | None = None
    #: Its id is `own_id`, because another event has the one that it came with.
    apart: bool = False
    #: Set where it holds the number of somebody who was forgotten (`receiver.forgetting`).
    came: Came | None = None


class Rejected(NamedTuple):
    """A signed body on its way into quarantine."""

    #: SHA-256 of the body as it came, in hex, as a key of its provider's (`receiver.ids`).
    digest: str
    length: int
    reason: str
    received_at: int
    #: `None` where SMS texts are not to be stored as they came.
    body: bytes | None


def reject(
    body: bytes,
    reason: str,
    *,
    received_at: int,
    text_mode: str = "full",
    provider: str = ids.FIRST,
) -> Rejected:
    """What quarantine keeps of a verified body that is of no use."""
    return Rejected(
        digest=ids.key(provider, hashlib.sha256(body).hexdigest()),
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
    provider = ids.split(item.id)[0]
    if item.original is not None:
        digest, length = item.original
        return Rejected(ids.key(provider, digest), length, EXPIRED, item.received_at, None)
    return reject(item.body, EXPIRED, received_at=item.received_at, provider=provider)


def own_id(body: bytes) -> str:
    """The id of an event that has no other: the SHA-256 of its body as stored."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def under_own_id(item: Incoming) -> Incoming:
    """The same event under `own_id`, for where another one has its id."""
    own = own_id(item.body) if item.came is None else item.came.own_id
    event_id = ids.key(ids.split(item.id)[0], own)
    says = item.says
    if says is not None:
        says = {name: [order, event_id, value] for name, (order, _, value) in says.items()}
    return item._replace(id=event_id, says=says, apart=True)


def clean_id(value: str) -> str:
    """An id that every database, log and terminal can hold: itself, or its SHA-256."""
    if len(value) <= LONGEST_ID and not NOT_IN_AN_ID.search(value):
        return value
    return "sha256:" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def clean_type(value: str) -> str:
    """A type that every database, log and terminal can hold."""
    return NOT_IN_AN_ID.sub("\ufffd", value)[:LONGEST_ID]


def key_of(written: str) -> str:
    """The key that somebody means who writes an id as `receiver.ids.written` shows it."""
    name, colon, own_id = written.partition(":")
    if colon and name in ids.NAMES:
        return ids.key(name, clean_id(own_id))
    return clean_id(written)


def is_test(envelope: Mapping[str, Any], event_id: str, message_id: str | None) -> bool:
    """Whether an event is a test: it says so, or one of its ids does (CONTRACT: `Event.test`)."""
    return (
        envelope.get("test") is True
        or event_id.startswith("evt_test")
        or (message_id is not None and message_id.startswith("msg_test"))
    )


def glance(
    event_type: str, event_id: str, message_id: str | None, body: bytes
) -> dict[str, str | bool | None]:
    """What a list shows of an event's body: `to`, `error_code`, `test`."""
    try:
        envelope = read_signed(body)
    except Unusable:
        envelope = None
    if not isinstance(envelope, dict):
        envelope = {}
    data = envelope.get("data")
    if not isinstance(data, dict):
        data = {}
    error = status.read_error(event_type, data)
    return {
        "to": text_of(data.get("to")),
        "error_code": error["code"] if error else None,
        "test": is_test(envelope, event_id, message_id),
    }


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

#: What a stored body tells, as it came; and the same by the names that ZimSend has for it (`to`,
#: `status`, `device_id`, `error`, `metadata`).
Told = tuple[Mapping[str, Any], Mapping[str, Any]]
Read = Callable[[bytes], Told]


def read_envelope(raw: bytes) -> Told:
    """The `data` of ZimSend's envelope; empty if it is not an object."""
    data = read_signed(raw).get("data")
    data = data if isinstance(data, dict) else {}
    return data, data


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
    #: How it was learnt: `webhook`, `gateway` (from an answer to what was sent through this
    #: service), `reconciliation` (a report that had not arrived) or `poll`.
    source: str
    #: The message was already further when this event was stored.
    late: bool
    #: `STORE_TEXT` hid the SMS text; `raw` and `data` are the redacted ones.
    redacted: bool
    #: The body's bytes.
    raw: bytes
    #: 1 for the first attempt of this handler at this event.
    attempt: int
    #: Who reported it: `zimsend`, `smscx`, `sipgate`.
    provider: str = ids.FIRST
    #: Reads what is stored, as the provider says; `raw` by default.
    _told: Callable[[], Told] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def sample(cls, type: str, **attributes: Unpack[Attributes]) -> Event:
        """An event for your own tests, as a handler would get it from ZimSend's webhook.

        :param type: for example `sms.failed`. One that is not documented has only what is given.
        :param attributes: any attribute of an event but `raw`, and `text`, the SMS text. `data` is
            added to what would be there. `None` leaves out of `data` what would be in it.
        :raises TypeError: for what an event does not have.
        :raises ValueError: for what such an event cannot have, like `error_code` with `sms.sent`.
        """
        refuse_impossible(attributes)
        type = clean_type(ALIASES.get(type, type))
        raw, occurred_at, received_at = sample_body(type, attributes)
        envelope = read_signed(raw)
        own = clean_id(text_of(envelope.get("event_id")) or own_id(raw))
        provider = attributes.get("provider", ids.FIRST)
        message_id = text_of(envelope["data"].get("message_id"))
        event = cls(
            id=ids.written(ids.key(provider, own)),
            type=type,
            occurred_at=occurred_at,
            received_at=received_at,
            message_id=clean_id(message_id) if message_id else None,
            source=attributes.get("source", "webhook"),
            late=attributes.get("late", False),
            redacted=attributes.get("redacted", False),
            raw=raw,
            attempt=attributes.get("attempt", 1),
            provider=provider,
        )
        refuse_contradictions(event, attributes)
        return event

    @cached_property
    def test(self) -> bool:
        """It is no report of a real SMS, but from `flask trigger` or a test of the webhook."""
        return is_test(read_signed(self.raw), self.id, self.message_id)

    @cached_property
    def _read(self) -> Told:
        data, fields = self._told() if self._told is not None else read_envelope(self.raw)
        frozen = FrozenDict(_freeze(data))
        return frozen, frozen if fields is data else FrozenDict(_freeze(fields))

    @property
    def data(self) -> Mapping[str, Any]:
        """What the provider told, as it came: the envelope's `data` where there is one; empty if it
        was not an object."""
        return self._read[0]

    @property
    def _fields(self) -> Mapping[str, Any]:
        """`data` by ZimSend's names."""
        return self._read[1]

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
        error = status.read_error(self.type, self._fields)
        return error["code"] if error else None

    @property
    def error_message(self) -> str | None:
        error = status.read_error(self.type, self._fields)
        return error["message"] if error else None

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """The object that was given when the message was sent; empty if there was none."""
        metadata = self._fields.get("metadata")
        if not isinstance(metadata, FrozenDict):
            metadata = _freeze(status.read_metadata(metadata) or {})
        return FrozenDict(metadata)

    def _text(self, key: str) -> str | None:
        return text_of(self._fields.get(key))
