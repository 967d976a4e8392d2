"""Numbers that only grow, in SQLite."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import suppress

from receiver.metrics import OTHER, Key, of_arrivals
from receiver.store.sqlite.connections import Connections

#: Events that are counted at once: reading them holds nobody up, but must end.
_COUNTED_AT_ONCE = 50_000
#: Batches that are remembered.
_REMEMBERED = 1_000


class Counters(Connections):
    """See `receiver.store.contract.Counters`."""

    def add_counts(self, token: str, counts: Mapping[Key, int], patience: float) -> None:
        with self._transaction(patience) as connection:
            batch = connection.execute(
                "INSERT OR IGNORE INTO counted_batches (token) VALUES (?)", (token,)
            )
            if batch.rowcount:
                connection.execute(
                    "DELETE FROM counted_batches WHERE number <= ?",
                    ((batch.lastrowid or 0) - _REMEMBERED,),
                )
                add(connection, counts)

    def count_arrivals(self, types: Collection[str], patience: float) -> bool:
        # Rows are read without a lock: the next event's number is greater than any that was ever
        # seen, so none is added among those that are there.
        with self._reading() as connection:
            counted, last = connection.execute(_UNCOUNTED).fetchone()
            if last <= counted:
                return False
            (until,) = connection.execute(_UNTIL, (counted, _COUNTED_AT_ONCE - 1, last)).fetchone()
            rows = connection.execute(
                _ARRIVALS,
                {
                    "counted": counted,
                    "until": until,
                    "types": json.dumps(sorted(types)),
                    "other": OTHER,
                },
            ).fetchall()
        with self._transaction(patience) as connection:
            moved = connection.execute(
                "UPDATE marks SET value = ? WHERE name = 'counted' AND value = ?", (until, counted)
            )
            if moved.rowcount:  # else another process was quicker
                add(connection, of_arrivals(rows))
        return bool(until < last)

    def counters(self) -> dict[Key, int]:
        with self._reading() as connection:
            found = connection.execute("SELECT name, labels, value FROM counters").fetchall()
        return {(name, *json.loads(labels)): value for name, labels, value in found}

    def kept(self) -> tuple[dict[str, int], int]:
        with self._reading() as connection:
            messages = connection.execute(_MESSAGES).fetchall()
            (size,) = connection.execute(_SIZE).fetchone()
        with suppress(OSError):
            size += os.stat(self._log).st_size
        return dict(messages), size


def add(connection: sqlite3.Connection, counts: Mapping[Key, int]) -> None:
    """Add to counters, within a transaction."""
    connection.executemany(
        "INSERT INTO counters VALUES (?, ?, ?)"
        " ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value",
        [(name, json.dumps(labels), number) for (name, *labels), number in counts.items()],
    )


_UNCOUNTED = """
SELECT (SELECT value FROM marks WHERE name = 'counted'), (SELECT coalesce(max(seq), 0) FROM events)
"""

_UNTIL = """
SELECT coalesce((SELECT seq FROM events WHERE seq > ? ORDER BY seq LIMIT 1 OFFSET ?), ?)
"""

_ARRIVALS = """
SELECT iif(instr(id, char(31)), substr(id, 1, instr(id, char(31)) - 1), 'zimsend'),
       iif(type IN (SELECT value FROM json_each(:types)), type, :other),
       source = 'reconciliation' AND NOT repeat AND reported_at IS NOT NULL,
       count(*)
FROM events WHERE seq > :counted AND seq <= :until GROUP BY 1, 2, 3
"""

# By the cells of the statistics, not by the messages.
_MESSAGES = "SELECT status, sum(live) FROM statistics GROUP BY status"

_SIZE = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
