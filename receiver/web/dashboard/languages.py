"""The languages of the pages: two flat catalogues, and how numbers and times are written. Pure.

A string of a catalogue is plain text. `{name}` is a value, and what stands between backticks is
code. Where a number decides, there are two keys, `….one` and `….many`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from receiver import times
from receiver.calling import as_called

#: The first one is for those who want none of them.
CODES = ("en", "fr")
_FOLDER = Path(__file__).with_name("strings")
_CODE = re.compile(r"`([^`]+)`")
#: No line breaks before it. French groups digits with the narrow one.
_BLANK, _NARROW = "\u00a0", "\u202f"


@cache
def catalogue(code: str) -> Mapping[str, str]:
    """All strings of a language."""
    found: dict[str, str] = json.loads((_FOLDER / f"{code}.json").read_text("utf-8"))
    return found


@cache
def _template(text: str) -> Markup:
    # It was escaped before.
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704


class Language:
    """One language, in one time zone.

    :param code: one of `CODES`.
    """

    def __init__(self, code: str, zone: tzinfo) -> None:
        self.code = code
        self._zone = zone

    def text(self, key: str, /, **values: Any) -> Markup:
        """A string of the catalogue, safe to stand in HTML whatever the values hold.

        :raises KeyError: if the catalogue has no such key.
        """
        return _template(as_called(catalogue(self.code)[key])).format(**values)

    def has(self, key: str) -> bool:
        return key in catalogue(self.code)

    def plural(self, key: str, count: int, /, **values: Any) -> Markup:
        """The string for a number, with `{n}` as this language writes it."""
        one = count in (0, 1) if self.code == "fr" else count == 1
        return self.text(f"{key}.{'one' if one else 'many'}", n=self.number(count), **values)

    def number(self, value: float, digits: int = 0) -> str:
        written = f"{value:,.{digits}f}"
        if self.code == "en":
            return written
        return written.replace(",", _NARROW).replace(".", ",")

    def percent(self, value: float) -> str:
        """With one digit, but never 100 or 0 for what is not quite."""
        if 0 < value < 0.1 or 99.9 < value < 100:
            value = 0.1 if value < 1 else 99.9
        written = self.number(value, 0 if value in (0, 100) else 1)
        return f"{written}%" if self.code == "en" else f"{written}{_NARROW}%"

    def bytes(self, value: int) -> str:
        for unit in ("bytes", "kb", "mb"):
            if value < 1_000 or unit == "mb":
                break
            value = round(value / 1_000)
        return f"{self.number(value)}{_BLANK}{self.text(f'unit.{unit}')}"

    def time(self, time_us: int, *, seconds: bool = True) -> str:
        """A moment in the settings' zone."""
        moment = self._there(time_us)
        return f"{self._date(moment)}, {moment:%H:%M:%S}" if seconds else self._short(moment)

    def date(self, day: int) -> str:
        """A day of the statistics, since 1970-01-01; they are days of UTC."""
        return self._date(times.to_datetime(day * times.DAY))

    def day(self, day: int) -> str:
        """The same without its year."""
        moment = times.to_datetime(day * times.DAY)
        return f"{moment.day}{_BLANK}{self._month(moment)}"

    def span(self, duration_us: int) -> str:
        """How long something takes, in its largest unit."""
        if duration_us < times.SECOND:
            return str(self.text("span.short"))
        for unit, size in (("days", times.DAY), ("hours", times.HOUR), ("minutes", times.MINUTE)):
            if duration_us >= 1.5 * size:
                return str(self.plural(f"span.{unit}", round(duration_us / size)))
        return str(self.plural("span.seconds", duration_us // times.SECOND))

    def ago(self, time_us: int, now: int) -> Markup:
        """How long something is ago."""
        if now - time_us < times.SECOND:
            return self.text("span.now")
        return self.text("span.ago", span=self.span(now - time_us))

    def _there(self, time_us: int) -> datetime:
        moment = times.to_datetime(time_us)
        try:
            return moment.astimezone(self._zone)
        except OverflowError:  # the first day of the year 1, or the last one of 9999
            return moment

    def _short(self, moment: datetime) -> str:
        return f"{moment.day}{_BLANK}{self._month(moment)}, {moment:%H:%M}"

    def _date(self, moment: datetime) -> str:
        return f"{moment.day}{_BLANK}{self._month(moment)}{_BLANK}{moment.year:04}"

    def _month(self, moment: datetime) -> str:
        return str(self.text(f"month.{moment.month:02}"))
