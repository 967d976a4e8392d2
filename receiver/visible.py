"""Strangers' text on its way to a person: what cannot be seen, or changes how the rest is seen, is
written out. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

#: What shows nothing by itself or alters its neighbour, but is letter, mark or symbol to Python.
_UNSEEN = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def visible(text: str) -> str:
    """Writes controls, marks of direction, other blanks than the space, and the like as escapes."""
    return _written_out(text, lambda character: character.encode("unicode_escape").decode())


def visible_json(text: str) -> str:
    """The same of a JSON document, which stays the same document."""
    return "\n".join(
        _written_out(line, lambda character: json.dumps(character)[1:-1])
        for line in text.split("\n")
    )


def _written_out(text: str, escape: Callable[[str], str]) -> str:
    if _is_seen(text):
        return text
    return "".join(character if _is_seen(character) else escape(character) for character in text)


def _is_seen(text: str) -> bool:
    return text.isprintable() and (text.isascii() or _UNSEEN.search(text) is None)
