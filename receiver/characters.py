"""Unicode's normal forms of strangers' text, in a time that grows with its length alone. Pure."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Literal

#: Marks on one character: no language has so many (UAX #15, Stream-Safe Text Format).
MOST_MARKS = 30


def normalised(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
    """As `unicodedata.normalize`, whose time grows with the square of the marks on one character,
    and which keeps Python's lock for all of it. A text with more marks than any language puts on
    one character stays as it is."""
    if text.isascii():
        return text
    marks = 0
    for character in text:
        marks = marks + 1 if _is_mark(character) else 0
        if marks > MOST_MARKS:
            return text
    return unicodedata.normalize(form, text)


@lru_cache(maxsize=4096)
def _is_mark(character: str) -> bool:
    """Also what is taken apart into marks alone, though it is no mark by its own class."""
    return all(map(unicodedata.combining, unicodedata.normalize("NFKD", character)))
