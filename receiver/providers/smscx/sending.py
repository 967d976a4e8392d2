"""Requests to send in ZimSend's shape, as SMS.CX takes them. Pure; `sent` has the answers.

The text of an SMS is a template for SMS.CX: it replaces `{{today}}` and the like, and there is no
way to write such braces as they are. So a text that has them is refused here, before another text
is sent than was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from receiver import times
from receiver.errors import ReceiverError

#: ZimSend's.
MOST_RECIPIENTS = 100
#: SMS.CX's.
LONGEST_TEXT = 1_530
DEFAULT_OTP = "Code: {{pin}}"

Fields = Mapping[str, Any]

_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}", re.ASCII)
_BETWEEN_DIGITS = re.compile(r"[ .()/-]")


class NotTaken(ReceiverError):
    """SMS.CX did not say that it took what was asked for; why, in ZimSend's words.

    :param status: of HTTP.
    :param code: ZimSend's, or this service's own where ZimSend has none.
    :param to: the number, as it was given; `None`: it is about the request as a whole.
    :param retry_after: seconds, if somebody said so.
    :param maybe_sent: it may have been sent all the same, so nobody else may send it.
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
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.to = to
        self.retry_after = retry_after
        self.maybe_sent = maybe_sent


class Wanted(NamedTuple):
    """One SMS to one number, as it was asked for."""

    to: str
    text: str
    #: As SMS.CX writes it: UTC.
    scheduled_at: str | None
    metadata: Fields | None


def one(asked: Fields) -> Wanted:
    """The SMS of a request to send one.

    :raises NotTaken: if SMS.CX could not send it as it is.
    """
    return Wanted(
        to=_to(asked.get("to")),
        text=_text(asked.get("message")),
        scheduled_at=_schedule(asked.get("scheduled_at")),
        metadata=_metadata(asked.get("metadata")),
    )


def many(asked: Fields) -> list[Wanted | NotTaken]:
    """The SMS of a request to send one text to many, or many texts; what is wrong with one of them
    stands in its place.

    :raises NotTaken: if the request is wrong as a whole.
    """
    messages, recipients = asked.get("messages"), asked.get("recipients")
    if isinstance(messages, list):
        each = [{**asked, **(own if isinstance(own, dict) else {"to": None})} for own in messages]
    elif isinstance(recipients, list):
        one({**asked, "to": "+10000000"})  # what is the same for all
        each = [{**asked, "to": to} for to in recipients]
    else:
        raise NotTaken(400, "INVALID_REQUEST", "recipients (or messages) must be a list")
    if not each:
        raise NotTaken(400, "INVALID_REQUEST", "There is no recipient")
    if len(each) > MOST_RECIPIENTS:
        raise NotTaken(400, "TOO_MANY_RECIPIENTS", f"At most {MOST_RECIPIENTS} recipients")
    return [_one_or_why(fields) for fields in each]


def _one_or_why(asked: Fields) -> Wanted | NotTaken:
    try:
        return one(asked)
    except NotTaken as problem:
        to = asked.get("to")
        problem.to = to if isinstance(to, str) else None
        return problem


def batches(wanted: Iterable[Wanted]) -> list[list[Wanted]]:
    """Together what can be one request: one text, one time, different numbers."""
    found: list[list[Wanted]] = []
    for sms in wanted:
        for batch in found:
            same = (batch[0].text, batch[0].scheduled_at) == (sms.text, sms.scheduled_at)
            if same and all(sms.to != other.to for other in batch):
                batch.append(sms)
                break
        else:
            found.append([sms])
    return found


def arguments(
    batch: Sequence[Wanted], *, webhook_url: str | None, track_data: str, idempotency_id: str
) -> dict[str, Any]:
    """What `SmsCx.send` takes.

    :param webhook_url: where its reports go; `None`: where the account says.
    :param track_data: a UUID of this request; likewise `idempotency_id`.
    """
    first, numbers = batch[0], [sms.to for sms in batch]
    return {
        "to": numbers if len(numbers) > 1 else first.to,
        "text": first.text,
        # Each number has its own result.
        "allow_invalid": True if len(numbers) > 1 else None,
        "scheduled_at": first.scheduled_at,
        "dlr_callback_url": webhook_url,
        "track_data": track_data,
        "idempotency_id": idempotency_id,
    }


def otp_arguments(asked: Fields, *, track_id: str) -> dict[str, Any]:
    """What `SmsCx.new_otp` takes, of a request for a one-time code.

    :param track_id: a UUID of this request.
    :raises NotTaken: if SMS.CX could not send it as it is.
    """
    template = asked.get("template")
    if template is not None:
        if type(template) is not str or "{{code}}" not in template:
            raise NotTaken(400, "INVALID_REQUEST", "template must be a text with {{code}} in it")
        _text(template.replace("{{code}}", ""))
        template = template.replace("{{code}}", "{{pin}}")
    return {
        "to": _to(asked.get("to")),
        "template": template or DEFAULT_OTP,
        "ttl": _whole(asked, "expiry", 300, 60, 1_800),
        "pin_type": "numbers",
        "pin_length": _whole(asked, "length", 6, 4, 8),
        "max_attempts": 3,
        "track_id": track_id,
    }


def _to(value: Any) -> str:
    # The zero in brackets is for those who dial without the country's code.
    text = _BETWEEN_DIGITS.sub("", value.replace("(0)", "")) if type(value) is str else ""
    if not _NUMBER.fullmatch(text):
        raise NotTaken(400, "INVALID_PHONE_NUMBER", "Write the number as +33612345678")
    return text if text.startswith("+") else f"+{text}"


def _text(value: Any) -> str:
    if type(value) is not str or not value.strip():
        raise NotTaken(400, "INVALID_REQUEST", "message must be a text")
    if len(value) > LONGEST_TEXT:
        raise NotTaken(400, "MESSAGE_TOO_LONG", f"At most {LONGEST_TEXT} characters with SMS.CX")
    if "{{" in value:
        raise NotTaken(
            400,
            "INVALID_REQUEST",
            "The text holds {{, which SMS.CX would replace and which cannot be escaped. Write it "
            "differently, or send with another provider.",
        )
    return value


def _schedule(value: Any) -> str | None:
    if value is None:
        return None
    moment = times.parse(value)
    if moment is None:
        raise NotTaken(400, "INVALID_SCHEDULED_DATE", "scheduled_at must be a time in ISO 8601")
    try:
        return times.iso(moment - moment % times.SECOND).removesuffix("Z").replace("T", " ")
    except OverflowError:
        raise NotTaken(400, "INVALID_SCHEDULED_DATE", "scheduled_at is out of range") from None


def _metadata(value: Any) -> Fields | None:
    if value is not None and not isinstance(value, dict):
        raise NotTaken(400, "INVALID_REQUEST", "metadata must be an object")
    return value


def _whole(asked: Fields, name: str, default: int, least: int, most: int) -> int:
    value = default if asked.get(name) is None else asked[name]
    if type(value) is not int or not least <= value <= most:
        raise NotTaken(400, "INVALID_REQUEST", f"{name} must be from {least} to {most} with SMS.CX")
    return value
