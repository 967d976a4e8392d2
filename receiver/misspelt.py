"""Names of variables that are meant to be others."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Letters by which a name may differ, and that a name must have for it: the shorter ones have
#: neighbours of all kinds.
_AWAY = 2
_LETTERS = 8


def meant(name: str, known: Iterable[str]) -> str | None:
    """The known name that a variable's name is a misspelling of, if there is one.

    A word of which more than half is different is another word (`DATABASE_SSL`), and a name with a
    number behind it is the name of another thing (`DATABASE_URL_2`). What begins with `_` is
    between programs.
    """
    if name.startswith("_"):
        return None
    upper = name.upper()
    best, found = _AWAY + 1, None
    for candidate in known:
        if sum(map(str.isalpha, candidate)) < _LETTERS:
            continue
        if name == candidate or re.sub(r"_?\d+$", "", name) == candidate:
            return None
        if abs(len(candidate) - len(name)) <= _AWAY:
            away = _away(upper, candidate)
            if away < best:
                best, found = away, candidate
    return found


def _away(name: str, known: str) -> int:
    mine, theirs = name.split("_"), known.split("_")
    if len(mine) != len(theirs):
        return _distance(name, known)
    distances = [_distance(a, b) for a, b in zip(mine, theirs, strict=True)]
    if any(2 * away > len(word) for away, word in zip(distances, theirs, strict=True)):
        return _AWAY + 1
    return sum(distances)


def _distance(a: str, b: str) -> int:
    """Letters that were added, left out, changed, or swapped with their neighbours."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        last, row = row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(last[j] + (x != y), last[j + 1] + 1, row[j] + 1))
            if i and j and x == b[j - 1] and y == a[i - 1]:
                row[-1] = min(row[-1], before[j - 1] + 1)
        before = last
    return row[-1]
