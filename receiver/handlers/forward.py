"""Sends each event on to a program of yours, signed by the Standard Webhooks scheme.

`FORWARD_URL` switches it on; `FORWARD_SECRET` is `whsec_` and 24 to 64 bytes in base64.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from receiver import (
    ConfigError,
    Event,
    HandlerError,
    Registry,
    http_client,
    read_at_most,
    time_limit,
)

#: Its own settings, for docs/reference/settings.md.
SETTINGS = {
    "FORWARD_URL": "where `handlers.forward` sends each event to; unset: it does nothing",
    "FORWARD_SECRET": "what it signs with: `whsec_` and 24 to 64 random bytes in base64",
}

#: Seconds to connect, and between two pieces of the answer; and for the call as a whole, less than
#: the handler's own time-out.
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_WITHIN = 15.0
#: Of an answer's body, bytes and seconds for which it is read, so that the connection can be used
#: again. It says nothing.
_READ, _READ_WITHIN = 64 * 1024, 1.0
_CALLS_AT_ONCE = 4

#: What a header carries unchanged; it may hold other things, but not at its ends.
_FITS_A_HEADER = re.compile(r"[!-~]+")


def register(registry: Registry, environ: Mapping[str, str] = os.environ) -> None:
    url = environ.get("FORWARD_URL")
    if not url:
        return
    try:
        parsed = httpx.URL(url)
        usable = parsed.scheme in ("http", "https") and bool(parsed.host)
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise ConfigError("FORWARD_URL", "must be a full http or https URL")
    forward = Forward(url, _key(environ.get("FORWARD_SECRET")))
    registry.on("*", name="forward", timeout=20, concurrency=_CALLS_AT_ONCE)(forward)


class Forward:
    """The handler: one client, whose connections all calls share."""

    def __init__(self, url: str, key: bytes) -> None:
        self._url = url
        self._key = key
        self._client = http_client(
            timeout=_TIMEOUT,
            most_connections=_CALLS_AT_ONCE,
            headers={"User-Agent": "zimsend-receiver", "Content-Type": "application/json"},
        )

    def __call__(self, event: Event) -> None:
        """POST the body as it is stored.

        :raises HandlerError: permanent for a 4xx other than 408 and 429, and for a redirect that is
            there to stay, which no repetition mends; else to be tried again, after the answer's
            `Retry-After` if it has one.
        """
        now = datetime.now(UTC)
        event_id = event.id if _FITS_A_HEADER.fullmatch(event.id) else quote(event.id)
        timestamp = str(int(now.timestamp()))
        headers = {
            "webhook-id": event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": _sign(self._key, f"{event_id}.{timestamp}.".encode() + event.raw),
        }
        try:
            with (
                time_limit(_WITHIN),
                self._client.stream(
                    "POST", self._url, content=event.raw, headers=headers
                ) as answer,
                suppress(httpx.HTTPError),
                time_limit(_READ_WITHIN),
            ):
                read_at_most(answer, _READ)
        except httpx.HTTPError as error:
            raise HandlerError(f"{type(error).__name__}: {error}") from error
        if answer.is_success:
            return
        status = answer.status_code
        raise HandlerError(
            f"the receiver of forwarded events answered {status}{_elsewhere(answer)}",
            retry_after=_retry_after(answer.headers.get("Retry-After"), now),
            permanent=status in (301, 308) or (400 <= status < 500 and status not in (408, 429)),
        )


def _elsewhere(answer: httpx.Response) -> str:
    """Where a redirect points to: nobody follows it, for whom would it be signed?"""
    location = answer.headers.get("Location", "")
    if not answer.is_redirect or not location:
        return ""
    shown = "".join(c for c in location.partition("?")[0] if c.isprintable())[:200]
    return f" and points to {shown}; set FORWARD_URL to where it really is"


def _key(secret: str | None) -> bytes:
    if not secret:
        raise ConfigError("FORWARD_SECRET", "not set, but FORWARD_URL is; " + _SECRET_HELP)
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ConfigError("FORWARD_SECRET", _SECRET_HELP)
    return key


def _sign(key: bytes, signed: bytes) -> str:
    """Over bytes: a body need not be UTF-8."""
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


_SECRET_HELP = (
    "must be whsec_ and 24 to 64 bytes in base64; make one with: "
    'echo "whsec_$(head -c 32 /dev/urandom | base64)"'
)


def _retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds, from either form of the header; `None` if there is none or it makes no sense."""
    if not header:
        return None
    if header.strip().isdecimal():
        seconds = float(header)
    else:
        try:
            moment = parsedate_to_datetime(header)
        except (ValueError, OverflowError):
            return None
        if moment.tzinfo is None:  # the oldest of HTTP's three forms names no zone: it is UTC
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    return min(max(seconds, 0.0), float(HandlerError.LONGEST_RETRY_AFTER))
