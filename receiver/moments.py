"""Times as people type them: ISO 8601, `today`, `yesterday`, `90d` ago. Pure."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo

from receiver import times

_AGO = re.compile(r"(\d{1,9})([dhms])", re.ASCII)
_DAYS_AGO = {"today": 0, "yesterday": 1}
_UNITS = {"d": times.DAY, "h": times.HOUR, "m": times.MINUTE, "s": times.SECOND}


def moment(text: str, now: int | None, zone: tzinfo, *, last: bool = False) -> int | None:
    """The time that is meant, in microseconds; `None` if it is no time.

    What names no zone is meant in the given one: a date, `today`, a time of the day.

    :param now: `None` where nobody knows: then nothing is so long ago.
    :param last: whether a day means its last microsecond, instead of its first.
    :raises OverflowError: if it is not within the years 1 to 9999.
    """
    found = _moment(text, now, zone, last)
    times.to_datetime(found or 0)
    return found


def _moment(text: str, now: int | None, zone: tzinfo, last: bool) -> int | None:
    ago = _AGO.fullmatch(text)
    if now is not None and ago is not None:
        return now - int(ago[1]) * _UNITS[ago[2]]
    if now is not None and text in _DAYS_AGO:
        today = times.to_datetime(now).astimezone(zone).date()
        return _of_day(today - timedelta(days=_DAYS_AGO[text]), zone, last)
    if text.isdigit():
        return None  # a day, or seconds, or milliseconds: nobody knows
    with suppress(ValueError):
        return _of_day(date.fromisoformat(text), zone, last)
    found = times.parse(text)
    if found is not None and times.parse(f"{text}Z") is not None:  # it has named no zone
        return _since_epoch(times.to_datetime(found).replace(tzinfo=zone))
    return found


def _of_day(day: date, zone: tzinfo, last: bool) -> int:
    if last:
        day += timedelta(days=1)
    return _since_epoch(datetime(day.year, day.month, day.day, tzinfo=zone)) - last


def _since_epoch(moment: datetime) -> int:
    gone = moment.astimezone(UTC) - times.to_datetime(0)
    return gone // timedelta(microseconds=1)
