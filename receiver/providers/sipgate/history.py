"""An entry of sipgate's history, read as tolerantly as its documents differ. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from receiver import times
from receiver.strict_json import text_of

_DIGITS = re.compile(r"\d")


class Entry(NamedTuple):
    """An SMS that went out, or will. Times are microseconds.

    :param extension: like `s0`; empty if the entry does not tell.
    :param number: see `number`.
    :param text: SHA-256 of the text; `None` if the entry has none.
    :param scheduled: when it is to go out, if it is not sent at once.
    """

    id: str
    extension: str
    number: str
    text: str | None
    created: int
    scheduled: int | None
    raw: Mapping[str, Any]

    @property
    def moment(self) -> int:
        """When it went out, or will."""
        return self.created if self.scheduled is None else max(self.created, self.scheduled)


def digest(text: str) -> str:
    """What is kept of a text to find it again, also where texts are not to be stored."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def number(text: str, country: str = "49") -> str:
    """A number as digits with its country's code, so that national and E.164 forms are equal.

    :param country: the calling code of numbers that are written without one; sipgate's is Germany.
    """
    # The zero in brackets is for those who dial without the country's code.
    digits = "".join(_DIGITS.findall(text.replace("(0)", "")))
    if text.lstrip().startswith("+"):
        return digits
    if digits.startswith("00"):
        return digits[2:]
    if digits.startswith("0"):
        return country + digits[1:]
    return digits


def read(fields: Any) -> Entry | None:
    """An entry that is an SMS on its way out; `None` for anything else, and without id or time.

    `direction` decides: `incoming` is wrong in sipgate's own sample.
    """
    if not is_outgoing(fields):
        return None
    entry_id, created = text_of(fields.get("id")), times.read(fields.get("created"))
    target = text_of(fields.get("target"))
    if not entry_id or created is None or target is None:
        return None
    text = fields.get("smsContent")
    return Entry(
        id=entry_id,
        extension=_extension(fields.get("connectionIds")),
        number=number(target),
        text=digest(text) if type(text) is str else None,
        created=created,
        scheduled=times.read(fields.get("scheduled")),  # its form is not documented
        raw=fields,
    )


def is_outgoing(fields: Any) -> bool:
    """Whether this is an SMS on its way out."""
    return (
        isinstance(fields, dict)
        and fields.get("type") == "SMS"
        and fields.get("direction") == "OUTGOING"
    )


def _extension(told: Any) -> str:
    names = [name for name in told if type(name) is str] if isinstance(told, list) else []
    return names[0] if len(names) == 1 else ""
