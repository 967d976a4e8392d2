"""Lists of messages, in SQLite: a page after a place, and all that match, page by page."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from receiver.mirror import Search
from receiver.store.contract import Listed, MirrorRow, Place
from receiver.store.sqlite.connections import Connections
from receiver.store.sqlite.mirror import (
    NEWEST_FIRST,
    conditions,
    matching,
    matching_unindexed,
    number_of,
    trigrams,
    unindexed_with,
)

#: Messages that are read in one transaction where all are listed.
_LISTED_AT_ONCE = 200
#: With more matches of a text or metadata than this, they are soon met on the way through history.
_MANY = 8_000
#: So many of a text's trigrams are looked at.
_LOOKED_AT = 40

#: A part of a statement, and its values.
_Part = tuple[str, list[object]]


class Listing(Connections):
    """See `receiver.store.contract.Mirror`."""

    def messages(self, search: Search) -> Iterator[MirrorRow]:
        after = None
        while found := self.listed(search, after, _LISTED_AT_ONCE):
            for place, row in found:
                yield place[1], row
            after, _ = found[-1]

    def listed(self, search: Search, after: Place | None, limit: int) -> list[Listed]:
        if search.finds_nothing:
            return []
        with self._reading() as connection:
            found = _found(connection, search, after, limit)
            rows = connection.execute(
                "SELECT m.at, m.id, m.registers FROM json_each(?) AS wanted"
                " CROSS JOIN messages AS m ON m.key = wanted.value ORDER BY wanted.key",
                (json.dumps(found),),
            ).fetchall()
        return [((at, message_id), json.loads(registers)) for at, message_id, registers in rows]


def _found(
    connection: sqlite3.Connection, search: Search, after: Place | None, limit: int
) -> list[int]:
    """The keys of a page."""
    where, values = conditions(search)
    few: list[_Part] = []
    if after is not None:
        where = f"{where} AND m.at <= ? AND (m.at < ? OR m.id > ?)"
        values = [*values, after[0], *after]
    if search.text:
        candidates, (condition, given) = _by_text(connection, search.text)
        where, values = f"{where} AND {condition}", values + given
        few += candidates
    if search.metadata:
        candidates, (condition, given) = _by_metadata(connection, set(search.metadata))
        where, values = f"{where} AND {condition}", values + given
        few += candidates
    matches, asked = matching(search, where, values)
    if few:
        keys, first = few[0]
        among = f"({keys}) AS few CROSS JOIN messages AS m ON m.key = few.key"
        matches, asked = f"SELECT m.key, m.at, m.id FROM {among} WHERE {where}", first + values
    found = connection.execute(f"{matches} {NEWEST_FIRST} LIMIT ?", (*asked, limit))
    return [key for key, *_ in found]


def _by_text(connection: sqlite3.Connection, text: str) -> tuple[list[_Part], _Part]:
    """How the messages with a text are found.

    :returns: a query for the keys of few messages among which all of them are, if there is such a
        query; and a condition on a message.
    """
    fresh = json.dumps(matching_unindexed(connection, text))
    condition: _Part = (
        "(m.key IN (SELECT value FROM json_each(?)) OR m.indexed = 1 AND"
        " EXISTS (SELECT 1 FROM search_content WHERE id = m.key AND instr(c0, ?)))",
        [fresh, text],
    )
    asked = _rare_trigrams(connection, text)
    if asked is None:
        return [], condition
    few = (
        "SELECT rowid AS key FROM search WHERE search MATCH ? UNION SELECT value FROM json_each(?)"
    )
    return [(few, [asked, fresh])], condition


def _rare_trigrams(connection: sqlite3.Connection, text: str) -> str | None:
    """What the index of texts is to be asked for, so that it finds few.

    To find what many trigrams have in common takes as long as they are frequent. So a few of them
    are asked for: those that are rare, if any is.

    :returns: `None` if there is no such thing: then many texts match, most likely.
    """
    known = trigrams(text)
    some = known[:: -(-len(known) // _LOOKED_AT) or 1]
    numbers = {one: number_of(connection, one, _MANY) for one in some}
    rare = sorted((one for one in some if numbers[one] < _MANY), key=numbers.__getitem__)[:3]
    if rare:
        return " AND ".join(rare)
    spread = " AND ".join(some[:: -(-len(some) // 6) or 1])
    return spread if spread and number_of(connection, spread, _MANY) < _MANY else None


def _by_metadata(
    connection: sqlite3.Connection, pairs: set[tuple[str, str]]
) -> tuple[list[_Part], _Part]:
    """The same for the messages that have all of these metadata."""
    fresh = json.dumps(unindexed_with(connection, pairs))
    has = " AND ".join(
        "EXISTS (SELECT 1 FROM metadata WHERE message_key = m.key AND name = ? AND value = ?)"
        for _ in pairs
    )
    condition: _Part = (
        f"(m.key IN (SELECT value FROM json_each(?)) OR m.indexed = 1 AND {has})",
        [fresh, *(text for pair in pairs for text in pair)],
    )
    few = "SELECT message_key AS key FROM metadata WHERE name = ? AND value = ?"
    for pair in pairs:
        (number,) = connection.execute(
            f"SELECT count(*) FROM ({few} LIMIT ?)", (*pair, _MANY)
        ).fetchone()
        if number < _MANY:
            return [(f"{few} UNION SELECT value FROM json_each(?)", [*pair, fresh])], condition
    return [], condition
