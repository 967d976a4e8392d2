"""The queue in PostgreSQL: work is claimed, settled and buried."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from receiver.store.contract import SILENT_ATTEMPTS, Claim, Settlement, Want, tell_given_up
from receiver.store.postgres.transactions import Transactions


class Work(Transactions):
    """See `receiver.store.contract.Work`."""

    def work(
        self, now: int, settlements: Sequence[Settlement], wants: Sequence[Want], patience: float
    ) -> list[Claim]:
        with self._transaction(patience) as connection:
            if settlements:
                rows = json.dumps([_settled(s) for s in settlements])
                connection.execute(_SETTLE, (rows,))
            found = [
                connection.execute(
                    _CLAIMABLE, {"handler": want.handler, "now": now, "limit": want.limit}
                )
                for want in wants
            ]
            locked = [[seq for (seq,) in candidates] for candidates in found]
            # Only now, with the locks, is it sure what may be leased.
            leases = [
                (
                    want.handler,
                    seqs,
                    connection.execute(_LEASE, _lease(want, seqs, now), binary=True),
                )
                for want, seqs in zip(wants, locked, strict=True)
                if seqs
            ]
            # Each event once for all its handlers.
            all_seqs = list({seq for _, seqs, _ in leases for seq in seqs})
            found_events = connection.execute(_EVENTS, (all_seqs,), binary=True)
        events = {seq: event for seq, *event in found_events}
        claims = []
        for handler, seqs, answer in leases:
            leased = answer.fetchall()
            by_seq = {lease[0]: lease for *lease, given_up in leased if not given_up}
            tell_given_up(handler, len(leased) - len(by_seq))
            claims += [Claim(*by_seq[seq], *events[seq]) for seq in seqs if seq in by_seq]
        return claims

    def next_due(self, handler: str, after: int) -> int | None:
        (due_at,) = self._row(_NEXT_DUE, (handler, after))
        return None if due_at is None else int(due_at)

    def version(self) -> object:
        # What other processes commit is not heard of, but looked for each second.
        return self._commits, int(time.monotonic())

    def bury(self, now: int, known: Sequence[str], wait: int) -> int:
        with self._transaction() as connection:
            buried = connection.execute(_BURY, (list(known), now - wait))
        return buried.rowcount

    def backlog(self, now: int, handlers: Sequence[str]) -> tuple[int, int]:
        count, oldest = self._row(_BACKLOG, (list(handlers), now))
        return count, now - oldest if oldest is not None else 0


def _lease(want: Want, seqs: list[int], now: int) -> dict[str, Any]:
    return {
        "handler": want.handler,
        "seqs": seqs,
        "now": now,
        "until": now + want.lease,
        "most": want.max_attempts + SILENT_ATTEMPTS,
    }


def _settled(settlement: Settlement) -> dict[str, Any]:
    claim = settlement.claim
    return {
        "seq": claim.event_seq,
        "handler": claim.handler,
        "fence": claim.fence,
        "state": settlement.state,
        "due_at": settlement.due_at,
        # What a handler raises can hold anything; the columns cannot.
        "error": settlement.error and settlement.error.replace("\0", "\ufffd"),
        "given_back": settlement.given_back,
    }


# --- SQL

# Of the items of one message: none while another is leased, then the earliest that is due.
_FIRST_OF_ITS_MESSAGE = """
(d.message_id IS NULL OR NOT EXISTS (
    SELECT 1 FROM deliveries AS o
    WHERE o.message_id = d.message_id AND o.handler = d.handler AND o.state = 'pending'
      AND o.event_seq <> d.event_seq
      AND CASE WHEN o.due_at > %(now)s THEN o.leased
               ELSE (o.occurred_at, o.event_seq) < (d.occurred_at, d.event_seq) END))
"""

# What others are about to lease is passed over. Whoever has the lock of message and handler is
# alone in leasing work of that message; but the snapshot is from before the lock.
_CLAIMABLE = f"""
SELECT event_seq FROM (
    SELECT d.event_seq, d.message_id FROM deliveries AS d
    WHERE d.handler = %(handler)s AND d.state = 'pending' AND d.due_at <= %(now)s
      AND {_FIRST_OF_ITS_MESSAGE}
    ORDER BY d.due_at, d.event_seq LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS candidates
WHERE message_id IS NULL OR pg_try_advisory_xact_lock(
    hashtextextended(message_id, hashtextextended(%(handler)s, 1)))
"""

# So this looks again; the items themselves are locked, and still due. Work whose attempts have all
# ended without a word is given up.
_LEASE = f"""
UPDATE deliveries AS d SET
    state = CASE WHEN d.attempts < %(most)s THEN 'pending' ELSE 'dead' END,
    leased = d.attempts < %(most)s,
    due_at = %(until)s,
    fence = d.fence + 1,
    attempts = d.attempts + (d.attempts < %(most)s)::integer,
    last_error = CASE WHEN d.attempts < %(most)s THEN d.last_error ELSE
        format('given up: %%s attempts, the last ones ended without a word', d.attempts) END
WHERE d.handler = %(handler)s AND d.event_seq = ANY (%(seqs)s) AND {_FIRST_OF_ITS_MESSAGE}
RETURNING d.event_seq, d.handler, d.fence, d.attempts, d.state = 'dead'
"""

_EVENTS = """
SELECT seq, id, type, message_id, occurred_at, received_at, source, late, redacted, body
FROM events WHERE seq = ANY (%s)
"""

# Only while the lease is the one that is settled: the fence says so. What is leased is pending.
_SETTLE = """
UPDATE deliveries AS d
SET state = ended.state, due_at = ended.due_at, last_error = ended.error,
    attempts = d.attempts - ended.given_back::integer, leased = false
FROM jsonb_to_recordset(%s::jsonb) AS ended (
    seq bigint, handler text, fence bigint, state text, due_at bigint, error text,
    given_back boolean)
WHERE d.event_seq = ended.seq AND d.handler = ended.handler AND d.fence = ended.fence AND d.leased
"""

_BURY = """
UPDATE deliveries SET state = 'dead', leased = false,
    last_error = 'no handler of this name is registered'
WHERE handler <> ALL (%s) AND state = 'pending' AND due_at <= %s
"""

_NEXT_DUE = """
SELECT min(due_at) FROM deliveries WHERE handler = %s AND state = 'pending' AND due_at > %s
"""

_BACKLOG = """
SELECT count(*), min(due_at) FROM deliveries
WHERE handler = ANY (%s) AND state = 'pending' AND due_at <= %s
"""
