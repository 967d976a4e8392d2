"""Requests to send in ZimSend's shape, as sipgate takes them, and the answers in it.

sipgate gives no id when it sends, so each message has one of ours, and its intent is written down
before its request leaves. Of each SMS one request is made, and none is made again that may have
been carried out.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from receiver import ids, times
from receiver.errors import StoreUnavailable
from receiver.event import Incoming
from receiver.providers.errors import (
    CredentialsRefused,
    ProviderError,
    RequestRefused,
    TryLater,
)
from receiver.providers.requests import (
    LONGEST,
    Fields,
    NotTaken,
    each,
    not_tried,
    read_metadata,
    read_moment,
    read_number,
    read_text,
    told_of_many,
    why_no_other,
)
from receiver.providers.sipgate import intents
from receiver.providers.sipgate.api import Sipgate
from receiver.providers.sipgate.events import NAME
from receiver.providers.sipgate.intents import Book, Intent
from receiver.times import DAY, SECOND

log = logging.getLogger(__name__)

SOURCE = "gateway"
#: sipgate's.
FURTHEST = 30 * DAY
#: Seconds that one request may take with its repetitions, which are of those that never left. By
#: `polling.UNSURE` all of many have ended, of which none is begun after `LONGEST`.
PATIENCE = 15.0


class Wanted(NamedTuple):
    """One SMS to one number, as it was asked for.

    :param send_at: microseconds, whole seconds; `None`: at once.
    """

    to: str
    text: str
    send_at: int | None
    metadata: Fields | None


class End(NamedTuple):
    """What became of one SMS.

    :param id: ours.
    :param problem: why it was not, or perhaps not, sent; `None`: sipgate took it.
    """

    wanted: Wanted
    id: str
    problem: NotTaken | None

    @property
    def may_be_sent(self) -> bool:
        return self.problem is None or self.problem.maybe_sent


def one(asked: Fields, now: int) -> Wanted:
    """The SMS of a request to send one.

    :param now: microseconds.
    :raises NotTaken: if sipgate could not send it as it is.
    """
    return Wanted(
        to=read_number(asked.get("to")),
        text=_text(asked.get("message")),
        send_at=_send_at(asked.get("scheduled_at"), now),
        metadata=read_metadata(asked.get("metadata")),
    )


def many(asked: Fields, now: int) -> list[Wanted | NotTaken]:
    """The SMS of a request to send one text to many, or many texts; what is wrong with one of them
    stands in its place.

    :raises NotTaken: if the request is wrong as a whole.
    """
    return each(asked, lambda own: one(own, now))


def send(
    sipgate: Sipgate,
    book: Book,
    wanted: Sequence[Wanted],
    *,
    now: int,
    text_mode: str,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[End], dict[str, Intent]]:
    """Send each by itself, in their order.

    Where one shows that no other will be taken (credentials, credit, no answer), the others are not
    tried. The intents of what was surely not sent are gone afterwards.

    :param now: microseconds.
    :param text_mode: `full`, `masked` or `none`: what to keep of texts.
    :param clock: seconds that only grow.
    :returns: what became of each, and the intents of those that may have been sent, by our ids.
    :raises StoreUnavailable: if the intents cannot be written down; then nothing was sent.
    """
    began, found = clock(), list[End]()
    kept: dict[str, Intent] = {}
    for sms in wanted:
        own_id = secrets.token_hex(16)
        kept[own_id] = intents.intent(
            own_id,
            sms_id=sipgate.sms_id,
            to=sms.to,
            text=sms.text,
            now=now,
            send_at=sms.send_at,
            metadata=sms.metadata,
            text_mode=text_mode,
        )
    book.keep(kept.values())
    hurried, stop = sipgate.within(patience=PATIENCE), None
    for own_id, sms in zip(kept, wanted, strict=True):
        problem = stop
        if problem is None and clock() - began > LONGEST:
            problem = stop = not_tried("it took too long")
        if problem is None:
            problem = _try(hurried, sms)
            stop = why_no_other(problem, "sipgate")
            if problem is not None and problem.maybe_sent:
                problem.message_id = written(own_id)
        found.append(End(sms, own_id, problem))
    try:
        book.drop(end.id for end in found if not end.may_be_sent)
    except StoreUnavailable as error:
        log.warning("what sipgate refused will be looked for in its history in vain: %s", error)
    return found, {end.id: kept[end.id] for end in found if end.may_be_sent}


def _try(sipgate: Sipgate, sms: Wanted) -> NotTaken | None:
    try:
        send_at = None if sms.send_at is None else sms.send_at // SECOND
        sipgate.send(sms.to, sms.text, send_at=send_at)
    except ProviderError as error:
        return not_taken(error)
    except (ValueError, TypeError) as error:  # no request holds it
        return NotTaken(400, "INVALID_REQUEST", f"This cannot be sent: {error}")
    return None


def not_taken(error: ProviderError) -> NotTaken:
    """What an error of the API is in ZimSend's words."""
    if error.maybe_sent:
        message = (
            f"No answer of use from sipgate ({error.message}). The SMS may have been sent, and is "
            "looked for in sipgate's history: ask for its status before you send it again."
        )
        return NotTaken(
            504 if error.status is None else 502,
            "NETWORK_ERROR",
            message,
            maybe_sent=True,
        )
    if isinstance(error, CredentialsRefused):
        found = 502, "PROVIDER_REFUSED_US"
    elif error.status == 402:
        found = 402, "NO_CREDIT"
    elif isinstance(error, TryLater):
        found = 429, "RATE_LIMIT_EXCEEDED"
    elif isinstance(error, RequestRefused) and error.status == 400:
        found = 400, "INVALID_REQUEST"
    else:
        found = 502, "NETWORK_ERROR"
    message = f"sipgate: {error.message}. {error.advice}"
    return NotTaken(*found, message, retry_after=error.retry_after)


# --- what is told of it


def events(
    sent: Mapping[str, Intent], *, now: int, retention: int, text_mode: str
) -> list[Incoming]:
    """What the mirror learns: that these were, or may have been, queued."""
    return [
        event
        for each in sent.values()
        for event in intents.queued(
            each, now=now, retention=retention, text_mode=text_mode, source=SOURCE
        )
    ]


def answer_to_one(end: End, now: int) -> dict[str, Any]:
    """What is answered to a request to send one.

    :raises NotTaken: if it was not, or perhaps not, sent.
    """
    if end.problem is not None:
        raise end.problem
    return {"success": True, **_row(end, now), "provider": NAME}


def answer_to_many(
    wanted: Sequence[Wanted | NotTaken], ends: Sequence[End], now: int
) -> dict[str, Any]:
    """What is answered to a request to send many: a result for each recipient, in their order.

    :param ends: of all that were wanted, in their order.
    """
    rest = iter(ends)
    rows = [
        _refused_row(sms.to, sms) if isinstance(sms, NotTaken) else _row(next(rest), now)
        for sms in wanted
    ]
    return told_of_many(rows, now, NAME)


def written(own_id: str) -> str:
    """Our id, as it is answered."""
    return ids.written(ids.key(NAME, own_id))


def _row(end: End, now: int) -> dict[str, Any]:
    if not end.may_be_sent and end.problem is not None:
        return _refused_row(end.wanted.to, end.problem)
    row = {
        "message_id": written(end.id),
        "status": "queued",
        "to": end.wanted.to,
        "queued_at": times.iso(now),
    }
    if end.wanted.send_at is not None:
        row["scheduled_at"] = times.iso(end.wanted.send_at)
    if end.problem is not None:  # who sends again what has "failed" would send it twice
        return {**row, "error": _error(end.problem)}
    return row


def _refused_row(to: str | None, problem: NotTaken) -> dict[str, Any]:
    return {
        "to": to,
        "status": "failed",
        "error": _error(problem),
    }


def _error(problem: NotTaken) -> dict[str, str]:
    return {"code": problem.code, "message": problem.message}


# --- reading


def _text(value: Any) -> str:
    text = read_text(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        problem = "message holds half a character (a lone surrogate)"
        raise NotTaken(400, "INVALID_REQUEST", problem) from None
    return text


def _send_at(value: Any, now: int) -> int | None:
    moment = read_moment(value)
    if moment is None:
        return None
    moment -= moment % SECOND
    if not now < moment <= now + FURTHEST:
        raise NotTaken(
            400,
            "INVALID_SCHEDULED_DATE",
            "scheduled_at must be in the future, at most 30 days ahead with sipgate",
        )
    return moment
