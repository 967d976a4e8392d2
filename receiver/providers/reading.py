"""Fields of a provider's JSON, read as far as they can be understood. Pure.

Readers that need something raise `Unusable` where it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from receiver import times
from receiver.errors import Unusable
from receiver.strict_json import text_of

Fields = Mapping[str, Any]


def object_of(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("there is no JSON object where one belongs")
    return value


def objects_of(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Unusable("there is no list where one belongs")
    return [object_of(item) for item in value]


def text(fields: Fields, name: str) -> str | None:
    """A text that is not empty."""
    value = fields.get(name)
    return value if type(value) is str and value else None


def word(fields: Fields, name: str) -> str | None:
    """An id or a number: a text that is not empty, or a whole number's digits."""
    return text_of(fields.get(name)) or None


def id_of(fields: Fields, name: str) -> str:
    value = word(fields, name)
    if value is None:
        raise Unusable(f"it has no `{name}`")
    return value


def whole(fields: Fields, *names: str) -> int | None:
    """The first of these that is there and a whole number."""
    for name in names:
        value = fields.get(name)
        if type(value) is int:
            return value
    return None


def number(fields: Fields, name: str) -> float | None:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def moment(fields: Fields, name: str) -> datetime | None:
    """A time from 2000 on, in any usual form."""
    told = times.read(fields.get(name))
    if told is None or told < times.YEAR_2000:
        return None
    try:
        return times.to_datetime(told)
    except OverflowError:  # after the year 9999, in UTC
        return None
