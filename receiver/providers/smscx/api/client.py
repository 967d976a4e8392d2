"""A client for what this service needs of SMS.CX's API.

    with SmsCx(api_key, sender="Boutique") as smscx:
        sent = smscx.send("+33612345678", "Bonjour")

Every answer is kept beside what was understood of it, as `raw`. Errors are named by what the caller
can do about them (`receiver.providers.errors`).
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Self, TypedDict, TypeVar, Unpack
from urllib.parse import urlencode

import httpx

from receiver import times
from receiver.providers import exchange
from receiver.providers.budget import Budget
from receiver.providers.errors import NotUnderstood, ProviderError, TryLater
from receiver.providers.exchange import Answer, Bounds, Client, Exchange
from receiver.providers.reading import Fields
from receiver.providers.smscx.api import answers, errors
from receiver.providers.smscx.api.answers import Message, Otp, Page, Sent

BASE_URL = "https://api.sms.cx"
#: Rows on a page of the reports, at most.
MOST_ROWS = 500

_UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)

T = TypeVar("T")


class Options(TypedDict, total=False):
    """What can be said of a request to send; see SMS.CX's documents."""

    sender: str | None
    #: Aware, or as SMS.CX writes it, in UTC. Not before.
    scheduled_at: datetime | str | None
    dlr_callback_url: str | None
    #: A UUID by which a repetition is known. It is not relied upon here.
    idempotency_id: str | None


class Filter(TypedDict, total=False):
    """Which reports are meant; each one that is given must hold."""

    #: Days, both of them included; or a month or a year as `period`.
    start_date: date | str | None
    end_date: date | str | None
    period: str | None
    channel: str | None
    source: str | None
    #: `delivered`, `failed`, `sent`, `accepted`, `rejected`, `scheduled`.
    delivery_report: str | None
    country_iso: str | None


class SmsCx(Client):
    """SMS.CX's API for one account. Threads may share one.

    Calls that only read are repeated after errors on the way, 5xx and 429. All others are repeated
    only if the request surely never left. After a 429 no call is made before the time that
    `X-Rate-Limit-Reset` names.

    All calls raise `ProviderError` and its kinds, and `ValueError` or `TypeError` for arguments
    that no request can hold.

    :param sender: who SMS are from where a call does not say; 3 to 15 characters.
    :param now: the wall clock, in microseconds.

    The others: see `receiver.providers.exchange`.

    :raises ValueError: if one of them is of no use.
    """

    def __init__(
        self,
        api_key: str,
        *,
        sender: str | None = None,
        base_url: str = BASE_URL,
        timeout: float = 10.0,
        tries: int = 4,
        patience: float = 30.0,
        budget: Budget | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = times.now,
    ) -> None:
        self._sender = sender
        self._now = now
        self._resets = _Resets(clock, budget)
        credentials = {"X-API-Key": exchange.header(api_key, "the API key")}
        bounds = Bounds(timeout, tries, patience, self._resets)
        self._exchange = Exchange("SMS.CX", credentials, base_url, bounds, sleep, clock)

    def within(self, **bounds: Any) -> Self:
        """The same account, which still waits for its resets, with other bounds."""
        if "budget" not in bounds:
            return super().within(**bounds)
        resets = self._resets.before(bounds["budget"])
        other = super().within(**{**bounds, "budget": resets})
        other._resets = resets
        return other

    # --- messages

    def send(
        self,
        to: str | Sequence[str],
        text: str,
        *,
        country_iso: str | None = None,
        allow_invalid: bool | None = None,
        track_data: str | None = None,
        **options: Unpack[Options],
    ) -> Sent:
        """Send one text to one number or many (at most 25,000).

        :param to: E.164, or national with `country_iso`.
        :param text: a template; `{{…}}` in it is replaced by SMS.CX.
        :param allow_invalid: send to the others if some numbers are none.
        :param track_data: a UUID that comes back in the reports.
        """
        return self._send(
            "/sms",
            {
                "to": to if isinstance(to, str) else list(to),
                "text": text,
                "countryIso": country_iso,
                "allowInvalid": allow_invalid,
                "trackData": _uuid(track_data, "track_data"),
            },
            options,
        )

    def send_campaign(self, groups: Sequence[int], text: str, **options: Unpack[Options]) -> Sent:
        """Send one text to groups of the account's contacts."""
        return self._send("/sms/campaign", {"groups": list(groups), "text": text}, options)

    def delete_scheduled(self, msg_id: str) -> Fields:
        """Take a scheduled message back.

        :returns: what SMS.CX says of it: `msgId`, `parts`, `creditReturned`.
        :raises NotPossible: if it is not scheduled any more.
        """
        return self._call("DELETE", f"/sms/scheduled/{exchange.segment(msg_id)}", answers.info)

    def delete_scheduled_campaign(self, campaign_id: str) -> Fields:
        """Take back what of a campaign has not gone yet."""
        path = f"/sms/scheduled/campaign/{exchange.segment(campaign_id)}"
        return self._call("DELETE", path, answers.info)

    # --- one-time codes

    def new_otp(
        self,
        to: str,
        *,
        template: str | None = None,
        ttl: int | None = None,
        max_attempts: int | None = None,
        pin_type: str | None = None,
        pin_length: int | None = None,
        country_iso: str | None = None,
        sender: str | None = None,
        track_id: str | None = None,
        callback_url: str | None = None,
    ) -> Otp:
        """Send a one-time code, which SMS.CX makes and checks.

        :param template: the text, with `{{pin}}` in it.
        :param ttl: seconds that it is good for, 60 to 1800.
        :param pin_type: `letters`, `numbers` or `alphanumeric`.
        :param pin_length: 4 to 10.
        """
        asked = {
            "phoneNumber": to,
            "countryIso": country_iso,
            "from": self._from(sender),
            "template": template,
            "trackId": _uuid(track_id, "track_id"),
            "ttl": ttl,
            "maxAttempts": max_attempts,
            "pinType": pin_type,
            "pinLength": pin_length,
            "otpCallbackUrl": callback_url,
        }
        return self._call("POST", "/otp", answers.otp, asked=asked)

    def verify_otp(self, otp_id: str, pin: str) -> bool:
        """Whether a one-time code is the right one; each check uses up one.

        :raises NotPossible: if it has expired, was used or taken back, or no check is left.
        """
        path = f"/otp/{exchange.segment(otp_id)}"
        try:
            return self._call("POST", path, answers.verified, asked={"pin": pin}, hide=(pin,))
        except ProviderError as error:
            if errors.error_type(error) != "invalid_pin":
                raise
            return False

    def otp(self, otp_id: str) -> Otp:
        """What has become of a one-time code."""
        return self._call("GET", f"/otp/{exchange.segment(otp_id)}", answers.otp)

    def cancel_otp(self, otp_id: str) -> None:
        """Make a one-time code useless."""
        self._call("DELETE", f"/otp/{exchange.segment(otp_id)}", None)

    # --- reports

    def report(self, msg_id: str) -> Message:
        """What has become of a message."""
        path = f"/reports/single/{exchange.segment(msg_id)}"
        return self._call("GET", path, answers.report)

    def reports(
        self, *, cursor: str | None = None, limit: int = MOST_ROWS, **which: Unpack[Filter]
    ) -> Page:
        """One page of the reports.

        :param cursor: `next` of the page before; the same filter belongs to it.
        :param limit: rows on a page.
        """
        return self._call(
            "GET", "/reports", answers.page, query={**which, "limit": limit, "next": cursor}
        )

    def report_pages(
        self, *, cursor: str | None = None, limit: int = MOST_ROWS, **which: Unpack[Filter]
    ) -> Iterator[Page]:
        """All pages of the reports from a cursor on, each fetched when it is asked for."""
        return _pages(lambda at: self.reports(cursor=at, limit=limit, **which), cursor)

    def campaign_reports(
        self, campaign_id: str, *, cursor: str | None = None, limit: int = MOST_ROWS
    ) -> Page:
        """One page of the reports of a campaign; each request to send is one."""
        path = f"/reports/campaigns/{exchange.segment(campaign_id)}"
        return self._call("GET", path, answers.page, query={"limit": limit, "next": cursor})

    def campaign_report_pages(
        self, campaign_id: str, *, cursor: str | None = None, limit: int = MOST_ROWS
    ) -> Iterator[Page]:
        """All pages of the reports of a campaign."""
        return _pages(lambda at: self.campaign_reports(campaign_id, cursor=at, limit=limit), cursor)

    # --- how a call is made

    def _send(self, path: str, asked: dict[str, Any], options: Options) -> Sent:
        asked |= {
            "from": self._from(options.get("sender")),
            "scheduledDate": _schedule(options.get("scheduled_at")),
            "dlrCallbackUrl": options.get("dlr_callback_url"),
            "idempotencyId": _uuid(options.get("idempotency_id"), "idempotency_id"),
        }
        return self._call("POST", path, answers.sent, asked=asked)

    def _from(self, sender: str | None) -> str | None:
        return self._sender if sender is None else sender

    def _call(
        self,
        method: str,
        path: str,
        read: Callable[[Any], T] | None,
        *,
        asked: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        hide: tuple[str, ...] = (),
    ) -> T:
        """Make a call and understand its answer.

        :param read: makes a result of the JSON; raises `Unusable`. `None`: there is no result.
        :param asked: the body's fields; those that are `None` are left out. Likewise `query`.
        :param hide: what no error may show, besides the credentials.
        """
        body, headers = None, httpx.Headers()
        if asked is not None:
            told = {name: value for name, value in asked.items() if value is not None}
            body = json.dumps(told, allow_nan=False).encode()
            headers["Content-Type"] = "application/json"
        pairs = {
            name: exchange.time_text(value, name)
            for name, value in (query or {}).items()
            if value is not None
        }
        hidden = (*self._exchange.secrets, *hide)

        def refusal(answer: Answer, document: Any) -> ProviderError | None:
            error = errors.refusal(answer, document, hidden, self._now)
            if isinstance(error, TryLater) and answer.status == 429:
                self._resets.wait(error.retry_after or 0.0)
            return error

        return self._exchange.perform(
            method,
            path,
            urlencode(pairs),
            body,
            headers,
            lambda answer: exchange.understand(answer, read, refusal),
            repeatable=method == "GET",
        )


class _Resets:
    """A budget that allows no call before the account may make one again.

    :param clock: seconds that only grow.
    :param then: who is asked after that.
    """

    def __init__(self, clock: Callable[[], float], then: Budget | None) -> None:
        self._clock = clock
        self._then = then
        self._lock = threading.Lock()
        #: When the next call may be made; shared by all that speak for the account.
        self._from = [float("-inf")]

    def before(self, then: Budget | None) -> _Resets:
        other = copy.copy(self)
        other._then = then
        return other

    def wait(self, seconds: float) -> None:
        with self._lock:
            self._from[0] = max(self._from[0], self._clock() + seconds)

    def take(self) -> float:
        with self._lock:
            wait = self._from[0] - self._clock()
        if wait > 0:
            return wait
        return 0.0 if self._then is None else self._then.take()


def _pages(fetch: Callable[[str | None], Page], cursor: str | None) -> Iterator[Page]:
    """
    :raises NotUnderstood: if a cursor comes twice: what lies behind it would never be seen.
    """
    seen = {cursor}
    while True:
        page = fetch(cursor)
        yield page
        cursor = page.next
        if cursor is None:
            return
        if cursor in seen:
            raise NotUnderstood("the reports' cursor does not move", raw=page.raw)
        seen.add(cursor)


def _schedule(value: datetime | str | None) -> str | None:
    """As SMS.CX writes it: UTC, without a zone."""
    text: str | None = exchange.time_text(value, "scheduled_at")
    if isinstance(value, datetime) and text is not None:
        text = text.removesuffix("Z").replace("T", " ").partition(".")[0]
    return text


def _uuid(value: str | None, name: str) -> str | None:
    """SMS.CX takes no other, and drops some of them silently."""
    if value is not None and not _UUID.fullmatch(value):
        raise ValueError(f"{name} must be a UUID in lower case")
    return value
