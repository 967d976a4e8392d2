"""Which entry of the history is which of our sends: sipgate gives no id when it sends. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from receiver.providers.sipgate.history import Entry
from receiver.times import MINUTE

#: sipgate's clock may be so much behind ours.
SKEW = MINUTE


#: Extension, number, text.
_Alike = tuple[str, str, str]


class Send(NamedTuple):
    """A send whose entry is not known yet.

    :param id: ours.
    :param extension: which one it went out by, like `s0`.
    :param number: see `history.number`.
    :param text: see `history.digest`.
    :param at: when it was asked for, or is to go out; microseconds.
    """

    id: str
    extension: str
    number: str
    text: str
    at: int


class Paired(NamedTuple):
    """What is certain.

    :param matches: sends, each with its entry.
    :param foreign: entries that are nobody's here: written in the app, or sent by another program.
    """

    matches: list[tuple[Send, Entry]]
    foreign: list[Entry]


def pair(sends: Iterable[Send], entries: Iterable[Entry]) -> Paired:
    """Pair sends with entries off, where nothing must be guessed.

    What looks alike (extension, number, text) pairs off in the order of time. Where there are more
    of the ones than of the others, nobody can say which is which: all of them wait.

    :param sends: those that have no entry yet.
    :param entries: those that belong to no send yet, from before the oldest send on.
    """
    waiting: dict[_Alike, list[Send]] = {}
    for send in sends:
        waiting.setdefault((send.extension, send.number, send.text), []).append(send)
    found: dict[_Alike, dict[str, Entry]] = {}
    paired = Paired([], [])
    for entry in entries:
        groups = [
            alike
            for alike, group in waiting.items()
            if _may_be(entry, alike) and entry.created >= min(s.at for s in group) - SKEW
        ]
        if not groups:
            paired.foreign.append(entry)
        elif entry.extension and entry.text is not None:
            found.setdefault(groups[0], {})[entry.id] = entry  # one may be listed twice
    for alike, candidates in found.items():
        paired.matches.extend(_in_order(waiting[alike], list(candidates.values())))
    return paired


def _may_be(entry: Entry, alike: _Alike) -> bool:
    """Whether nothing that an entry tells speaks against a send. An entry that does not tell its
    text or its extension is never paired, and no message of its own while it may be such a send."""
    extension, number, text = alike
    return (
        entry.number == number and entry.extension in ("", extension) and entry.text in (None, text)
    )


def _in_order(sends: Sequence[Send], entries: Sequence[Entry]) -> list[tuple[Send, Entry]]:
    if len(sends) != len(entries):
        return []
    pairs = list(
        zip(
            sorted(sends, key=lambda send: (send.at, send.id)),
            sorted(entries, key=lambda entry: (entry.created, entry.id)),
            strict=True,
        )
    )
    fits = all(entry.created >= send.at - SKEW for send, entry in pairs)
    return pairs if fits else []
