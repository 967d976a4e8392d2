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
    is_common,
    match,
    matching_unindexed,
)

#: Messages that are read in one transaction where all are listed.
_LISTED_AT_ONCE = 200
#: With more matches of a text than this, they are soon met on the way through history.
_MANY = 4_000


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
        if is_common(connection, search.text, _MANY):
            where = (
                f"{where} AND (m.key IN (SELECT value FROM json_each(?)) OR m.indexed = 1 AND"
                " EXISTS (SELECT 1 FROM search_content WHERE id = m.key AND instr(c0, ?)))"
            )
            values = [*values, fresh, search.text]
        else:
            indexed, asked = match(search.text)
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
