"""Which error an answer of sipgate's is, and what to do about it.

The bodies of its errors are not documented, so the HTTP status alone decides.
"""

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

_STATUSES: dict[int, tuple[type[ProviderError], str | None]] = {
    401: (CredentialsRefused, "Check SIPGATE_TOKEN_ID and SIPGATE_TOKEN: the token may be gone."),
    402: (TryLater, "Top up the balance, then send it again."),
    403: (
        CredentialsRefused,
        "Check that SIPGATE_SMS_ID is one of this account's SMS extensions, that sending SMS is "
        "booked, and that the token has the scopes sessions:sms:write, history:read, sms:read and "
        "account:read.",
    ),
    404: (NotFound, "It is not there, or the base URL is wrong."),
    407: (CredentialsRefused, None),
    408: (Unavailable, None),
    409: (NotPossible, None),
    410: (NotFound, None),
    425: (TryLater, None),
    429: (TryLater, None),
}
#: sipgate answers so, too, where a request names no extension.
_UNSURE = (
    "It may have been carried out: look at the history before you send it again. sipgate answers "
    "so, too, where SIPGATE_SMS_ID is missing."
)
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


def refusal(answer: Answer, document: Any, hidden: Iterable[str]) -> ProviderError | None:
    """The error that an answer is; `None` if it is a result.

    :param document: the answer's JSON, `None` if it is none.
    :param hidden: what no error may show.
    """
    if 200 <= answer.status < 300:
        return None
    kind, advice = _STATUSES.get(answer.status) or _kind(answer.status)
    fields = document if isinstance(document, dict) else {}
    told = [fields.get(name) for name in ("message", "error_description", "reason", "error")]
    message = next((text for text in told if type(text) is str and text), "")
    redirect = 300 <= answer.status < 400
    untold = "redirects are not followed" if redirect else "the answer gives no reason"
    return kind(
        clean(message, hidden) or untold,
        code=_word(fields.get("code")) or _word(fields.get("error")),
        status=answer.status,
        maybe_sent=kind in (Unavailable, NotUnderstood),
        retry_after=retry_after(answer.headers),
        advice=advice,
        raw=document,
    )


def _kind(status: int) -> tuple[type[ProviderError], str | None]:
    if status >= 500:
        return Unavailable, _UNSURE if status == 500 else None
    return (NotUnderstood if status < 400 else RequestRefused), None


def _word(value: Any) -> str | None:
    text = str(value) if type(value) in (str, int) else ""
    return text if _WORD.fullmatch(text) else None
