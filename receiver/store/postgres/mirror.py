"""What readers ask of the mirror, in PostgreSQL: pages, numbers, statistics, search.

What one answer tells is read in one transaction, so that a page and its total agree.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from psycopg.rows import dict_row

from receiver import ids, mirror
from receiver.mirror import Search
from receiver.store.contract import (
    Evidence,
    Listed,
    MirrorRow,
    Missed,
    Place,
    Report,
    missed_of,
)
from receiver.store.postgres.codes import pair
from receiver.store.postgres.forgetting import stored_name, whom
from receiver.store.postgres.pool import Connection
from receiver.store.postgres.transactions import Transactions
from receiver.times import DAY

#: Messages that are read in one transaction where all are listed.
_LISTED_AT_ONCE = 200
#: With more matches of a text or metadata than this, they are soon met on the way through history.
_MANY = 4_000
_NEWEST_FIRST = "ORDER BY m.at DESC, m.id"

_REPORTS = """
SELECT message_id, type, reported_at, has_error, source
FROM unnest(%s::text[]) AS asked (id) CROSS JOIN LATERAL (
    SELECT * FROM events WHERE message_id = asked.id ORDER BY seq DESC LIMIT 1000) AS latest
ORDER BY message_id, seq DESC
"""

# Counted by the server alone, which keeps what is large in files. Said twice where they came from,
# so that the index of what is learnt is seen to fit. The first row is all of them, with the number
# of gaps.
_MISSED = """
WITH missed AS (
    SELECT message_id, type, reported_at AS at,
           reported_at >= coalesce(lag(reported_at) OVER (ORDER BY reported_at) + %(together)s,
                                   reported_at) AS apart
    FROM events
    WHERE source = 'reconciliation' AND source <> 'webhook' AND NOT repeat
      AND message_id IS NOT NULL AND reported_at IS NOT NULL AND type = ANY (%(types)s)
      AND {own}),
numbered AS MATERIALIZED (
    SELECT message_id, type, at,
           count(*) FILTER (WHERE apart) OVER (ORDER BY at) AS gap
    FROM missed)
SELECT 0, max(gap), min(at), max(at), count(DISTINCT message_id), {counts} FROM numbered
UNION ALL
SELECT * FROM (
    SELECT 1, gap, min(at), max(at), count(DISTINCT message_id), {counts} FROM numbered
    GROUP BY gap ORDER BY gap DESC LIMIT %(most)s) AS latest
ORDER BY 1, 2 DESC
"""

Page = tuple[int, list[tuple[str, str]]]  # total; ids and registers


class Mirror(Transactions):
    """See `receiver.store.contract.Mirror`."""

    def history(self, search: Search, offset: int, limit: int) -> tuple[int, list[MirrorRow]]:
        with self._reading() as connection:
            total, rows = page(connection, search, offset, limit)
        return total, [(message_id, json.loads(registers)) for message_id, registers in rows]

    def messages(self, search: Search) -> Iterator[MirrorRow]:
        after = None
        while found := self.listed(search, after, _LISTED_AT_ONCE):
            for place, row in found:
                yield place[1], row
            after, _ = found[-1]

    def listed(self, search: Search, after: Place | None, limit: int) -> list[Listed]:
        if search.finds_nothing:
            return []
        where, values = _conditions(replace(search, metadata=()))
        if after is not None:
            where = f"{where} AND m.at <= %s AND (m.at < %s OR m.id > %s)"
            values = [*values, after[0], *after]
        few, first = "", list[object]()
        with self._reading() as connection:
            for table, condition, value in _apart(search):
                if not few and _are_few(connection, table, condition, value):
                    few, first = f"SELECT message_id FROM {table} WHERE {condition}", [value]
                else:  # row by row: the planner would find all of them first
                    where += f" AND (SELECT {condition} FROM {table} WHERE message_id = m.id)"
                    values.append(value)
            found = connection.execute(
                f"{f'WITH few AS MATERIALIZED ({few})' if few else ''}"
                f" SELECT m.at, m.id, m.registers FROM {'few JOIN' if few else ''} messages AS m"
                f" {'ON m.id = few.message_id' if few else ''} WHERE {where}"
                f" {_NEWEST_FIRST} LIMIT %s",
                (*first, *values, limit),
            ).fetchall()
        return [((at, message_id), json.loads(registers)) for at, message_id, registers in found]

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
                "SELECT registers, (SELECT count(*) FROM events WHERE message_id = messages.id)"
                " FROM messages WHERE id = %s",
                (message_id,),
            ).fetchone()
            if row is None:
                return None
            events = connection.cursor(row_factory=dict_row).execute(
                "SELECT id, type, occurred_at, received_at, source, late, repeat, receipts"
                " FROM events WHERE message_id = %s ORDER BY seq LIMIT %s",
                (message_id, limit),
            )
            return json.loads(row[0]), row[1], events.fetchall()

    def reports(self, message_ids: Collection[str]) -> Mapping[str, list[Report]]:
        found: dict[str, list[Report]] = {}
        with self._reader() as connection:
            forgotten = whom(connection, self._door)
            came = {forgotten.id(message_id): message_id for message_id in message_ids}
            rows = connection.execute(_REPORTS, ([*{*came, *message_ids}],)).fetchall()
        for message_id, *report in rows:
            name = came.get(message_id) or message_id
            found.setdefault(name, []).append(Report(*report))
        return found

    def missed(
        self, types: Sequence[str], together: int, most: int, provider: str | None = None
    ) -> tuple[Missed | None, int, list[Missed]]:
        asked = {f"type_{number}": kind for number, kind in enumerate(types)}
        counts = ", ".join(f"count(*) FILTER (WHERE type = %({name})s)" for name in asked)
        prefix = ids.prefix(provider or ids.FIRST)
        own = "starts_with(message_id, %(prefix)s)"
        if provider == ids.FIRST:
            own = "strpos(message_id, chr(31)) = 0"
        with self._reader() as connection:
            found = connection.execute(
                _MISSED.format(counts=counts, own=own),
                {
                    **asked,
                    "types": list(types),
                    "together": together,
                    "most": most,
                    "prefix": prefix,
                },
            ).fetchall()
        return missed_of(found)


def page(connection: Connection, search: Search, offset: int, limit: int) -> Page:
    """See `receiver.store.Store.history`."""
    if search.finds_nothing:
        return 0, []
    if search.text:
        return _searched(connection, search, search.text, offset, limit)
    total = _count(connection, search)
    if offset >= total:
        return total, []
    where, values = _conditions(search)
    # What is passed over is read from an index alone; then the rows of the page.
    found = connection.execute(
        "SELECT m.id, m.registers FROM ("
        f"  SELECT m.id, m.at FROM messages AS m WHERE {where} {_NEWEST_FIRST} LIMIT %s OFFSET %s"
        f") AS page JOIN messages AS m ON m.id = page.id {_NEWEST_FIRST}",
        (*values, limit, offset),
    )
    return total, [(message_id, registers) for message_id, registers in found]


def _apart(search: Search) -> Iterator[tuple[str, str, object]]:
    """What is asked of tables beside the messages: the table, the condition, its value."""
    if search.metadata:
        yield "metadata", "pairs @> %s::text[]", [pair(*told) for told in search.metadata]
    if search.text:
        yield "texts", "folded LIKE %s", _pattern(search.text)


def _are_few(connection: Connection, table: str, condition: str, value: object) -> bool:
    """Whether so few rows fit that they are put in order sooner than met in history."""
    counted = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {condition} LIMIT {_MANY}) AS found",
        (value,),
    )
    (number,) = counted.fetchone() or (0,)
    return bool(number < _MANY)


def _conditions(search: Search) -> tuple[str, list[object]]:
    """All but the text."""
    return _where(
        ("m.status = %s", search.status),
        ("m.device_id = %s", search.device_id),
        # Said twice, so that the index of the other providers is seen to fit, and of what failed.
        (
            "m.provider = %s"
            if search.provider == mirror.PROVIDER
            else f"m.provider = %s AND m.provider <> '{mirror.PROVIDER}'",
            search.provider,
        ),
        ("m.code = %s AND m.code <> ''", search.code),
        ("m.number = ANY (%s)", list(search.numbers) or None),
        (
            "m.id IN (SELECT message_id FROM metadata WHERE pairs @> %s::text[])",
            [pair(*told) for told in search.metadata] or None,
        ),
        ("m.at >= %s", search.since),
        ("m.at <= %s", search.until),
    )


def _where(*conditions: tuple[str, object]) -> tuple[str, list[object]]:
    given = [(condition, value) for condition, value in conditions if value is not None]
    where = " AND ".join(condition for condition, _ in given) or "true"
    return where, [value for _, value in given]


# --- how many


def _count(connection: Connection, search: Search) -> int:
    """The number of messages: whole days from the statistics, the rest by counting."""
    first, last = _whole_days(search)
    if not search.is_counted_by_cells or (first is not None and last is not None and first > last):
        return _count_rows(connection, search)
    total = sum(int(live) for (live,) in _cells(connection, first, last, search, "live"))
    if first is not None and search.since is not None and search.since < first * DAY:
        total += _count_rows(connection, replace(search, until=first * DAY - 1))
    if last is not None and search.until is not None and search.until >= (last + 1) * DAY:
        total += _count_rows(connection, replace(search, since=(last + 1) * DAY))
    return total


def _whole_days(search: Search) -> tuple[int | None, int | None]:
    """The first and the last whole day between the bounds; the last comes first if none is."""
    first = None if search.since is None else -(-search.since // DAY)
    last = None if search.until is None else (search.until + 1) // DAY - 1
    return first, last


def _count_rows(connection: Connection, search: Search) -> int:
    where, values = _conditions(search)
    found = connection.execute(f"SELECT count(*) FROM messages AS m WHERE {where}", values)
    (count,) = found.fetchone() or (0,)
    return int(count)


def _cells(
    connection: Connection,
    first: int | None,
    last: int | None,
    search: Search,
    number: Literal["total", "live"],
    by: Sequence[str] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Sums of cells of the days from first to last, both included.

    :param by: the columns that the sums are told by, and each status after them; `None`: one sum.
    """
    where, values = _where(
        ("day >= %s", first),
        ("day <= %s", last),
        ("device_id = %s", search.device_id),
        ("status = %s", search.status),
        ("provider = %s", search.provider),
    )
    told = "" if by is None else f"{', '.join([*by, 'status'])}, "
    group = "" if by is None else f"GROUP BY {told.removesuffix(', ')}"
    yield from connection.execute(
        f"SELECT {told}coalesce(sum({number}), 0)::bigint FROM counted WHERE {where} {group}",
        values,
    )


# --- search


def _searched(connection: Connection, search: Search, text: str, offset: int, limit: int) -> Page:
    """The number comes with the rows: to sort the matches, all of them are found anyway."""
    where, values = _conditions(search)
    pattern = _pattern(text)
    matches = (
        "FROM texts AS t JOIN messages AS m ON m.id = t.message_id"
        f" WHERE t.folded LIKE %s AND {where}"
    )
    found = connection.execute(
        "SELECT m.id, m.registers, page.total FROM ("
        f"  SELECT m.id, m.at, count(*) OVER () AS total {matches}"
        f"  {_NEWEST_FIRST} LIMIT %s OFFSET %s"
        f") AS page JOIN messages AS m ON m.id = page.id {_NEWEST_FIRST}",
        (pattern, *values, limit, offset),
    ).fetchall()
    if found:
        return found[0][2], [(message_id, registers) for message_id, registers, _ in found]
    counted = connection.execute(f"SELECT count(*) {matches}", (pattern, *values))
    (total,) = counted.fetchone() or (0,)
    return total, []


def _pattern(text: str) -> str:
    """For LIKE: what holds the text."""
    return f"%{text.translate(_LITERALLY)}%"


#: The characters that mean something in a pattern of LIKE.
_LITERALLY = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})
