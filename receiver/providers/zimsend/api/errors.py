"""Which error an answer of ZimSend's is, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from receiver.providers.errors import (
    CredentialsRefused,
    NotFound,
    NotPossible,
    NotUnderstood,
    ProviderError,
    RequestRefused,
    TryLater,
    Unavailable,
    clean,
    retry_after,
)
from receiver.providers.exchange import Answer
from receiver.providers.reading import text

__all__ = [
    "CredentialsRefused",
    "NotFound",
    "NotPossible",
    "NotUnderstood",
    "RequestRefused",
    "TryLater",
    "Unavailable",
    "ZimSendError",
]

#: Every error of ZimSend's.
ZimSendError = ProviderError

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


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

#: What to do about the kinds of which ZimSend's documents say more.
_ADVICE: dict[type[ZimSendError], str] = {
    CredentialsRefused: "Check the API key and the client id in ZimSend's dashboard.",
    NotFound: "Check the id; ZimSend keeps messages for 90 days.",
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


# --- which one it is


def refusal(answer: Answer, document: Any, hidden: Iterable[str | None]) -> ZimSendError | None:
    """The error that an answer is; `None` if it is a result. See `from_answer`."""
    fields = document if isinstance(document, dict) else {}
    # A wrong code or a webhook that does not answer is a result.
    refused = fields.get("success") is False and not fields.keys() & {"valid", "response_status"}
    if 200 <= answer.status < 300 and not refused:
        return None
    return from_answer(answer, document, hidden)


def from_answer(answer: Answer, document: Any, hidden: Iterable[str | None]) -> ZimSendError:
    """The exception for an answer that is an error, in either of its documented shapes.

    :param document: the answer's JSON, `None` if it is none.
    :param hidden: what no error may show.
    """
    hidden = tuple(hidden)
    fields = document if isinstance(document, dict) else {}
    error = fields.get("error")
    inner = error if isinstance(error, dict) else {}
    code = text(inner, "code") or text(fields, "code")
    if code is None and isinstance(error, str) and error in _CODES:
        code = error
    if code is not None and not _CODE.fullmatch(clean(code, hidden)):
        code = None
    told = text(inner, "message") or text(fields, "error") or text(fields, "message")
    theirs = bool(fields.keys() & {"success", "error", "code"})
    kind, advice = _CODES.get(code or "") or (_kind(answer.status, theirs), None)
    redirect = 300 <= answer.status < 400
    untold = "redirects are not followed" if redirect else "the answer gives no reason"
    return kind(
        clean(told or "", hidden) or untold,
        code=code,
        status=answer.status,
        maybe_sent=kind is Unavailable,
        retry_after=retry_after(answer.headers),
        advice=advice or _ADVICE.get(kind),
        raw=document,
    )


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
