"""What pages show of events and of their work, in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Sequence

from receiver.store import paging
from receiver.store.claiming import NEVER
from receiver.store.paging import Row
from receiver.store.postgres.pool import Connection
from receiver.store.postgres.records import Records, columns, conditions, rows_of, work_conditions
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
        with self._reader() as connection:
            asks = _Asks(connection)
            events, further, whole = paging.page(asks, selection, before, limit, farthest)
        return Page(self._told(events), further, whole)

    def arrivals(self, position: Position, now: int, limit: int) -> tuple[list[Numbered], Position]:
        asked = {
            "after": position.seq,
            "limit": limit,
            "missing": json.dumps([missing[:2] for missing in position.missing]),
        }
        with self._reader() as connection:
            found = rows_of(connection, _ARRIVALS, asked)
        return self._told(found), position.after((event["seq"] for event in found), now)

    def position(self, back: int) -> Position:
        found = self._read(_POSITION, (back,))
        return Position(0 if found is None else found[0])

    def of_phones(self, limit: int) -> list[OfPhone]:
        with self._reader() as connection:
            return [OfPhone(*found) for found in connection.execute(_LATEST_OF_PHONES, (limit,))]

    def groups(self) -> list[Group]:
        with self._reader() as connection:
            return groups_of(connection.execute(_GROUPS))

    def dead(self, handler: str, cause: str) -> tuple[int, int]:
        number, until = self._read(_OF_ONE_GROUP, (handler, cause))
        return number, until or 0

    def oldest_due(self, now: int) -> dict[str, int]:
        with self._reader() as connection:
            return dict(connection.execute(_OLDEST_DUE, {"now": now}).fetchall())


class _Asks:
    """See `receiver.store.paging.Asks`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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
            f" WHERE {of_work} AND event_seq < %(before)s ORDER BY event_seq DESC LIMIT %(most)s",
            {**values, "before": before, "most": most},
        )
        return [row["seq"] for row in found]

    def among(self, selection: Selection, seqs: Sequence[int]) -> list[Row]:
        where, values = conditions(selection)
        return self._rows(
            f"SELECT {_COLUMNS} FROM events AS e"
            f" WHERE seq = ANY (%(seqs)s::bigint[]) AND {where} ORDER BY seq DESC",
            {**values, "seqs": list(seqs)},
        )

    def between(self, selection: Selection, oldest: int, before: int, most: int) -> list[Row]:
        where, values = conditions(selection)
        return self._rows(
            f"SELECT {_COLUMNS} FROM events AS e"
            f" WHERE seq >= %(oldest)s AND seq < %(before)s AND {where}"
            " ORDER BY seq DESC LIMIT %(most)s",
            {**values, "oldest": oldest, "before": before, "most": most},
        )

    def farther(self, before: int, count: int) -> int | None:
        return self._one(_FARTHER, {"before": before, "count": count - 1})

    def received(self, before: int) -> int | None:
        return self._one(_RECEIVED, {"before": before})

    def _rows(self, query: str, values: dict[str, object]) -> list[Row]:
        return rows_of(self._connection, query, values)

    def _one(self, query: str, values: dict[str, object]) -> int | None:
        found = self._connection.execute(query, values).fetchone()
        return None if found is None else found[0]


# --- SQL

# The number before which events were received until then (or any: null), by halving what is left.
_FIRST_AFTER = """
WITH RECURSIVE half (low, high) AS (
    SELECT 0::bigint, coalesce(max(seq), 0) + 1 FROM events
    UNION ALL
    SELECT CASE WHEN early THEN middle ELSE low END, CASE WHEN early THEN high ELSE middle END
    FROM half CROSS JOIN LATERAL (SELECT (low + high) / 2 AS middle) AS m CROSS JOIN LATERAL (
        SELECT received_at <= %(until)s AS early FROM events
        WHERE seq >= middle ORDER BY seq LIMIT 1) AS met
    WHERE %(until)s::bigint IS NOT NULL AND high - low > 1)
SELECT min(high) FROM half
"""

_FARTHER = (
    "SELECT seq FROM events WHERE seq < %(before)s ORDER BY seq DESC LIMIT 1 OFFSET %(count)s"
)

_RECEIVED = "SELECT received_at FROM events WHERE seq < %(before)s ORDER BY seq DESC LIMIT 1"

_FEW_PENDING = f"""
SELECT count(*) <= {ORDERED} FROM (
    SELECT 1 FROM deliveries WHERE state = 'pending' LIMIT {ORDERED + 1}) AS pending
"""

_COLUMNS = columns(bodies=True)

# In one statement, so that all is of one moment. Of each range by itself, or the planner would look
# through all events.
_ARRIVALS = f"""
SELECT {_COLUMNS} FROM (
    (SELECT e.* FROM jsonb_array_elements(%(missing)s::jsonb) AS m CROSS JOIN LATERAL (
        SELECT * FROM events WHERE seq >= (m ->> 0)::bigint AND seq <= (m ->> 1)::bigint
        ORDER BY seq LIMIT %(limit)s) AS e)
    UNION ALL
    (SELECT * FROM events WHERE seq > %(after)s ORDER BY seq LIMIT %(limit)s)) AS e
ORDER BY seq LIMIT %(limit)s
"""

_POSITION = "SELECT seq FROM events ORDER BY seq DESC LIMIT 1 OFFSET %s"

_OF_GROUP = (
    "FROM deliveries AS d WHERE d.state = 'dead' AND d.handler = g.handler AND d.cause = g.cause"
)

# From each group to the next; of each the first, the last, and how many.
_GROUPS = f"""
WITH RECURSIVE g (number, handler, cause) AS (
    (SELECT 1, handler, cause FROM deliveries WHERE state = 'dead' ORDER BY handler, cause LIMIT 1)
    UNION ALL
    SELECT g.number + 1, next.handler, next.cause FROM g CROSS JOIN LATERAL (
        SELECT handler, cause FROM deliveries
        WHERE state = 'dead' AND (handler, cause) > (g.handler, g.cause)
        ORDER BY handler, cause LIMIT 1) AS next
    WHERE g.number < {MOST_GROUPS})
SELECT g.handler, g.cause,
    (SELECT due_at {_OF_GROUP} ORDER BY due_at LIMIT 1),
    (SELECT due_at {_OF_GROUP} ORDER BY due_at DESC LIMIT 1),
    (SELECT count(*) FROM (SELECT 1 {_OF_GROUP} LIMIT {MOST_COUNTED}) AS counted)
FROM g
"""

_OF_ONE_GROUP = """
SELECT count(*), max(due_at) FROM deliveries WHERE state = 'dead' AND handler = %s AND cause = %s
"""

# From each handler to the next: what is due, and what is parked. What came in while the clock was
# not trusted is due since 0: nobody knows since when.
_OLDEST_DUE = f"""
WITH RECURSIVE owed (handler) AS (
    (SELECT handler FROM deliveries WHERE state = 'pending' ORDER BY handler LIMIT 1)
    UNION ALL
    SELECT (SELECT d.handler FROM deliveries AS d
            WHERE d.state = 'pending' AND d.handler > owed.handler ORDER BY d.handler LIMIT 1)
    FROM owed WHERE owed.handler IS NOT NULL)
SELECT handler, since FROM owed CROSS JOIN LATERAL (
    SELECT least(
        (SELECT d.due_at FROM deliveries AS d
         WHERE d.state = 'pending' AND d.handler = owed.handler
           AND d.due_at <= %(now)s AND d.due_at > 0
         ORDER BY d.due_at LIMIT 1),
        (SELECT min(nullif(d.due_since, 0)) FROM deliveries AS d
         WHERE d.state = 'pending' AND d.due_at = {NEVER} AND d.handler = owed.handler)) AS since
) AS oldest
WHERE since IS NOT NULL
"""

_LATEST_OF_PHONES = f"""
SELECT id, type, occurred_at, body FROM events WHERE {OF_PHONES} ORDER BY seq DESC LIMIT %s
"""
