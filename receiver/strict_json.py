"""JSON as strictly as RFC 8259 is written, and as widely as Python can hold it; and, of what is
signed, also where its bytes are not quite right. Pure."""

from __future__ import annotations

import json
import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any, NoReturn

from receiver.errors import Unusable

#: Python reads, writes and walks JSON by recursion; this stays far below its limit everywhere.
DEEPEST_NESTING = 200


def read_json(body: bytes) -> Any:
    """Read JSON as strictly as RFC 8259 is written, and as widely as Python can hold it.

    A number beyond what Python can hold (a double's range, 4,300 digits) comes as the string of
    its digits: it stays exact, and can be written as JSON again. Of duplicate keys the last one
    counts. A byte order mark is passed over.

    :raises Unusable: if this is not JSON, or nested more than 200 levels deep.
    """
    try:
        text = _unmarked(body).decode()
    except UnicodeDecodeError:
        raise Unusable(_NOT_UTF_8) from None
    return read_text(text)


def read_signed(body: bytes) -> Any:
    """As `read_json`, but bytes that are not UTF-8 do not lose the rest.

    A character above U+FFFF may come as two surrogates (CESU-8); what is no character at all is
    read as U+FFFD.

    :raises Unusable: as `read_json`.
    """
    body = _unmarked(body)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = _CESU_8.sub(_join, body).decode("utf-8", "replace")
        try:
            return read_text(text)
        except Unusable as unusable:
            raise Unusable(
                unusable.reason if unusable.reason == _TOO_DEEP else _NOT_UTF_8
            ) from None
    return read_text(text)


def _unmarked(body: bytes) -> bytes:
    """Without a byte order mark. Python's own codec for it is loaded only when it is first used,
    and there may be no file left for that."""
    return body.removeprefix(BOM_UTF8)


_CESU_8 = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]")


def _join(pair: re.Match[bytes]) -> bytes:
    surrogates = pair[0].decode("utf-8", "surrogatepass")
    return surrogates.encode("utf-16", "surrogatepass").decode("utf-16").encode()


def read_text(text: str) -> Any:
    """As `read_json`, of JSON that has been decoded.

    :raises Unusable: as `read_json`.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise Unusable(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise Unusable(f"the body is not JSON: line {error.lineno}, column {error.colno}") from None
    # Cheap first: so few brackets cannot nest that deep.
    if text.count("[") + text.count("{") > DEEPEST_NESTING and _nesting(value) > DEEPEST_NESTING:
        raise Unusable(_TOO_DEEP)
    return value


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value: ASCII, keys sorted, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


_NOT_UTF_8 = "the body is not UTF-8"
_TOO_DEEP = f"the body is nested more than {DEEPEST_NESTING} levels deep"


def _nesting(value: Any) -> int:
    return sum(any(isinstance(item, dict | list) for item in level) for level in _levels(value))


def _levels(value: Any) -> Iterator[list[Any]]:
    """What stands on each level of a JSON value, from the outermost one."""
    level = [value]
    while level:
        yield level
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]


class Digits(str):
    """A number that Python cannot hold. No text: `type(value) is str` tells them apart."""

    __slots__ = ()


def holds_digits(value: Any) -> bool:
    """Whether a number that Python cannot hold is anywhere in a JSON value."""
    return any(isinstance(item, Digits) for level in _levels(value) for item in level)


def text_of(value: object) -> str | None:
    """A text as it came, and a whole number as its digits; `None` for anything else."""
    if type(value) is str:
        return value
    if type(value) is int or (type(value) is Digits and value.lstrip("-").isdigit()):
        return str(value)
    return None


def _integer(digits: str) -> int | Digits:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        return Digits(digits)


def _float(digits: str) -> float | Digits:
    number = float(digits)
    return number if math.isfinite(number) else Digits(digits)


def _no_constant(name: str) -> NoReturn:
    raise Unusable(f"the body is not JSON: it holds {name}")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_no_constant)
