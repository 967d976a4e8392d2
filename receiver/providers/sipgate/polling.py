"""One look into sipgate's history: what it tells that is not known yet, and of whom.

What a pass leaves behind is written in this order (`keep`): events, then intents, then the state.
So whatever ends the process in between, the next pass comes to the same result:

- *The intent is there, and no event.* The process ended while it sent, or the answer did not come.
  The SMS may have gone: it is queued, and looked for like any other.
- *The event of an entry is there, and the intent too.* The message is known as sent: the intent
  goes, and the entry serves nobody again, as its event is known.
- *The state is old.* More is read once more, and all of it is known.

Intents are read after the history. Each was written before its request left, so what the history
holds of ours has its intent by then.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from receiver import ids, times
from receiver.errors import Unusable
from receiver.event import Incoming, clean_id
from receiver.providers.errors import NotFound
from receiver.providers.sipgate import history
from receiver.providers.sipgate.api import Sipgate
from receiver.providers.sipgate.events import ENTRY, NAME, parse, sent_id, wrap
from receiver.providers.sipgate.history import Entry
from receiver.providers.sipgate.intents import Intent, queued
from receiver.providers.sipgate.matching import SKEW, Paired, Send, pair
from receiver.store import Report, Selection, Store
from receiver.times import DAY, HOUR, MINUTE, SECOND

SOURCE = "poll"
NOTE = "sipgate:history"

#: How often the history is asked.
EVERY = 5 * MINUTE
#: A pass reads again what the one before has read last: entries may come late.
OVERLAP = HOUR
#: Once a day it reads so far back.
WIDER = 2 * DAY
#: A request has its end by then: the SMS was asked for, if nobody says that it was not.
UNSURE = 2 * MINUTE
#: For so long after it should have gone, a send is looked for. Equal texts to one number wait for
#: it all the while.
GIVE_UP = DAY
#: The entry of a scheduled send is made so soon after the request, if it is made then.
_MADE_WITHIN = 10 * MINUTE
#: Nothing is read that is about to expire here: it would be learnt again.
_ABOUT_TO_EXPIRE = HOUR
#: Entries that are scheduled for later; and how many of them one pass asks for one by one.
_MOST_AWAITED = 10_000
_MOST_ASKED = 100
_A_BATCH = 500


@dataclass(slots=True)
class State:
    """What one pass leaves to the next, of whichever process. Times are microseconds.

    :param since: from when on the next pass reads.
    :param wide_at: when the last pass was that read `WIDER`.
    :param awaited: entries that are to go out later, and when.
    """

    since: int
    wide_at: int
    awaited: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def state(note: str | None, now: int) -> State:
    """The state that a note holds; without one the history counts from now on."""
    if note is None:
        return State(now, now)
    told = json.loads(note)
    names = {each.name for each in dataclasses.fields(State)}
    found = State(**{name: value for name, value in told.items() if name in names})
    if found.since > now:  # written by a clock that was ahead
        found.since = now - WIDER
    return found


class Known(Protocol):
    """What the store knows."""

    def stored(self, event_ids: Collection[str]) -> Collection[str]:
        """Which of these events there are, by their keys."""

    def reports(self, message_ids: Collection[str]) -> Mapping[str, Sequence[Report]]:
        """What the events of these messages have reported, by their keys."""


class InStore:
    """`Known`, of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def stored(self, event_ids: Collection[str]) -> set[str]:
        found: set[str] = set()
        for some in _batches(event_ids):
            found |= {event["event_id"] for event in self._store.events(Selection(ids=some))}
        return found

    def reports(self, message_ids: Collection[str]) -> dict[str, Sequence[Report]]:
        found: dict[str, Sequence[Report]] = {}
        for some in _batches(message_ids):
            found |= self._store.reports(some)
        return found


class Found(NamedTuple):
    """What a pass has found.

    :param events: what is to be stored.
    :param settled: intents that nobody needs to look for any more, once the events are stored.
    :param state: for the next pass.
    :param entries: how many were read.
    :param waiting: how many of ours are looked for further.
    :param given_up: how many of `settled` were not found.
    """

    events: list[Incoming]
    settled: list[str]
    state: State
    entries: int
    waiting: int
    given_up: int


def look(
    sipgate: Sipgate,
    open_intents: Callable[[], Sequence[Intent]],
    known: Known,
    state: State,
    now: Callable[[], int],
    *,
    wall: Callable[[], int] | None = None,
    retention: int,
    text_mode: str = "full",
    shown: Callable[[str], str] = str,
) -> Found:
    """Read the history, and tell what is new in it. Changes nothing.

    :param open_intents: the intents that are written down at this moment.
    :param now: sipgate's clock, in microseconds.
    :param wall: the clock on the wall, if that is another one: for a simulator minutes may go by
        while a request is on its way.
    :param retention: microseconds that everything is kept.
    :param text_mode: see `receiver.providers.sipgate.events.parse`.
    :param shown: what is left of a number where it was forgotten, as of an intent's.
    :raises ProviderError: if the history cannot be read whole.
    :raises StoreUnavailable: if what is known cannot be asked.
    """
    began = now()
    read = _read(sipgate, open_intents(), state, began, retention)
    asked_before = (wall or now)() - UNSURE
    intents = open_intents()
    reports = known.reports([_key(each.id) for each in intents])
    told = {each.id: {report.type for report in reports.get(_key(each.id), ())} for each in intents}
    settled = [each.id for each in intents if "sms.sent" in told[each.id]]
    waiting = {each.id: each for each in intents if "sms.sent" not in told[each.id]}

    used = known.stored([sent_id(each) for each in {*read, *state.awaited}])
    entries = {name: entry for name, entry in read.items() if sent_id(name) not in used}
    awaited = {name: at for name, at in state.awaited.items() if sent_id(name) not in used}
    _fetch_due(sipgate, entries, awaited, began)
    for name, entry in list(entries.items()):
        if _is_ahead(entry, began):
            awaited[name] = entry.moment
            del entries[name]

    entries = {name: entry._replace(number=shown(entry.number)) for name, entry in entries.items()}
    paired, late = _pair(waiting, entries, began)
    matched = {send.id for send, _ in paired.matches}
    events: list[Incoming] = []
    as_queued = partial(queued, now=began, retention=retention, text_mode=text_mode, source=SOURCE)
    for own_id, each in waiting.items():
        is_sure = own_id in matched or each.asked_at < asked_before
        if is_sure and not told[own_id]:
            events += as_queued(each)
    for send, entry in paired.matches:
        events += _sent(entry, send.id, began, retention, text_mode)
        awaited.pop(entry.id, None)
    for entry in paired.foreign:
        if entry.extension in ("", sipgate.sms_id):
            events += _sent(entry, None, began, retention, text_mode)
        awaited.pop(entry.id, None)
    wide_at = began if _is_wide(state, began) else state.wide_at
    kept = dict(sorted(awaited.items(), key=lambda item: item[1])[:_MOST_AWAITED])
    return Found(
        events=events,
        settled=[*settled, *matched, *late],
        state=State(began, wide_at, kept),
        entries=len(read),
        waiting=len(waiting) - len(matched) - len(late),
        given_up=len(late),
    )


def keep(
    found: Found,
    learn: Callable[[Sequence[Incoming]], object],
    drop: Callable[[Iterable[str]], None],
    write_note: Callable[[str, str], None],
) -> None:
    """Write down what a pass has found, in the order that this file's head says.

    :param learn: stores events durably, or raises.
    :param drop: takes intents away.
    """
    if found.events:
        learn(found.events)
    drop(found.settled)
    write_note(NOTE, found.state.text())


# --- reading


def _read(
    sipgate: Sipgate, intents: Sequence[Intent], state: State, began: int, retention: int
) -> dict[str, Entry]:
    extensions = sorted({sipgate.sms_id, *(each.extension for each in intents)})
    entries: dict[str, Entry] = {}
    for since, until in windows(intents, state, began, retention):
        rows = sipgate.entries(
            connection_ids=extensions,
            since=times.to_datetime(since - since % SECOND),
            until=None if until is None else times.to_datetime(until),
        )
        for row in rows:
            entry = history.read(row)
            if entry is not None:
                entries[entry.id] = entry
    return entries


def windows(
    intents: Sequence[Intent], state: State, now: int, retention: int
) -> list[tuple[int, int | None]]:
    """From when to when the history is to be read; `None`: to its end.

    An SMS that was scheduled may stand there under the time of its request, or of its sending.
    """
    gone = [each for each in intents if each.at <= now]
    first = min([state.since - OVERLAP, *(each.at - 2 * SKEW for each in gone)])
    if _is_wide(state, now):
        first = min(first, now - WIDER)
    first = max(first, now - retention + _ABOUT_TO_EXPIRE)
    asked = sorted(each.asked_at for each in gone if each.send_at is not None)
    found: list[tuple[int, int | None]] = []
    for at in asked:
        since, until = at - 2 * SKEW, min(at + _MADE_WITHIN, first)
        if since >= until:
            continue
        if found and (before := found[-1])[1] is not None and since <= before[1]:
            found[-1] = before[0], max(before[1], until)
        else:
            found.append((since, until))
    return [*found, (first, None)]


def _is_wide(state: State, now: int) -> bool:
    return not state.wide_at <= now < state.wide_at + DAY


def _fetch_due(
    sipgate: Sipgate, entries: dict[str, Entry], awaited: dict[str, int], now: int
) -> None:
    """Ask for the entries whose time has come, where the history has not shown them."""
    due = [name for name, at in awaited.items() if at <= now and name not in entries]
    for name in sorted(due, key=lambda name: awaited[name])[:_MOST_ASKED]:
        try:
            entry = history.read(sipgate.entry(name))
        except NotFound:
            entry = None  # somebody has deleted it
        if entry is None:
            del awaited[name]
        else:
            entries[name] = entry


def _is_ahead(entry: Entry, now: int) -> bool:
    """Whether it is still to go out."""
    scheduled = entry.scheduled
    return (scheduled is not None and scheduled > now) or entry.created > now + SKEW


# --- what it means


def _pair(
    waiting: Mapping[str, Intent], entries: Mapping[str, Entry], now: int
) -> tuple[Paired, list[str]]:
    """Whose each entry is, as far as that is certain, and who is given up: what has waited for
    these is free. What is left in neither waits further."""
    rest, free = dict(waiting), dict(entries)
    matches, given_up = list[tuple[Send, Entry]](), list[str]()
    while True:
        paired = pair([each.send for each in rest.values()], free.values())
        matches += paired.matches
        for send, entry in paired.matches:
            del rest[send.id], free[entry.id]
        if paired.matches:
            continue  # what has waited for these as well is free
        late = _late(list(rest.values()), now)
        if not late:
            return Paired(matches, paired.foreign), given_up
        given_up += late
        for own_id in late:
            del rest[own_id]


def _late(unmatched: Sequence[Intent], now: int) -> list[str]:
    """Who is given up; and with one that is, those right after it, or they would be paired with
    what it has waited for."""
    if not any(each.at + GIVE_UP < now for each in unmatched):
        return []
    return [each.id for each in unmatched if each.at + GIVE_UP < now + 2 * SKEW]


def _sent(
    entry: Entry, own_id: str | None, now: int, retention: int, text_mode: str
) -> list[Incoming]:
    body = wrap(ENTRY, dict(entry.raw), own_id)
    try:
        found = parse(
            body, received_at=now, retention=retention, text_mode=text_mode, source=SOURCE
        )
    except Unusable:  # too old
        return []
    return [event for event in found if isinstance(event, Incoming)]


def _key(own_id: str) -> str:
    return ids.key(NAME, clean_id(own_id))


def _batches(names: Collection[str]) -> Iterator[list[str]]:
    every = list(names)
    for start in range(0, len(every), _A_BATCH):
        yield every[start : start + _A_BATCH]
