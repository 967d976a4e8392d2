"""What callers of the simulated API ask, read and checked as ZimSend does it.

Each function raises `ApiRefusal` for what it cannot take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx
from flask import Request

from receiver import times
from receiver.errors import Unusable
from receiver.payloads import SAMPLES
from receiver.providers.zimsend.simulator.refusal import ApiRefusal
from receiver.providers.zimsend.simulator.world import REPORTS
from receiver.strict_json import read_json

LONGEST_TEXT = 1_600
LARGEST_METADATA = 1_024
FURTHEST_SCHEDULE = 30 * times.DAY
_NUMBER = re.compile(r"\+?[1-9][0-9]{6,14}")
_PRIORITIES = (1, 2, 3, 4, 5, "low", "normal", "high")
#: No half of a surrogate pair.
_ENCODABLE = re.compile(r"[^\ud800-\udfff]*")


def read_request(request: Request) -> dict[str, Any]:
    try:
        asked = read_json(request.get_data()) if request.is_json else None
    except Unusable:
        asked = None
    if not isinstance(asked, dict):
        raise ApiRefusal(400, "INVALID_REQUEST", "The body must be a JSON object")
    return asked


def read_list(asked: Mapping[str, Any], name: str) -> list[Any]:
    values = asked.get(name)
    if not isinstance(values, list) or not values:
        raise ApiRefusal(400, "INVALID_REQUEST", f"{name} must be a list, and not empty")
    return values


def read_string(asked: Mapping[str, Any], name: str, default: str | None = None) -> str:
    text = default if asked.get(name) is None else asked[name]
    if type(text) is not str or not text or not _ENCODABLE.fullmatch(text):
        raise ApiRefusal(400, "INVALID_PARAMETER", f"{name} must be a text")
    return text


def read_whole(asked: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    number = default if asked.get(name) is None else asked[name]
    if type(number) is not int or not least <= number <= most:
        raise ApiRefusal(400, "INVALID_PARAMETER", f"{name} must be from {least} to {most}")
    return number


def read_url(url: Any, name: str) -> str:
    try:
        if type(url) is str and re.fullmatch(r"https?://\S+", url):
            parsed = httpx.URL(url)
            if parsed.host and (parsed.port or 0) < 65_536:
                return url
    except (httpx.InvalidURL, ValueError):
        pass
    raise ApiRefusal(400, "INVALID_WEBHOOK_URL", f"{name} must be a URL")


def read_metadata(metadata: Any) -> Any:
    text = json.dumps(metadata, ensure_ascii=False).encode("utf-8", "backslashreplace")
    if not isinstance(metadata, dict | None) or len(text) > LARGEST_METADATA:
        raise ApiRefusal(400, "INVALID_PARAMETER", "metadata must be an object of at most 1 KB")
    return metadata


def read_events(asked: Mapping[str, Any]) -> tuple[str, ...]:
    if asked.get("events") is None:
        return REPORTS
    events = read_list(asked, "events")
    if not all(type(event) is str and event in SAMPLES for event in events):
        raise ApiRefusal(400, "INVALID_PARAMETER", f"events: any of {', '.join(SAMPLES)}")
    return tuple(events)


def read_to(to: Any) -> str:
    if type(to) is not str or not _NUMBER.fullmatch(re.sub(r"[ .()-]", "", to)):
        raise ApiRefusal(400, "INVALID_PHONE_NUMBER", "to must be a number like +33612345678")
    return to


def read_text(text: Any) -> str:
    if type(text) is not str or not text:
        raise ApiRefusal(400, "INVALID_REQUEST", "message must be a text")
    if len(text) > LONGEST_TEXT:
        raise ApiRefusal(400, "MESSAGE_TOO_LONG", f"At most {LONGEST_TEXT} characters")
    return text


def read_priority(priority: Any) -> Any:
    if type(priority) not in (int, str) or priority not in _PRIORITIES:
        raise ApiRefusal(400, "INVALID_PRIORITY", "priority must be from 1 to 5")
    return priority


def read_schedule(text: Any, now: int) -> int | None:
    if text is None:
        return None
    moment = times.parse(text)
    if moment is None or not now <= moment <= now + FURTHEST_SCHEDULE:
        raise ApiRefusal(400, "INVALID_SCHEDULED_DATE", "scheduled_at: at most 30 days ahead")
    return moment


def read_page(asked: Mapping[str, str]) -> tuple[int, int]:
    """`page` and `limit`."""
    numbers = []
    for name, default in (("page", "1"), ("limit", "50")):
        text = asked.get(name) or default
        if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < 1:
            raise ApiRefusal(400, "INVALID_PARAMETER", f"{name} must be a whole number from 1 on")
        numbers.append(int(text))
    return numbers[0], min(100, numbers[1])


def read_moment(asked: Mapping[str, str], name: str) -> int | None:
    text = asked.get(name)
    if not text:
        return None
    moment = times.parse(text)
    if moment is None:
        raise ApiRefusal(400, "INVALID_PARAMETER", f"{name} must be a date or time in ISO 8601")
    return moment
