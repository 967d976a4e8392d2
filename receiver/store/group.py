"""What a group of arrivals becomes: pure, and the same for each engine.

An engine reads what is known of the arrivals, asks `decide`, and writes what that says; if what was
read may have changed by then, it reads and asks again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from receiver import mirror, status
from receiver.event import Incoming, Rejected, reject_expired
from receiver.mirror import Cell, Summary
from receiver.store.contract import Outcome, Report, Selection
from receiver.times import SECOND

#: Two reports of one thing lie less than this apart: the provider tells two webhooks.
SAME_REPORT = 2 * SECOND

_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

#: For an arrival's id: has such a report been stored, without and with an error?
Reported = Mapping[str, tuple[bool, bool]]
#: What the events of messages have reported, by message id.
Reports = Mapping[str, Sequence[Report]]


class MirroredMessage:
    """A message's row in the mirror, as a group finds it and changes it."""

    __slots__ = (
        "before",
        "changed",
        "first_received_at",
        "indexed",
        "row",
        "summary",
        "touched_at",
    )

    def __init__(self, received_at: int) -> None:
        self.row: status.Row = {}
        #: The cell that it counts in so far; `None` for a new message.
        self.before: Cell | None = None
        self.summary: Summary | None = None
        self.first_received_at = received_at
        self.touched_at = 0
        self.indexed = True
        self.changed = False

    @classmethod
    def stored(
        cls,
        registers: str,
        cell: Cell,
        first_received_at: int,
        touched_at: int,
        indexed: int,
    ) -> MirroredMessage:
        message = cls(first_received_at)
        message.row = json.loads(registers)
        message.before = cell
        message.touched_at = touched_at
        message.indexed = bool(indexed)
        return message

    def take(self, item: Incoming, says: status.Row) -> bool:
        """Merge what an event says; returns whether the event is late."""
        before, after = self.row, status.merge(self.row, says)
        text = after.get("message")
        if text is not None and ("message" not in before or text[2] != before["message"][2]):
            self.indexed = False
        self.row = after
        self.first_received_at = min(self.first_received_at, item.received_at)
        self.touched_at = max(
            self.touched_at, item.received_at, item.occurred_at, mirror.latest_time(says)
        )
        self.changed = True
        return status.is_late(before, after, status.STATE_OF_TYPE[item.type])

    @property
    def registers(self) -> str:
        return _ENCODE(self.row)


class Known(NamedTuple):
    """What a store knows of a group's arrivals."""

    #: Those of their ids that are stored.
    ids: set[str]
    messages: dict[str, MirroredMessage]
    #: Events with this `timestamp` or an earlier one may have been forgotten.
    expired: int
    #: Those of the arrivals' messages that have events from elsewhere than a webhook.
    learnt: Collection[str] = ()


class Accepted(NamedTuple):
    """An arrival that is a new event."""

    item: Incoming
    late: bool
    repeat: bool
    #: The names of the handlers that get it.
    handlers: Sequence[str]


class Decision(NamedTuple):
    """What to write of a group, and what to answer to each of it."""

    outcomes: list[Outcome]
    accepted: list[Accepted]
    #: The messages that change, with their summaries made.
    messages: dict[str, MirroredMessage]
    #: Arrivals whose ids are known.
    again: list[Incoming]
    quarantined: list[Rejected]


def decide(
    items: Sequence[Incoming | Rejected],
    known: Known,
    reported: Callable[[list[Incoming]], Reported],
    reports: Callable[[Collection[str]], Reports],
    wanting: Callable[[str], Sequence[str]],
) -> Decision:
    """Sort a group out. Changes what is in `known`.

    :param reported: looks up whether what arrivals report has been reported under another id; it
        is asked once at most, for those of which that is possible.
    :param reports: looks up all that the events of messages have reported; asked once at most, for
        messages of which not only webhooks tell.
    :param wanting: the names of the handlers that want an event type.
    """
    decision = Decision([], [], {}, [], [])
    repeats: _Repeats | None = None
    for item in items:
        if isinstance(item, Rejected):
            decision.quarantined.append(item)
            decision.outcomes.append("quarantined")
            continue
        if item.id in known.ids:
            decision.again.append(item)
            decision.outcomes.append("duplicate")
            continue
        if item.timestamp is not None and item.timestamp <= known.expired:
            if item.source == "webhook":  # what was only learnt can be learnt again
                decision.quarantined.append(reject_expired(item))
            decision.outcomes.append("quarantined")
            continue
        if repeats is None:  # before the first message is added to those that are known
            repeats = _Repeats(items, known, reported, reports)
        known.ids.add(item.id)
        late = False
        if item.message_id is not None and item.says is not None:
            message = known.messages.setdefault(item.message_id, MirroredMessage(item.received_at))
            late = message.take(item, item.says)
            decision.messages[item.message_id] = message
        repeat, dispatched = repeats.judge(item)
        handlers = wanting(item.type) if dispatched else ()
        decision.accepted.append(Accepted(item, late, repeat, handlers))
        decision.outcomes.append("accepted")
    for message in decision.messages.values():
        message.summary = mirror.summarize(message.row, message.first_received_at)
    return decision


class _Repeats:
    """Which arrivals report what an event of their message has reported already."""

    def __init__(
        self,
        items: Sequence[Incoming | Rejected],
        known: Known,
        reported: Callable[[list[Incoming]], Reported],
        reports: Callable[[Collection[str]], Reports],
    ) -> None:
        # A message without a row cannot have had an event of a type that makes one.
        asked = [
            a
            for a in items
            if isinstance(a, Incoming)
            and a.message_id is not None
            and a.reported_at is not None
            and a.id not in known.ids
            and (a.says is None or a.message_id in known.messages)
        ]
        self._stored = reported(asked) if asked else {}
        learnt = {
            a.message_id
            for a in asked
            if a.message_id is not None and (a.source != "webhook" or a.message_id in known.learnt)
        }
        #: All reports of messages of which not only webhooks tell.
        self._reports = dict(reports(learnt)) if learnt else {}
        #: The reports of this group so far.
        self._here: dict[str, list[Report]] = {}

    def judge(self, item: Incoming) -> tuple[bool, bool]:
        """Whether it is a repeat, and whether it is dispatched all the same: it is if it is the
        first that says why."""
        if item.message_id is None or item.reported_at is None:
            return False, True
        here = self._here.setdefault(item.message_id, [])
        report = Report(item.type, item.reported_at, item.has_error, item.source)
        others = [*self._reports.get(item.message_id, ()), *here]
        same = [other for other in others if is_same(report, other, others)]
        here.append(report)
        mute, explained = self._stored.get(item.id, (False, False))
        explained = explained or any(other.has_error for other in same)
        repeat = bool(mute or explained or same)
        return repeat, not repeat or (item.has_error and not explained)


def is_same(one: Report, other: Report, reports: Iterable[Report]) -> bool:
    """Whether two reports of one message tell of the same thing (CONTRACT: repeat).

    The API's times need not be those of the webhooks, and it gives none for a failure. So a report
    that did not come by webhook is the same as any other of its type, unless the message was put
    back into the queue in between.

    :param reports: all that is known of the message.
    """
    if one.type != other.type or one.reported_at is None or other.reported_at is None:
        return False
    earlier, later = sorted((one.reported_at, other.reported_at))
    if later - earlier < SAME_REPORT:
        return True
    if one.source == other.source == "webhook":
        return False
    return not any(_tells_of_a_resend(one.type, earlier, later, report) for report in reports)


def _tells_of_a_resend(event_type: str, earlier: int, later: int, report: Report) -> bool:
    at, state = report.reported_at, status.STATE_OF_TYPE.get(report.type)
    if at is None:
        return False
    if status.STATE_OF_TYPE.get(event_type) == "failed":
        # A failure that was learnt has the time of what came before it.
        return state in ("queued", "processing", "sent") and earlier + SAME_REPORT <= at <= later
    return state in ("queued", "failed") and earlier < at < later


def replayed(
    event: Mapping[str, Any],
    existing: Mapping[str, tuple[str, bool]],
    selection: Selection,
    wanting: Callable[[str], Sequence[str]],
) -> list[str]:
    """The handlers that get an event again.

    :param existing: their work items: the state, and whether a lease holds.
    """
    names = set(wanting(event["type"]))
    if event["repeat"] and not selection.ids:
        names &= existing.keys()
    if selection.handler is not None:
        names &= {selection.handler}
    if selection.state is not None:
        names = {n for n in names if n in existing and existing[n][0] == selection.state}
    return sorted(n for n in names if n not in existing or not existing[n][1])
