"""What can be wrong between here and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from receiver import times
from receiver.calling import call
from receiver.checks.found import Check, Found, compared
from receiver.errors import Unusable
from receiver.outgoing import http_client, read_at_most, time_limit
from receiver.parts import Receiver
from receiver.providers import PROVIDERS
from receiver.providers.errors import ProviderError, TryLater, Unavailable
from receiver.providers.zimsend.api.answers import Webhook
from receiver.setting_values import is_loopback
from receiver.strict_json import read_json

#: Seconds that one request may take.
REQUEST = 5.0

#: What a webhook at ZimSend should be told of.
_EVENTS = ("sms.sent", "sms.delivered", "sms.failed")
_ENABLED = frozenset({"", "active", "enabled", "ok"})
_HEALTHY = {"status": "ok"}


def public_address(receiver: Receiver) -> Found:
    """It leads here."""
    url = receiver.config.public_url
    if url is None:
        told = "PUBLIC_URL is not set, so nobody knows how providers reach this service"
        yield "warning", told, "set it to the https address of this service"
        return
    try:
        status, _, body = _get(f"{url}/healthz")
    except httpx.HTTPError as error:
        told = f"{url} cannot be reached from here: {_said(error)}"
        yield "wrong", told, "start the service, and look at DNS, certificate and proxy"
        return
    if 300 <= status < 400:
        told = f"{url}/healthz answers with a redirect ({status})"
        yield "wrong", told, "set PUBLIC_URL to where it leads: providers follow no redirects"
    elif status != 200 or not _is_healthy(body):
        told = f"{url}/healthz answers {status}, and not as this service does"
        yield "wrong", told, "set PUBLIC_URL to this service, or correct the proxy in front"
    else:
        yield "ok", f"{url} leads to this service"


def account(name: str) -> Check:
    def check(receiver: Receiver) -> Found:
        title = PROVIDERS[name].title
        try:
            _prove(receiver, name)
        except TryLater as error:
            yield "warning", f"{title} could not be asked: {error.message}", "look again later"
        except Unavailable as error:
            url = getattr(receiver.config, _API_URLS[name])
            advice = f"see whether this machine reaches {url}, and look again"
            yield "wrong", f"{title} did not answer: {error.message}", advice
        except ProviderError as error:
            yield "wrong", f"{title}: {_without_advice(error)}", error.advice
        else:
            yield "ok", f"{title} accepts the credentials"

    return check


def _prove(receiver: Receiver, name: str) -> None:
    """Make a call for which the credentials must be right, and which changes nothing."""
    sender = receiver.senders.get(name)
    if sender is not None:
        today = times.to_datetime(receiver.now()).date()
        _PROVE[name](sender.client.within(timeout=REQUEST, patience=REQUEST), today)
    else:
        account = receiver.reconciliations[name].account
        account.within(tries=1, patience=REQUEST, budget=account.budget).probe()


#: Of what may be sent through. SMS.CX refuses to be asked for reports of no day.
_PROVE: dict[str, Callable[[Any, date], object]] = {
    "zimsend": lambda client, _: client.webhooks(),
    "smscx": lambda client, day: client.reports(start_date=day, end_date=day, limit=1),
    "sipgate": lambda client, _: client.userinfo(),
}


def _without_advice(error: ProviderError) -> str:
    return str(error).removesuffix(f". {error.advice}")


def clock_of(name: str) -> Check:
    def check(receiver: Receiver) -> Found:
        url = getattr(receiver.config, _API_URLS[name])
        title = PROVIDERS[name].title
        if is_loopback(urlsplit(url).hostname or ""):
            yield "ok", f"{title} is simulated on this machine, by whatever clock it has"
            return
        try:
            asked_at = receiver.now()
            _, headers, _ = _get(url)
            told = parsedate_to_datetime(headers.get("date", ""))
        except (httpx.HTTPError, ValueError):
            yield "warning", f"{title} does not say what time it has", "look again later"
            return
        theirs = int(told.timestamp()) * times.SECOND
        # It has no fraction of a second, and was written while we waited.
        yield compared(_outside(theirs, asked_at, receiver.now()), title)

    return check


def _outside(theirs: int, first: int, last: int) -> int:
    """By how much a time that was told in whole seconds is not between two others."""
    if theirs + times.SECOND < first:
        return theirs + times.SECOND - first
    return max(0, theirs - last)


_API_URLS = {"zimsend": "api_url", "smscx": "smscx_api_url", "sipgate": "sipgate_api_url"}


def webhook(receiver: Receiver) -> Found:
    """ZimSend reports to this service, once, all that it should."""
    url = receiver.config.webhook_url
    if url is None:
        told = "without PUBLIC_URL nobody can tell whether ZimSend reports here"
        yield "warning", told, "set PUBLIC_URL"
        return
    assert receiver.zimsend is not None
    try:
        there = [
            w
            for w in receiver.zimsend.within(timeout=REQUEST, patience=REQUEST).webhooks()
            if w.url == url
        ]
    except ProviderError as error:
        yield "warning", f"it cannot be asked for: {error.message}", "see the account above"
        return
    yield from _registered(there, url)


def _registered(there: Sequence[Webhook], url: str) -> Found:
    enabled = [w for w in there if (w.status or "").lower() in _ENABLED]
    if not there:
        yield "wrong", f"none reports to {url}", f"run `{call('webhooks register')}`"
        return
    if not enabled:
        told = f"{there[0].webhook_id} reports to {url}, and is {there[0].status}"
        yield "wrong", told, "enable it in ZimSend's dashboard"
        return
    if len(enabled) > 1:
        named = ", ".join(str(w.webhook_id) for w in enabled)
        told = f"several report to {url}: {named}"
        yield "warning", told, f"delete all but one: `{call('webhooks delete ID')}`"
    told_of = {event for w in enabled for event in w.events}
    missing = [event for event in _EVENTS if event not in told_of]
    if told_of and "*" not in told_of and missing:
        told = f"ZimSend does not report {', '.join(missing)}"
        yield "warning", told, f"delete it, and run `{call('webhooks register')}`"
    else:
        yield "ok", f"{enabled[0].webhook_id} reports to {url}"


def _get(url: str) -> tuple[int, httpx.Headers, bytes]:
    with (
        time_limit(REQUEST),
        http_client(timeout=REQUEST) as client,
        client.stream("GET", url) as answer,
    ):
        return answer.status_code, answer.headers, read_at_most(answer, 1_000)


def _is_healthy(body: bytes) -> bool:
    try:
        return bool(read_json(body) == _HEALTHY)
    except Unusable:
        return False


def _said(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
