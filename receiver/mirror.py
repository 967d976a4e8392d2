"""What the mirror is asked by: a message's time, number and text, and the cell it counts in.

Pure, as `receiver.status` is, of whose rows it tells.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from receiver import status, times
from receiver.event import clean_id
from receiver.status import Register

#: In the order in which a message's `at` is looked for (CONTRACT: statistics and expiry).
_TIMES_OF_A_MESSAGE = ("sent", "delivered", "failed", "queued")
#: What of a message's metadata it is found by; characters.
MOST_KEYS, LONGEST_KEY, LONGEST_VALUE = 10, 64, 255
#: States of a message that is neither ended nor cancelled.
PENDING = ("queued", "processing", "sent")

#: Letters that Unicode does not take apart, and the apostrophe that phones type.
_ALIKE = str.maketrans(
    {"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ı": "i", "\u2019": "'", "\0": "\ufffd"}
)
#: Numbers are shorter; a longer text would fill the cache of them with itself.
_LONGEST_CACHED = 64
_NO_DIGIT = re.compile(r"[^0-9]+")


#: Of one day and provider, so many codes of failures have cells of their own; the rest share one.
MOST_CODES = 200
OTHER = "OTHER"
#: The provider of all messages so far.
PROVIDER = "zimsend"


class Cell(NamedTuple):
    """Where a message counts. Statistics are numbers of messages, cell by cell.

    Its code is that of the failure; the store counts it as `OTHER` where the day has too many.
    """

    day: int  # UTC, days since 1970-01-01
    provider: str
    device_id: str  # empty: none
    status: str
    code: str  # empty: not failed, or nobody has said why


class Summary(NamedTuple):
    """What a message is found and counted by."""

    status: str
    #: The time it is sorted by, and on whose day it counts; microseconds.
    at: int
    device_id: str
    number: str
    code: str = ""
    provider: str = PROVIDER

    @property
    def cell(self) -> Cell:
        return Cell(self.at // times.DAY, self.provider, self.device_id, self.status, self.code)


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
    current = status.status(row) or ""
    code = status.error_code(row, current)
    return Summary(
        current,
        at,
        "" if device is None else clean_id(device[2]),
        "" if to is None else number(to[2]),
        code and clean_id(code),
    )


def metadata(row: Mapping[str, Register]) -> dict[str, str]:
    """By what of its metadata a message is found: strings and numbers, the first 10 of them.

    Keys of more than 64 characters and values of more than 255 are not among them.
    """
    found: dict[str, str] = {}
    register = row.get("metadata")
    if register is None:
        return found
    for key, value in register[2].items():
        if len(found) == MOST_KEYS:
            break
        text = json.dumps(value) if type(value) in (int, float) else value
        if isinstance(text, str) and len(key) <= LONGEST_KEY and len(text) <= LONGEST_VALUE:
            found[storable(key)] = storable(text)
    return found


def storable(text: str) -> str:
    """A text as each database takes it: without NUL and half surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


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


def number(text: str) -> str:
    """A phone number's digits, so that it is found however its `+` and spaces came.

    What has no digits (the name of a sender) is itself, in one letter case.
    """
    return _number(text) if len(text) <= _LONGEST_CACHED else _number.__wrapped__(text)


@lru_cache(maxsize=1024)
def _number(text: str) -> str:
    digits = _NO_DIGIT.sub("", text if text.isascii() else ascii_digits(text))
    return clean_id(digits.removeprefix("00") or text.strip().casefold())


def ascii_digits(text: str) -> str:
    """The digits of all scripts as those of ASCII: full-width, Arabic and others."""
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


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

    :param numbers: any of them, each as `number` makes it.
    :param since, until: bounds of `at`, both included; microseconds.
    :param text: as `fold` makes it; one of which nothing is left finds nothing.
    :param code: why the message is failed.
    :param metadata: keys and values, each as `storable` makes it.
    """

    status: str | None = None
    device_id: str | None = None
    numbers: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    text: str | None = None
    code: str | None = None
    provider: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    @property
    def is_counted_by_cells(self) -> bool:
        """Whether statistics by whole days know how many messages match."""
        return not (self.numbers or self.metadata or self.code is not None)

    @property
    def finds_nothing(self) -> bool:
        """Whether no message can match: a text of accents alone, a key that is not indexed."""
        return self.text == "" or any(
            len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE for key, value in self.metadata
        )


def statistics(
    counts: Iterable[tuple[int, str, int]], unreported: Iterable[tuple[int, str, int]] = ()
) -> dict[str, Any]:
    """ZimSend's `stats` object.

    :param counts: day, status and number of messages; a day and status may come several times.
    :param unreported: the same of messages whose provider reports no delivery. They are neither
        pending nor in the rate; where there are no others, there is no rate.
    """
    reported, silent = list(counts), list(unreported)
    days: dict[int, Counter[str]] = defaultdict(Counter)
    for day, state, count in (*reported, *silent):
        days[day][state] += count
    sums, others = _by_state(reported), _by_state(silent)
    rated = sums["delivered"] + sums["failed"]
    rate: float | None = round(100 * sums["delivered"] / rated, 2) if rated else 0
    if any(others.values()) and not any(sums.values()):
        rate = None
    delivered, failed = (sums[state] + others[state] for state in ("delivered", "failed"))
    by_day = []
    for day, states in sorted(days.items()):
        ended = {"delivered": states["delivered"], "failed": states["failed"]}
        if any(ended.values()):
            date = times.iso(day * times.DAY)[:10]
            by_day.append({"date": date, "sent": sum(ended.values()), **ended})
    return {
        "total_sent": delivered + failed,
        "delivered": delivered,
        "failed": failed,
        "pending": sum(sums[state] for state in PENDING),
        "delivery_rate": rate,
        "by_day": by_day,
    }


def _by_state(counts: Iterable[tuple[int, str, int]]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for _, state, count in counts:
        sums[state] += count
    return sums


def failures(counts: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    """Numbers of failed messages by error code, the most frequent first; at most `MOST_CODES`, and
    the rest together.

    :param counts: codes and numbers of messages; a code may come several times.
    """
    sums: dict[str, int] = {}
    for code, count in counts:
        sums[code] = sums.get(code, 0) + count
    ranked = sorted(
        ((code, n) for code, n in sums.items() if n > 0),
        key=lambda pair: (pair[0] == OTHER, -pair[1], pair[0]),
    )
    shown, rest = ranked[:MOST_CODES], ranked[MOST_CODES:]
    if rest:
        shown.append((OTHER, sum(n for _, n in rest)))
    return [{"code": code or None, "failed": n} for code, n in shown]
