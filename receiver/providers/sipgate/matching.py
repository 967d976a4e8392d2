"""Which entry of the history is which of our sends: sipgate gives no id when it sends. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from receiver.providers.sipgate.history import Entry
from receiver.times import MINUTE

#: sipgate's clock may be so much behind ours.
SKEW = MINUTE


class Send(NamedTuple):
    """A send whose entry is not known yet.

    :param id: ours.
    :param extension: which one it went out by, like `s0`.
    :param number: see `history.number`.
    :param text: see `history.digest`.
    :param at: when it was asked for, or is to go out; microseconds.
    :param scheduled: whether it was to go out later than it was asked for.
    """

    id: str
    extension: str
    number: str
    text: str
    at: int
    scheduled: bool = False


class Paired(NamedTuple):
    """What is certain.

    :param matches: sends, each with its entry.
    :param foreign: entries that are nobody's here: written in the app, or sent by another program.
    """

    matches: list[tuple[Send, Entry]]
    foreign: list[Entry]


def pair(sends: Iterable[Send], entries: Iterable[Entry]) -> Paired:
    """Pair sends with entries off, where nothing must be guessed.

    Sends and entries that may belong together are looked at together: they pair off in the order of
    time. Where there are more of the ones than of the others, nobody can say which is which: all of
    these wait.

    :param sends: those that have no entry yet.
    :param entries: those that belong to no send yet, from before the oldest send on.
    """
    waiting: dict[str, list[Send]] = defaultdict(list)
    for send in sends:
        waiting[send.number].append(send)
    paired = Paired([], [])
    may_be: list[tuple[Entry, list[Send]]] = []
    for entry in {entry.id: entry for entry in entries}.values():  # one may be listed twice
        fits = [send for send in waiting.get(entry.number, ()) if _may_be(entry, send)]
        if not fits:
            paired.foreign.append(entry)
        elif entry.extension and entry.text is not None:
            may_be.append((entry, fits))
    for group, candidates in _together(may_be):
        paired.matches.extend(_in_order(group, candidates))
    return paired


def _may_be(entry: Entry, send: Send) -> bool:
    """Whether nothing that an entry tells speaks against a send. An entry that does not tell its
    text or its extension is never paired, and no message of its own while it may be such a send."""
    if not (
        entry.number == send.number
        and entry.extension in ("", send.extension)
        and entry.text in (None, send.text)
    ):
        return False
    scheduled = entry.scheduled
    if send.scheduled and scheduled is not None and abs(scheduled - send.at) <= SKEW:
        return True
    if not send.scheduled and _tells_schedule(entry):
        return False  # somebody else has scheduled it
    return entry.created >= send.at - SKEW


def _together(
    may_be: Sequence[tuple[Entry, Sequence[Send]]],
) -> Iterator[tuple[list[Send], list[Entry]]]:
    """The sends and entries that hang together, by whatever may belong to each other."""
    owner: dict[str, str] = {}

    def root(name: str) -> str:
        while owner.setdefault(name, name) != name:
            owner[name] = name = owner[owner[name]]
        return name

    for _, fits in may_be:
        for send in fits[1:]:
            owner[root(send.id)] = root(fits[0].id)
    groups: dict[str, tuple[dict[str, Send], list[Entry]]] = {}
    for entry, fits in may_be:
        sends, entries = groups.setdefault(root(fits[0].id), ({}, []))
        sends.update((send.id, send) for send in fits)
        entries.append(entry)
    for sends, entries in groups.values():
        yield list(sends.values()), entries


def _in_order(sends: Sequence[Send], entries: Sequence[Entry]) -> list[tuple[Send, Entry]]:
    if len(sends) != len(entries):
        return []
    left = sorted(sends, key=lambda send: (send.at, send.id))
    rest: list[Entry] = []
    pairs: list[tuple[Send, Entry]] = []
    for entry in sorted(entries, key=lambda entry: (entry.created, entry.id)):
        if not _tells_schedule(entry):
            rest.append(entry)
            continue
        # It has our time, and the others' times are by sipgate's clock.
        own = [send for send in left if send.scheduled]
        if not own:
            return []
        nearest = min(own, key=lambda send: abs(send.at - entry.moment))
        left.remove(nearest)
        pairs.append((nearest, entry))
    pairs += zip(left, rest, strict=True)
    return pairs if all(_may_be(entry, send) for send, entry in pairs) else []


def _tells_schedule(entry: Entry) -> bool:
    return entry.scheduled is not None and entry.scheduled > entry.created + SKEW
