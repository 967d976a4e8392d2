"""Requests to send in ZimSend's shape, as SMS.CX takes them. Pure; `sent` has the answers.

The text of an SMS is a template for SMS.CX: it replaces `{{today}}` and the like, and there is no
way to write such braces as they are. So a text that has them is refused here, before another text
is sent than was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from receiver import times
from receiver.providers.requests import (
    MOST_RECIPIENTS,
    Fields,
    NotTaken,
    each,
    read_metadata,
    read_moment,
    read_number,
    read_text,
)

__all__ = ["MOST_RECIPIENTS", "NotTaken", "Wanted", "arguments", "batches", "many", "one"]

#: SMS.CX's.
LONGEST_TEXT = 1_530
DEFAULT_OTP = "Code: {{pin}}"


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
        to=read_number(asked.get("to")),
        text=_text(asked.get("message")),
        scheduled_at=_schedule(asked.get("scheduled_at")),
        metadata=read_metadata(asked.get("metadata")),
    )


def many(asked: Fields) -> list[Wanted | NotTaken]:
    """The SMS of a request to send one text to many, or many texts; what is wrong with one of them
    stands in its place.

    :raises NotTaken: if the request is wrong as a whole.
    """
    return each(asked, one)


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
        "to": read_number(asked.get("to")),
        "template": template or DEFAULT_OTP,
        "ttl": _whole(asked, "expiry", 300, 60, 1_800),
        "pin_type": "numbers",
        "pin_length": _whole(asked, "length", 6, 4, 8),
        "max_attempts": 3,
        "track_id": track_id,
    }


def _text(value: Any) -> str:
    text = read_text(value)
    if len(text) > LONGEST_TEXT:
        raise NotTaken(400, "MESSAGE_TOO_LONG", f"At most {LONGEST_TEXT} characters with SMS.CX")
    if "{{" in text:
        raise NotTaken(
            400,
            "INVALID_REQUEST",
            "The text holds {{, which SMS.CX would replace and which cannot be escaped. Write it "
            "differently, or send with another provider.",
        )
    return text


def _schedule(value: Any) -> str | None:
    moment = read_moment(value)
    if moment is None:
        return None
    try:
        return times.iso(moment - moment % times.SECOND).removesuffix("Z").replace("T", " ")
    except OverflowError:
        raise NotTaken(400, "INVALID_SCHEDULED_DATE", "scheduled_at is out of range") from None


def _whole(asked: Fields, name: str, default: int, least: int, most: int) -> int:
    value = default if asked.get(name) is None else asked[name]
    if type(value) is not int or not least <= value <= most:
        raise NotTaken(400, "INVALID_REQUEST", f"{name} must be from {least} to {most} with SMS.CX")
    return value
