"""What callers of the simulated API ask, read and checked as SMS.CX does it.

Each function raises `ApiRefusal` for what it cannot take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx
from flask import Request

from receiver import times
from receiver.errors import Unusable
from receiver.strict_json import read_json

MOST_NUMBERS = 25_000
LONGEST_TEXT = 1_530

_NUMBER = re.compile(r"\+?([1-9][0-9]{6,14})", re.ASCII)
_UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
ALPHABETS = {
    "numbers": "0123456789",
    "letters": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "alphanumeric": "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
}
REPORTS = {
    "delivered": ("DELIVERED",),
    "failed": ("FAILED",),
    "sent": ("SENT",),
    "accepted": ("ACCEPTED",),
    "rejected": ("REJECTED", "NO COVERAGE"),
    "scheduled": ("SCHEDULED",),
}

Fields = Mapping[str, Any]


class ApiRefusal(Exception):
    """An answer in SMS.CX's error shape."""

    def __init__(
        self,
        status: int,
        kind: str,
        code: int | None,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Fields | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.body = {
            "error": {
                "type": kind,
                "message": message,
                "uri": "https://sms.cx/docs/errors",
                "code": code,
                **(more or {}),
            }
        }


def wrong(code: int, message: str, **more: Any) -> ApiRefusal:
    return ApiRefusal(400, "invalid_param", code, message, more=more)


def read_request(request: Request) -> dict[str, Any]:
    try:
        asked = read_json(request.get_data()) if request.is_json else None
    except Unusable:
        asked = None
    if not isinstance(asked, dict):
        raise ApiRefusal(400, "invalid_request", None, "The body must be a JSON object")
    return asked


def read_numbers(asked: Fields) -> tuple[list[str], list[Any]]:
    """The numbers in E.164, each once; and those that are none, if these may be left out."""
    to = asked.get("to")
    given = to if isinstance(to, list) else [to]
    if len(given) > MOST_NUMBERS:
        raise wrong(1103, f"At most {MOST_NUMBERS} numbers")
    good: dict[str, None] = {}
    bad = []
    for number in given:
        found = _NUMBER.fullmatch(number) if isinstance(number, str) else None
        if found is None:
            bad.append(number)
        else:
            good[f"+{found[1]}"] = None
    if not good or (bad and asked.get("allowInvalid") is not True):
        raise wrong(1104, "to must be numbers in E.164", invalid=[str(each) for each in bad])
    return list(good), bad


def read_groups(asked: Fields, groups: Mapping[int, list[str]]) -> list[str]:
    given = asked.get("groups")
    if not isinstance(given, list) or not given:
        raise wrong(1101, "groups must be a list")
    numbers: dict[str, None] = {}
    for group in given:
        if type(group) is not int or group not in groups:
            raise wrong(1102, "no such group")
        numbers.update(dict.fromkeys(groups[group]))
    return list(numbers)


def read_sender(asked: Fields) -> str:
    sender = asked.get("from")
    if type(sender) is not str or not 3 <= len(sender) <= 15:
        raise wrong(1105, "from must have 3 to 15 characters")
    return sender


def read_text(asked: Fields, now: int) -> str:
    """The text as it is really sent: placeholders are replaced, and there is no escape."""
    text = asked.get("text")
    if type(text) is not str or not text or len(text) > LONGEST_TEXT:
        raise wrong(1107, f"text must have 1 to {LONGEST_TEXT} characters")
    values = {"today": times.iso(now)[:10], "numbers": "123456"}
    for name in _PLACEHOLDER.findall(text):
        if name not in values:
            raise wrong(1136, "no such placeholder")
        text = text.replace(f"{{{{{name}}}}}", values[name])
    return text


def read_schedule(asked: Fields, now: int) -> int | None:
    value = asked.get("scheduledDate")
    if value is None:
        return None
    moment = times.parse(value)
    if moment is None:
        raise wrong(1108, "scheduledDate must be like 2026-11-20 08:15:42")
    if moment <= now:
        raise wrong(1116, "scheduledDate is in the past")
    return moment


def read_url(asked: Fields, name: str, code: int) -> str | None:
    value = asked.get(name)
    if value is None:
        return None
    try:
        url = httpx.URL(value)
        if url.scheme in ("http", "https") and url.host:
            return str(value)
    except (httpx.InvalidURL, TypeError):
        pass
    raise wrong(code, f"{name} must be a URL")


def read_track_data(asked: Fields) -> str | None:
    """What is no UUID is dropped without a word."""
    value = asked.get("trackData")
    return value if type(value) is str and _UUID.fullmatch(value) else None


def read_uuid(asked: Fields, name: str, code: int) -> str | None:
    value = asked.get(name)
    if value is not None and not (type(value) is str and _UUID.fullmatch(value)):
        raise wrong(code, f"{name} must be a UUID")
    return value


def read_whole(asked: Fields, name: str, default: int, least: int, most: int, code: int) -> int:
    value = default if asked.get(name) is None else asked[name]
    if type(value) is not int or not least <= value <= most:
        raise wrong(code, f"{name} must be from {least} to {most}")
    return value


def read_days(asked: Mapping[str, str]) -> tuple[int, int]:
    """The first moment that is asked for, and the first one after it; the days are UTC's."""
    period, start, end = (asked.get(name) for name in ("period", "start_date", "end_date"))
    if period is not None:
        if re.fullmatch(r"\d{4}", period, re.ASCII):
            first, after = f"{period}-01-01", f"{int(period) + 1}-01-01"
        elif re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", period, re.ASCII):
            year, month = int(period[:4]), int(period[5:])
            first = f"{period}-01"
            after = f"{year + month // 12:04}-{month % 12 + 1:02}-01"
        else:
            raise wrong(1820, "period must be like 2026 or 2026-11")
        since, until = times.parse(first), times.parse(after)
    elif start is not None and end is not None:
        since, until = _day(start), _day(end)
        until = None if until is None else until + times.DAY
    else:
        raise wrong(1824, "period, or start_date and end_date")
    if since is None or until is None:
        raise wrong(1821, "dates must be like 2026-11-20")
    return since, until


def _day(text: str) -> int | None:
    return times.parse(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) else None
