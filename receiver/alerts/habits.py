"""Whether a phone is silent longer than usual, by its own habit. Pure.

A phone that sends on working days is silent for two days each week, and one that a shop has is
silent at night. So its silence is laid over the same hours of the days before, and of the same
weekday in the weeks before: it is too long where it would have been broken each time.
"""

from __future__ import annotations

from collections.abc import Sequence

from receiver.times import DAY, HOUR

#: A shorter silence is none; a phone that is silent for longer is gone.
SHORTEST, LONGEST = HOUR, 28 * DAY
#: So many messages in the same hours, each time, make a habit.
ENOUGH = 5
_DAYS, _WEEKS = 7, 4
_SHIFTS = [DAY * days for days in range(1, _DAYS + 1)]
_SHIFTS += [7 * DAY * weeks for weeks in range(2, _WEEKS + 1)]


def is_to_judge(last: int, now: int) -> bool:
    """Whether a phone that was last heard of then may be silent for too long."""
    return SHORTEST <= now - last <= LONGEST


def spans(device_id: str, last: int, now: int) -> list[tuple[str, int, int]]:
    """The silence, laid over earlier days: see `receiver.store.contract.Phones.heard`."""
    return [(device_id, last - shift, now - shift) for shift in _SHIFTS]


def is_too_long(counts: Sequence[int]) -> bool:
    """
    :param counts: how many messages there were in each of the spans, up to `ENOUGH`.
    """
    broken = [count >= ENOUGH for count in counts]
    weeks = [broken[_DAYS - 1], *broken[_DAYS:]]
    return all(broken[:_DAYS]) or all(weeks)


SPANS = len(_SHIFTS)
