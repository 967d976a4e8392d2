"""What sipgate answers: results, and how they are read. Pure.

Readers raise `Unusable` for what cannot be understood. What an entry of the history says is read in
`receiver.providers.sipgate.history`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from receiver.providers.reading import Fields, id_of, object_of, objects_of, whole, word

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
    :param count: how many rows there were, those that were there twice counted once.
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


def _items(document: Any) -> list[dict[str, Any]]:
    return objects_of(object_of(document).get("items"))


def user(document: Any) -> User:
    fields = object_of(document)
    return User(id_of(fields, "sub"), word(fields, "domain"), fields)


def extensions(document: Any) -> tuple[Extension, ...]:
    return tuple(
        Extension(id_of(row, "id"), word(row, "alias"), word(row, "callerId"), row)
        for row in _items(document)
    )


def caller_ids(document: Any) -> tuple[CallerId, ...]:
    return tuple(
        CallerId(
            id_of(row, "id"),
            word(row, "phonenumber"),
            row.get("verified") is True,
            row.get("defaultNumber") is True,
            row,
        )
        for row in _items(document)
    )


def page(document: Any) -> Page:
    rows = _items(document)
    # An entry may be there twice, and one without an id cannot be told from others.
    items = {row["id"]: row for row in rows if word(row, "id")}
    nameless = sum(not word(row, "id") for row in rows)
    return Page(tuple(items.values()), len(items) + nameless, whole(document, "totalCount"))


def entry(document: Any) -> Fields:
    fields = object_of(document)
    id_of(fields, "id")
    return fields


def account(document: Any) -> Account:
    fields = object_of(document)
    return Account(word(fields, "historyLifeTime"), fields)
