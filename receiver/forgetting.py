"""Whom the service has forgotten, and what of a text, a body or an id is theirs. Pure.

Nobody's number is kept: only a keyed hash of the digits of each spelling. So whether a text holds
one of them is found by hashing what in it may be a number. Whoever has the database has the key,
and can test guesses; numbers are few enough to try them all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from receiver import ids, mirror
from receiver.errors import Unusable
from receiver.event import Came, Incoming, Rejected, own_id
from receiver.phone import Number
from receiver.strict_json import DEEPEST_NESTING, Digits, read_signed, read_text

#: What stands in the place of a number; and what an id that held one begins with.
INSTEAD = "[forgotten]"
FORGOTTEN_ID = "forgotten:"

#: Fewer digits are no number that can be told from others.
_FEWEST = 7
#: With so many digits and more, the international form is found inside of ids, too.
_FEWEST_INSIDE = 10
#: E.164 has no more digits. In what is longer, a number may be a part of an id.
_MOST_DIGITS = 15
#: Bytes of a keyed hash.
_DIGEST = 16
#: Longer groups of digits are not looked into.
_LONGEST_GROUP = 64
#: Zeros in front of a number: of its trunk, and of whoever dials abroad.
_MOST_ZEROS = 4

# What people and programs put between the digits of a number: blanks of all kinds, dashes, dots,
# slashes, brackets, marks of direction.
_BETWEEN = (
    r" \t\r\n\u00a0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2069\u3000\ufeff"
    r".\u00b7\u2022\u2010-\u2015\u2212\ufe58\ufe63\uff0d\u00ad/()\[\]-"
)
#: So many of these at most.
_MOST_BETWEEN = 4
_RUN = re.compile(rf"\+?\d[\d{_BETWEEN}]{{{_FEWEST - 1},}}")
_GROUP = re.compile(r"\d+")
_ESCAPED = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|[tnrbf])?")


def _unescaped(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 16)) if escaped[1] else " "


class Entry(NamedTuple):
    """One spelling of a number that was forgotten. Digest and key are in hex.

    :param digest: the keyed hash of its digits.
    :param key: that of the database in which it was forgotten.
    :param length: of its digits.
    :param inside: whether it counts inside of longer digits, as ids hold it. Else it stands alone,
        and its digits are without zeros in front.
    """

    digest: str
    key: str
    length: int
    inside: int


def entries(number: Number, key: str) -> list[Entry]:
    """What is kept of a number.

    :param key: 32 bytes in hex.
    """
    whole = {digits.lstrip("0") for digits in (number.international, *number.others)}
    found = [_entry(digits, key, inside=0) for digits in whole if len(digits) >= _FEWEST]
    if len(number.international) >= _FEWEST_INSIDE:
        found.append(_entry(number.international, key, inside=1))
    return sorted(found)


def _entry(digits: str, key: str, inside: int) -> Entry:
    return Entry(_digest(f"{digits}{'+' * inside}", bytes.fromhex(key)), key, len(digits), inside)


def _digest(text: str, key: bytes) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), key=key, digest_size=_DIGEST).hexdigest()


class Forgotten:
    """Those that were forgotten, up to a version of the list.

    :param version: which the store counts; 0: nobody was.
    """

    def __init__(self, version: int = 0, entries: Iterable[Entry] = ()) -> None:
        self.version = version
        listed = list(entries)
        #: By digest, each with its key.
        self._known = {bytes.fromhex(entry.digest): entry.key for entry in listed}
        #: To begin a digest with.
        self._begun = [
            blake2b(key=bytes.fromhex(key), digest_size=_DIGEST)
            for key in sorted({entry.key for entry in listed})
        ]
        self._whole = {entry.length for entry in listed if not entry.inside}
        self._inside = sorted({entry.length for entry in listed if entry.inside}, reverse=True)
        self._most = max(self._whole, default=0) + _MOST_ZEROS
        self._fewest = min((entry.length for entry in listed), default=0)

    def __bool__(self) -> bool:
        return bool(self._known)

    # --- texts

    def holds(self, text: str) -> bool:
        """Whether a text, or JSON as it is written, may hold one of the numbers."""
        if "\\" in text:
            text = _ESCAPED.sub(_unescaped, text)
        return next(self._spans(text), None) is not None

    def text(self, text: str) -> str:
        """The text without the numbers."""
        shown, at = "", 0
        for start, end, _ in self._spans(text):
            shown += text[at:start] + INSTEAD
            at = end
        return shown + text[at:] if at else text

    def id(self, key: str) -> str:
        """The key of an id: itself, or a keyed digest of the id, if that holds a number."""
        found = next(self._spans(key), None)
        if found is None:
            return key
        provider, name = ids.split(key)
        return ids.key(provider, FORGOTTEN_ID + _digest(name, bytes.fromhex(found[2])))

    def _spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Where in a text the numbers are, each with the key by which it is known."""
        fewest = self._fewest
        for run in _RUN.finditer(text):
            start, end = run.span()
            if end - start < fewest:
                continue
            groups = list(_GROUP.finditer(text, start, end))
            if len(groups) > 1 and sum(len(group[0]) for group in groups) < fewest:
                continue  # a date
            abroad = text[start] == "+"
            first = dialled = 0
            while first < len(groups):
                group = groups[first]
                begin, size = group.start(), group.end() - group.start()
                if group[0].startswith("00"):
                    abroad, dialled = True, 0
                elif begin != start + (text[start] == "+"):
                    abroad = abroad and dialled + size <= _MOST_DIGITS
                # Behind another country's code it is another one's number.
                last, key = (first, None)
                if not abroad or not dialled:
                    last, key = self._whole_from(groups, first)
                if key is not None:
                    yield begin - (text[begin - 1 : begin] == "+"), groups[last].end(), key
                    first, abroad, dialled = last, False, 0
                else:
                    dialled += size
                    yield from self._inside_of(text, group)
                first += 1

    def _whole_from(self, groups: list[re.Match[str]], first: int) -> tuple[int, str | None]:
        """The last of the groups of digits that make a number, from one on; and its key."""
        digits, at = "", groups[first].start()
        found: tuple[int, str | None] = first, None
        for last in range(first, len(groups)):
            group = groups[last]
            digits += group[0]
            if len(digits) > self._most or group.start() - at > _MOST_BETWEEN:
                break
            at = group.end()
            own = (digits if digits.isascii() else mirror.ascii_digits(digits)).lstrip("0")
            if len(own) in self._whole and (key := self._key(own)) is not None:
                found = last, key
        return found

    def _inside_of(self, text: str, group: re.Match[str]) -> Iterator[tuple[int, int, str]]:
        """Numbers as part of what is none: it is too long for one, or part of a word."""
        start, end = group.span()
        if not self._inside or not self._inside[-1] < end - start <= _LONGEST_GROUP:
            return
        around = text[max(start - 1, 0) : start] + text[end : end + 1]
        if end - start <= _MOST_DIGITS and not any(c.isalpha() or c == "_" for c in around):
            return
        digits = group[0] if group[0].isascii() else mirror.ascii_digits(group[0])
        at = 0
        while at < len(digits):
            for length in self._inside:
                own = digits[at : at + length]
                if len(own) == length and (key := self._key(f"{own}+")) is not None:
                    yield start + at, start + at + length, key
                    at += length - 1
                    break
            at += 1

    def _key(self, digits: str) -> str | None:
        data = digits.encode()
        for begun in self._begun:
            digest = begun.copy()
            digest.update(data)
            if (key := self._known.get(digest.digest())) is not None:
                return key
        return None

    # --- JSON

    def value(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """A JSON value without the numbers, at any depth, also in JSON within a string.

        :param name: the field's; where it ends in `id`, the value is one.
        """
        if depth > DEEPEST_NESTING:
            return None
        if isinstance(value, dict):
            return {self.text(key): self.value(item, key, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item, name, depth + 1) for item in value]
        if value is None or isinstance(value, bool | Digits):
            return value
        if not isinstance(value, str):
            return self.value(str(value), name) if self.holds(str(value)) else value
        if not self.holds(value):
            return value
        if name[-2:].lower() == "id":
            return self.id(value)
        if value.lstrip()[:1] in ("{", "["):
            try:
                return _written(self.value(read_text(value), name, depth + 1))
            except Unusable:
                pass
        return self.text(value)

    def json(self, text: str) -> str:
        """Text that is mostly JSON, without the numbers."""
        return self.body(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def body(self, body: bytes) -> bytes:
        """What was received, without the numbers. It is JSON afterwards, if it was before."""
        text = body.decode("utf-8", "surrogateescape")
        if not self.holds(text):
            return body
        try:
            value = read_signed(body)
            shown = self.value(value)
        except Unusable:
            return self.text(text).encode("utf-8", "surrogateescape")
        return body if shown == value else _written(shown).encode()

    # --- what the store keeps

    def row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A message's registers, or what an event says of them."""
        return {
            name: [order, self.id(event_id), self.value(told, name)]
            for name, (order, event_id, told) in row.items()
        }

    def incoming(self, item: Incoming) -> Incoming:
        """An event on its way in; itself, if it holds none of the numbers."""
        body = self.body(item.body)
        if body is item.body and all(
            name is None or ids.split(name)[1].encode("utf-8", "replace") in body
            for name in (item.id, item.message_id)
        ):
            return item  # its ids are in the body, as they mostly are
        event_id = self.id(item.id)
        message_id = None if item.message_id is None else self.id(item.message_id)
        if body is item.body and (event_id, message_id) == (item.id, item.message_id):
            return item
        own = own_id(item.body)
        return item._replace(
            id=event_id,
            type=self.text(item.type),
            message_id=message_id,
            body=body,
            redacted=True,
            says=None if item.says is None else self.row(item.says),
            original=item.original or (own.removeprefix("sha256:"), len(item.body)),
            came=Came(item.id, item.message_id, own),
        )

    def rejected(self, item: Rejected) -> Rejected:
        """The same for what goes into quarantine."""
        body = None if item.body is None else self.body(item.body)
        return item._replace(reason=self.text(item.reason), body=body)


def _written(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value, separators=(",", ":"))
    return text


NOBODY = Forgotten()
