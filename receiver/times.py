"""Times are whole microseconds since 1970-01-01 UTC; the clock is read here and nowhere else."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_tz
from functools import lru_cache
from zoneinfo import ZoneInfo

MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

#: An earlier time is what programs send that know none.
YEAR_2000 = 946_684_800 * SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1 = -62_135_596_800 * SECOND
_YEAR_10000 = 253_402_300_800 * SECOND
_LONGEST_TIME_TEXT = 64


def now() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000


# --- what people write

#: Dates in full, with a time behind `T` or a blank, or none. Python takes anything between date and
#: time, and so the digits of a number, or a date's zone, for a time.
_ISO = re.compile(
    r"(?:\d{4}-\d\d-\d\d|\d{4}-W\d\d(?:-\d)?|\d{4}W\d\d\d?|\d{8}(?=[T ]))(?:[T ](?!24).*)?",
    re.ASCII | re.DOTALL,
)


def parse(value: object) -> int | None:
    """Read a time in ISO 8601, or say that there is none. Digits alone are none.

    A time without a zone is UTC. Digits finer than a microsecond are dropped.

    :returns: `None` for anything that is not a string or not a time.
    """
    if not isinstance(value, str) or len(value) > _LONGEST_TIME_TEXT:
        return None
    return _parse_text(value)


@lru_cache(maxsize=64)  # one event says the same time in several places
def _parse_text(text: str) -> int | None:
    text = text.upper()
    if not _ISO.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return _microseconds(moment)


def _microseconds(moment: datetime) -> int:
    # Subtracting never overflows, as astimezone() would for the years 1 and 9999.
    gone = moment - _EPOCH
    return (gone.days * 86_400 + gone.seconds) * SECOND + gone.microseconds


# --- what programs send

#: A number below it is of seconds, any other of milliseconds.
_MILLISECONDS_FROM = 10**11
_NUMBER = re.compile(r"-?\d{1,17}(?:\.\d{1,9})?", re.ASCII)
_ZONE = r"(?P<zone>Z|(?:UTC|UT|GMT)?[+-]\d\d(?::?\d\d)?|UTC|UT|GMT)?"
#: A hyphen parts date and time only where seconds follow: `2026-11-20-08:00` may be a date and its
#: zone.
_LENIENT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8})(?:T|\s+|-(?=\d\d([:-])\d\d\2\d\d))"
    r"(?P<hour>\d\d)(?P<mark>[:-]?)(?P<minute>\d\d)"
    r"(?:(?P=mark)(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    rf"\s*{_ZONE}\s*(?:\[!?(?P<place>[A-Z][\w+/-]*)\])?(?:\[!?[\w-]+=[\w-]+\])*",
    re.ASCII | re.IGNORECASE,
)
_MAIL = re.compile(
    r"(?:[A-Z]{3},\s*)?\d\d?\s+[A-Z]{3}\s+\d{4}\s+\d\d:\d\d(?::\d\d)?"
    r"(?:\s+(?:[+-](?:[01]\d|2[0-3])[0-5]\d|UTC|UT|GMT|Z|[ECMP][SD]T))?(?:\s*\(\w*\))?",
    re.ASCII | re.IGNORECASE,
)


def read(value: object) -> int | None:
    """Read a time as programs send it, or say that there is none.

    Beside what `parse` reads: second 60, hour 24, a zone's name in brackets or `UTC`, a hyphen or
    blanks between date and time, RFC 2822; and a number, in JSON or as digits, which is seconds
    below 10^11, else milliseconds, since 1970.
    """
    if isinstance(value, str):
        if len(value) > _LONGEST_TIME_TEXT:
            return None
        moment = _parse_text(value)
        return moment if moment is not None else _read_text(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return _read_number(value)


def _read_number(value: float | Decimal) -> int | None:
    unit = SECOND if -_MILLISECONDS_FROM < value < _MILLISECONDS_FROM else MILLISECOND
    return round(value * unit) if _YEAR_1 <= value * unit < _YEAR_10000 else None


@lru_cache(maxsize=64)
def _read_text(text: str) -> int | None:
    if _NUMBER.fullmatch(text):
        return _read_number(Decimal(text))
    if _MAIL.fullmatch(text):
        fields = parsedate_tz(text)
        if fields is None:
            return None
        moment = _moment(fields[:6], 0)
        return None if moment is None else moment - (fields[9] or 0) * SECOND
    found = _LENIENT.fullmatch(text)
    if found is None or not (found["mark"] == ":" or found["second"]):
        return None
    date = found["date"].replace("-", "")
    fraction = (found["fraction"] or "")[:6].ljust(6, "0")
    numbers = (date[:4], date[4:6], date[6:], found["hour"], found["minute"], found["second"] or 0)
    moment = _moment([int(number) for number in numbers], int(fraction))
    if moment is None or (found["zone"] is None and found["place"] is None):
        return moment
    offset = _offset(found["zone"]) if found["zone"] else _offset_at(found["place"], moment)
    return None if offset is None else moment - offset


def _moment(fields: Sequence[int], fraction: int) -> int | None:
    """
    :param fields: from the year to the second, which may be 60; the hour may be 24.
    :param fraction: microseconds.
    """
    year, month, day, hour, minute, second = fields
    if hour == 24 and not (minute or second or fraction):
        hour, more = 0, DAY
    elif second == 60:
        second, more = 59, SECOND
    else:
        more = 0
    try:
        start = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return _microseconds(start) + fraction + more


def _offset(zone: str) -> int | None:
    digits = zone.upper().strip("UTCGMZ").replace(":", "")
    if not digits:
        return 0
    hours, minutes = int(digits[1:3]), int(digits[3:] or 0)
    if hours > 23 or minutes > 59:
        return None
    return (hours * HOUR + minutes * MINUTE) * (-1 if digits[0] == "-" else 1)


def _offset_at(place: str, local: int) -> int | None:
    """What a zone was ahead of UTC at a moment by its own clocks; `None` if it is not known."""
    try:
        ahead = ZoneInfo(place).utcoffset(to_datetime(local).replace(tzinfo=None))
    except (KeyError, ValueError, OSError, OverflowError):
        return None
    return None if ahead is None else ahead // timedelta(microseconds=1)


# --- writing


def to_datetime(time_us: int) -> datetime:
    """The same moment as an aware `datetime` in UTC."""
    return _EPOCH + timedelta(microseconds=time_us)


#: The date of this release, that of its heading in the changelog; or a day before it. A clock that
#: is before it is not trusted.
RELEASED = 20_758 * DAY  # 2026-11-01


def receipt(now: int) -> int:
    """When what comes in now counts as received: at `RELEASED` exactly, if the clock is before it.
    Nothing else has that very microsecond, so it says later that nobody knew the time."""
    return max(now, RELEASED)


def latest_from(received_at: int) -> int:
    """The latest time that can be believed of what was received then: a day more. No bound where
    the clock was not trusted."""
    return 2**62 if received_at == RELEASED else received_at + DAY


def iso(time_us: int) -> str:
    """ISO 8601 with `Z`: to the second, or as fine as the time is (milli- or microseconds)."""
    fraction = time_us % SECOND
    if not fraction:
        precision = "seconds"
    elif fraction % MILLISECOND:
        precision = "microseconds"
    else:
        precision = "milliseconds"
    return to_datetime(time_us).replace(tzinfo=None).isoformat(timespec=precision) + "Z"
