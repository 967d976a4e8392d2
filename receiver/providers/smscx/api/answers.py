"""What SMS.CX answers: results, and how they are read. Pure.

Readers raise `Unusable` for what cannot be understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from receiver import times
from receiver.errors import Unusable

Fields = Mapping[str, Any]


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


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("there is no JSON object where one belongs")
    return value


def _rows(document: Any) -> tuple[tuple[Message, ...], tuple[dict[str, Any], ...]]:
    """The rows that have a `msgId`, and those without."""
    rows = _object(document).get("data")
    if not isinstance(rows, list):
        raise Unusable("there is no list `data`")
    objects = [_object(row) for row in rows]
    named = tuple(_message(row) for row in objects if text(row, "msgId"))
    return named, tuple(row for row in objects if not text(row, "msgId"))


def text(fields: Fields, name: str) -> str | None:
    """A text that is not empty, or a whole number's digits."""
    value = fields.get(name)
    if type(value) is int or isinstance(value, str):
        return str(value) or None
    return None


def _whole(fields: Fields, name: str) -> int | None:
    value = fields.get(name)
    return value if type(value) is int else None


def _number(fields: Fields, name: str) -> float | None:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _moment(fields: Fields, name: str) -> datetime | None:
    moment = times.parse(fields.get(name))
    try:
        return None if moment is None else times.to_datetime(moment)
    except OverflowError:  # before the year 1 or after 9999, in UTC
        return None


def _message(row: Fields) -> Message:
    msg_id = text(row, "msgId")
    if msg_id is None:
        raise Unusable("it has no `msgId`")
    return Message(
        msg_id=msg_id,
        status=text(row, "status"),
        error_code=text(row, "errorCode"),
        to=text(row, "to"),
        text=text(row, "text"),
        sender=text(row, "from"),
        country_iso=text(row, "countryIso"),
        created_at=_moment(row, "createdAt"),
        updated_at=_moment(row, "updatedAt"),
        scheduled_at=_moment(row, "scheduledAt"),
        cost=_number(row, "cost"),
        track_data=text(row, "trackData"),
        raw=row,
    )


def sent(document: Any) -> Sent:
    fields = _object(document)
    info = _object(fields.get("info") or {})
    messages, nameless = _rows(fields)
    return Sent(
        campaign_id=text(info, "campaignId"),
        messages=messages,
        nameless=nameless,
        invalid=numbers(info.get("invalid")),
        dlr_callback_url=text(info, "dlrCallbackUrl"),
        raw=fields,
    )


def numbers(value: Any) -> tuple[str, ...]:
    """The numbers of a list, as texts."""
    each = value if isinstance(value, list) else ()
    return tuple(str(one) for one in each if type(one) is int or isinstance(one, str))


def report(document: Any) -> Message:
    row = _object(document).get("data")
    if isinstance(row, list) and len(row) == 1:
        (row,) = row
    return _message(_object(row))


def page(document: Any) -> Page:
    fields = _object(document)
    messages, nameless = _rows(fields)
    paging = fields.get("paging")
    paging = paging if isinstance(paging, dict) else {}
    return Page(messages, nameless, text(paging, "next"), text(paging, "previous"), fields)


def otp(document: Any) -> Otp:
    fields = _object(document)
    otp_id = text(fields, "otpId")
    if otp_id is None:
        raise Unusable("it has no `otpId`")
    return Otp(
        otp_id=otp_id,
        track_id=text(fields, "trackId"),
        status=text(fields, "status"),
        to=text(fields, "phoneNumber"),
        attempts=_whole(fields, "attempts"),
        max_attempts=_whole(fields, "maxAttempts"),
        created_at=_moment(fields, "dateCreated"),
        expires_at=_moment(fields, "dateExpires"),
        raw=fields,
    )


def verified(document: Any) -> bool:
    status = text(_object(document), "status")
    if status is None:
        raise Unusable("it does not say whether the code is right")
    return status.upper() == "VERIFIED"


def info(document: Any) -> Fields:
    """What a call that takes something back tells of it."""
    return _object(_object(document).get("info") or {})
