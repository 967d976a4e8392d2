"""What ZimSend answers: results, and how they are read from either of the documented shapes.

Pure. Readers raise `Unusable` for what cannot be understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from receiver import status, times
from receiver.errors import Unusable
from receiver.strict_json import text_of

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One SMS, as far as the answer tells of it. Times are UTC.

    Its `repr` shows neither the number nor the text.
    """

    message_id: str
    status: str | None = None
    to: str | None = field(default=None, repr=False)
    text: str | None = field(default=None, repr=False)
    priority: int | str | None = None
    device_id: str | None = None
    created_at: datetime | None = None
    queued_at: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    failed_at: datetime | None = None
    estimated_delivery: datetime | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of many messages sent at once."""

    batch_id: str | None
    #: Those that have an id; where only ids came, they have nothing else.
    messages: tuple[Message, ...]
    #: Rows without a `message_id`, as they came: nothing was queued for these.
    refused: tuple[Mapping[str, Any], ...] = field(repr=False, hash=False)
    total: int | None
    queued: int | None
    failed: int | None
    queued_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Otp:
    """A one-time code on its way."""

    otp_id: str
    message_id: str | None
    status: str | None
    to: str | None = field(repr=False)
    expires_at: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class OtpCheck:
    """Whether a one-time code was the right one."""

    valid: bool
    message: str | None
    attempts_remaining: int | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the history; the counts are `None` where ZimSend does not tell them."""

    messages: tuple[Message, ...]
    #: Rows without a `message_id`, as they came.
    nameless: tuple[Mapping[str, Any], ...]
    page: int | None
    limit: int | None
    total_pages: int | None
    total_items: int | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the statistics."""

    date: str | None
    sent: int | None
    delivered: int | None
    failed: int | None


@dataclass(frozen=True, slots=True)
class Stats:
    """The account's statistics for a period."""

    total_sent: int | None
    delivered: int | None
    failed: int | None
    pending: int | None
    #: Per cent.
    delivery_rate: float | None
    by_day: tuple[Day, ...]
    #: The period's bounds, as they came.
    period_from: str | None
    period_to: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook of the account."""

    webhook_id: str
    url: str | None
    events: tuple[str, ...]
    status: str | None
    #: What its requests are signed with; shown once, when it is configured.
    secret: str | None = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class WebhookTest:
    """What a webhook answered to a test event; no status: nothing came back."""

    message: str | None
    response_status: int | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One attempt of ZimSend's to deliver an event."""

    log_id: str | None
    webhook_id: str | None
    event: str | None
    url: str | None
    response_status: int | None
    response_time_ms: int | None
    success: bool | None
    attempt: int | None
    timestamp: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)


# --- readers


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("there is no JSON object where one belongs")
    return value


def _objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Unusable("there is no list where one belongs")
    return [_object(item) for item in value]


def text(fields: Fields, name: str) -> str | None:
    """A text that is not empty."""
    value = fields.get(name)
    return value if type(value) is str and value else None


def word(fields: Fields, name: str) -> str | None:
    """An id or a number: a text that is not empty, or a whole number's digits."""
    return text_of(fields.get(name)) or None


def _id(fields: Fields, name: str) -> str:
    value = word(fields, name)
    if value is None:
        raise Unusable(f"it has no `{name}`")
    return value


def _named(rows: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows with a `message_id`, and those without."""
    named: list[dict[str, Any]] = []
    nameless: list[dict[str, Any]] = []
    for row in _objects(rows):
        (nameless if word(row, "message_id") is None else named).append(row)
    return named, nameless


def _whole(fields: Fields, *names: str) -> int | None:
    """The first of these that is there and a whole number."""
    for name in names:
        value = fields.get(name)
        if type(value) is int:
            return value
    return None


def _number(fields: Fields, name: str) -> float | None:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _moment(fields: Fields, name: str) -> datetime | None:
    moment = times.read(fields.get(name))
    if moment is None or moment < times.YEAR_2000:
        return None
    try:
        return times.to_datetime(moment)
    except OverflowError:  # after the year 9999, in UTC
        return None


def message(document: Any) -> Message:
    fields = _object(document)
    return Message(
        message_id=_id(fields, "message_id"),
        status=text(fields, "status"),
        to=word(fields, "to"),
        text=text(fields, "message"),
        priority=_whole(fields, "priority") or text(fields, "priority"),
        device_id=word(fields, "device_id"),
        created_at=_moment(fields, "created_at"),
        queued_at=_moment(fields, "queued_at"),
        sent_at=_moment(fields, "sent_at"),
        delivered_at=_moment(fields, "delivered_at"),
        failed_at=_moment(fields, "failed_at"),
        estimated_delivery=_moment(fields, "estimated_delivery"),
        metadata=status.read_metadata(fields.get("metadata")),
        raw=fields,
    )


def receipt(document: Any) -> Message:
    """A message in an answer whose own `message` is no SMS."""
    return replace(message(document), text=None)


def bulk(document: Any) -> BulkResult:
    fields = _object(document)
    batch_id = word(fields, "batch_id")
    rows, ids = fields.get("messages"), fields.get("message_ids")
    messages: list[Message] = []
    refused: list[dict[str, Any]] = []
    if isinstance(rows, list):
        named, refused = _named(rows)
        messages = [receipt(row) for row in named]
    elif isinstance(ids, list):
        messages = [Message(message_id) for one in ids if (message_id := text_of(one)) is not None]
    elif batch_id is None:
        raise Unusable("it has neither `batch_id` nor messages")
    return BulkResult(
        batch_id=batch_id,
        messages=tuple(messages),
        refused=tuple(refused),
        total=_whole(fields, "total_recipients", "total_messages"),
        queued=_whole(fields, "queued_messages"),
        failed=_whole(fields, "failed_messages"),
        queued_at=_moment(fields, "queued_at"),
        raw=fields,
    )


def otp(document: Any) -> Otp:
    fields = _object(document)
    return Otp(
        otp_id=_id(fields, "otp_id"),
        message_id=word(fields, "message_id"),
        status=text(fields, "status"),
        to=word(fields, "to"),
        expires_at=_moment(fields, "expires_at"),
        raw=fields,
    )


def otp_check(document: Any) -> OtpCheck:
    fields = _object(document)
    valid = fields.get("valid")
    if not isinstance(valid, bool):
        raise Unusable("it does not say whether the code is valid")
    return OtpCheck(valid, text(fields, "message"), attempts_remaining(fields), fields)


def attempts_remaining(fields: Fields) -> int | None:
    for holder in (fields, fields.get("error"), fields.get("details")):
        if isinstance(holder, dict) and (left := _whole(holder, "attempts_remaining")) is not None:
            return left
    return None


def page(document: Any) -> Page:
    fields = _object(document)
    rows = fields.get("data")
    told = fields.get("pagination")
    told = told if isinstance(told, dict) else {}
    named, nameless = _named(rows if isinstance(rows, list) else fields.get("messages"))
    return Page(
        messages=tuple(message(row) for row in named),
        nameless=tuple(nameless),
        page=_whole(told, "current_page", "page"),
        limit=_whole(told, "per_page", "limit"),
        total_pages=_whole(told, "total_pages", "pages"),
        total_items=_whole(told, "total_items", "total"),
        raw=fields,
    )


def stats(document: Any) -> Stats:
    fields = _object(document)
    stats, period = _object(fields.get("stats")), fields.get("period")
    period = period if isinstance(period, dict) else {}
    return Stats(
        total_sent=_whole(stats, "total_sent"),
        delivered=_whole(stats, "delivered"),
        failed=_whole(stats, "failed"),
        pending=_whole(stats, "pending"),
        delivery_rate=_number(stats, "delivery_rate"),
        by_day=tuple(
            Day(
                text(day, "date"),
                _whole(day, "sent"),
                _whole(day, "delivered"),
                _whole(day, "failed"),
            )
            for day in _objects(stats.get("by_day") or [])
        ),
        period_from=text(period, "from"),
        period_to=text(period, "to"),
        raw=fields,
    )


def webhook(document: Any) -> Webhook:
    fields = _object(document)
    events = fields.get("events")
    return Webhook(
        webhook_id=_id(fields, "webhook_id"),
        url=text(fields, "url"),
        events=tuple(
            event for event in (events if isinstance(events, list) else ()) if type(event) is str
        ),
        status=text(fields, "status"),
        secret=text(fields, "secret"),
        raw=fields,
    )


def webhooks(document: Any) -> tuple[Webhook, ...]:
    # The documents only say "list".
    if isinstance(document, dict):
        rows = document.get("webhooks")
        document = rows if isinstance(rows, list) else document.get("data")
    return tuple(webhook(row) for row in _objects(document))


def webhook_test(document: Any) -> WebhookTest:
    fields = _object(document)
    return WebhookTest(text(fields, "message"), _whole(fields, "response_status"), fields)


def logs(document: Any) -> tuple[LogLine, ...]:
    return tuple(
        LogLine(
            log_id=text(line, "log_id"),
            webhook_id=text(line, "webhook_id"),
            event=text(line, "event"),
            url=text(line, "url"),
            response_status=_whole(line, "response_status"),
            response_time_ms=_whole(line, "response_time_ms"),
            success=success if isinstance(success := line.get("success"), bool) else None,
            attempt=_whole(line, "attempt"),
            timestamp=_moment(line, "timestamp"),
            raw=line,
        )
        for line in _objects(_object(document).get("logs"))
    )
