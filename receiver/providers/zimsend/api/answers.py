"""What ZimSend answers: results, and how they are read from either of the documented shapes.

Pure. Readers raise `Unusable` for what cannot be understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from receiver import status
from receiver.errors import Unusable
from receiver.providers.reading import (
    Fields,
    id_of,
    moment,
    number,
    object_of,
    objects_of,
    text,
    whole,
    word,
)
from receiver.strict_json import text_of


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


def _named(rows: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows with a `message_id`, and those without."""
    named: list[dict[str, Any]] = []
    nameless: list[dict[str, Any]] = []
    for row in objects_of(rows):
        (nameless if word(row, "message_id") is None else named).append(row)
    return named, nameless


def message(document: Any) -> Message:
    fields = object_of(document)
    return Message(
        message_id=id_of(fields, "message_id"),
        status=text(fields, "status"),
        to=word(fields, "to"),
        text=text(fields, "message"),
        priority=whole(fields, "priority") or text(fields, "priority"),
        device_id=word(fields, "device_id"),
        created_at=moment(fields, "created_at"),
        queued_at=moment(fields, "queued_at"),
        sent_at=moment(fields, "sent_at"),
        delivered_at=moment(fields, "delivered_at"),
        failed_at=moment(fields, "failed_at"),
        estimated_delivery=moment(fields, "estimated_delivery"),
        metadata=status.read_metadata(fields.get("metadata")),
        raw=fields,
    )


def receipt(document: Any) -> Message:
    """A message in an answer whose own `message` is no SMS."""
    return replace(message(document), text=None)


def bulk(document: Any) -> BulkResult:
    fields = object_of(document)
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
        total=whole(fields, "total_recipients", "total_messages"),
        queued=whole(fields, "queued_messages"),
        failed=whole(fields, "failed_messages"),
        queued_at=moment(fields, "queued_at"),
        raw=fields,
    )


def otp(document: Any) -> Otp:
    fields = object_of(document)
    return Otp(
        otp_id=id_of(fields, "otp_id"),
        message_id=word(fields, "message_id"),
        status=text(fields, "status"),
        to=word(fields, "to"),
        expires_at=moment(fields, "expires_at"),
        raw=fields,
    )


def otp_check(document: Any) -> OtpCheck:
    fields = object_of(document)
    valid = fields.get("valid")
    if not isinstance(valid, bool):
        raise Unusable("it does not say whether the code is valid")
    return OtpCheck(valid, text(fields, "message"), attempts_remaining(fields), fields)


def attempts_remaining(fields: Fields) -> int | None:
    for holder in (fields, fields.get("error"), fields.get("details")):
        if isinstance(holder, dict) and (left := whole(holder, "attempts_remaining")) is not None:
            return left
    return None


def page(document: Any) -> Page:
    fields = object_of(document)
    rows = fields.get("data")
    told = fields.get("pagination")
    told = told if isinstance(told, dict) else {}
    named, nameless = _named(rows if isinstance(rows, list) else fields.get("messages"))
    return Page(
        messages=tuple(message(row) for row in named),
        nameless=tuple(nameless),
        page=whole(told, "current_page", "page"),
        limit=whole(told, "per_page", "limit"),
        total_pages=whole(told, "total_pages", "pages"),
        total_items=whole(told, "total_items", "total"),
        raw=fields,
    )


def stats(document: Any) -> Stats:
    fields = object_of(document)
    stats, period = object_of(fields.get("stats")), fields.get("period")
    period = period if isinstance(period, dict) else {}
    return Stats(
        total_sent=whole(stats, "total_sent"),
        delivered=whole(stats, "delivered"),
        failed=whole(stats, "failed"),
        pending=whole(stats, "pending"),
        delivery_rate=number(stats, "delivery_rate"),
        by_day=tuple(
            Day(
                text(day, "date"),
                whole(day, "sent"),
                whole(day, "delivered"),
                whole(day, "failed"),
            )
            for day in objects_of(stats.get("by_day") or [])
        ),
        period_from=text(period, "from"),
        period_to=text(period, "to"),
        raw=fields,
    )


def webhook(document: Any) -> Webhook:
    fields = object_of(document)
    events = fields.get("events")
    return Webhook(
        webhook_id=id_of(fields, "webhook_id"),
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
    return tuple(webhook(row) for row in objects_of(document))


def webhook_test(document: Any) -> WebhookTest:
    fields = object_of(document)
    return WebhookTest(text(fields, "message"), whole(fields, "response_status"), fields)


def logs(document: Any) -> tuple[LogLine, ...]:
    return tuple(
        LogLine(
            log_id=text(line, "log_id"),
            webhook_id=text(line, "webhook_id"),
            event=text(line, "event"),
            url=text(line, "url"),
            response_status=whole(line, "response_status"),
            response_time_ms=whole(line, "response_time_ms"),
            success=success if isinstance(success := line.get("success"), bool) else None,
            attempt=whole(line, "attempt"),
            timestamp=moment(line, "timestamp"),
            raw=line,
        )
        for line in objects_of(object_of(document).get("logs"))
    )
