"""What callers of the simulated API ask, read and checked as sipgate does it.

Each function raises `ApiRefusal` for what it cannot take.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import Request
from werkzeug.datastructures import MultiDict

from receiver import times
from receiver.errors import Unusable
from receiver.providers.sipgate.simulator.world import SimulatedSms
from receiver.strict_json import read_json
from receiver.times import DAY, SECOND

MOST_ENTRIES = 1_000
FURTHEST = 30 * DAY

_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_TYPES = frozenset({"CALL", "VOICEMAIL", "SMS", "FAX"})
_DIRECTIONS = frozenset(
    {"INCOMING", "OUTGOING", "MISSED_INCOMING", "MISSED_OUTGOING"},
)


class ApiRefusal(Exception):
    """An answer that is an error; what is in its body is not documented."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, dict(headers or {})


class Asked(NamedTuple):
    """A request to send. `send_at` is microseconds."""

    sms_id: str
    to: str
    text: str
    send_at: int | None


def read_send(request: Request, extensions: tuple[str, ...], now: int) -> Asked:
    if not request.is_json:
        raise ApiRefusal(415, "Content-Type must be application/json")
    try:
        asked = read_json(request.get_data())
    except Unusable as unusable:
        raise ApiRefusal(400, unusable.reason) from None
    if not isinstance(asked, dict):
        raise ApiRefusal(400, "the body must be an object")
    if asked.get("smsId") is None:
        raise ApiRefusal(500, "")
    if asked["smsId"] not in extensions:
        raise ApiRefusal(403, "smsId is not yours")
    to, text = asked.get("recipient"), asked.get("message")
    if type(to) is not str or not _E164.fullmatch(to):
        raise ApiRefusal(400, "recipient must be E.164")
    if type(text) is not str or not text:
        raise ApiRefusal(400, "message must not be empty")
    send_at = asked.get("sendAt")
    if send_at is None:
        return Asked(asked["smsId"], to, text, None)
    if type(send_at) is not int or not now < send_at * SECOND <= now + FURTHEST:
        raise ApiRefusal(400, "sendAt must be Unix seconds in the next 30 days")
    return Asked(asked["smsId"], to, text, send_at * SECOND)


class Filter(NamedTuple):
    """Which entries are asked for. Times are microseconds."""

    connection_ids: frozenset[str]
    archived: bool
    since: int | None
    until: int | None
    number: str | None
    #: None of the entries that there are can be meant.
    nothing: bool
    offset: int
    limit: int

    def takes(self, sms: SimulatedSms) -> bool:
        return (
            not self.nothing
            and (not self.connection_ids or sms.sms_id in self.connection_ids)
            and sms.archived == self.archived
            and (self.since is None or sms.created >= self.since)
            and (self.until is None or sms.created <= self.until)
            and self.number in (None, sms.to)
        )


def read_filter(args: MultiDict[str, str]) -> Filter:
    types = _each(args, "types", _TYPES)
    directions = _each(args, "directions", _DIRECTIONS)
    archived = args.get("archived", "false")
    if archived not in ("true", "false"):
        raise ApiRefusal(400, "archived must be true or false")
    if any("," in name for name in args.getlist("connectionIds")):
        raise ApiRefusal(400, "connectionIds are repeated, not joined by commas")
    return Filter(
        connection_ids=frozenset(args.getlist("connectionIds")),
        archived=archived == "true",
        since=_moment(args, "from"),
        until=_moment(args, "to"),
        number=args.get("phonenumber"),
        nothing=bool(types and "SMS" not in types)
        or bool(directions and "OUTGOING" not in directions),
        offset=_whole(args, "offset", 0, 10**9),
        limit=_whole(args, "limit", 10, MOST_ENTRIES),
    )


def _each(args: MultiDict[str, str], name: str, known: frozenset[str]) -> frozenset[str]:
    found = frozenset(args.getlist(name))
    if not found <= known:
        raise ApiRefusal(400, f"{name}: any of {', '.join(sorted(known))}, each by itself")
    return found


def _moment(args: MultiDict[str, str], name: str) -> int | None:
    if name not in args:
        return None
    moment = times.parse(args[name])
    if moment is None:
        raise ApiRefusal(400, f"{name} must be a time in ISO 8601")
    return moment


def _whole(args: MultiDict[str, str], name: str, default: int, most: int) -> int:
    text: Any = args.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and int(text) <= most):
        raise ApiRefusal(400, f"{name} must be from 0 to {most}")
    return int(text)
