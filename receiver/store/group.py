"""What a group of arrivals becomes: pure, and the same for each engine.

An engine reads what is known of the arrivals, asks `decide`, and writes what that says; if what was
read may have changed by then, it reads and asks again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from receiver import ids, mirror, status
from receiver.event import Incoming, Rejected, reject_expired, under_own_id
from receiver.mirror import Cell, Summary
from receiver.store.contract import Outcome, Report
from receiver.store.views import Item, Selection
from receiver.times import RELEASED, SECOND

#: Two reports of one thing lie less than this apart: the provider tells two webhooks.
SAME_REPORT = 2 * SECOND

_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

#: The marks of the latest `timestamp` of an event that has expired, and whose events those are.
EXPIRED = {ids.of(name, "timestamp"): name for name in sorted(ids.NAMES)}

#: The mark of when what came in at `times.RELEASED`, while the clock was not trusted, counts from;
#: and its value as long as no trusted clock has looked.
UNDATED = "undated:"
NOT_YET = 2**62

#: The registers that search has indexes of; and all by which messages are found.
SEARCHED = ("message", "metadata")
_FOUND_BY = (*SEARCHED, "to")
#: Before and after all times.
_EARLIEST, _LATEST = -(2**62), 2**62


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
        "was_test",
    )

    def __init__(self, received_at: int) -> None:
        self.row: status.Row = {}
        #: The cell that it counts in so far; `None` for a new message.
        self.before: Cell | None = None
        #: So far it is in no total of that cell.
        self.was_test = False
        self.summary: Summary | None = None
        self.first_received_at = received_at
        self.touched_at = 0
        #: Whether the indexes that are told later know it as it is.
        self.indexed = True
        #: What of that by which it is found has changed.
        self.changed: set[str] = set()

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
        message.was_test = status.is_test(message.row)
        message.touched_at = touched_at
        message.indexed = bool(indexed)
        return message

    def take(self, item: Incoming, says: status.Row) -> bool:
        """Merge what an event says; returns whether the event is late."""
        before, after = self.row, status.merge(self.row, says)
        for name in _FOUND_BY:
            if name in says and after[name][2] != (before[name][2] if name in before else None):
                self.changed.add(name)
                self.indexed = False
        self.row = after
        self.first_received_at = min(self.first_received_at, item.received_at)
        self.touched_at = max(
            self.touched_at, item.received_at, item.occurred_at, mirror.latest_time(says)
        )
        return status.is_late(before, after, status.STATE_OF_TYPE[item.type])

    @property
    def is_test(self) -> bool:
        """It is in no total of its cell."""
        return status.is_test(self.row)

    @property
    def registers(self) -> str:
        return _ENCODE(self.row)


#: An event's type and its message's id: two events that differ in them are not the same.
Kind = tuple[str, str | None]


class Known(NamedTuple):
    """What a store knows of a group's arrivals."""

    #: Those of their ids that are stored, each with what its event is.
    ids: dict[str, Kind]
    messages: dict[str, MirroredMessage]
    #: By provider: events with this `timestamp` or an earlier one may have been forgotten.
    expired: Mapping[str, int]
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

    @property
    def is_undated(self) -> bool:
        """Whether the clock was not trusted when any of it was received."""
        return any(a.item.received_at == RELEASED for a in self.accepted) or any(
            rejected.received_at == RELEASED for rejected in self.quarantined
        )


def undated_mark() -> tuple[str, int]:
    """What says that something came in at the `RELEASED` of this release."""
    return f"{UNDATED}{RELEASED}", NOT_YET


def expired_by_provider(marks: Iterable[tuple[str, int]]) -> dict[str, int]:
    """See `Known.expired`.

    :param marks: those of `EXPIRED`.
    """
    return {EXPIRED[name]: value for name, value in marks}


def spared(marks: Iterable[tuple[str, int]], before: int) -> list[int]:
    """The receipts that say nothing of how old something is: those of before any trusted clock, for
    as long as the retention counts from when one was there.

    :param marks: those that begin with `UNDATED`.
    """
    return [int(name.removeprefix(UNDATED)) for name, since in marks if since >= before]


def set_apart(items: Sequence[Incoming | Rejected], known: Known) -> Sequence[Incoming | Rejected]:
    """The arrivals, with an id of its own for each whose id is that of another event.

    Who has an id in the store may change until it is written. So this is asked of the arrivals as
    they came, whenever something has been read.

    :returns: `items` itself if there is none. Else `unread` tells what more must be read.
    """
    kinds = dict(known.ids)
    apart: dict[int, Incoming] = {}
    for place, item in enumerate(items):
        if isinstance(item, Rejected) or item.apart:
            continue
        if _may_be_forgotten(item, known) and item.id not in kinds:
            continue  # it takes no id
        kind = (item.type, item.message_id)
        if kinds.setdefault(item.id, kind) != kind:
            apart[place] = under_own_id(item)
    return [apart.get(place, item) for place, item in enumerate(items)] if apart else items


def unread(
    apart: Sequence[Incoming | Rejected], read: Sequence[Incoming | Rejected]
) -> list[Incoming]:
    """Those that were set apart and whose own ids nobody has looked up yet.

    :param apart: as `set_apart` has them.
    :param read: those whose ids have been looked up.
    """
    ids = {item.id for item in read if isinstance(item, Incoming)}
    return [item for item in apart if isinstance(item, Incoming) and item.id not in ids]


def _may_be_forgotten(item: Incoming, known: Known) -> bool:
    if item.timestamp is None:
        return False
    expired = known.expired.get(ids.provider(item.id))
    return expired is not None and item.timestamp <= expired


def decide(
    items: Sequence[Incoming | Rejected],
    known: Known,
    look: Callable[[list[Look]], Iterable[tuple[str, Report]]],
    wanting: Callable[[str], Sequence[str]],
) -> Decision:
    """Sort a group out. Changes what is in `known`.

    :param items: as `set_apart` leaves them.
    :param look: answers questions with the stored reports that it finds, each with its message's
        id. Stored reports that nobody asked for do no harm. It is called once at most.
    :param wanting: the names of the handlers that want an event type.
    """
    decision = Decision([], [], {}, [], [])
    reports: dict[str, list[Report]] | None = None
    for item in items:
        if isinstance(item, Rejected):
            decision.quarantined.append(item)
            decision.outcomes.append("quarantined")
            continue
        if item.id in known.ids:
            decision.again.append(item)
            decision.outcomes.append("duplicate apart" if item.apart else "duplicate")
            continue
        if _may_be_forgotten(item, known):
            if item.source == "webhook":  # what was only learnt can be learnt again
                decision.quarantined.append(reject_expired(item))
            decision.outcomes.append("quarantined")
            continue
        if reports is None:  # before the first message is added to those that are known
            reports = _look_up(items, known, look)
        known.ids[item.id] = (item.type, item.message_id)
        late = False
        if item.message_id is not None and item.says is not None:
            message = known.messages.setdefault(item.message_id, MirroredMessage(item.received_at))
            late = message.take(item, item.says)
            decision.messages[item.message_id] = message
        repeat, dispatched = _judge(item, reports)
        handlers = wanting(item.type) if dispatched else ()
        decision.accepted.append(Accepted(item, late, repeat, handlers))
        decision.outcomes.append("accepted apart" if item.apart else "accepted")
    for message_id, message in decision.messages.items():
        summary = mirror.summarize(message.row, message.first_received_at)
        provider = ids.provider(message_id)
        message.summary = summary if provider == ids.FIRST else summary._replace(provider=provider)
    return decision


def _judge(item: Incoming, reports: dict[str, list[Report]]) -> tuple[bool, bool]:
    """Whether an arrival is a repeat, and whether it is dispatched.

    :param reports: what is known of the messages' reports; this one is added.
    """
    if item.message_id is None or item.reported_at is None:
        return False, True
    report = _report_of(item)
    others = reports.setdefault(item.message_id, [])
    same = told_already(report, others)
    others.append(report)
    explained = any(other.has_error for other in same)
    return bool(same), not same or (item.has_error and not explained)


def _report_of(item: Incoming) -> Report:
    return Report(item.type, item.reported_at, item.has_error, item.source)


# --- repeats


class _Resend(NamedTuple):
    """What says that a message was put back into the queue between two reports of one type."""

    types: Collection[str]
    #: It lies at least so much later than the first of the two.
    after: int
    #: It lies at least so much earlier than the second.
    before: int


def _types_of(*states: str) -> Collection[str]:
    return [kind for kind, state in status.STATE_OF_TYPE.items() if state in states]


_RESEND = _Resend(_types_of("queued", "failed"), 1, 1)
#: A failure that was learnt has the time of what came before it.
_RESEND_OF_FAILED = _Resend(_types_of("queued", "processing", "sent"), SAME_REPORT, 0)


def _resend(event_type: str) -> _Resend:
    is_failure = status.STATE_OF_TYPE.get(event_type) == "failed"
    return _RESEND_OF_FAILED if is_failure else _RESEND


def told_already(report: Report, others: Collection[Report]) -> list[Report]:
    """Those of a message's other reports that tell of the same thing (CONTRACT: repeat).

    They have its type, and a time less than two seconds apart. The API's times need not be those
    of the webhooks, and it gives none for a failure. So where one of the two did not come by
    webhook, they tell of the same thing at any distance, unless the message was put back into the
    queue in between.

    :param others: all that is known of the message; `looks_for` says what is enough.
    """
    at = report.reported_at
    if at is None or not others:
        return []
    types, after, before = _resend(report.type)
    resends = [o.reported_at for o in others if o.type in types and o.reported_at is not None]
    last = max((resent for resent in resends if resent <= at - before), default=_EARLIEST)
    following = min((resent for resent in resends if resent >= at + after), default=_LATEST)
    same = []
    for other in others:
        moment = other.reported_at
        if other.type != report.type or moment is None:
            continue
        if abs(moment - at) < SAME_REPORT:
            same.append(other)
        elif report.source == other.source == "webhook":
            continue
        elif last < moment + after if moment < at else moment - before < following:
            same.append(other)
    return same


class Look(NamedTuple):
    """A question for the store: the report of a message that has this type and lies closest to one
    end of a span of time; once among those with an error, and once among those without."""

    message_id: str
    type: str
    #: The span's first and last moment.
    since: int
    until: int
    #: Closest to its last moment, instead of its first.
    latest: bool = True
    #: Only among reports that did not come by webhook.
    learnt: bool = False


def near(message_id: str, event_type: str, at: int) -> Look:
    """The question whether there is a report of the same moment."""
    return Look(message_id, event_type, at - SAME_REPORT + 1, at + SAME_REPORT - 1)


def looks_for(message_id: str, report: Report, *, learnt: bool) -> list[Look]:
    """What a store must be asked so that `told_already` knows enough of a message.

    That is little, however many reports the message has. On each side, a resend that lies before
    the closest report of the same type lies before all of them; and if the closest resend does not
    lie before a report, none does.

    :param learnt: whether not only webhooks tell of the message.
    """
    at = report.reported_at
    if at is None:
        return []
    looks = [near(message_id, report.type, at)]
    if not learnt:
        return looks
    is_webhook = report.source == "webhook"
    looks.append(Look(message_id, report.type, _EARLIEST, at, latest=True, learnt=is_webhook))
    looks.append(Look(message_id, report.type, at, _LATEST, latest=False, learnt=is_webhook))
    types, after, before = _resend(report.type)
    for kind in types:
        looks.append(Look(message_id, kind, _EARLIEST, at - before, latest=True))
        looks.append(Look(message_id, kind, at + after, _LATEST, latest=False))
    return looks


def _look_up(
    items: Sequence[Incoming | Rejected],
    known: Known,
    look: Callable[[list[Look]], Iterable[tuple[str, Report]]],
) -> dict[str, list[Report]]:
    """The stored reports, by message, that bear upon which of a group's arrivals are repeats."""
    # A message without a row cannot have had an event of a type that makes one.
    asked = [
        (a.message_id, _report_of(a))
        for a in items
        if isinstance(a, Incoming)
        and a.message_id is not None
        and a.reported_at is not None
        and a.id not in known.ids
        and (a.says is None or a.message_id in known.messages)
    ]
    if not asked:
        return {}
    learnt = {
        message_id
        for message_id, report in asked
        if report.source != "webhook" or message_id in known.learnt
    }
    looks: list[Look] = []
    for message_id, report in asked:
        looks += looks_for(message_id, report, learnt=message_id in learnt)
    found: dict[str, set[Report]] = {}
    for message_id, report in look(looks):
        found.setdefault(message_id, set()).add(report)
    return {message_id: list(reports) for message_id, reports in found.items()}


# --- replay


def replayed(
    event: Mapping[str, Any],
    existing: Mapping[str, Item],
    selection: Selection,
    wanting: Callable[[str], Sequence[str]],
) -> list[str]:
    """The handlers that get an event again.

    :param existing: their work items.
    """
    names = set(wanting(event["type"]))
    if selection.state is not None or (event["repeat"] and not selection.ids):
        names &= existing.keys()
    if selection.handler is not None:
        names &= {selection.handler}
    return sorted(
        n
        for n in names
        if n not in existing or (existing[n].fits(selection) and not existing[n].held)
    )
