"""What checks find, and how they say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from receiver import times
from receiver.parts import Receiver

State = Literal["ok", "warning", "wrong"]

#: Microseconds by which a clock may be wrong: it is told, and it is a problem.
_CLOCK_TOLD, _CLOCK_WRONG = 5 * times.SECOND, times.MINUTE


class Finding(NamedTuple):
    """What a check has found.

    :param told: what is so, in one line; never a secret.
    :param advice: what to do; empty where there is nothing to do.
    """

    check: str
    state: State
    told: str
    advice: str = ""


#: What is found without the name of the check.
Found = Iterable[tuple[Any, ...]]
Check = Callable[[Receiver], Found]

SET_CLOCK = "set the clock, best by NTP"


def compared(ahead: int, whose: str) -> tuple[Any, ...]:
    """What to say of a clock that is ahead of ours by so many microseconds."""
    apart = abs(ahead)
    if apart < _CLOCK_TOLD:
        return "ok", f"{whose} has the same time as this machine"
    told = f"{whose} is {apart / times.SECOND:,.0f} s {'ahead of' if ahead > 0 else 'behind'} us"
    return "wrong" if apart >= _CLOCK_WRONG else "warning", told, f"{SET_CLOCK}, here or there"
