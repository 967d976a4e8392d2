"""What SMS.CX answers: results, and how they are read. Pure.

Readers raise `Unusable` for what cannot be understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from receiver.errors import Unusable
from receiver.providers.reading import Fields, moment, number, object_of, whole, word


@dataclass(frozen=True, slots=True)
class Message:
    """One SMS to one number, as far as the answer tells of it. Times are UTC.

    Its `repr` shows neither the number nor the text.
    """

    msg_id: str
    #: In SMS.CX's words: `ACCEPTED`, `NO COVERAGE`, …
    status: str | None
    #: Whole numbers as their digits.
    error_code: str | None
    to: str | None = field(repr=False)
    text: str | None = field(repr=False)
    sender: str | None
    country_iso: str | None
    created_at: datetime | None
    updated_at: datetime | None
    scheduled_at: datetime | None
    cost: float | None
    track_data: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a request to send."""

    campaign_id: str | None
    messages: tuple[Message, ...]
    #: Rows without a `msgId`, as they came.
    nameless: tuple[Mapping[str, Any], ...] = field(repr=False)
    #: Numbers that are none; nothing was sent to these.
    invalid: tuple[str, ...] = field(repr=False)
    #: Where its reports will go.
    dlr_callback_url: str | None = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the reports."""

    messages: tuple[Message, ...]
    #: Rows without a `msgId`, as they came.
    nameless: tuple[Mapping[str, Any], ...] = field(repr=False)
    #: Cursors; `None`: there is nothing more that way.
    next: str | None
    previous: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Otp:
    """A one-time code."""

    otp_id: str
    track_id: str | None
    #: `PENDING`, `VERIFIED`, `EXPIRED`, `CANCELLED` or `FAILED`.
    status: str | None
    to: str | None = field(repr=False)
    attempts: int | None
    max_attempts: int | None
    created_at: datetime | None
    expires_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


# --- readers


def _rows(document: Any) -> tuple[tuple[Message, ...], tuple[dict[str, Any], ...]]:
    """The rows that have a `msgId`, and those without."""
    rows = object_of(document).get("data")
    if not isinstance(rows, list):
        raise Unusable("there is no list `data`")
    objects = [object_of(row) for row in rows]
    named = tuple(_message(row) for row in objects if word(row, "msgId"))
    return named, tuple(row for row in objects if not word(row, "msgId"))


def _message(row: Fields) -> Message:
    msg_id = word(row, "msgId")
    if msg_id is None:
        raise Unusable("it has no `msgId`")
    return Message(
        msg_id=msg_id,
        status=word(row, "status"),
        error_code=word(row, "errorCode"),
        to=word(row, "to"),
        text=word(row, "text"),
        sender=word(row, "from"),
        country_iso=word(row, "countryIso"),
        created_at=moment(row, "createdAt"),
        updated_at=moment(row, "updatedAt"),
        scheduled_at=moment(row, "scheduledAt"),
        cost=number(row, "cost"),
        track_data=word(row, "trackData"),
        raw=row,
    )


def sent(document: Any) -> Sent:
    fields = object_of(document)
    info = object_of(fields.get("info") or {})
    messages, nameless = _rows(fields)
    return Sent(
        campaign_id=word(info, "campaignId"),
        messages=messages,
        nameless=nameless,
        invalid=numbers(info.get("invalid")),
        dlr_callback_url=word(info, "dlrCallbackUrl"),
        raw=fields,
    )


def numbers(value: Any) -> tuple[str, ...]:
    """The numbers of a list, as texts."""
    each = value if isinstance(value, list) else ()
    return tuple(str(one) for one in each if type(one) is int or isinstance(one, str))


def report(document: Any) -> Message:
    row = object_of(document).get("data")
    if isinstance(row, list) and len(row) == 1:
        (row,) = row
    return _message(object_of(row))


def page(document: Any) -> Page:
    fields = object_of(document)
    messages, nameless = _rows(fields)
    paging = fields.get("paging")
    paging = paging if isinstance(paging, dict) else {}
    return Page(messages, nameless, word(paging, "next"), word(paging, "previous"), fields)


def otp(document: Any) -> Otp:
    fields = object_of(document)
    otp_id = word(fields, "otpId")
    if otp_id is None:
        raise Unusable("it has no `otpId`")
    return Otp(
        otp_id=otp_id,
        track_id=word(fields, "trackId"),
        status=word(fields, "status"),
        to=word(fields, "phoneNumber"),
        attempts=whole(fields, "attempts"),
        max_attempts=whole(fields, "maxAttempts"),
        created_at=moment(fields, "dateCreated"),
        expires_at=moment(fields, "dateExpires"),
        raw=fields,
    )


def verified(document: Any) -> bool:
    status = word(object_of(document), "status")
    if status is None:
        raise Unusable("it does not say whether the code is right")
    return status.upper() == "VERIFIED"


def info(document: Any) -> Fields:
    """What a call that takes something back tells of it."""
    return object_of(object_of(document).get("info") or {})
