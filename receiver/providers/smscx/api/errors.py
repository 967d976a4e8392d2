"""Which error an answer of SMS.CX's is, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from email.utils import parsedate_to_datetime
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
from receiver.strict_json import Digits
from receiver.times import SECOND

#: What each of SMS.CX's error types is, and what to do where its kind says too little.
_TYPES: dict[str, tuple[type[ProviderError], str | None]] = {
    "invalid_param": (RequestRefused, None),
    "invalid_request": (RequestRefused, None),
    "invalid_scope": (RequestRefused, None),
    "unsupported_grant_type": (RequestRefused, None),
    "invalid_method": (RequestRefused, None),
    "no_coverage": (RequestRefused, "SMS.CX does not reach this number."),
    "invalid_pin": (RequestRefused, "Ask for the code again."),
    "insufficient_credit": (TryLater, "Top up the credit, then send it again."),
    "rate_limit": (TryLater, None),
    "otp_verified": (NotPossible, "The code has been used; send a new one."),
    "otp_cancelled": (NotPossible, "Send a new code."),
    "otp_expired": (NotPossible, "Send a new code."),
    "otp_failed": (NotPossible, "Send a new code."),
    "access_denied": (NotPossible, None),
    "invalid_api_key": (CredentialsRefused, None),
    "invalid_client": (CredentialsRefused, None),
    "insufficient_scope": (CredentialsRefused, "Give the API key the scope that this call needs."),
    "not_found": (NotFound, None),
    "server_error": (Unavailable, None),
}
_STATUSES: dict[int, type[ProviderError]] = {
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
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
#: Seconds that are waited for at most, whatever somebody's clock says.
LONGEST_RESET = 3600.0


def refusal(
    answer: Answer, document: Any, hidden: Iterable[str], now: Callable[[], int]
) -> ProviderError | None:
    """The error that an answer is; `None` if it is a result.

    :param document: the answer's JSON, `None` if it is none.
    :param hidden: what no error may show.
    :param now: the wall clock, in microseconds, for answers that do not say their own time.
    """
    told = document.get("error") if isinstance(document, dict) else None
    theirs = isinstance(told, dict)
    if 200 <= answer.status < 300 and not theirs:
        return None
    fields: dict[str, Any] = told if isinstance(told, dict) else {}
    kind, advice = _TYPES.get(_word(fields.get("type")) or "") or (
        _kind(answer.status, theirs),
        None,
    )
    redirect = 300 <= answer.status < 400
    untold = "redirects are not followed" if redirect else "the answer gives no reason"
    message = fields.get("message")
    return kind(
        clean(message if type(message) is str else "", hidden) or untold,
        code=_word(fields.get("code")) or _word(fields.get("type")),
        status=answer.status,
        maybe_sent=kind is Unavailable,
        retry_after=_until(answer, now),
        advice=advice,
        raw=document,
    )


def error_type(error: ProviderError) -> str | None:
    """SMS.CX's own word for what is wrong, like `invalid_param`."""
    told = error.raw.get("error") if isinstance(error.raw, dict) else None
    return _word(told.get("type")) if isinstance(told, dict) else None


def _word(value: Any) -> str | None:
    if isinstance(value, Digits) or type(value) not in (str, int):
        return None
    text = str(value)
    return text if _WORD.fullmatch(text) else None


def _kind(status: int, theirs: bool) -> type[ProviderError]:
    """What an error of no known type is.

    :param theirs: it looks like one of SMS.CX's own.
    """
    if status >= 500:
        return Unavailable
    if 200 <= status < 300:
        return RequestRefused
    # Anybody's 404 does not say that SMS.CX has no such message.
    if status < 400 or (status in (404, 410) and not theirs):
        return NotUnderstood
    return _STATUSES.get(status, RequestRefused)


def _until(answer: Answer, now: Callable[[], int]) -> float | None:
    """Seconds until the next request may be made, of an answer that says when."""
    if answer.status != 429:
        return retry_after(answer.headers)
    headers = dict(answer.headers)
    reset = headers.get("x-rate-limit-reset", "").strip()
    if not re.fullmatch(r"[0-9]{1,12}", reset, re.ASCII):
        return retry_after(answer.headers)
    # By the clock that has set it, as far as it is known.
    try:
        present = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        present = now() / SECOND
    return min(max(float(reset) - present, 0.0), LONGEST_RESET)
