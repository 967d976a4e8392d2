"""A body without what it says of people: only what is known to be harmless stays. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from receiver.errors import Unusable
from receiver.status import STATES
from receiver.strict_json import read_signed

#: Fields of an event, and of its `data`, whose values tell nothing of a person.
_PLAIN = {
    *("event", "event_id", "timestamp", "test", "message_id", "status", "priority", "source"),
    *("device_id", "android_version", "app_version", "connected_at", "disconnected_at"),
    *("last_seen", "scheduled_at", "msgId", "errorCode", "datetime"),
    *(f"{state}_at" for state in STATES),
}
#: In the place of all else.
HIDDEN = "…"
_LONGEST = 100
#: What may be a number of a phone, or a code.
_DIGITS = re.compile(r"\d{4}")


def hidden(body: bytes) -> str | None:
    """A body's fields, most of them without their values; `None` if it is no JSON."""
    try:
        value = read_signed(body)
    except Unusable:
        return None
    return json.dumps(_fields(value) or HIDDEN, ensure_ascii=False, indent=2)


def _fields(value: Any) -> Any:
    if not isinstance(value, dict):
        return None
    return {_name(name): _value(name, item) for name, item in value.items()}


def _value(name: str, item: Any) -> Any:
    if name == "data":
        return _fields(item) or HIDDEN
    if name == "error" and isinstance(item, dict):
        return {_name(key): each if key == "code" else HIDDEN for key, each in item.items()}
    is_plain = name in _PLAIN and not isinstance(item, dict | list)
    short = not isinstance(item, str) or len(item) <= _LONGEST
    return item if item is None or (is_plain and short) else HIDDEN


def _name(name: str) -> str:
    return HIDDEN if len(name) > _LONGEST or _DIGITS.search(name) else name
