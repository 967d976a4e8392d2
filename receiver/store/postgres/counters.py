"""Numbers that only grow, in PostgreSQL."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping

from receiver.metrics import OTHER, Key, of_arrivals
from receiver.store.copying import TABLES
from receiver.store.postgres.place import SCHEMA
from receiver.store.postgres.pool import Connection
from receiver.store.postgres.transactions import Transactions

#: Events that are counted at once.
_COUNTED_AT_ONCE = 50_000
#: Batches that are remembered.
_REMEMBERED = 1_000
#: Seconds between two looks at whether who writes has come to an end.
_LOOK = 0.02


class Counters(Transactions):
    """See `receiver.store.contract.Counters`."""

    def add_counts(self, token: str, counts: Mapping[Key, int], patience: float) -> None:
        with self._transaction(lock_patience=patience) as connection:
            batch = connection.execute(_NEW_BATCH, (token,)).fetchone()
            if batch is not None:
                connection.execute(
                    "DELETE FROM counted_batches WHERE number <= %s", (batch[0] - _REMEMBERED,)
                )
                add(connection, counts)

    def count_arrivals(self, types: Collection[str], patience: float) -> bool:
        counted, last = self._row(_UNCOUNTED, ())
        if last <= counted or not self._all_have_ended(patience):
            return False
        asked = {"counted": counted, "last": last, "others": _COUNTED_AT_ONCE - 1}
        asked |= {"types": sorted(types), "other": OTHER}
        with self._transaction(lock_patience=patience) as connection:
            moved = connection.execute(_MOVE, asked).fetchone()
            if moved is None:
                return True  # another process was quicker
            asked["until"] = moved[0]
            add(connection, of_arrivals(connection.execute(_ARRIVALS, asked).fetchall()))
        return bool(moved[0] < last)

    def _all_have_ended(self, patience: float) -> bool:
        """Whether all that write at this moment have come to an end, which takes milliseconds.

        Of two events the one with the smaller number may be committed later. Whoever has taken a
        number holds the lock `SCHEMA` from before that to the end of its transaction.
        """
        ends = time.monotonic() + patience
        writing = self._writing()
        while writing & (still := self._writing() if writing else set()):
            if time.monotonic() > ends:
                return False
            writing &= still
            time.sleep(_LOOK)
        return True

    def _writing(self) -> set[str]:
        with self._worker_reads() as connection:
            asked = (connection.place.space, SCHEMA)
            return {name for (name,) in connection.execute(_WRITING, asked)}

    def counters(self) -> dict[Key, int]:
        with self._reader() as connection:
            found = connection.execute("SELECT name, labels, value FROM counters").fetchall()
        return {(name, *json.loads(labels)): value for name, labels, value in found}

    def kept(self) -> tuple[dict[str, int], int]:
        with self._reader() as connection:
            messages = connection.execute(_MESSAGES).fetchall()
            ((size,),) = connection.execute(SIZE, (OUR_TABLES,)).fetchall()
        return dict(messages), int(size)


def add(connection: Connection, counts: Mapping[Key, int]) -> None:
    """Add to counters, within a transaction; always in one order, so that nobody waits in a
    circle."""
    rows = sorted((name, json.dumps(labels), number) for (name, *labels), number in counts.items())
    connection.execute(_ADD, (json.dumps(rows),))


_NEW_BATCH = """
INSERT INTO counted_batches (token) VALUES (%s) ON CONFLICT (token) DO NOTHING RETURNING number
"""

_UNCOUNTED = """
SELECT (SELECT value FROM marks WHERE name = 'counted'),
       (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM event_seqs)
"""

_WRITING = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_MOVE = """
UPDATE marks SET value = coalesce(
    (SELECT seq FROM events WHERE seq > %(counted)s AND seq <= %(last)s
     ORDER BY seq OFFSET %(others)s LIMIT 1), %(last)s)
WHERE name = 'counted' AND value = %(counted)s RETURNING value
"""

_ARRIVALS = """
SELECT CASE WHEN strpos(id, chr(31)) > 0 THEN split_part(id, chr(31), 1) ELSE 'zimsend' END,
       CASE WHEN type = ANY (%(types)s) THEN type ELSE %(other)s END,
       source = 'reconciliation' AND NOT repeat AND reported_at IS NOT NULL,
       count(*)
FROM events WHERE seq > %(counted)s AND seq <= %(until)s GROUP BY 1, 2, 3
"""

_ADD = """
INSERT INTO counters AS c (name, labels, value)
SELECT n ->> 0, n ->> 1, (n ->> 2)::bigint
FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS new (n, place) ORDER BY place
ON CONFLICT (name, labels) DO UPDATE SET value = c.value + excluded.value
"""

# By the cells of the statistics, not by the messages.
_MESSAGES = "SELECT status, sum(live)::bigint FROM counted GROUP BY status"

# A program beside us may have tables of its own in this database.
OUR_TABLES = [*(table.name for table in TABLES), "cells", "texts", "metadata", "counted_batches"]
SIZE = """
SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint
FROM unnest(%s::text[]) AS name
"""
