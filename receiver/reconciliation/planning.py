"""When an account is asked, and for which parts of its history. Pure: times are arguments.

All is in microseconds. What a pass leaves to the next one is its `State`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from receiver.providers.contract import History
from receiver.times import DAY, HOUR, MINUTE

#: How often a pass is made.
EVERY = 10 * MINUTE
#: A pass reads again what the one before has read last: what changed less than `History.quiet`
#: before was left to it, and clocks differ. So much more than that is read.
SPARE = 5 * MINUTE
#: After a gap in service a pass reads so much further back: what was reported in the gap may have
#: been queued long before, and nobody says by which time the history is searched.
WIDER = DAY
#: Nothing is asked for that is about to expire here: it would be learnt, and counted, again.
_ABOUT_TO_EXPIRE = HOUR


class Window(NamedTuple):
    """A part of a history. `until` is `None` where it goes up to now."""

    since: int
    until: int | None = None


@dataclass(slots=True)
class State:
    """What one pass leaves to the next, of whichever process."""

    #: Nothing older is asked for: this receiver did not know the account before.
    first: int
    #: From when on the next pass reads.
    since: int
    #: When the next pass is due.
    next_at: int
    #: When the last pass ended, complete or not.
    tried_at: int = 0
    #: When the last complete pass ended.
    ended_at: int | None = None
    #: Passes that begin before this read `WIDER`.
    wide_until: int = 0
    #: When the last look at all that still changes began, and the day that it has come to.
    deep_at: int = 0
    deep_day: int | None = None
    #: How many passes in a row did not come to their end, and why the last one did not.
    failures: int = 0
    problem: str | None = None
    #: Before this the provider does not want to be asked; 0 if it did not say so.
    not_before: int = 0
    #: Calls of the last pass.
    calls: int = 0
    #: Messages seen as failed for the first time, and when that was: the API does not tell since
    #: when they have, and the report may be on its way.
    failed: dict[str, int] = field(default_factory=dict)
    #: Messages that were asked for, and when each may be asked for again.
    asked: dict[str, int] = field(default_factory=dict)

    @classmethod
    def new(cls, now: int, history: History) -> State:
        """That of an account that was never asked."""
        since = now - overlap(history)
        return cls(since, since, now, deep_at=now)

    def correct(self, now: int, history: History) -> None:
        """Mend what was written by a clock that was ahead."""
        if self.first > now:
            self.first = now - overlap(history)
        if self.since > now - overlap(history):
            self.since = now - WIDER
        if self.wide_until > now + 2 * EVERY:
            self.wide_until = 0

    def widen(self, now: int, history: History) -> None:
        """Reports may have been missed: passes read further back for a while."""
        self.wide_until = now + history.quiet + MINUTE

    def end(self, began: int, now: int, history: History, *, found: bool) -> None:
        """A pass has read all that may have changed up to its beginning.

        :param found: it has learnt of reports that were missed.
        """
        if found and began >= self.wide_until:
            # There was a gap that nobody noticed: the next pass looks further back.
            self.wide_until = now + EVERY + MINUTE
        self.since = began - overlap(history)
        self.ended_at, self.next_at = now, began + EVERY
        self.failures, self.problem, self.not_before = 0, None, 0

    def fail(self, now: int, problem: str, retry_after: int, history: History) -> int:
        """A pass could not come to its end; returns in how long the next try is due.

        :param retry_after: microseconds that the provider wants to have peace; 0 if it did not say.
        """
        self.failures += 1
        self.problem = problem
        peace = min(retry_after, history.longest_wait)
        self.not_before = now + peace if peace else 0
        wait = min(MINUTE << min(self.failures - 1, 8), EVERY)
        self.next_at = now + min(max(wait, peace), EVERY)
        return max(self.next_at, self.not_before) - now

    def next_pass(self, now: int, history: History) -> int:
        """When the next pass is made, as far as can be told; not before now."""
        due_at = min(max(self.next_at, now), now + EVERY)
        return max(due_at, now + self.peace(now, history))

    def peace(self, now: int, history: History) -> int:
        """How long the provider does not want to be asked."""
        left = self.not_before - now
        # A time that lies further ahead was written by a clock that was wrong.
        return left if 0 < left <= history.longest_wait else 0


def overlap(history: History) -> int:
    """How much of what the pass before has read is read again."""
    return history.quiet + SPARE


def is_covered(state: State | None, gap: int, now: int) -> bool:
    """Whether a pass was made since reports may have been missed, or a moment before that."""
    return (
        state is not None and state.ended_at is not None and gap - MINUTE <= state.ended_at <= now
    )


def is_due(state: State | None, now: int, history: History, *, gap: bool) -> bool:
    """Whether a pass is to be made.

    :param gap: reports may have been missed since the last one.
    """
    if state is None:
        return True
    if state.peace(now, history):
        return False
    if gap and not state.failures:
        return True
    # A time that lies further ahead was written by a clock that was wrong.
    return not now < state.next_at <= now + 2 * EVERY


def plan(
    state: State, now: int, history: History, retention: int, asked: int | None = None
) -> list[Window]:
    """What a pass reads that begins now: first what may have changed since the last complete one;
    behind it, once a day, all that still changes, from the oldest on.

    :param retention: for how long everything is kept here.
    :param asked: somebody wants it to read from then on, at least.
    """
    kept = now - retention + _ABOUT_TO_EXPIRE
    floor = max(state.first, kept)
    start = max(state.since - (WIDER if now < state.wide_until else 0), floor)
    if asked is not None:
        start = min(start, max(asked, kept))
    return [Window(start), *_old(state, now, history, floor)]


def _old(state: State, now: int, history: History, floor: int) -> Iterator[Window]:
    day, end = state.deep_day, state.deep_at
    if day is None:
        if end <= now < end + DAY:
            return
        day, end = (now - history.back) // DAY, now
    at = max(day, floor // DAY) * DAY
    while True:  # once at least, or a look that was overtaken by the retention would never end
        yield Window(max(at, floor), at + history.at_once)
        at += history.at_once
        if at >= end:
            return
