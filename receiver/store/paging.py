"""A page of events, the newest first, whatever is asked for: how far is looked for it. Pure.

Two kinds of filters cost alike, however many events there are. Work that is little (dead, pending)
is found by its own indexes. For all else one event after the other is looked at, and after so many
the page ends, full or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from receiver import times
from receiver.store.views import Selection

#: Clocks may differ by so much, and go back: that far around a bound all events are looked at.
SLACK = times.HOUR
#: Numbers of events that are read together, where a page is not full at once.
_TOGETHER = 1_000

#: An event as the database has it, with its `seq`.
Row = dict[str, Any]


class Asks(Protocol):
    """What an engine answers. Numbers and events come with the newest first."""

    def begin(self, until: int | None) -> int:
        """The number before which events were received until a time, or all."""

    def are_few(self, selection: Selection) -> bool:
        """Whether the work that is asked for is so little that it can be put in order."""

    def seqs(self, selection: Selection, before: int, most: int) -> list[int]:
        """The numbers of events that have the work that is asked for."""

    def among(self, selection: Selection, seqs: Sequence[int]) -> list[Row]:
        """Those of these events that are selected."""

    def between(self, selection: Selection, oldest: int, before: int, most: int) -> list[Row]:
        """The selected events from one number on, before another."""

    def farther(self, before: int, count: int) -> int | None:
        """The number of the event that stands so many further back; `None` if there are fewer."""

    def received(self, before: int) -> int | None:
        """When the newest event before a number was received."""


def page(
    asks: Asks, selection: Selection, before: int | None, limit: int, farthest: int
) -> tuple[list[Row], int | None, bool]:
    """What `receiver.store.views.Page` holds, with the events as the database has them."""
    if before is None:
        before = asks.begin(None if selection.until is None else selection.until + SLACK)
    if asks.are_few(selection):
        return _page_of_few(asks, selection, before, limit)
    oldest = 0 if selection == Selection() else asks.farther(before, farthest) or 0
    found = asks.between(selection, oldest, before, limit + 1)
    if len(found) > limit:
        return found[:limit], found[limit - 1]["seq"], True
    received = asks.received(oldest)
    over = received is None or (selection.since is not None and received < selection.since - SLACK)
    return found, None if over else oldest, over


def _page_of_few(
    asks: Asks, selection: Selection, before: int, limit: int
) -> tuple[list[Row], int | None, bool]:
    # That they have the work is known of them.
    events = replace(selection, state=None, handler=None, cause=None, died_until=None)
    found: list[Row] = []
    most = limit + 1
    while len(found) <= limit:
        seqs = asks.seqs(selection, before, most)
        found += asks.among(events, seqs)
        if len(seqs) < most:
            break
        before, most = seqs[-1], _TOGETHER
    more = len(found) > limit
    return found[:limit], found[limit - 1]["seq"] if more else None, True
