"""What can go wrong with a call to a provider, named by what the caller can do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from receiver.errors import ReceiverError

_LONGEST_MESSAGE = 300


class ProviderError(ReceiverError):
    """The provider did not do what was asked. Its kinds say what can be done about it.

    :param message: what is wrong; never a secret.
    :param code: the provider's own code, `None` if it gave none.
    :param status: the HTTP status, `None` if there was no whole answer.
    :param maybe_sent: the request may have been carried out all the same.
    :param retry_after: seconds to wait before the next try, if somebody said so.
    :param advice: what to do, where that is more than its kind says.
    :param raw: the answer's JSON, `None` if there was none.
    """

    advice: str = "Look the code up in the provider's documentation."

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


class CredentialsRefused(ProviderError):
    """Mend the credentials."""

    advice = "Check the credentials in the provider's dashboard."


class RequestRefused(ProviderError):
    """Mend the request; the same one is refused again."""

    advice = "Mend the request; the same one will be refused again."


class NotFound(ProviderError):
    """There is no such message, device, code or webhook (any more)."""

    advice = "Check the id; what is old is not kept."


class NotPossible(ProviderError):
    """What it is about is in a state that does not allow it, and repeating does not change that."""

    advice = "Look at its status; it no longer allows this."


class TryLater(ProviderError):
    """Nothing is wrong with the request: send the same one later."""

    advice = "Nothing was done; try again later."


class Unavailable(ProviderError):
    """No answer, or one that says that the provider itself failed.

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


class NotUnderstood(ProviderError):
    """An answer that is not the provider's, or not as its documents describe it."""

    advice = "Check the base URL, and what stands between here and the provider."


def clean(message: str, hidden: Iterable[str | None]) -> str:
    """A text from outside as an error can show it: short, on one line, without secrets."""
    for secret in filter(None, hidden):
        message = message.replace(secret, "***")
    message = "".join(c if c.isprintable() else " " for c in message)
    return message[:_LONGEST_MESSAGE].strip().rstrip(".")


def retry_after(headers: Iterable[tuple[str, str]]) -> float | None:
    """The seconds that an answer's `Retry-After` names; `None` without one."""
    for name, value in headers:
        if name == "retry-after" and re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
            return float(value)
    return None
