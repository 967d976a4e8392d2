"""What is hidden of a payload where SMS texts are not stored (CONTRACT: `STORE_TEXT`). Pure."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from receiver.characters import normalised
from receiver.errors import Unusable
from receiver.strict_json import DEEPEST_NESTING, read_text, text_of

#: The fields in which providers tell the text of an SMS, and those that hold what opens a door.
_TEXTS = {"message", "text", "smscontent", "body"}
_SECRETS = {"code", "otp", "pin", "password"}

_DIGIT = re.compile(r"\d")
#: What an error may have as its code, with so many digits at most: one-time codes have more.
_CODE = re.compile(r"[^\W\d][\w.-]{0,63}|-?\d+")
_MOST_DIGITS = 5
#: Such a field in what is no JSON, because it is cut off or not quite written as it should be.
_NAMED = re.compile(rf"\b(?:{'|'.join(_TEXTS | _SECRETS)})\W{{0,3}}[:=]", re.IGNORECASE)


def redact(value: Any, text_mode: str, *, inside: str = "", depth: int = 0) -> Any:
    """A copy of a JSON value in which texts and one-time codes are hidden, at any depth.

    Also in JSON within a string. Of a text, `masked` hides the digits and `none` all; of anything
    else in its place nothing is left. `code` in an error stays if it is a word or has five digits
    at most.

    :param text_mode: `masked` or `none`.
    :param inside: the plain name of the field that this is the value of.
    """
    if depth > DEEPEST_NESTING:
        return None
    if isinstance(value, list):
        return [redact(item, text_mode, depth=depth + 1) for item in value]
    if type(value) is str:
        return _redact_json(value, text_mode, inside, depth)
    if not isinstance(value, dict):
        return value
    shown: dict[str, Any] = {}
    for name, item in value.items():
        plain = _plain(name) if len(name) <= 64 else _plain.__wrapped__(name)
        if plain in _SECRETS:
            stays = plain == "code" and inside == "error" and _is_error_code(item)
            shown[name] = item if stays else None
        elif type(item) is str and item[:1].isalnum() and plain not in _TEXTS and plain != "error":
            shown[name] = item  # the usual case: no JSON begins like this
        elif plain in _TEXTS:
            shown[name] = _redact_text(item, text_mode, depth)
        elif plain == "error" and not isinstance(item, dict | list):
            shown[name] = _redact_error(item, text_mode, depth)
        else:
            shown[name] = redact(item, text_mode, inside=plain, depth=depth + 1)
    return shown


def _redact_text(value: Any, text_mode: str, depth: int) -> str | None:
    if type(value) is not str or text_mode == "none":
        return None
    text = _redact_json(value, text_mode, "", depth)
    return None if text is None else _DIGIT.sub("*", text)


def _redact_error(value: Any, text_mode: str, depth: int) -> Any:
    """An error that is no object: a code, JSON in a string, or words."""
    if _is_error_code(value):
        return value
    if type(value) is str and value.startswith("{"):
        try:
            read_text(value)
        except Unusable:
            return None
        return _redact_json(value, text_mode, "error", depth)
    return _redact_text(value, text_mode, depth)


def _redact_json(text: str, text_mode: str, inside: str, depth: int) -> str | None:
    """A string, redacted if it is JSON; `None` if nobody can say what of it is to be hidden."""
    if not text.lstrip().startswith(("{", "[", '"')):
        return text
    try:
        value = read_text(text)
    except Unusable:
        deep = text.count("[") + text.count("{") > DEEPEST_NESTING
        return None if deep or _NAMED.search(text) else text
    hidden = redact(value, text_mode, inside=inside, depth=depth + 1)
    if hidden == value:
        return text
    return json.dumps(hidden, separators=(",", ":"), ensure_ascii=False)


def _is_error_code(value: Any) -> bool:
    code = text_of(value)
    return (
        code is not None
        and _CODE.fullmatch(code) is not None
        and len(_DIGIT.findall(code)) <= _MOST_DIGITS
    )


@lru_cache(maxsize=512)
def _plain(name: str) -> str:
    """A field's name without letter case, without what parts words, and without what is unseen."""
    return "".join(filter(str.isalnum, normalised("NFKC", name))).casefold()
