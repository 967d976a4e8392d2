"""A client for the whole of ZimSend's API.

    with ZimSend(api_key, client_id) as zimsend:
        message = zimsend.send("+33612345678", "Bonjour")

ZimSend's documents describe some answers in two ways; both are understood. Every answer is kept
beside what was understood of it, as `raw`. Errors are named by what the caller can do about them.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypedDict, TypeVar, Unpack
from urllib.parse import urlencode

import httpx

from receiver.providers import exchange
from receiver.providers.budget import Budget
from receiver.providers.exchange import Answer, Bounds, Client, Exchange
from receiver.providers.zimsend.api import answers, errors
from receiver.providers.zimsend.api.answers import (
    BulkResult,
    LogLine,
    Message,
    Otp,
    OtpCheck,
    Page,
    Stats,
    Webhook,
    WebhookTest,
)
from receiver.providers.zimsend.api.errors import NotFound, ZimSendError

BASE_URL = "https://api.zimsend.com/v1"

T = TypeVar("T")


class Conditions(TypedDict, total=False):
    """Which messages of the history are meant; each one that is given must hold."""

    status: str | None
    to: str | None
    #: Aware, a day, or ISO 8601; likewise `to_date`.
    from_date: datetime | date | str | None
    to_date: datetime | date | str | None
    device_id: str | None
    #: A part of the text.
    search: str | None


class ZimSend(Client):
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
        tries: int = 4,
        patience: float = 30.0,
        budget: Budget | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if device_id is not None:
            exchange.header(device_id, "the device id")
        self._device_id = device_id
        credentials = {
            "X-API-Key": exchange.header(api_key, "the API key"),
            "X-Client-ID": exchange.header(client_id, "the client id"),
        }
        bounds = Bounds(timeout, tries, patience, budget)
        self._exchange = Exchange("ZimSend", credentials, base_url, bounds, sleep, clock)

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
            "scheduled_at": exchange.time_text(scheduled_at, "scheduled_at"),
            "retry_attempts": retry_attempts,
        }
        return self._send("/sms/send", answers.receipt, asked, device_id)

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
        return self._send("/sms/send-bulk", answers.bulk, asked, device_id)

    def send_bulk_personalized(
        self, messages: Iterable[Mapping[str, Any]], *, device_id: str | None = None
    ) -> BulkResult:
        """Send many texts.

        :param messages: each with `to`, `message` and, if wanted, `metadata`.
        """
        asked = {"messages": [dict(message) for message in messages]}
        return self._send("/sms/send-bulk-personalized", answers.bulk, asked, device_id)

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
        return self._send("/sms/send-otp", answers.otp, asked, device_id)

    def verify_otp(self, otp_id: str, code: str) -> OtpCheck:
        """Check a one-time code; each check uses up one of three.

        :raises NotPossible: if it has expired, or no check is left.
        """
        asked = {"otp_id": otp_id, "code": code}
        try:
            return self._call(
                "POST", "/sms/verify-otp", answers.otp_check, asked=asked, hide=(code,)
            )
        except ZimSendError as error:
            if error.code != "INVALID_OTP":
                raise
            return OtpCheck(False, error.message, answers.attempts_remaining(error.raw), error.raw)

    def status(self, message_id: str) -> Message:
        """What has become of a message."""
        return self._call("GET", f"/sms/status/{exchange.segment(message_id)}", answers.message)

    def history(self, *, page: int = 1, limit: int = 50, **conditions: Unpack[Conditions]) -> Page:
        """One page of the messages of the last 90 days.

        :param limit: messages on a page, at most 100.
        """
        query = {"page": page, "limit": limit, **conditions}
        return self._call("GET", "/sms/history", answers.page, query=query)

    def history_pages(
        self, *, page: int = 1, limit: int = 100, **conditions: Unpack[Conditions]
    ) -> Iterator[Page]:
        """All pages of the history from `page` on, each fetched when it is asked for.

        Messages that are sent meanwhile move others to the next page, so one can come twice.
        """
        before: tuple[list[str], Sequence[object]] | None = None
        for number in itertools.count(page):
            shown = self.history(page=number, limit=limit, **conditions)
            ids = [message.message_id for message in shown.messages]
            # A server that passes over `page` would go on for ever.
            if not (ids or shown.nameless) or (ids, shown.nameless) == before:
                return
            yield shown
            if shown.total_pages is not None and number >= shown.total_pages:
                return
            before = ids, shown.nameless

    def stats(
        self,
        *,
        from_date: datetime | date | str | None = None,
        to_date: datetime | date | str | None = None,
        device_id: str | None = None,
    ) -> Stats:
        """Counts for a period; all there is without one."""
        query = {"from_date": from_date, "to_date": to_date, "device_id": device_id}
        return self._call("GET", "/sms/stats", answers.stats, query=query)

    def cancel(self, message_id: str) -> Message:
        """Take a message back.

        :raises NotPossible: if it is not queued any more.
        """
        return self._call("DELETE", f"/sms/{exchange.segment(message_id)}", answers.receipt)

    def resend(self, message_id: str) -> Message:
        """Queue a message again.

        :raises NotPossible: if it has not failed.
        """
        return self._send(
            f"/sms/{exchange.segment(message_id)}/resend", answers.receipt, None, None
        )

    # --- webhooks

    def configure_webhook(
        self, url: str, events: Iterable[str], *, secret: str | None = None
    ) -> Webhook:
        """Add a webhook to the account; the answer alone tells its secret.

        :param secret: what to sign with, instead of one that ZimSend makes.
        """
        asked = {"url": url, "events": list(events), "secret": secret}
        hide = (secret,) if secret else ()
        return self._call("POST", "/webhooks/configure", answers.webhook, asked=asked, hide=hide)

    def webhooks(self) -> tuple[Webhook, ...]:
        """The account's webhooks."""
        return self._call("GET", "/webhooks", answers.webhooks)

    def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook."""
        path = f"/webhooks/{exchange.segment(webhook_id)}"
        try:
            self._call("DELETE", path, None, repeatable=True)
        except NotFound as error:
            # Then an earlier try has removed it, whose answer was lost.
            earlier = error.__cause__
            if not (isinstance(earlier, ZimSendError) and earlier.maybe_sent):
                raise

    def test_webhook(self, webhook_id: str) -> WebhookTest:
        """Have ZimSend send a test event."""
        return self._call(
            "POST", f"/webhooks/{exchange.segment(webhook_id)}/test", answers.webhook_test
        )

    def webhook_logs(self, *, page: int = 1, limit: int = 50) -> tuple[LogLine, ...]:
        """ZimSend's attempts to deliver events, one page of them."""
        return self._call(
            "GET", "/webhooks/logs", answers.logs, query={"page": page, "limit": limit}
        )

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
        exchange.check_target(method, path, query)
        sent = httpx.Headers({} if body is None else {"Content-Type": "application/json"})
        if self._device_id is not None:
            sent["X-Device-ID"] = self._device_id
        sent.update(exchange.forwarded(headers or {}))
        return self._exchange.perform(method, path, query, body, sent, lambda answer: answer)

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
            headers["X-Device-ID"] = exchange.header(device_id, "the device id")
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
        pairs = {
            name: exchange.time_text(value, name)
            for name, value in (query or {}).items()
            if value is not None
        }
        hidden = (*self._exchange.secrets, *hide)

        def refusal(answer: Answer, document: Any) -> ZimSendError | None:
            return errors.refusal(answer, document, hidden)

        return self._exchange.perform(
            method,
            path,
            urlencode(pairs),
            body,
            sent,
            lambda answer: exchange.understand(answer, read, refusal),
            repeatable=method == "GET" if repeatable is None else repeatable,
        )
