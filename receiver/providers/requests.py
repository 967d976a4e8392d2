"""Requests to send in ZimSend's shape, as far as every other provider reads them alike. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from receiver import times
from receiver.errors import ReceiverError

#: ZimSend's.
MOST_RECIPIENTS = 100
#: Seconds after which no further request of many is made.
LONGEST = 60.0

Fields = Mapping[str, Any]
T = TypeVar("T")

_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}", re.ASCII)
_BETWEEN_DIGITS = re.compile(r"[ .()/-]")


class NotTaken(ReceiverError):
    """The provider did not say that it took what was asked for; why, in ZimSend's words.

    :param status: of HTTP.
    :param code: ZimSend's, or this service's own where ZimSend has none.
    :param to: the number, as it was given; `None`: it is about the request as a whole.
    :param retry_after: seconds, if somebody said so; kept only of what surely was not sent.
    :param maybe_sent: it may have been sent all the same, so nobody else may send it.
    :param message_id: as it is answered, where the message is known all the same.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        to: str | None = None,
        retry_after: float | None = None,
        maybe_sent: bool = False,
        message_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.to = to
        self.retry_after = None if maybe_sent else retry_after
        self.maybe_sent = maybe_sent
        self.message_id = message_id

    @property
    def leaves_it(self) -> bool:
        """Whether surely nothing was sent, and another provider may be asked instead. Who does not
        want to hear from the sender does not want to by another way either."""
        return not self.maybe_sent and self.code != "BLOCKED_NUMBER"


#: Problems that the next SMS would have as well.
_FOR_ALL = frozenset({"NO_CREDIT", "RATE_LIMIT_EXCEEDED", "PROVIDER_REFUSED_US", "NETWORK_ERROR"})


def not_tried(why: str) -> NotTaken:
    """What is told of an SMS for which no request was made."""
    told = f"Nothing was sent to this number: {why}. Send it again later."
    return NotTaken(503, "SERVICE_UNAVAILABLE", told)


def why_no_other(problem: NotTaken | None, title: str) -> NotTaken | None:
    """What is told of the other SMS, if the answer to one shows that none of them will be taken.

    :param title: the provider, as people write it.
    """
    if problem is None or problem.code not in _FOR_ALL:
        return None
    return not_tried(f"{title} did not answer before") if problem.maybe_sent else problem


def of_all(problems: Iterable[NotTaken | None]) -> NotTaken | None:
    """Why nothing of a request to send many was taken, where it is the same for all of them.

    :param problems: one for each SMS; `None` for one that was taken, or that has an id to tell.
    """
    found = list(problems)
    known = [problem for problem in found if problem is not None]
    if not known or len(known) < len(found):
        return None
    codes = {problem.code for problem in known[1:]} - {"SERVICE_UNAVAILABLE"}
    return known[0] if codes <= {known[0].code} else None


def each(asked: Fields, one: Callable[[Fields], T]) -> list[T | NotTaken]:
    """The SMS of a request to send one text to many, or many texts; what is wrong with one of them
    stands in its place.

    :param one: reads the SMS of a request to send one; raises `NotTaken`.
    :raises NotTaken: if the request is wrong as a whole.
    """
    messages, recipients = asked.get("messages"), asked.get("recipients")
    if isinstance(messages, list):
        wanted = [{**asked, **(own if isinstance(own, dict) else {"to": None})} for own in messages]
    elif isinstance(recipients, list):
        one({**asked, "to": "+10000000"})  # what is the same for all
        wanted = [{**asked, "to": to} for to in recipients]
    else:
        raise NotTaken(400, "INVALID_REQUEST", "recipients (or messages) must be a list")
    if not wanted:
        raise NotTaken(400, "INVALID_REQUEST", "There is no recipient")
    if len(wanted) > MOST_RECIPIENTS:
        raise NotTaken(400, "TOO_MANY_RECIPIENTS", f"At most {MOST_RECIPIENTS} recipients")
    return [_one_or_why(fields, one) for fields in wanted]


def _one_or_why(asked: Fields, one: Callable[[Fields], T]) -> T | NotTaken:
    try:
        return one(asked)
    except NotTaken as problem:
        to = asked.get("to")
        problem.to = to if isinstance(to, str) else None
        return problem


def told_of_many(rows: Sequence[Fields], now: int, provider: str) -> dict[str, Any]:
    """What is answered to a request to send many.

    :param rows: of each recipient, with the `status` `queued` or `failed`.
    :param now: microseconds.
    """
    queued = sum(row["status"] == "queued" for row in rows)
    return {
        "success": queued > 0,
        "total_recipients": len(rows),
        "queued_messages": queued,
        "failed_messages": len(rows) - queued,
        "messages": rows,
        "queued_at": times.iso(now),
        "provider": provider,
    }


def read_number(value: Any) -> str:
    """E.164."""
    # The zero in brackets is for those who dial without the country's code.
    text = _BETWEEN_DIGITS.sub("", value.replace("(0)", "")) if type(value) is str else ""
    if not _NUMBER.fullmatch(text):
        raise NotTaken(400, "INVALID_PHONE_NUMBER", "Write the number as +33612345678")
    return text if text.startswith("+") else f"+{text}"


def read_text(value: Any) -> str:
    """A text that is not blank."""
    if type(value) is not str or not value.strip():
        raise NotTaken(400, "INVALID_REQUEST", "message must be a text")
    return value


def read_moment(value: Any) -> int | None:
    """When it is to go out, in microseconds; `None`: at once."""
    if value is None:
        return None
    moment = times.parse(value)
    if moment is None:
        raise NotTaken(400, "INVALID_SCHEDULED_DATE", "scheduled_at must be a time in ISO 8601")
    return moment


def read_metadata(value: Any) -> Fields | None:
    if value is not None and not isinstance(value, dict):
        raise NotTaken(400, "INVALID_REQUEST", "metadata must be an object")
    return value
