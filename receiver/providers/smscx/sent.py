"""SMS.CX's answers to requests to send, in ZimSend's shape and as events. Pure."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from receiver import ids, times
from receiver.errors import Unusable
from receiver.event import Incoming, clean_id
from receiver.mirror import number
from receiver.providers.errors import (
    CredentialsRefused,
    NotFound,
    NotPossible,
    ProviderError,
    RequestRefused,
    TryLater,
    Unavailable,
)
from receiver.providers.requests import told_of_many
from receiver.providers.smscx.api.answers import Message, Otp, Sent, report
from receiver.providers.smscx.api.answers import numbers as numbers_of
from receiver.providers.smscx.api.errors import error_type
from receiver.providers.smscx.sending import NotTaken, Wanted
from receiver.providers.smscx.webhook import NAME, SEND, STATES, TAKEN_BACK, parse, status_of, wrap

SOURCE = "gateway"
Fields = Mapping[str, Any]

#: How ZimSend calls what SMS.CX refuses; by SMS.CX's code.
_CODES = {
    **dict.fromkeys(("1104", "1207", "1210"), (400, "INVALID_PHONE_NUMBER")),
    "1103": (400, "TOO_MANY_RECIPIENTS"),
    **dict.fromkeys(("1108", "1116"), (400, "INVALID_SCHEDULED_DATE")),
    **dict.fromkeys(("1113", "1114"), (402, "NO_CREDIT")),
    "1119": (403, "NO_COVERAGE"),
    "1118": (400, "CANNOT_CANCEL_MESSAGE"),
    "2021": (404, "OTP_NOT_FOUND"),
}
#: The same by its type, where its code does not tell.
_TYPES = {
    "no_coverage": (403, "NO_COVERAGE"),
    "invalid_pin": (400, "INVALID_OTP"),
    "insufficient_credit": (402, "NO_CREDIT"),
    "rate_limit": (429, "RATE_LIMIT_EXCEEDED"),
    "otp_failed": (429, "OTP_MAX_ATTEMPTS"),
    **dict.fromkeys(("otp_expired", "otp_verified", "otp_cancelled"), (400, "OTP_EXPIRED")),
}
#: How ZimSend calls a message that SMS.CX takes and refuses at once, by its status.
_REFUSED = {
    "REJECTED": ("BLOCKED_NUMBER", "The recipient has opted out"),
    "NO COVERAGE": ("NO_COVERAGE", "SMS.CX does not reach this number"),
}


_ASK_FIRST = "before you send it again"


class End(NamedTuple):
    """What became of one SMS."""

    wanted: Wanted
    #: SMS.CX's row of it; `None`: there is none, as `problem` says.
    message: Message | None
    problem: NotTaken | None


def ends(
    batch: Sequence[Wanted], answer: Sent | ProviderError, track_data: str | None = None
) -> list[End]:
    """What became of each SMS of one request, in their order; and behind them what SMS.CX tells of
    others.

    :param track_data: of the request. Messages that SMS.CX refused as a whole, for want of
        coverage, get ids made of it, so that the mirror knows them as failed.
    """
    if isinstance(answer, ProviderError):
        if not_taken(answer).code == "NO_COVERAGE" and track_data is not None:
            return [_end(sms, [_uncovered(sms, track_data)], set()) for sms in batch]
        problem = not_taken(answer)
        if problem.code == "MESSAGE_NOT_FOUND":  # nobody has asked for one
            problem = NotTaken(502, "NETWORK_ERROR", problem.message)
        return [End(sms, None, problem) for sms in batch]
    rows: dict[str, list[Message]] = defaultdict(list)
    for message in answer.messages:
        rows[number(message.to or "")].append(message)
    invalid = {number(one) for one in answer.invalid}
    found = [(sms, rows[number(sms.to)][:1]) for sms in batch]
    taken = {id(message) for _, own in found for message in own}
    others = [message for message in answer.messages if id(message) not in taken]
    nameless = [sms for sms, own in found if not own and number(sms.to) not in invalid]
    if len(others) == len(nameless) == 1:  # however it writes the number
        found = [(sms, others if sms is nameless[0] else own) for sms, own in found]
        others = []
    return [
        *(_end(sms, own, invalid) for sms, own in found),
        *(_end(_like(batch, message), [message], invalid) for message in others),
    ]


def _like(batch: Sequence[Wanted], message: Message) -> Wanted:
    """What a row stands for that is of no number that was asked for. The mirror learns of it."""
    first = batch[0]
    shared = first.metadata if all(sms.metadata == first.metadata for sms in batch) else None
    return first._replace(to=message.to or "", metadata=shared)


def _uncovered(sms: Wanted, track_data: str) -> Message:
    own_id = str(uuid.uuid5(uuid.UUID(track_data), sms.to))
    return report(
        {"data": {"msgId": own_id, "status": "NO COVERAGE", "to": sms.to, "text": sms.text}}
    )


def _end(sms: Wanted, rows: list[Message], invalid: set[str]) -> End:
    if not rows:
        if number(sms.to) in invalid:
            problem = NotTaken(400, "INVALID_PHONE_NUMBER", "SMS.CX does not take it for a number")
        else:
            problem = NotTaken(
                502,
                "NETWORK_ERROR",
                "SMS.CX's answer does not tell of this message. It may have been sent: look at "
                f"SMS.CX's reports {_ASK_FIRST}.",
                maybe_sent=True,
            )
        return End(sms, None, problem)
    (message,) = rows
    status = status_of(message.raw)
    if status in _REFUSED:
        problem = NotTaken(403, *_REFUSED[status], message_id=_written(message.msg_id))
        return End(sms, message, problem)
    if STATES.get(status) == "failed":
        told = f"SMS.CX could not send it (code {message.error_code})"
        problem = NotTaken(502, "NETWORK_ERROR", told, message_id=_written(message.msg_id))
        return End(sms, message, problem)
    return End(sms, message, None)


def not_taken(error: ProviderError) -> NotTaken:
    """What an error of the API is in ZimSend's words."""
    found = _CODES.get(error.code or "") or _TYPES.get(error_type(error) or "")
    if isinstance(error, Unavailable):
        found = 504 if error.timed_out else 502, "NETWORK_ERROR"
    elif isinstance(error, CredentialsRefused):
        found = 502, "PROVIDER_REFUSED_US"
    elif found is None and isinstance(error, TryLater):
        found = (402, "NO_CREDIT") if error.status == 402 else (429, "RATE_LIMIT_EXCEEDED")
    elif found is None and isinstance(error, NotFound):
        found = 404, "MESSAGE_NOT_FOUND"
    elif found is None and isinstance(error, RequestRefused | NotPossible):
        invalid = error.raw.get("error") if isinstance(error.raw, dict) else None
        if isinstance(invalid, dict) and numbers_of(invalid.get("invalid")):
            found = 400, "INVALID_PHONE_NUMBER"
    status, code = found or (502, "NETWORK_ERROR")
    advice = error.advice
    if error.maybe_sent and _ASK_FIRST not in advice:
        advice = f"It may have been carried out: look at SMS.CX's reports {_ASK_FIRST}. {advice}"
    message = f"SMS.CX: {error.message}. {advice}"
    return NotTaken(
        status, code, message, retry_after=error.retry_after, maybe_sent=error.maybe_sent
    )


def events(ends: Iterable[End], *, now: int, retention: int, text_mode: str) -> list[Incoming]:
    """What the answer to a request to send tells the mirror: that messages were queued, or have
    failed at once.

    :param now: microseconds; likewise `retention`, see `receiver.providers.smscx.webhook.parse`.
    """
    found = []
    for end in ends:
        if end.message is not None:
            item = dict(end.message.raw)
            given = end.wanted.metadata
            if given is None:
                found += _learnt(SEND, item, now, retention, text_mode)
                continue
            try:
                found += _learnt(SEND, item | {"metadata": given}, now, retention, text_mode)
            except Unusable:  # nested too deep, by some levels
                found += _learnt(SEND, item, now, retention, text_mode)
    return found


def taken_back(
    msg_id: str, told: Fields, asked_at: int, *, now: int, retention: int, text_mode: str
) -> list[Incoming]:
    """That a scheduled message was taken back.

    :param told: what SMS.CX said of it.
    :param asked_at: microseconds.
    """
    item = {**told, "msgId": msg_id, "deletedAt": times.iso(asked_at)}
    return _learnt(TAKEN_BACK, item, now, retention, text_mode)


def _learnt(
    name: str, item: dict[str, Any], now: int, retention: int, text_mode: str
) -> list[Incoming]:
    found = parse(
        wrap(name, item), received_at=now, retention=retention, text_mode=text_mode, source=SOURCE
    )
    return [event for event in found if isinstance(event, Incoming)]


def answer_to_one(end: End, now: int) -> dict[str, Any]:
    """What is answered to a request to send one.

    :raises NotTaken: if it was not sent.
    """
    if end.problem is not None:
        raise end.problem
    return {"success": True, **_row(end, now), "provider": NAME}


def answer_to_many(
    wanted: Sequence[Wanted | NotTaken], ends: Iterable[End], now: int
) -> dict[str, Any]:
    """What is answered to a request to send many: a result for each recipient, in their order.

    :param ends: of all that were wanted, in any order.
    """
    # The same SMS may be wanted twice.
    found: dict[tuple[str, str, str | None], list[End]] = defaultdict(list)
    for end in ends:
        found[end.wanted[:3]].append(end)
    rows = []
    for sms in wanted:
        if isinstance(sms, NotTaken):
            rows.append(_refused_row(sms.to, sms))
        else:
            rows.append(_row(found[sms[:3]].pop(0), now))
    return told_of_many(rows, now, NAME)


def answer_to_otp(otp: Otp) -> dict[str, Any]:
    """What is answered to a request for a one-time code. SMS.CX gives its SMS no id."""
    expires = otp.raw.get("dateExpires")
    moment = times.parse(expires)
    return {
        "success": True,
        "otp_id": _written(otp.otp_id),
        "to": otp.to,
        "expires_at": None if moment is None else times.iso(moment),
        "message_id": None,
        "status": "queued",
        "provider": NAME,
    }


def answer_to_check(valid: bool, otp: Otp | None = None) -> dict[str, Any]:
    """What is answered to whether a one-time code is right.

    :param otp: the code after that, if it was asked for.
    """
    left = None
    if otp is not None and otp.max_attempts is not None and otp.attempts is not None:
        left = max(otp.max_attempts - otp.attempts, 0)
    return {
        "success": True,
        "valid": valid,
        "message": "The code is right" if valid else "The code is wrong",
        "attempts_remaining": 0 if valid else left,
        "provider": NAME,
    }


def answer_to_cancel(msg_id: str) -> dict[str, Any]:
    """What is answered to a message that was taken back."""
    return {
        "success": True,
        "message": "Message cancelled",
        "message_id": _written(msg_id),
        "status": "cancelled",
        "provider": NAME,
    }


def _row(end: End, now: int) -> dict[str, Any]:
    if end.problem is not None:
        return _refused_row(end.wanted.to, end.problem, end.message)
    assert end.message is not None
    told = end.message.raw
    queued_at = times.parse(told.get("createdAt"))
    row = {
        "message_id": _written(end.message.msg_id),
        "status": "queued",
        "to": end.message.to or end.wanted.to,
        "queued_at": times.iso(now if queued_at is None else queued_at),
    }
    scheduled_at = times.parse(told.get("scheduledAt"))
    return row if scheduled_at is None else {**row, "scheduled_at": times.iso(scheduled_at)}


def _refused_row(
    to: str | None, problem: NotTaken, message: Message | None = None
) -> dict[str, Any]:
    """A recipient to whom nothing was sent; one of which SMS.CX has a row has an id, too. Who sends
    again what has `failed` must not send twice, so what may have been sent is `queued`."""
    row = {
        "to": to,
        "status": "queued" if problem.maybe_sent else "failed",
        "error": {"code": problem.code, "message": problem.message},
    }
    return row if message is None else {"message_id": _written(message.msg_id), **row}


def _written(own_id: str) -> str:
    return ids.written(ids.key(NAME, clean_id(own_id)))
