"""What readers ask of the mirror, in SQLite: pages of messages, their number, statistics, search.

What one answer tells is read in one transaction, so that a page and its total agree.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from receiver import ids, mirror
from receiver.mirror import Search
from receiver.status import Row
from receiver.store.contract import Evidence, MirrorRow, Missed, Report, missed_of
from receiver.store.sqlite.connections import Connections, item_of, placeholders
from receiver.store.sqlite.forgetting import stored_name
from receiver.times import DAY

#: The shortest text that the index knows.
_TRIGRAM = 3
#: Trigrams of a long text that are asked for: more of them exclude next to nothing more.
_MOST_TRIGRAMS = 24
#: With more matches than this, to sort them takes longer than to walk through history.
_MANY = 20_000
#: Messages that are indexed in one transaction, and characters of their texts, about: it bounds
#: what a webhook may have to wait for. So many are searched without an index, at once.
_INDEXED_AT_ONCE = 200
_CHARACTERS_AT_ONCE = 50_000

_EACH = "SELECT value FROM json_each(?)"
NEWEST_FIRST = "ORDER BY m.at DESC, m.id"

# Where messages are looked for by number: those that its index knows, and those that it does not
# know yet.
BY_NUMBER = (
    "messages AS m WHERE m.indexed = 1",
    "messages AS m INDEXED BY messages_unindexed WHERE m.indexed = 0",
)

# The events of a message: those that its row was made of, and those that leave the mirror alone.
OF_MESSAGE = """
(e.message_key = (SELECT key FROM messages WHERE id = :message_id)
 OR e.loose = 1 AND e.message_id = :message_id)
"""

_REPORTS = f"""
SELECT json_group_array(json_array(type, reported_at, has_error, source)) FROM (
    SELECT type, reported_at, has_error, source FROM events AS e WHERE {OF_MESSAGE}
    ORDER BY seq DESC LIMIT 1000)
"""

# Counted by SQLite alone, which keeps what is large in files. Said twice where they came from, so
# that the index of what is learnt is seen to fit. The first row is all of them, with the number of
# gaps.
_MISSED = """
WITH missed AS (
    SELECT message_id, type, reported_at AS at,
           reported_at >= coalesce(lag(reported_at) OVER (ORDER BY reported_at) + :together,
                                   reported_at) AS apart
    FROM events
    WHERE source = 'reconciliation' AND source <> 'webhook' AND repeat = 0
      AND message_id IS NOT NULL AND reported_at IS NOT NULL AND type IN ({types}) AND {own}),
numbered AS (
    SELECT message_id, type, at,
           sum(apart) OVER (ORDER BY at) AS gap
    FROM missed)
SELECT 0, max(gap), min(at), max(at), count(DISTINCT message_id), {counts} FROM numbered
UNION ALL
SELECT * FROM (
    SELECT 1, gap, min(at), max(at), count(DISTINCT message_id), {counts} FROM numbered
    GROUP BY gap ORDER BY gap DESC LIMIT :most)
ORDER BY 1, 2 DESC
"""

Page = tuple[int, list[tuple[str, str]]]  # total; ids and registers


class Mirror(Connections):
    """See `receiver.store.contract.Mirror`."""

    def history(self, search: Search, offset: int, limit: int) -> tuple[int, list[MirrorRow]]:
        with self._reading() as connection:
            total, rows = page(connection, search, offset, limit)
        return total, [(message_id, json.loads(registers)) for message_id, registers in rows]

    def statistics(
        self,
        first: int | None,
        last: int | None,
        device_id: str | None,
        provider: str | None = None,
        by: Sequence[str] = ("day",),
    ) -> list[tuple[Any, ...]]:
        counted = Search(device_id=device_id, provider=provider)
        with self._reading() as connection:
            return list(_cells(connection, first, last, counted, "total", by))

    def evidence(self, message_id: str, limit: int) -> Evidence | None:
        with self._reading() as connection:
            message_id = stored_name(connection, self._door, message_id)
            row = connection.execute(
                "SELECT registers FROM messages WHERE id = ?", (message_id,)
            ).fetchone()
            if row is None:
                return None
            (count,) = connection.execute(
                f"SELECT count(*) FROM events AS e WHERE {OF_MESSAGE}", {"message_id": message_id}
            ).fetchone()
            found = connection.execute(
                "SELECT id, type, occurred_at, received_at, source, late, repeat, receipts"
                f" FROM events AS e WHERE {OF_MESSAGE} ORDER BY seq LIMIT :limit",
                {"message_id": message_id, "limit": limit},
            )
            names = [column[0] for column in found.description]
            events = [dict(zip(names, event, strict=True)) for event in found]
        return json.loads(row[0]), count, events

    def reports(self, message_ids: Collection[str]) -> Mapping[str, list[Report]]:
        found = {}
        with self._reading() as connection:
            for message_id in message_ids:
                asked = {"message_id": stored_name(connection, self._door, message_id)}
                (rows,) = connection.execute(_REPORTS, asked).fetchone()
                if rows != "[]":
                    found[message_id] = [
                        Report(kind, at, bool(has_error), source)
                        for kind, at, has_error, source in json.loads(rows)
                    ]
        return found

    def missed(
        self, types: Sequence[str], together: int, most: int, provider: str | None = None
    ) -> tuple[Missed | None, int, list[Missed]]:
        asked = {f"type_{number}": kind for number, kind in enumerate(types)}
        counts = ", ".join(f"sum(type = :{name})" for name in asked)
        prefix = ids.prefix(provider or ids.FIRST)
        own = "substr(message_id, 1, length(:prefix)) = :prefix"
        if provider == ids.FIRST:
            own = "instr(message_id, char(31)) = 0"
        with self._reading() as connection:
            found = connection.execute(
                _MISSED.format(
                    types=", ".join(f":{name}" for name in asked), counts=counts, own=own
                ),
                {**asked, "together": together, "most": most, "prefix": prefix},
            ).fetchall()
        return missed_of(found)


def page(connection: sqlite3.Connection, search: Search, offset: int, limit: int) -> Page:
    """See `receiver.store.Store.history`."""
    if search.finds_nothing:
        return 0, []
    if search.text:
        return _searched(connection, search, offset, limit)
    if search.metadata:
        return _found_by_metadata(connection, search, offset, limit)
    total = _count(connection, search)
    if offset >= total:
        return total, []
    matches, values = matching(search, *conditions(search))
    found = connection.execute(
        f"{matches} {NEWEST_FIRST} LIMIT ? OFFSET ?", (*values, limit, offset)
    )
    return total, read(connection, [key for key, *_ in found])


def read(connection: sqlite3.Connection, keys: list[int]) -> list[tuple[str, str]]:
    """The rows in the order of their keys in the list."""
    rows = connection.execute(
        "SELECT m.id, m.registers FROM json_each(?) AS wanted"
        " CROSS JOIN messages AS m ON m.key = wanted.value ORDER BY wanted.key",
        (json.dumps(keys),),
    )
    return rows.fetchall()


def conditions(search: Search) -> tuple[str, list[object]]:
    """All but the text and the metadata."""
    where: list[str] = ["true"]
    values: list[object] = []
    for condition, value in (
        ("m.status = ?", search.status),
        ("m.device_id = ?", search.device_id),
        # Said twice, so that the index of the other providers is seen to fit, and of what failed.
        (
            "m.provider = ?"
            if search.provider == mirror.PROVIDER
            else f"m.provider = ? AND m.provider <> '{mirror.PROVIDER}'",
            search.provider,
        ),
        ("m.code = ? AND m.code <> ''", search.code),
        ("m.at >= ?", search.since),
        ("m.at <= ?", search.until),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    if search.numbers:
        where.append(f"m.number IN ({placeholders(search.numbers)})")
        values += search.numbers
    return " AND ".join(where), values


def matching(search: Search, where: str, values: list[object]) -> tuple[str, list[object]]:
    """A query for `key`, `at` and `id` of the messages that meet conditions.

    By number these are two queries, each with an index of its own, whose rows SQLite merges.
    """
    tables = _tables(search)
    query = " UNION ALL ".join(
        f"SELECT m.key, m.at, m.id FROM {table} AND {where}" for table in tables
    )
    return query, values * len(tables)


def _tables(search: Search) -> Sequence[str]:
    return BY_NUMBER if search.numbers else ("messages AS m WHERE true",)


# --- how many


def _count(connection: sqlite3.Connection, search: Search) -> int:
    """The number of messages: whole days from the statistics, the rest by counting."""
    days = _whole_days(search)
    if days is None or not search.is_counted_by_cells:
        return _count_rows(connection, search)
    first, last = days
    total = sum(int(live) for (live,) in _cells(connection, first, last, search, "live"))
    if first is not None and search.since is not None and search.since < first * DAY:
        total += _count_rows(connection, replace(search, until=first * DAY - 1))
    if last is not None and search.until is not None and search.until >= (last + 1) * DAY:
        total += _count_rows(connection, replace(search, since=(last + 1) * DAY))
    return total


def _whole_days(search: Search) -> tuple[int | None, int | None] | None:
    """The first and the last whole day between the bounds; `None` if there is none."""
    first = None if search.since is None else -(-search.since // DAY)
    last = None if search.until is None else (search.until + 1) // DAY - 1
    if first is not None and last is not None and first > last:
        return None
    return first, last


def _count_rows(connection: sqlite3.Connection, search: Search) -> int:
    where, values = conditions(search)
    counts = (
        connection.execute(f"SELECT count(*) FROM {table} AND {where}", values).fetchone()[0]
        for table in _tables(search)
    )
    return sum(counts)


def _cells(
    connection: sqlite3.Connection,
    first: int | None,
    last: int | None,
    search: Search,
    number: Literal["total", "live"],
    by: Sequence[str] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Sums of cells of the days from first to last, both included.

    :param by: the columns that the sums are told by, and each status after them; `None`: one sum.
    """
    where: list[str] = ["true"]
    values: list[object] = []
    for condition, value in (
        ("day >= ?", first),
        ("day <= ?", last),
        ("device_id = ?", search.device_id),
        ("status = ?", search.status),
        ("provider = ?", search.provider),
    ):
        if value is not None:
            where.append(condition)
            values.append(value)
    told = "" if by is None else f"{', '.join([*by, 'status'])}, "
    group = "" if by is None else f"GROUP BY {told.removesuffix(', ')}"
    yield from connection.execute(
        f"SELECT {told}coalesce(sum({number}), 0) FROM statistics"
        f" WHERE {' AND '.join(where)} {group}",
        values,
    )


# --- metadata


def _found_by_metadata(
    connection: sqlite3.Connection, search: Search, offset: int, limit: int
) -> Page:
    """What the index finds, and what it does not know yet; of all matches the page is sorted."""
    matches, values = having_metadata(connection, search)
    where, asked = conditions(search)
    found = (
        f"SELECT m.key, m.at, m.id FROM ({matches}) AS found"
        f" CROSS JOIN messages AS m ON m.key = found.key WHERE {where}"
    )
    return _sorted_page(connection, found, (*values, *asked), offset, limit)


def having_metadata(connection: sqlite3.Connection, search: Search) -> tuple[str, list[object]]:
    """A query for the keys of the messages that have all that is asked for."""
    asked = set(search.metadata)
    values: list[object] = [text for pair in asked for text in pair]
    known = " INTERSECT ".join(
        "SELECT message_key AS key FROM metadata WHERE name = ? AND value = ?" for _ in asked
    )
    fresh = unindexed_with(connection, asked)
    return (
        f"SELECT key FROM ({known}) WHERE key NOT IN"
        " (SELECT key FROM messages INDEXED BY messages_unindexed WHERE indexed = 0)"
        f" UNION ALL {_EACH}",
        [*values, json.dumps(fresh)],
    )


# --- search


def _searched(connection: sqlite3.Connection, search: Search, offset: int, limit: int) -> Page:
    assert search.text
    where, values = conditions(search)
    if search.metadata:
        having, asked_for = having_metadata(connection, search)
        where += f" AND m.key IN ({having})"
        values += asked_for
    if where == "true" and _is_common(connection, search.text):
        return _searched_by_reading(connection, search.text, offset, limit)
    indexed, asked = _match(search.text)
    matches = (
        "SELECT m.key, m.at, m.id FROM search CROSS JOIN messages AS m ON m.key = search.rowid"
        f" WHERE {indexed} AND m.indexed = 1 AND {where}"
        " UNION ALL SELECT m.key, m.at, m.id FROM json_each(?) AS fresh"
        f" CROSS JOIN messages AS m ON m.key = fresh.value WHERE {where}"
    )
    fresh = json.dumps(matching_unindexed(connection, search.text))
    return _sorted_page(connection, matches, (*asked, *values, fresh, *values), offset, limit)


def _sorted_page(
    connection: sqlite3.Connection,
    matches: str,
    values: Sequence[object],
    offset: int,
    limit: int,
) -> Page:
    """A page of all matches, given as a query for `key`, `at` and `id`."""
    found = connection.execute(
        f"SELECT m.key, count(*) OVER () FROM ({matches}) AS m {NEWEST_FIRST} LIMIT ? OFFSET ?",
        (*values, limit, offset),
    ).fetchall()
    if found:
        return found[0][1], read(connection, [key for key, _ in found])
    (total,) = connection.execute(f"SELECT count(*) FROM ({matches})", values).fetchone()
    return total, []


def _searched_by_reading(
    connection: sqlite3.Connection, text: str, offset: int, limit: int
) -> Page:
    """For a text that the index knows nothing of, or too much: read all texts, one after another.

    They lie side by side in the index's own table; through the index it takes twice as long.
    """
    fresh = matching_unindexed(connection, text)
    indexed = (
        "SELECT id FROM search_content WHERE instr(c0, ?)"
        " AND id NOT IN (SELECT key FROM messages WHERE indexed = 0)"
    )
    found = connection.execute(f"{indexed} LIMIT ?", (text, _MANY)).fetchall()
    if len(found) < _MANY:
        keys = json.dumps([*(key for (key,) in found), *fresh])
        matches = (
            "SELECT m.key, m.at, m.id FROM json_each(?) AS found"
            " CROSS JOIN messages AS m ON m.key = found.value"
        )
        return _sorted_page(connection, matches, (keys,), offset, limit)
    (total,) = connection.execute(f"SELECT count(*) FROM ({indexed})", (text,)).fetchone()
    if offset >= total + len(fresh):
        return total + len(fresh), []
    # So many match that they are soon met on the way through history.
    page = connection.execute(
        "SELECT m.key FROM messages AS m INDEXED BY messages_by_time"
        " WHERE EXISTS (SELECT 1 FROM search_content WHERE id = m.key AND instr(c0, ?)"
        "               AND id NOT IN (SELECT key FROM messages WHERE indexed = 0))"
        " OR m.key IN (SELECT value FROM json_each(?))"
        f" {NEWEST_FIRST} LIMIT ? OFFSET ?",
        (text, json.dumps(fresh), limit, offset),
    )
    return total + len(fresh), read(connection, [key for (key,) in page])


def _match(text: str) -> tuple[str, list[object]]:
    """A condition on `search`: its index finds candidates, and the text decides."""
    if len(text) < _TRIGRAM:
        return "instr(search.text, ?)", [text]
    return "search MATCH ? AND instr(search.text, ?)", [_all_trigrams(text), text]


def trigrams(text: str) -> list[str]:
    """The trigrams of a text, each as the index is asked for it."""
    parts = dict.fromkeys(text[i : i + _TRIGRAM] for i in range(len(text) - _TRIGRAM + 1))
    return ['"' + part.replace('"', '""') + '"' for part in parts]


def _all_trigrams(text: str) -> str:
    return " AND ".join(trigrams(text)[:_MOST_TRIGRAMS])


def _is_common(connection: sqlite3.Connection, text: str) -> bool:
    """Whether it has many matches. The index alone tells, nearly, and stops at enough."""
    if len(text) < _TRIGRAM:
        return True
    return number_of(connection, _all_trigrams(text), _MANY) == _MANY


def number_of(connection: sqlite3.Connection, asked: str, most: int) -> int:
    """How many texts the index finds, counted up to a number."""
    found = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM search WHERE search MATCH ? LIMIT ?)", (asked, most)
    ).fetchone()
    return int(found[0])


def unindexed_with(connection: sqlite3.Connection, asked: set[tuple[str, str]]) -> list[int]:
    """The keys of messages that the index does not know, and that have all of these metadata."""
    return [key for key, row in _all_unindexed(connection) if asked <= mirror.metadata(row).items()]


def matching_unindexed(connection: sqlite3.Connection, text: str) -> list[int]:
    return [key for key, row in _all_unindexed(connection) if text in _folded(row)]


def _all_unindexed(connection: sqlite3.Connection) -> Iterator[tuple[int, Row]]:
    """As `_unindexed`. Mostly few; after a migration or a copy, all that there are."""
    after = -1
    while page := _unindexed(connection, after):
        yield from page
        after, _ = page[-1]


def _unindexed(connection: sqlite3.Connection, after: int = -1) -> list[tuple[int, Row]]:
    """Some messages that the indexes do not know as they are now, with their texts and metadata.

    :param after: the key that theirs are greater than.
    """
    # All in one row: Python gives its lock away at each, and requests wait for it.
    (found,) = connection.execute(
        "SELECT json_group_array(json_array(key, json(text), json(data))) FROM ("
        " SELECT key, text, data, sum(coalesce(length(text), 0) + coalesce(length(data), 0))"
        "   OVER (ORDER BY key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM ("
        "  SELECT key, json_extract(registers, '$.message') AS text,"
        "         json_extract(registers, '$.metadata') AS data"
        "  FROM messages INDEXED BY messages_unindexed WHERE indexed = 0 AND key > ?"
        "  ORDER BY key LIMIT ?))"
        " WHERE coalesce(before, 0) < ?",
        (after, _INDEXED_AT_ONCE, _CHARACTERS_AT_ONCE),
    ).fetchone()
    return [
        (key, {name: told for name, told in (("message", text), ("metadata", data)) if told})
        for key, text, data in json.loads(found)
    ]


def _folded(row: Row) -> str:
    return mirror.fold(row["message"][2]) if "message" in row else ""


class Texts(NamedTuple):
    """Some texts and metadata that the indexes do not know, in the form in which they are told.

    :param rows: by key, each message's text and its metadata.
    :param latest, changes: the latest event then, and how often rows had been deleted or rewritten.
    """

    rows: dict[int, tuple[str, list[tuple[str, str]]]]
    latest: int
    changes: int


def unindexed_texts(connection: sqlite3.Connection) -> Texts:
    """What is to be indexed next."""
    latest, changes = connection.execute(_STATE).fetchone()
    rows = {
        key: (_folded(row), list(mirror.metadata(row).items()))
        for key, row in _unindexed(connection)
    }
    return Texts(rows, latest, changes)


def index_texts(connection: sqlite3.Connection, read: Texts) -> bool:
    """Tell the indexes of some texts and metadata. Needs the write lock.

    :param read: before the lock was taken. What has changed since is left for the next time.
    :returns: whether there are more.
    """
    if connection.execute(_STATE).fetchone()[1] != read.changes:
        read = unindexed_texts(connection)
    rows = read.rows
    for (key,) in connection.execute(_CHANGED, (read.latest, json.dumps(list(rows)))).fetchall():
        rows.pop(key, None)
    keys = json.dumps(list(rows))
    texts = [(key, text) for key, (text, _) in rows.items() if text]
    pairs = [(key, *pair) for key, (_, pairs) in rows.items() for pair in pairs]
    connection.execute(f"DELETE FROM search WHERE rowid IN ({_EACH})", (keys,))
    connection.execute(
        f"INSERT INTO search (rowid, text) SELECT {item_of('value', 0)}, {item_of('value', 1)}"
        " FROM json_each(?)",
        (json.dumps(texts),),
    )
    connection.execute(f"DELETE FROM metadata WHERE message_key IN ({_EACH})", (keys,))
    if pairs:
        connection.execute(
            f"INSERT INTO metadata SELECT {item_of('value', 0)}, {item_of('value', 1)},"
            f" {item_of('value', 2)} FROM json_each(?)",
            (json.dumps(pairs),),
        )
    # This tells the index of numbers, too.
    connection.execute(f"UPDATE messages SET indexed = 1 WHERE key IN ({_EACH})", (keys,))
    return has_unindexed(connection)


def has_unindexed(connection: sqlite3.Connection) -> bool:
    """Whether there is a message that the indexes do not know as it is now."""
    found = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM messages INDEXED BY messages_unindexed WHERE indexed = 0)"
    )
    return bool(found.fetchone()[0])


_STATE = """
SELECT (SELECT coalesce(max(seq), 0) FROM events),
       (SELECT value FROM marks WHERE name = 'expiries')
"""

# A message changes by events of its own; and by expiry and forgetting, which are counted. The plus:
# found by their number, for a message may have very many.
_CHANGED = f"SELECT message_key FROM events WHERE seq > ? AND +message_key IN ({_EACH})"
