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
    having_metadata,
    match,
    matching_unindexed,
    number_of,
    trigrams,
)

#: Messages that are read in one transaction where all are listed.
_LISTED_AT_ONCE = 200
#: With more matches of a text than this, they are soon met on the way through history.
_MANY = 8_000
#: So many of a text's trigrams are looked at.
_LOOKED_AT = 40


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


def _candidates(connection: sqlite3.Connection, text: str) -> str | None:
    """What the index is to be asked for, so that it finds few texts, and all that match.

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


def _found(
    connection: sqlite3.Connection, search: Search, after: Place | None, limit: int
) -> list[int]:
    """The keys of a page."""
    among, given = "messages AS m", list[object]()
    where, values = conditions(search)
    if search.metadata:
        having, pairs = having_metadata(connection, search)
        where, values = f"{where} AND m.key IN ({having})", values + pairs
    if after is not None:
        where = f"{where} AND m.at <= ? AND (m.at < ? OR m.id > ?)"
        values = [*values, after[0], *after]
    if search.text:
        fresh = json.dumps(matching_unindexed(connection, search.text))
        candidates = _candidates(connection, search.text)
        if candidates is None:
            where = (
                f"{where} AND (m.key IN (SELECT value FROM json_each(?)) OR m.indexed = 1 AND"
                " EXISTS (SELECT 1 FROM search_content WHERE id = m.key AND instr(c0, ?)))"
            )
            values = [*values, fresh, search.text]
        else:
            indexed, asked = match(search.text, candidates)
            among = (
                f"(SELECT rowid AS key FROM search WHERE {indexed}"
                " AND rowid NOT IN (SELECT key FROM messages INDEXED BY messages_unindexed"
                "                   WHERE indexed = 0)"
                " UNION ALL SELECT value FROM json_each(?)) AS matching"
                " CROSS JOIN messages AS m ON m.key = matching.key"
            )
            given = [*asked, fresh]
    found = connection.execute(
        f"SELECT m.key FROM {among} WHERE {where} {NEWEST_FIRST} LIMIT ?", (*given, *values, limit)
    )
    return [key for (key,) in found]
