"""The queue in SQLite: work is claimed, settled and buried."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from receiver.store.contract import SILENT_ATTEMPTS, Claim, Settlement, Want, tell_given_up
from receiver.store.sqlite.connections import Connections, as_unavailable, placeholders


class Work(Connections):
    """See `receiver.store.contract.Work`."""

    def work(
        self, now: int, settlements: Sequence[Settlement], wants: Sequence[Want], patience: float
    ) -> list[Claim]:
        leased: list[tuple[int, str, int, int]] = []
        given_up: dict[str, int] = {}
        with self._transaction(patience) as connection:
            if settlements:
                connection.execute(_SETTLE, (json.dumps([_settled(s) for s in settlements]),))
            for want in wants:
                found, given_up[want.handler] = self._lease(connection, now, want)
                leased += found
            # Each event once for all its handlers; and before the commit, so that a read that
            # fails leases nothing.
            seqs = json.dumps(list({seq for seq, *_ in leased}))
            events = {seq: event for seq, *event in connection.execute(_EVENTS, (seqs,))}
        for handler, items in given_up.items():
            tell_given_up(handler, items)
        return [Claim(*lease, *events[lease[0]]) for lease in leased]

    def _lease(
        self, connection: sqlite3.Connection, now: int, want: Want
    ) -> tuple[list[tuple[int, str, int, int]], int]:
        """Lease what is claimable: seq, handler, fence and attempt of each item; and how many were
        given up instead."""
        found = connection.execute(
            _CLAIMABLE, {"handler": want.handler, "now": now, "limit": want.limit}
        ).fetchone()[0]
        leased, given_up = [], 0
        for seq, attempts, fence in json.loads(found):
            if attempts >= want.max_attempts + SILENT_ATTEMPTS:
                error = f"given up: {attempts} attempts, the last ones ended without a word"
                connection.execute(_BURY_ONE, (error, seq, want.handler))
                given_up += 1
            else:
                leased.append((seq, want.handler, fence + 1, attempts + 1))
        if leased:
            seqs = json.dumps([seq for seq, *_ in leased])
            connection.execute(_LEASE, (now + want.lease, want.handler, seqs))
        return leased, given_up

    def next_due(self, handler: str, after: int) -> int | None:
        with as_unavailable():
            found = self._reader.execute(_NEXT_DUE, (handler, after)).fetchone()
        due_at: int | None = found[0]
        return due_at

    def version(self) -> object:
        with as_unavailable():
            return self._reader.execute("PRAGMA data_version").fetchone()[0]

    def bury(self, now: int, known: Sequence[str], wait: int) -> int:
        unknown = f"handler NOT IN ({placeholders(known)}) AND state = 'pending' AND due_at <= ?"
        with as_unavailable():
            found = self._reader.execute(
                f"SELECT 1 FROM deliveries WHERE {unknown} LIMIT 1", (*known, now - wait)
            ).fetchone()
        if not found:
            return 0
        with self._transaction() as connection:
            buried = connection.execute(
                f"UPDATE deliveries SET state = 'dead', leased = 0, last_error = ? WHERE {unknown}",
                ("no handler of this name is registered", *known, now - wait),
            )
            return buried.rowcount

    def backlog(self, now: int, handlers: Sequence[str]) -> tuple[int, int]:
        with as_unavailable():
            count, oldest = self._reader.execute(
                "SELECT count(*), min(due_at) FROM deliveries WHERE state = 'pending'"
                f" AND handler IN ({placeholders(handlers)}) AND due_at <= ?",
                (*handlers, now),
            ).fetchone()
        return count, now - oldest if oldest is not None else 0


def _settled(settlement: Settlement) -> tuple[Any, ...]:
    claim = settlement.claim
    return (
        claim.event_seq,
        claim.handler,
        claim.fence,
        settlement.state,
        settlement.due_at,
        # JSON's functions end a text at NUL.
        settlement.error and settlement.error.replace("\0", "\ufffd"),
        int(settlement.given_back),
    )


# --- SQL

# Among the items of one message: none while another is leased, then the earliest that is due.
_CLAIMABLE = """
SELECT json_group_array(json_array(event_seq, attempts, fence)) FROM (
    SELECT d.event_seq, d.attempts, d.fence FROM deliveries AS d INDEXED BY deliveries_due
    WHERE d.handler = :handler AND d.state = 'pending' AND d.due_at <= :now
      AND (d.message_id IS NULL OR NOT EXISTS (
        SELECT 1 FROM deliveries AS o
        WHERE o.message_id = d.message_id AND o.handler = d.handler AND o.state = 'pending'
          AND o.event_seq <> d.event_seq
          AND CASE WHEN o.due_at > :now THEN o.leased
                   ELSE (o.occurred_at, o.event_seq) < (d.occurred_at, d.event_seq) END))
    ORDER BY d.due_at, d.event_seq LIMIT :limit)
"""

_EVENTS = """
SELECT seq, id, type, message_id, occurred_at, received_at, source, late, redacted, body
FROM events WHERE seq IN (SELECT value FROM json_each(?))
"""

_LEASE = """
UPDATE deliveries SET leased = 1, due_at = ?, fence = fence + 1, attempts = attempts + 1
WHERE handler = ? AND event_seq IN (SELECT value FROM json_each(?))
"""

# Only while the lease is the one that is settled: the fence says so.
_SETTLE = """
UPDATE deliveries AS d
SET state = ended.state, due_at = ended.due_at, last_error = ended.error,
    attempts = attempts - ended.given_back, leased = 0
FROM (SELECT value ->> 0 AS seq, value ->> 1 AS handler, value ->> 2 AS fence, value ->> 3 AS state,
             value ->> 4 AS due_at, value ->> 5 AS error, value ->> 6 AS given_back
      FROM json_each(?)) AS ended
WHERE d.event_seq = ended.seq AND d.handler = ended.handler AND d.fence = ended.fence
  AND d.leased = 1 AND d.state = 'pending'
"""

_BURY_ONE = """
UPDATE deliveries SET state = 'dead', leased = 0, last_error = ? WHERE event_seq = ? AND handler = ?
"""

_NEXT_DUE = """
SELECT min(due_at) FROM deliveries INDEXED BY deliveries_due
WHERE handler = ? AND state = 'pending' AND due_at > ?
"""
