"""What can go wrong with a call to ZimSend, named by what the caller can do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from receiver.errors import ReceiverError
from receiver.providers.zimsend.api.answers import Answer, text

_LONGEST_MESSAGE = 300
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


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

    :param timed_out: nothing went wrong but that it took too long.
    """

    advice = "Try again later."

    def __init__(
        self, message: str, *, maybe_sent: bool, timed_out: bool = False, **details: Any
    ) -> None:
        if maybe_sent and details.get("advice") is None:
            details["advice"] = (
                "It may have been carried out: look at the history before you send it again."
            )
        super().__init__(message, maybe_sent=maybe_sent, **details)
        self.timed_out = timed_out


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


# --- which one it is


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
        retry_after=_retry_after(answer.headers),
        advice=advice,
        raw=document,
    )


def clean(message: str, hidden: Iterable[str | None]) -> str:
    """A text from outside as an error can show it: short, on one line, without secrets."""
    for secret in filter(None, hidden):
        message = message.replace(secret, "***")
    message = "".join(c if c.isprintable() else " " for c in message)
    return message[:_LONGEST_MESSAGE].strip().rstrip(".")


def _retry_after(headers: Iterable[tuple[str, str]]) -> float | None:
    for name, value in headers:
        if name == "retry-after" and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
            return float(value)
    return None


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
