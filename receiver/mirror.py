"""What the mirror is asked by: a message's time, number and text, and the cell it counts in.

Pure, as `receiver.status` is, of whose rows it tells.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from receiver import status, times
from receiver.event import clean_id
from receiver.status import Register

#: In the order in which a message's `at` is looked for (CONTRACT: statistics and expiry).
_TIMES_OF_A_MESSAGE = ("sent", "delivered", "failed", "queued")
#: States of a message that is neither ended nor cancelled.
PENDING = ("queued", "processing", "sent")

#: Letters that Unicode does not take apart, and the apostrophe that phones type.
_ALIKE = str.maketrans(
    {"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "\u2019": "'", "\0": "\ufffd"}
)
_NO_DIGIT = re.compile(r"[^0-9]+")


class Cell(NamedTuple):
    """Where a message counts. Statistics are numbers of messages, cell by cell."""

    day: int  # UTC, days since 1970-01-01
    device_id: str  # empty: none
    status: str


class Summary(NamedTuple):
    """What a message is found and counted by."""

    status: str
    #: The time it is sorted by, and on whose day it counts; microseconds.
    at: int
    device_id: str
    number: str

    @property
    def cell(self) -> Cell:
        return Cell(self.at // times.DAY, self.device_id, self.status)


def summarize(row: Mapping[str, Register], first_received_at: int) -> Summary:
    """The summary of a row that has at least one state.

    :param first_received_at: the first receipt of an event that says something of it.
    """
    at = first_received_at
    for state in _TIMES_OF_A_MESSAGE:
        register = status.latest(row, state)
        if register is not None:
            at = register[2]
            break
    device = row.get("device_id")
    to = row.get("to")
    return Summary(
        status.status(row) or "",
        at,
        "" if device is None else clean_id(device[2]),
        "" if to is None else number(to[2]),
    )


def latest_time(row: Mapping[str, Register]) -> int:
    """The latest time that a row tells of: no state of it is younger."""
    latest = 0
    for name, register in row.items():
        order, _, value = register
        if order > latest:
            latest = order
        if type(value) is int and value > latest and name.rstrip("~") in status.STATES:
            latest = value
    return latest


@lru_cache(maxsize=1024)
def number(text: str) -> str:
    """A phone number's digits, so that it is found however its `+` and spaces came.

    What has no digits (the name of a sender) is itself, in one letter case.
    """
    digits = _NO_DIGIT.sub("", text)
    return clean_id(digits.removeprefix("00") or text.strip().casefold())


def fold(text: str) -> str:
    """The form in which texts are searched: without letter case, accents and vowel points.

    Character by character, so that the form of a part is a part of the form of the whole.
    """
    return "".join(map(_fold_character, text))


@lru_cache(maxsize=4096)
def _fold_character(character: str) -> str:
    decomposed = unicodedata.normalize("NFKD", character).casefold()
    folded = "".join(c for c in unicodedata.normalize("NFKD", decomposed) if not _is_accent(c))
    # No database takes half a surrogate pair, and not each takes NUL.
    return folded.translate(_ALIKE).encode("utf-8", "replace").decode()


def _is_accent(character: str) -> bool:
    """Accents of alphabets, Hebrew points and Arabic vowels; by Unicode's combining classes.

    The marks between make other letters: voicing, nukta and virama, the vowels of Thai and Lao.
    """
    combining = unicodedata.combining(character)
    return 10 <= combining <= 36 or combining >= 200


@dataclass(frozen=True, slots=True)
class Search:
    """Which messages a reader asks for; every condition given must hold.

    :param number: as `number` makes it.
    :param since, until: bounds of `at`, both included; microseconds.
    :param text: as `fold` makes it.
    """

    status: str | None = None
    device_id: str | None = None
    number: str | None = None
    since: int | None = None
    until: int | None = None
    text: str | None = None


def statistics(counts: Iterable[tuple[int, str, int]]) -> dict[str, Any]:
    """ZimSend's `stats` object.

    :param counts: day, status and number of messages; a day and status may come several times.
    """
    days: dict[int, dict[str, int]] = {}
    sums: dict[str, int] = {}
    for day, state, count in counts:
        days.setdefault(day, {})
        days[day][state] = days[day].get(state, 0) + count
        sums[state] = sums.get(state, 0) + count
    delivered, failed = sums.get("delivered", 0), sums.get("failed", 0)
    total = delivered + failed
    by_day = []
    for day, states in sorted(days.items()):
        ended = {"delivered": states.get("delivered", 0), "failed": states.get("failed", 0)}
        if any(ended.values()):
            date = times.iso(day * times.DAY)[:10]
            by_day.append({"date": date, "sent": sum(ended.values()), **ended})
    return {
        "total_sent": total,
        "delivered": delivered,
        "failed": failed,
        "pending": sum(sums.get(state, 0) for state in PENDING),
        "delivery_rate": round(100 * delivered / total, 2) if total else 0,
        "by_day": by_day,
    }
