"""What sipgate answers: results, and how they are read. Pure.

Readers raise `Unusable` for what cannot be understood. What an entry of the history says is read in
`receiver.providers.sipgate.history`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from receiver.errors import Unusable
from receiver.strict_json import text_of

Fields = Mapping[str, Any]

#: `historyLifeTime` of an account whose history tells nothing.
NONE = "NONE"


@dataclass(frozen=True, slots=True)
class User:
    """Whose token it is.

    :param id: like `w0`.
    """

    id: str
    domain: str | None
    raw: Fields = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Extension:
    """An SMS extension of a user.

    :param id: like `s0`.
    :param caller_id: who its SMS are from.
    """

    id: str
    alias: str | None
    caller_id: str | None
    raw: Fields = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class CallerId:
    """A number that SMS of an extension can be from."""

    id: str
    number: str | None = field(repr=False)
    verified: bool
    is_default: bool
    raw: Fields = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the history.

    :param items: entries as they came, each id once.
    :param count: how many rows there were.
    :param total: how many entries there are in all; `None` if it was not told.
    """

    items: tuple[Fields, ...] = field(repr=False)
    count: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Account:
    """The account.

    :param history_life_time: for how long entries are kept, like `THIRTY_DAYS`; with `NONE` the
        history tells nothing.
    """

    history_life_time: str | None
    raw: Fields = field(repr=False, compare=False)


# --- readers


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unusable("there is no JSON object where one belongs")
    return value


def _items(document: Any) -> list[dict[str, Any]]:
    items = _object(document).get("items")
    if not isinstance(items, list):
        raise Unusable("there is no list `items`")
    return [_object(item) for item in items]


def _id(fields: Fields, name: str = "id") -> str:
    found = text_of(fields.get(name))
    if not found:
        raise Unusable(f"it has no `{name}`")
    return found


def user(document: Any) -> User:
    fields = _object(document)
    return User(_id(fields, "sub"), text_of(fields.get("domain")), fields)


def extensions(document: Any) -> tuple[Extension, ...]:
    return tuple(
        Extension(_id(row), text_of(row.get("alias")), text_of(row.get("callerId")), row)
        for row in _items(document)
    )


def caller_ids(document: Any) -> tuple[CallerId, ...]:
    return tuple(
        CallerId(
            _id(row),
            text_of(row.get("phonenumber")),
            row.get("verified") is True,
            row.get("defaultNumber") is True,
            row,
        )
        for row in _items(document)
    )


def page(document: Any) -> Page:
    rows = _items(document)
    # An entry may be there twice, and one without an id cannot be told from others.
    items = {row["id"]: row for row in rows if text_of(row.get("id"))}
    total = document.get("totalCount")
    return Page(tuple(items.values()), len(rows), total if type(total) is int else None)


def entry(document: Any) -> Fields:
    fields = _object(document)
    _id(fields)
    return fields


def account(document: Any) -> Account:
    fields = _object(document)
    return Account(text_of(fields.get("historyLifeTime")), fields)
