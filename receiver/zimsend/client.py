"""A client for the whole of ZimSend's API.

    with ZimSend(api_key, client_id) as zimsend:
        message = zimsend.send("+33612345678", "Bonjour")

ZimSend's documents describe some answers in two ways; both are understood. Every answer is kept
beside what was understood of it, as `raw`. Errors are named by what the caller can do about them.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar
from urllib.parse import quote, unquote, urlencode

import httpx

from receiver import times
from receiver.errors import ReceiverError, Unusable
from receiver.event import read_json

BASE_URL = "https://api.zimsend.com/v1"
#: Bytes of an answer: many times what 100 long messages with metadata need.
LARGEST_ANSWER = 16 * 1024 * 1024
#: Seconds before the second try, at most, and the most there is between two tries.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
_CONNECTIONS = 16
_LONGEST_MESSAGE = 300

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: What a header carries unchanged.
_FITS_A_HEADER = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
#: A path or a query that is encoded already.
_FITS_A_URL = re.compile(r"[!-~]*")
#: Headers that belong to one connection, or to how a body travels on it.
_HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "upgrade", "te", "trailer"),
        *("proxy-authenticate", "proxy-authorization"),
        *("content-encoding", "content-length", "transfer-encoding"),
    }
)
#: What a caller of `forward` says to us, not to ZimSend.
_NOT_FORWARDED = (_HOP_BY_HOP - {"content-encoding"}) | {
    *("authorization", "cookie", "x-api-key", "x-client-id"),
    *("accept-encoding", "expect", "host"),
}

T = TypeVar("T")


# --- errors


class ZimSendError(ReceiverError):
    """ZimSend did not do what was asked. Its kinds say what can be done about it.

    :param message: what is wrong; never a secret.
    :param code: ZimSend's own code, `None` if it gave none.
    :param status: the HTTP status, `None` if there was no whole answer.
    :param maybe_sent: the request may have been carried out all the same.
    :param retry_after: seconds to wait before the next try, if somebody said so.
    :param advice: what to do, where that is more than its kind says.
    :param raw: the answer's JSON, `None` if there was none.
    """

    advice: str = "Look the code up in ZimSend's documentation."

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        maybe_sent: bool = False,
        retry_after: float | None = None,
        advice: str | None = None,
        raw: Any = None,
    ) -> None:
        self.message = message
        self.code = code
        self.status = status
        self.maybe_sent = maybe_sent
        self.retry_after = retry_after
        self.advice = advice or self.advice
        self.raw = raw
        where = ", ".join(filter(None, [code, f"HTTP {status}" if status else None]))
        super().__init__(f"{message}{f' ({where})' if where else ''}. {self.advice}")


class CredentialsRefused(ZimSendError):
    """Mend the API key or the client id."""

    advice = "Check the API key and the client id in ZimSend's dashboard."


class RequestRefused(ZimSendError):
    """Mend the request; the same one is refused again."""

    advice = "Mend the request; the same one will be refused again."


class NotFound(ZimSendError):
    """There is no such message, device, code or webhook (any more)."""

    advice = "Check the id; ZimSend keeps messages for 90 days."


class NotPossible(ZimSendError):
    """What it is about is in a state that does not allow it, and repeating does not change that."""

    advice = "Look at its status; it no longer allows this."


class TryLater(ZimSendError):
    """Nothing is wrong with the request: send the same one later."""

    advice = "Nothing was done; try again later."


class Unavailable(ZimSendError):
    """No answer, or one that says that ZimSend itself failed.

    `maybe_sent` false: the same request can safely be made again. Else find out first
    (`history`, `status`) whether it was carried out.
    """

    advice = "Try again later."

    def __init__(self, message: str, *, maybe_sent: bool, **details: Any) -> None:
        if maybe_sent and details.get("advice") is None:
            details["advice"] = (
                "It may have been carried out: look at the history before you send it again."
            )
        super().__init__(message, maybe_sent=maybe_sent, **details)


class NotUnderstood(ZimSendError):
    """An answer that is not ZimSend's, or not as its documents describe it."""

    advice = "Check the base URL, and what stands between here and ZimSend."


_ANOTHER_PHONE = "Bring the phone online, or send with another one."

#: What each of ZimSend's codes is, and what to do where its kind says too little.
_CODES: dict[str, tuple[type[ZimSendError], str | None]] = {
    "INVALID_API_KEY": (CredentialsRefused, None),
    "INVALID_CLIENT_ID": (CredentialsRefused, None),
    "MISSING_AUTH_HEADERS": (
        CredentialsRefused,
        "Something on the way takes X-API-Key or X-Client-ID away.",
    ),
    "INVALID_DEVICE_ID": (NotFound, "Check the device id in ZimSend's dashboard."),
    "MESSAGE_NOT_FOUND": (NotFound, None),
    "OTP_NOT_FOUND": (NotFound, "Send a new code."),
    "INVALID_PHONE_NUMBER": (RequestRefused, "Write the number as +33612345678."),
    "MESSAGE_TOO_LONG": (RequestRefused, None),
    "INVALID_PRIORITY": (RequestRefused, None),
    "INVALID_SCHEDULED_DATE": (RequestRefused, "Schedule it at most 30 days ahead."),
    "BLOCKED_NUMBER": (RequestRefused, "Do not send to this number."),
    "TOO_MANY_RECIPIENTS": (RequestRefused, "Send it in several parts."),
    "INVALID_WEBHOOK_URL": (RequestRefused, "Give a public https URL."),
    "INVALID_OTP": (RequestRefused, "Ask for the code again."),
    "OTP_EXPIRED": (NotPossible, "Send a new code."),
    "OTP_MAX_ATTEMPTS": (NotPossible, "Send a new code."),
    "CANNOT_CANCEL_MESSAGE": (NotPossible, "Only a queued message can be cancelled."),
    "CANNOT_RESEND_MESSAGE": (NotPossible, "Only a failed message can be sent again."),
    "DEVICE_OFFLINE": (TryLater, _ANOTHER_PHONE),
    "NO_DEVICE_AVAILABLE": (TryLater, _ANOTHER_PHONE),
    "NO_CREDIT": (TryLater, "Top up the credit, then send it again."),
    "OTP_RATE_LIMIT": (TryLater, "A number gets at most 10 codes an hour."),
    "RATE_LIMIT_EXCEEDED": (TryLater, "The account has 100 requests a minute."),
    "QUOTA_EXCEEDED": (TryLater, "Wait for the next period, or take a larger plan."),
    "NETWORK_ERROR": (Unavailable, None),
    "SMS_SEND_TIMEOUT": (Unavailable, None),
}

_STATUSES: dict[int, type[ZimSendError]] = {
    401: CredentialsRefused,
    402: TryLater,
    403: CredentialsRefused,
    404: NotFound,
    407: CredentialsRefused,
    408: Unavailable,
    409: NotPossible,
    410: NotFound,
    425: TryLater,
    429: TryLater,
}


# --- answers


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


class Answer(NamedTuple):
    """An answer as it came, but for the headers of the connection. The body is not compressed."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


# --- the client


class Budget(Protocol):
    """Says when a call may be made, for instance a token bucket that several processes share."""

    def take(self) -> float:
        """Ask for one call.

        :returns: 0: make it, it is counted. Else the seconds to wait before asking again;
            nothing was taken.
        """


class ZimSend:
    """ZimSend's API for one account. Threads may share one.

    Calls that only read, and the removal of a webhook, are repeated after errors on the way, 5xx
    and 429. All others are repeated only if the request surely never left, since ZimSend has no
    key by which it would know a repetition.

    All calls raise `ZimSendError` and its kinds, and `ValueError` or `TypeError` for arguments
    that no request can hold.

    :param api_key: `zs_live_…` or `zs_test_…`.
    :param client_id: `client_…`.
    :param device_id: the phone to send with; without it ZimSend takes any that is online.
    :param base_url: http or https.
    :param timeout: seconds for one try as a whole, from the resolver to the answer's last byte.
    :param connect_timeout: seconds to connect.
    :param tries: how often a call is tried at most.
    :param patience: seconds from a call's beginning after which it does not wait any more, for
        the budget or for its next try.
    :param budget: asked before every try.
    :param sleep: waits so many seconds.
    :param clock: seconds that only grow.
    :raises ValueError: if one of them is of no use.
    """

    def __init__(
        self,
        api_key: str,
        client_id: str,
        *,
        device_id: str | None = None,
        base_url: str = BASE_URL,
        timeout: float = 10.0,
        connect_timeout: float = 5.0,
        tries: int = 4,
        patience: float = 30.0,
        budget: Budget | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (timeout > 0 and connect_timeout > 0 and tries >= 1 and patience >= 0):
            raise ValueError("time-outs must be over 0 seconds, tries at least 1, patience 0")
        self._base = _base(base_url)
        self._device_id = device_id
        self._secrets = (api_key, client_id)
        self._timeout = timeout
        self._tries = tries
        self._patience = patience
        self._budget = budget
        self._sleep = sleep
        self._clock = clock
        if device_id is not None:
            _header(device_id, "the device id")
        self._http = httpx.Client(
            headers={
                "X-API-Key": _header(api_key, "the API key"),
                "X-Client-ID": _header(client_id, "the client id"),
                "User-Agent": "zimsend-receiver",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
            timeout=httpx.Timeout(timeout, connect=connect_timeout),
            limits=httpx.Limits(max_connections=_CONNECTIONS),
            follow_redirects=False,  # they would take the credentials along
        )

    def __repr__(self) -> str:
        return f"ZimSend(base_url={self._base!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; no call can be made any more."""
        self._http.close()

    # --- messages

    def send(
        self,
        to: str,
        message: str,
        *,
        priority: int | str | None = None,
        webhook_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        scheduled_at: datetime | str | None = None,
        retry_attempts: int | None = None,
        device_id: str | None = None,
    ) -> Message:
        """Send an SMS.

        :param priority: 1 (highest) to 5, or `low`, `normal`, `high`.
        :param webhook_url: where its reports go, instead of to the account's webhooks.
        :param metadata: comes back in every report; at most 1 KB.
        :param scheduled_at: not before; aware, or ISO 8601.
        :param retry_attempts: 1 to 5, on the phone.
        :param device_id: the phone, instead of the client's.
        """
        asked = {
            "to": to,
            "message": message,
            "priority": priority,
            "webhook_url": webhook_url,
            "metadata": metadata,
            "scheduled_at": _time_text(scheduled_at, "scheduled_at"),
            "retry_attempts": retry_attempts,
        }
        return self._send("/sms/send", _receipt, asked, device_id)

    def send_bulk(
        self,
        recipients: Iterable[str],
        message: str,
        *,
        priority: int | str | None = None,
        webhook_url: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        device_id: str | None = None,
    ) -> BulkResult:
        """Send one text to many numbers (at most 100)."""
        asked = {
            "recipients": list(recipients),
            "message": message,
            "priority": priority,
            "webhook_url": webhook_url,
            "metadata": metadata,
        }
        return self._send("/sms/send-bulk", _bulk, asked, device_id)

    def send_bulk_personalized(
        self, messages: Iterable[Mapping[str, Any]], *, device_id: str | None = None
    ) -> BulkResult:
        """Send many texts.

        :param messages: each with `to`, `message` and, if wanted, `metadata`.
        """
        asked = {"messages": [dict(message) for message in messages]}
        return self._send("/sms/send-bulk-personalized", _bulk, asked, device_id)

    def send_otp(
        self,
        to: str,
        *,
        length: int | None = None,
        expiry: int | None = None,
        template: str | None = None,
        purpose: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        device_id: str | None = None,
    ) -> Otp:
        """Send a one-time code, which ZimSend makes and checks.

        :param length: digits, 4 to 8; 6 by default.
        :param expiry: seconds that it is good for; 300 by default.
        :param template: the text, with `{{code}}` in it.
        :param purpose: what the code is for; one of ZimSend's documents requires it.
        """
        asked = {
            "to": to,
            "length": length,
            "expiry": expiry,
            "template": template,
            "purpose": purpose,
            "metadata": metadata,
        }
        return self._send("/sms/send-otp", _otp, asked, device_id)

    def verify_otp(self, otp_id: str, code: str) -> OtpCheck:
        """Check a one-time code; each check uses up one of three.

        :raises NotPossible: if it has expired, or no check is left.
        """
        asked = {"otp_id": otp_id, "code": code}
        try:
            return self._call("POST", "/sms/verify-otp", _otp_check, asked=asked, hide=(code,))
        except ZimSendError as error:
            if error.code != "INVALID_OTP":
                raise
            return OtpCheck(False, error.message, _attempts_remaining(error.raw), error.raw)

    def status(self, message_id: str) -> Message:
        """What has become of a message."""
        return self._call("GET", f"/sms/status/{_segment(message_id)}", _message)

    def history(
        self,
        *,
        page: int = 1,
        limit: int = 50,
        status: str | None = None,
        to: str | None = None,
        from_date: datetime | date | str | None = None,
        to_date: datetime | date | str | None = None,
        device_id: str | None = None,
        search: str | None = None,
    ) -> Page:
        """One page of the messages of the last 90 days.

        :param limit: messages on a page, at most 100.
        :param from_date: aware, a day, or ISO 8601; likewise `to_date`.
        :param search: a part of the text.
        """
        query = {
            "page": page,
            "limit": limit,
            "status": status,
            "to": to,
            "from_date": _time_text(from_date, "from_date"),
            "to_date": _time_text(to_date, "to_date"),
            "device_id": device_id,
            "search": search,
        }
        return self._call("GET", "/sms/history", _page, query=query)

    def history_pages(
        self,
        *,
        page: int = 1,
        limit: int = 100,
        status: str | None = None,
        to: str | None = None,
        from_date: datetime | date | str | None = None,
        to_date: datetime | date | str | None = None,
        device_id: str | None = None,
        search: str | None = None,
    ) -> Iterator[Page]:
        """All pages of the history from `page` on, each fetched when it is asked for.

        Messages that are sent meanwhile move others to the next page, so one can come twice.
        """
        before: list[str] | None = None
        for number in itertools.count(page):
            shown = self.history(
                page=number,
                limit=limit,
                status=status,
                to=to,
                from_date=from_date,
                to_date=to_date,
                device_id=device_id,
                search=search,
            )
            ids = [message.message_id for message in shown.messages]
            # A server that passes over `page` would go on for ever.
            if not ids or ids == before:
                return
            yield shown
            if shown.total_pages is not None and number >= shown.total_pages:
                return
            before = ids

    def stats(
        self,
        *,
        from_date: datetime | date | str | None = None,
        to_date: datetime | date | str | None = None,
        device_id: str | None = None,
    ) -> Stats:
        """Counts for a period; all there is without one."""
        query = {
            "from_date": _time_text(from_date, "from_date"),
            "to_date": _time_text(to_date, "to_date"),
            "device_id": device_id,
        }
        return self._call("GET", "/sms/stats", _stats, query=query)

    def cancel(self, message_id: str) -> Message:
        """Take a message back.

        :raises NotPossible: if it is not queued any more.
        """
        return self._call("DELETE", f"/sms/{_segment(message_id)}", _receipt)

    def resend(self, message_id: str) -> Message:
        """Queue a message again.

        :raises NotPossible: if it has not failed.
        """
        return self._send(f"/sms/{_segment(message_id)}/resend", _receipt, None, None)

    # --- webhooks

    def configure_webhook(
        self, url: str, events: Iterable[str], *, secret: str | None = None
    ) -> Webhook:
        """Add a webhook to the account; the answer alone tells its secret.

        :param secret: what to sign with, instead of one that ZimSend makes.
        """
        asked = {"url": url, "events": list(events), "secret": secret}
        hide = (secret,) if secret else ()
        return self._call("POST", "/webhooks/configure", _webhook, asked=asked, hide=hide)

    def webhooks(self) -> tuple[Webhook, ...]:
        """The account's webhooks."""
        return self._call("GET", "/webhooks", _webhooks)

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook."""
        path = f"/webhooks/{_segment(webhook_id)}"
        try:
            self._call("DELETE", path, None, repeatable=True)
        except NotFound as error:
            # Then an earlier try has removed it, whose answer was lost.
            earlier = error.__cause__
            if not (isinstance(earlier, ZimSendError) and earlier.maybe_sent):
                raise

    def test_webhook(self, webhook_id: str) -> WebhookTest:
        """Have ZimSend send a test event."""
        return self._call("POST", f"/webhooks/{_segment(webhook_id)}/test", _webhook_test)

    def webhook_logs(self, *, page: int = 1, limit: int = 50) -> tuple[LogLine, ...]:
        """ZimSend's attempts to deliver events, one page of them."""
        return self._call("GET", "/webhooks/logs", _logs, query={"page": page, "limit": limit})

    # --- as it is

    def forward(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> Answer:
        """Pass a request on with this client's credentials; the answer comes as it is.

        :param path: below the base URL, encoded as it is to be sent.
        :param headers: the caller's; those of its connection and its credentials stay here. Its
            `X-Device-ID` counts, else the client's.
        :param query: encoded, without `?`.
        :raises Unavailable: if no answer came.
        :raises NotUnderstood: if it cannot be read, or is too large.
        :raises ValueError: if these are no parts of a request.
        """
        if not (
            path.startswith("/")
            and _FITS_A_URL.fullmatch(path + query)
            and not {"?", "#"} & set(path)
            and "#" not in query
            and not {".", ".."} & {unquote(segment) for segment in path.split("/")}
        ):
            raise ValueError("path and query must be encoded parts of a URL, without dot segments")
        if not _TOKEN.fullmatch(method):
            raise ValueError("method must be an HTTP method")
        sent = httpx.Headers({} if body is None else {"Content-Type": "application/json"})
        if self._device_id is not None:
            sent["X-Device-ID"] = self._device_id
        for name, value in (headers or {}).items():
            if name.lower() not in _NOT_FORWARDED:
                if not _TOKEN.fullmatch(name):
                    raise ValueError("the name of a header is none")
                sent[name] = _header(value, f"the header {name}")
        request = partial(self._request, method, path, query, body, sent)
        return self._perform(request, lambda answer: answer)

    # --- how a call is made

    def _send(
        self,
        path: str,
        read: Callable[[Any], T],
        asked: Mapping[str, Any] | None,
        device_id: str | None,
    ) -> T:
        device_id = self._device_id if device_id is None else device_id
        headers = {}
        if device_id is not None:
            headers["X-Device-ID"] = _header(device_id, "the device id")
        return self._call("POST", path, read, asked=asked, headers=headers)

    def _call(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T] | None,
        *,
        asked: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        hide: tuple[str, ...] = (),
        repeatable: bool | None = None,
    ) -> T:
        """Make a call and understand its answer.

        :param read: makes a result of the JSON; raises `Unusable`. `None`: there is no result.
        :param asked: the body's fields; those that are `None` are left out. Likewise `query`.
        :param hide: what no error may show, besides the credentials.
        :param repeatable: twice is no worse than once; by default that is so of `GET` alone.
        """
        body, sent = None, httpx.Headers(headers)
        if asked is not None:
            told = {name: value for name, value in asked.items() if value is not None}
            # ASCII, so that half a surrogate pair can be sent as well.
            body = json.dumps(told, allow_nan=False).encode()
            sent["Content-Type"] = "application/json"
        pairs = {name: value for name, value in (query or {}).items() if value is not None}
        return self._perform(
            partial(self._request, method, path, urlencode(pairs), body, sent),
            lambda answer: self._understand(answer, read, hide),
            repeatable=method == "GET" if repeatable is None else repeatable,
        )

    def _request(
        self, method: str, path: str, query: str, body: bytes | None, headers: httpx.Headers
    ) -> httpx.Request:
        url = f"{self._base}{path}?{query}" if query else f"{self._base}{path}"
        try:
            return self._http.build_request(method, url, content=body, headers=headers)
        except httpx.InvalidURL as error:  # too long
            raise ValueError(str(error)) from None

    def _perform(
        self,
        request: Callable[[], httpx.Request],
        understand: Callable[[Answer], T],
        *,
        repeatable: bool = False,
    ) -> T:
        """Try until it is done, or until one more try is wrong or of no use.

        :param request: makes a new one for each try.
        """
        until = self._clock() + self._patience
        earlier: ZimSendError | None = None
        for number in itertools.count(1):
            if wait := self._wait_for_budget(until):
                raise earlier or TryLater(
                    f"the next call to ZimSend may be made in {wait:.3g} s", retry_after=wait
                )
            try:
                return understand(self._exchange(request()))
            except ZimSendError as error:
                again = _is_passing(error) if repeatable else _never_left(error)
                pause = _pause(number, error)
                if not again or number >= self._tries or self._clock() + pause > until:
                    raise error from earlier
                # Rather the one that may have done what was asked.
                if earlier is None or error.maybe_sent or not earlier.maybe_sent:
                    earlier = error
            self._sleep(pause)
        raise AssertionError("itertools.count() has no end")

    def _wait_for_budget(self, until: float) -> float:
        """Wait for one call; returns 0, or the seconds that would be longer than patience is."""
        while self._budget is not None and (wait := self._budget.take()) > 0:
            if self._clock() + wait > until:
                return wait
            self._sleep(wait)
        return 0.0

    def _exchange(self, request: httpx.Request) -> Answer:
        attempt = _Attempt(self._http, request)
        try:
            return attempt.run_within(self._timeout)
        except httpx.DecodingError:
            raise NotUnderstood("the answer is badly compressed", maybe_sent=True) from None
        except httpx.HTTPError as error:
            reason = self._clean(f"{type(error).__name__}: {error}".removesuffix(": "), ())
            # Without its cause, which holds the request with the credentials.
            raise Unavailable(reason, maybe_sent=attempt.left) from None

    def _understand(
        self, answer: Answer, read: Callable[[Any], T] | None, hide: tuple[str, ...]
    ) -> T:
        document, problem = None, None
        try:
            document = read_json(answer.body)
        except Unusable as error:
            problem = error
        fields = document if isinstance(document, dict) else {}
        if not 200 <= answer.status < 300 or _is_refusal(fields):
            raise self._error(answer, document, hide)
        try:
            if read is None:
                return None  # type: ignore[return-value]
            if problem is not None:
                raise problem
            return read(document)
        except Unusable as error:
            raise NotUnderstood(
                f"the answer cannot be understood: {error.reason}",
                status=answer.status,
                maybe_sent=True,
                raw=document,
            ) from None

    def _error(self, answer: Answer, document: Any, hide: tuple[str, ...]) -> ZimSendError:
        """The exception for an answer that is an error, in either of its documented shapes."""
        fields = document if isinstance(document, dict) else {}
        error = fields.get("error")
        inner = error if isinstance(error, dict) else {}
        code = _text(inner, "code") or _text(fields, "code")
        if code is None and isinstance(error, str) and error in _CODES:
            code = error
        if code is not None and not _CODE.fullmatch(self._clean(code, hide)):
            code = None
        told = _text(inner, "message") or _text(fields, "error") or _text(fields, "message")
        theirs = bool(fields.keys() & {"success", "error", "code"})
        kind, advice = _CODES.get(code or "") or (_kind(answer.status, theirs), None)
        redirect = 300 <= answer.status < 400
        untold = "redirects are not followed" if redirect else "the answer gives no reason"
        return kind(
            self._clean(told or "", hide) or untold,
            code=code,
            status=answer.status,
            maybe_sent=kind is Unavailable,
            retry_after=_retry_after(answer.headers),
            advice=advice,
            raw=document,
        )

    def _clean(self, text: str, hide: tuple[str, ...]) -> str:
        """A text from outside as an error can show it: short, on one line, without secrets."""
        for secret in filter(None, (*self._secrets, *hide)):
            text = text.replace(secret, "***")
        text = "".join(c if c.isprintable() else " " for c in text)
        return text[:_LONGEST_MESSAGE].strip().rstrip(".")


class _Attempt:
    """One request on its way, in a thread of its own.

    httpx bounds the wait for each piece of an answer, and nothing bounds the resolver. Who must
    not be held up can only stop waiting.
    """

    def __init__(self, http: httpx.Client, request: httpx.Request) -> None:
        self._http = http
        self._request = request
        self._lock = threading.Lock()
        self._given_up = False
        self._ended = threading.Event()
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        #: The first bytes of the request may have been sent.
        self.left = False
        request.extensions["trace"] = self._watch

    def run_within(self, seconds: float) -> Answer:
        """Send it and read the answer whole. After a time-out it will not be sent any more.

        :raises httpx.HTTPError: if that did not succeed.
        :raises NotUnderstood: if the answer is too large.
        """
        threading.Thread(target=self._run, name="zimsend-call", daemon=True).start()
        if not self._ended.wait(seconds):
            with self._lock:
                self._given_up = True
            raise httpx.TimeoutException(f"no answer within {seconds:g} s")
        if self._error is not None:
            raise self._error
        assert self._answer is not None
        return self._answer

    def _watch(self, event: str, _: object) -> None:
        if event.endswith(".send_request_headers.started"):
            with self._lock:
                if self._given_up:
                    raise httpx.ConnectTimeout("nobody waits for it any more")
                self.left = True

    def _run(self) -> None:
        try:
            self._answer = self._read()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def _read(self) -> Answer:
        answer = self._http.send(self._request, stream=True)
        try:
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if self._given_up:
                    raise httpx.ReadTimeout("nobody waits for it any more")
                if len(body) > LARGEST_ANSWER:
                    problem = f"the answer is larger than {LARGEST_ANSWER} bytes"
                    raise NotUnderstood(problem, status=answer.status_code, maybe_sent=True)
        finally:
            answer.close()
        headers = [pair for pair in answer.headers.multi_items() if pair[0] not in _HOP_BY_HOP]
        return Answer(answer.status_code, headers, bytes(body))


def _is_passing(error: ZimSendError) -> bool:
    return isinstance(error, Unavailable) or error.status == 429 or (error.status or 0) >= 500


def _never_left(error: ZimSendError) -> bool:
    return isinstance(error, Unavailable) and not error.maybe_sent


def _pause(tries: int, error: ZimSendError) -> float:
    """Seconds until the next try: exponential, with full jitter; not before somebody asked for."""
    ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries - 1, 32))
    return max(random.uniform(0, ceiling), error.retry_after or 0.0)


def _retry_after(headers: Iterable[tuple[str, str]]) -> float | None:
    for name, value in headers:
        if name == "retry-after" and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
            return float(value)
    return None


def _is_refusal(fields: Mapping[str, Any]) -> bool:
    # A wrong code or a webhook that does not answer is a result.
    return fields.get("success") is False and not fields.keys() & {"valid", "response_status"}


def _kind(status: int, theirs: bool) -> type[ZimSendError]:
    """What an error without a known code is.

    :param theirs: it looks like one of ZimSend's own.
    """
    if status >= 500:
        return Unavailable
    if 200 <= status < 300:
        return RequestRefused
    # Anybody's 404 does not say that ZimSend has no such message.
    if status < 400 or (status in (404, 410) and not theirs):
        return NotUnderstood
    return _STATUSES.get(status, RequestRefused)


# --- what a request can hold


def _base(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    more = parsed.userinfo or parsed.query or parsed.fragment
    # httpx encodes what no host's name can hold.
    named = parsed.host and "%" not in parsed.host
    if parsed.scheme not in ("http", "https") or not named or more:
        raise ValueError("base_url must be like https://api.zimsend.com/v1")
    return str(parsed).rstrip("/")


def _header(value: str, what: str) -> str:
    if not _FITS_A_HEADER.fullmatch(value):
        raise ValueError(f"{what} is empty, or holds what no HTTP header can")
    return value


def _segment(identifier: str) -> str:
    """An id as a part of a path, whatever it holds.

    :raises ValueError: if the path would be another call's.
    """
    if identifier in ("", ".", ".."):
        raise ValueError(f"{identifier!r} is no id")
    return quote(identifier, safe="")


def _time_text(value: date | str | None, name: str) -> str | None:
    """ISO 8601.

    :param value: a day, an aware `datetime`, or a text that stays as it is.
    """
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{name} has no time zone")
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{name} is out of range") from None
        return value.replace(tzinfo=None).isoformat() + "Z"
    return value.isoformat() if isinstance(value, date) else value


# --- what an answer says; `Unusable` if it cannot be understood

Fields = Mapping[str, Any]


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("there is no JSON object where one belongs")
    return value


def _objects(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Unusable("there is no list where one belongs")
    return [_object(item) for item in value]


def _text(fields: Fields, name: str) -> str | None:
    """A text that is not empty."""
    value = fields.get(name)
    return value if type(value) is str and value else None


def _id(fields: Fields, name: str) -> str:
    value = _text(fields, name)
    if value is None:
        raise Unusable(f"it has no `{name}`")
    return value


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
    moment = times.parse(fields.get(name))
    try:
        return None if moment is None else times.to_datetime(moment)
    except OverflowError:  # before the year 1 or after 9999, in UTC
        return None


def _message(document: Any) -> Message:
    fields = _object(document)
    metadata = fields.get("metadata")
    return Message(
        message_id=_id(fields, "message_id"),
        status=_text(fields, "status"),
        to=_text(fields, "to"),
        text=_text(fields, "message"),
        priority=_whole(fields, "priority") or _text(fields, "priority"),
        device_id=_text(fields, "device_id"),
        created_at=_moment(fields, "created_at"),
        queued_at=_moment(fields, "queued_at"),
        sent_at=_moment(fields, "sent_at"),
        delivered_at=_moment(fields, "delivered_at"),
        failed_at=_moment(fields, "failed_at"),
        estimated_delivery=_moment(fields, "estimated_delivery"),
        metadata=metadata if isinstance(metadata, dict) else None,
        raw=fields,
    )


def _receipt(document: Any) -> Message:
    """A message in an answer whose own `message` is no SMS."""
    return replace(_message(document), text=None)


def _bulk(document: Any) -> BulkResult:
    fields = _object(document)
    batch_id = _text(fields, "batch_id")
    rows, ids = fields.get("messages"), fields.get("message_ids")
    messages, refused = [], []
    if isinstance(rows, list):
        for row in _objects(rows):
            if _text(row, "message_id") is None:
                refused.append(row)
            else:
                messages.append(_receipt(row))
    elif isinstance(ids, list):
        messages = [Message(message_id) for message_id in ids if type(message_id) is str]
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


def _otp(document: Any) -> Otp:
    fields = _object(document)
    return Otp(
        otp_id=_id(fields, "otp_id"),
        message_id=_text(fields, "message_id"),
        status=_text(fields, "status"),
        to=_text(fields, "to"),
        expires_at=_moment(fields, "expires_at"),
        raw=fields,
    )


def _otp_check(document: Any) -> OtpCheck:
    fields = _object(document)
    valid = fields.get("valid")
    if not isinstance(valid, bool):
        raise Unusable("it does not say whether the code is valid")
    return OtpCheck(valid, _text(fields, "message"), _attempts_remaining(fields), fields)


def _attempts_remaining(fields: Fields) -> int | None:
    for holder in (fields, fields.get("error"), fields.get("details")):
        if isinstance(holder, dict) and (left := _whole(holder, "attempts_remaining")) is not None:
            return left
    return None


def _page(document: Any) -> Page:
    fields = _object(document)
    rows = fields.get("data")
    told = fields.get("pagination")
    told = told if isinstance(told, dict) else {}
    return Page(
        messages=tuple(
            _message(row)
            for row in _objects(rows if isinstance(rows, list) else fields.get("messages"))
        ),
        page=_whole(told, "current_page", "page"),
        limit=_whole(told, "per_page", "limit"),
        total_pages=_whole(told, "total_pages", "pages"),
        total_items=_whole(told, "total_items", "total"),
        raw=fields,
    )


def _stats(document: Any) -> Stats:
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
                _text(day, "date"),
                _whole(day, "sent"),
                _whole(day, "delivered"),
                _whole(day, "failed"),
            )
            for day in _objects(stats.get("by_day") or [])
        ),
        period_from=_text(period, "from"),
        period_to=_text(period, "to"),
        raw=fields,
    )


def _webhook(document: Any) -> Webhook:
    fields = _object(document)
    events = fields.get("events")
    return Webhook(
        webhook_id=_id(fields, "webhook_id"),
        url=_text(fields, "url"),
        events=tuple(
            event for event in (events if isinstance(events, list) else ()) if type(event) is str
        ),
        status=_text(fields, "status"),
        secret=_text(fields, "secret"),
        raw=fields,
    )


def _webhooks(document: Any) -> tuple[Webhook, ...]:
    # The documents only say "list".
    if isinstance(document, dict):
        rows = document.get("webhooks")
        document = rows if isinstance(rows, list) else document.get("data")
    return tuple(_webhook(row) for row in _objects(document))


def _webhook_test(document: Any) -> WebhookTest:
    fields = _object(document)
    return WebhookTest(_text(fields, "message"), _whole(fields, "response_status"), fields)


def _logs(document: Any) -> tuple[LogLine, ...]:
    return tuple(
        LogLine(
            log_id=_text(line, "log_id"),
            webhook_id=_text(line, "webhook_id"),
            event=_text(line, "event"),
            url=_text(line, "url"),
            response_status=_whole(line, "response_status"),
            response_time_ms=_whole(line, "response_time_ms"),
            success=success if isinstance(success := line.get("success"), bool) else None,
            attempt=_whole(line, "attempt"),
            timestamp=_moment(line, "timestamp"),
            raw=line,
        )
        for line in _objects(_object(document).get("logs"))
    )
