"""Times are whole microseconds since 1970-01-01 UTC; the clock is read here and nowhere else."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

MILLISECOND = 1_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_TIME_TEXT = 64
_DATE_FIRST = re.compile(r"[0-9W-]+(?:[T ].*)?", re.ASCII | re.DOTALL)


def now() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000


def parse(value: object) -> int | None:
    """Read an ISO 8601 time, or say that there is none.

    A time without a zone is UTC. Digits finer than a microsecond are dropped.

    :returns: `None` for anything that is not a string or not a time.
    """
    if not isinstance(value, str) or len(value) > _LONGEST_TIME_TEXT:
        return None
    return _parse_text(value)


@lru_cache(maxsize=64)  # one event says the same time in several places
def _parse_text(text: str) -> int | None:
    text = text.upper()
    # Python takes anything between date and time, and so a date's zone for a time.
    if not _DATE_FIRST.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    # Subtracting never overflows, as astimezone() would for the years 1 and 9999.
    gone = moment - _EPOCH
    return (gone.days * 86_400 + gone.seconds) * SECOND + gone.microseconds


def to_datetime(time_us: int) -> datetime:
    """The same moment as an aware `datetime` in UTC."""
    return _EPOCH + timedelta(microseconds=time_us)


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
