"""What pages show of events and of their work, in SQLite."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlite_utils import Database

from receiver.store import paging
from receiver.store.claiming import NEVER
from receiver.store.paging import Row
from receiver.store.sqlite.connections import as_unavailable, item_of
from receiver.store.sqlite.records import Records, columns, conditions, work_conditions
from receiver.store.views import (
    LOOKED_AT,
    MOST_COUNTED,
    MOST_GROUPS,
    OF_PHONES,
    ORDERED,
    Group,
    Numbered,
    OfPhone,
    Page,
    Position,
    Selection,
    groups_of,
)


class Views(Records):
    """See `receiver.store.views.Views`."""

    def page(
        self, selection: Selection, before: int | None, limit: int, farthest: int = LOOKED_AT
    ) -> Page:
        with as_unavailable():
            asks = _Asks(self._reader)
            events, further, whole = paging.page(asks, selection, before, limit, farthest)
        return Page(self._told(events), further, whole)

    def arrivals(self, position: Position, now: int, limit: int) -> tuple[list[Numbered], Position]:
        # One writes at a time, so events come in the order of their numbers.
        with as_unavailable():
            found = list(self._reader.query(_ARRIVALS, {"after": position.seq, "limit": limit}))
        seqs = [event["seq"] for event in found]
        return self._told(found), Position(max(seqs, default=position.seq))

    def position(self, back: int) -> Position:
        with as_unavailable():
            found = self._reader.execute(_POSITION, (back,)).fetchone()
        return Position(0 if found is None else found[0])

    def of_phones(self, limit: int) -> list[OfPhone]:
        with as_unavailable():
            return [OfPhone(*found) for found in self._reader.execute(_LATEST_OF_PHONES, (limit,))]

    def groups(self) -> list[Group]:
        with as_unavailable():
            return groups_of(self._reader.execute(_GROUPS))

    def dead(self, handler: str, cause: str) -> tuple[int, int]:
        with as_unavailable():
            number, until = self._reader.execute(_OF_ONE_GROUP, (handler, cause)).fetchone()
        return number, until or 0

    def oldest_due(self, now: int) -> dict[str, int]:
        with as_unavailable():
            return dict(self._reader.execute(_OLDEST_DUE, {"now": now}).fetchall())


class _Asks:
    """See `receiver.store.paging.Asks`."""

    def __init__(self, reader: Database) -> None:
        self._reader = reader

    def begin(self, until: int | None) -> int:
        return int(self._one(_FIRST_AFTER, {"until": until}) or 1)

    def are_few(self, selection: Selection) -> bool:
        if selection.state in ("pending", "retrying"):
            return bool(self._one(_FEW_PENDING, {}))
        return selection.state == "dead"

    def seqs(self, selection: Selection, before: int, most: int) -> list[int]:
        of_work, values = work_conditions(selection)
        found = self._rows(
            "SELECT DISTINCT event_seq AS seq FROM deliveries AS d"
            f" WHERE {of_work} AND event_seq < :before ORDER BY event_seq DESC LIMIT :most",
            {**values, "before": before, "most": most},
        )
        return [row["seq"] for row in found]

    def among(self, selection: Selection, seqs: Sequence[int]) -> list[Row]:
        where, values = conditions(selection)
        return self._rows(
            f"SELECT {_COLUMNS} FROM events AS e"
            f" WHERE seq IN (SELECT value FROM json_each(:seqs)) AND {where} ORDER BY seq DESC",
            {**values, "seqs": json.dumps(seqs)},
        )

    def between(self, selection: Selection, oldest: int, before: int, most: int) -> list[Row]:
        where, values = conditions(selection)
        return self._rows(
            f"SELECT {_COLUMNS} FROM events AS e WHERE seq >= :oldest AND seq < :before AND {where}"
            " ORDER BY seq DESC LIMIT :most",
            {**values, "oldest": oldest, "before": before, "most": most},
        )

    def farther(self, before: int, count: int) -> int | None:
        return self._one(_FARTHER, {"before": before, "count": count - 1})

    def received(self, before: int) -> int | None:
        return self._one(_RECEIVED, {"before": before})

    def _rows(self, query: str, values: dict[str, object]) -> list[Row]:
        return list(self._reader.query(query, values))

    def _one(self, query: str, values: dict[str, object]) -> int | None:
        found = self._reader.execute(query, values).fetchone()
        return None if found is None else found[0]


# --- SQL

_EARLY = """(
    SELECT received_at FROM events WHERE seq >= (low + high) / 2 ORDER BY seq LIMIT 1) <= :until"""

# The number before which events were received until then (or all: null), by halving what is left.
_FIRST_AFTER = f"""
WITH RECURSIVE half (low, high) AS (
    SELECT 0, coalesce(max(seq), 0) + 1 FROM events
    UNION ALL
    SELECT iif({_EARLY}, (low + high) / 2, low), iif({_EARLY}, high, (low + high) / 2)
    FROM half WHERE :until IS NOT NULL AND high - low > 1)
SELECT min(high) FROM half
"""

_FARTHER = "SELECT seq FROM events WHERE seq < :before ORDER BY seq DESC LIMIT 1 OFFSET :count"

_RECEIVED = "SELECT received_at FROM events WHERE seq < :before ORDER BY seq DESC LIMIT 1"

_FEW_PENDING = f"""
SELECT count(*) <= {ORDERED} FROM (
    SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE state = 'pending' LIMIT {ORDERED + 1})
"""

_COLUMNS = columns(bodies=True)

_ARRIVALS = f"SELECT {_COLUMNS} FROM events WHERE seq > :after ORDER BY seq LIMIT :limit"

_POSITION = "SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET ?"

_DEAD = "FROM deliveries INDEXED BY deliveries_by_cause WHERE state = 'dead'"
_OF_GROUP = f"{_DEAD} AND handler = g.handler AND cause = g.cause"

# From each group to the next; of each the first, the last, and how many.
_GROUPS = f"""
WITH RECURSIVE found (number, names) AS (
    SELECT 1, (SELECT json_array(handler, cause) {_DEAD} ORDER BY handler, cause LIMIT 1)
    UNION ALL
    SELECT number + 1, (
        SELECT json_array(handler, cause) {_DEAD}
          AND (handler, cause) > ({item_of("names", 0)}, {item_of("names", 1)})
        ORDER BY handler, cause LIMIT 1)
    FROM found WHERE names IS NOT NULL AND number < {MOST_GROUPS})
SELECT handler, cause,
    (SELECT due_at {_OF_GROUP} ORDER BY due_at LIMIT 1),
    (SELECT due_at {_OF_GROUP} ORDER BY due_at DESC LIMIT 1),
    (SELECT count(*) FROM (SELECT 1 {_OF_GROUP} LIMIT {MOST_COUNTED}))
FROM (SELECT {item_of("names", 0)} AS handler, {item_of("names", 1)} AS cause
      FROM found WHERE names IS NOT NULL) AS g
"""

_OF_ONE_GROUP = f"SELECT count(*), max(due_at) {_DEAD} AND handler = ? AND cause = ?"

# From each handler to the next: what is due, and what is parked. What came in while the clock was
# not trusted is due since 0: nobody knows since when.
_OLDEST_DUE = f"""
WITH RECURSIVE owed (handler) AS (
    SELECT min(handler) FROM deliveries INDEXED BY deliveries_due WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(handler) FROM deliveries INDEXED BY deliveries_due
            WHERE state = 'pending' AND handler > owed.handler)
    FROM owed WHERE handler IS NOT NULL)
SELECT handler, min(since) FROM (
    SELECT handler, (
        SELECT due_at FROM deliveries INDEXED BY deliveries_due
        WHERE state = 'pending' AND handler = owed.handler AND due_at <= :now AND due_at > 0
        ORDER BY due_at LIMIT 1) AS since
    FROM owed
    UNION ALL
    SELECT handler, (
        SELECT min(nullif(due_since, 0)) FROM deliveries INDEXED BY deliveries_parked
        WHERE state = 'pending' AND due_at = {NEVER} AND handler = owed.handler)
    FROM owed)
WHERE since IS NOT NULL GROUP BY handler
"""

_LATEST_OF_PHONES = f"""
SELECT id, type, occurred_at, body FROM events INDEXED BY events_of_phones
WHERE {OF_PHONES} ORDER BY seq DESC LIMIT ?
"""
