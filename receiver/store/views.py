"""What pages and lists show of events and of their work: which are meant, and in which order.

Part of the store's contract (`receiver.store.contract`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from receiver import times
from receiver.store.claiming import NEVER

DeliveryState = Literal["pending", "done", "dead"]
#: What is asked for: `retrying` is pending work that has failed before, `any` is work at all.
WantedState = Literal["any", "pending", "retrying", "done", "dead"]

#: Microseconds for which a number may be missing among those of stored events, and its event still
#: come. On PostgreSQL numbers are given out before the commit, and no transaction takes longer.
MAY_STILL_COME = 10 * times.SECOND
#: Ranges of missing numbers that a reader of arrivals bears in mind.
_MOST_MISSING = 200

#: Which events phones have told of themselves, in SQL.
OF_PHONES = "substr(type, 1, 7) = 'device.'"

#: Events that a page looks at, at most: with a rare filter it may hold fewer than it has room for.
LOOKED_AT = 10_000
#: Pending work items that are put in order for a page. Of more than that the newest are met soon.
ORDERED = 10_000
#: Groups of dead work that are told, and items of each that are counted.
MOST_GROUPS = 200
MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events a reader means; every condition given must hold.

    :param event_type: a type, or a family like `sms.*`.
    :param since, until: bounds of the first receipt, both included.
    :param numbers: of whom the message was sent to, each as `receiver.mirror.number` makes it.
    :param newest: the newest first, instead of the oldest.
    :param state: at least one work item (of `handler`, if given) is in this state.
    :param cause: that work item died of this (`receiver.causes`); with the state `dead`.
    :param died_until: and then or before.
    """

    ids: Sequence[str] = ()
    event_type: str | None = None
    message_id: str | None = None
    numbers: tuple[str, ...] = ()
    newest: bool = False
    since: int | None = None
    until: int | None = None
    state: WantedState | None = None
    handler: str | None = None
    cause: str | None = None
    died_until: int | None = None


class Item(NamedTuple):
    """A work item, as far as it decides whether it is given to its handler again.

    :param held: whether a lease holds.
    :param due_at: of dead work: when it died.
    """

    state: str
    held: bool
    cause: str
    due_at: int

    def fits(self, selection: Selection) -> bool:
        """Whether it is one of those that a replay means."""
        return (
            selection.state in (None, "any", self.state)
            and selection.cause in (None, self.cause)
            and (selection.died_until is None or self.due_at <= selection.died_until)
        )


class Group(NamedTuple):
    """Work of a handler that died of the same cause.

    :param first, last: when the first and the last of it died; `None` where a release before this
        one has not written that down.
    :param number: counted up to `MOST_COUNTED`.
    """

    handler: str
    cause: str
    first: int | None
    last: int | None
    number: int


def groups_of(rows: Iterable[tuple[str, str, int, int, int]]) -> list[Group]:
    """Groups as the database has found them; the one of which something died last comes first."""

    def known(died: int) -> int | None:
        return died if died < NEVER else None

    return [
        Group(handler, cause, known(first), known(last), number)
        for handler, cause, first, last, number in sorted(rows, key=lambda row: -row[3])
    ]


#: An event as operators see it, and its number.
Numbered = tuple[int, dict[str, Any]]


class Page(NamedTuple):
    """Events, the newest first.

    :param before: the number before which the next page begins; `None` if there is nothing more.
    :param whole: whether it holds as many as were asked for, or all there are. Else it ended after
        as many events as are looked at, and there may be more of them further back.
    """

    events: list[Numbered]
    before: int | None
    whole: bool


class Position(NamedTuple):
    """How far somebody has read what arrives.

    :param seq: the greatest number of an event that was read.
    :param missing: numbers before it that may still come: the first, the last, and until when.
    """

    seq: int
    missing: tuple[tuple[int, int, int], ...] = ()

    def after(self, read: Iterable[int], now: int) -> Position:
        """The position after some more events, which are all that there are up to the last of them.

        :param read: their numbers.
        """
        found = sorted(read)
        missing: list[tuple[int, int, int]] = []
        for first, last, until in self.missing:
            if until > now:
                missing += _without(first, last, until, found)
        seq = self.seq
        for number in found:
            if number > seq:
                if number > seq + 1:
                    missing.append((seq + 1, number - 1, now + MAY_STILL_COME))
                seq = number
        return Position(seq, tuple(missing[-_MOST_MISSING:]))


def _without(
    first: int, last: int, until: int, found: Sequence[int]
) -> Iterable[tuple[int, int, int]]:
    """What is left of a range of missing numbers."""
    for number in found:
        if first <= number <= last:
            if first < number:
                yield first, number - 1, until
            first = number + 1
    if first <= last:
        yield first, last, until


class OfPhone(NamedTuple):
    """An event that a phone has told of itself (`device.connected` and the like)."""

    key: str
    type: str
    occurred_at: int
    body: bytes


class Views(Protocol):
    """What pages ask about events and their work. Nothing here costs more with more messages."""

    def page(
        self, selection: Selection, before: int | None, limit: int, farthest: int = LOOKED_AT
    ) -> Page:
        """A page of the selected events, the newest first.

        :param selection: without ids, numbers and a message.
        :param before: only events with smaller numbers.
        :param farthest: events that are looked at, at most.
        """

    def arrivals(self, position: Position, now: int, limit: int) -> tuple[list[Numbered], Position]:
        """What has arrived since, in the order of its numbers, and the position after it.

        No event is missed, and none is told twice, in whatever order transactions end.
        """

    def position(self, back: int) -> Position:
        """Where one who wants to see the newest `back` events begins."""

    def groups(self) -> list[Group]:
        """Dead work by handler and cause: those of which something died last come first."""

    def dead(self, handler: str, cause: str) -> tuple[int, int]:
        """How much is in a group now, and the `Selection.died_until` that means just that."""

    def oldest_due(self, now: int) -> dict[str, int]:
        """By handler: since when the oldest work that may be claimed has been waiting."""

    def of_phones(self, limit: int) -> list[OfPhone]:
        """The latest events of types `device.*`, in the order in which they came, newest first."""
