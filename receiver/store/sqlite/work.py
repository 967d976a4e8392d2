"""The queue in SQLite: work is claimed, settled and buried."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any

from receiver.causes import GIVEN_UP, NO_HANDLER, cause_of
from receiver.metrics import DELIVERIES
from receiver.store.claiming import (
    AGAIN,
    FARTHEST,
    FRESH,
    LEASED,
    NEVER,
    PARKED,
    SILENT_ATTEMPTS,
    STAND,
    STANDS,
    looks,
    tell_given_up,
)
from receiver.store.contract import (
    MOST_TOLD,
    Claim,
    Settlement,
    Want,
)
from receiver.store.forgetting import Door, ended
from receiver.store.sqlite import counters
from receiver.store.sqlite.connections import Connections, as_unavailable, item_of, placeholders
from receiver.store.sqlite.forgetting import whom

#: An item's number, handler, fence and attempt.
_Lease = tuple[int, str, int, int]


class Work(Connections):
    """See `receiver.store.contract.Work`."""

    #: A round has the one lock of the file.
    rests = 3

    def work(
        self,
        now: int,
        settlements: Sequence[Settlement],
        wants: Sequence[Want],
        patience: float,
        given_up: Callable[[str, Sequence[int]], None] = tell_given_up,
    ) -> list[Claim]:
        leased, events, dead = self.settle_and_claim(now, Ends(settlements), wants, patience)
        for handler, items in dead.items():
            given_up(handler, items)
        return [Claim(*lease, *events[lease[0]]) for lease in leased]

    def settle_and_claim(
        self, now: int, ends: Ends, wants: Sequence[Want], patience: float
    ) -> tuple[list[_Lease], dict[int, list[Any]], dict[str, list[int]]]:
        """The transaction of `work`. What it takes and returns goes to another process quickly.

        :returns: what was claimed; its events, each once for all its handlers, by their numbers;
            and what was given up, by handler.
        """
        leased: list[_Lease] = []
        dead: dict[str, list[int]] = {}
        with self._transaction(patience) as connection:
            ends.write(connection, now, self._door)
            for want in wants:
                found = _Found(connection, now, want)
                found.write(connection)
                leased += found.leased
                dead[want.handler] = [seq for seq, *_ in found.given_up]
            # Before the commit, so that a read that fails leases nothing.
            seqs = json.dumps(list({seq for seq, *_ in leased}))
            events = {seq: event for seq, *event in connection.execute(_EVENTS, (seqs,))}
        return leased, events, dead

    def leases(self, owner: str, after: int) -> list[Claim]:
        with as_unavailable():
            return [Claim(*found) for found in self._reader.execute(_LEASES, (after, owner))]

    def renew(self, claim: Claim, until: int, patience: float) -> Claim | None:
        held = (until, claim.event_seq, claim.handler, claim.fence)
        with self._transaction(patience) as connection:
            renewed = connection.execute(_RENEW, held).rowcount
        return claim._replace(fence=claim.fence + 1) if renewed else None

    def died(self, handler: str, seqs: Sequence[int]) -> list[tuple[Claim, str]]:
        with as_unavailable():
            found = self._reader.execute(_DIED, (handler, json.dumps(list(seqs)))).fetchall()
        return [(Claim(*claim), error or "") for *claim, error in found]

    def work_counts(self) -> list[tuple[str, int, int]]:
        with as_unavailable():
            return self._reader.execute(_COUNTS).fetchall()

    def dead_of_handlers(self) -> list[tuple[str, int]]:
        with as_unavailable():
            return list(self._reader.execute(_DEAD).fetchall())

    def newest(self) -> int:
        with as_unavailable():
            (seq,) = self._reader.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()
        return int(seq)

    def next_due(self, handler: str, after: int) -> int | None:
        with as_unavailable():
            found = self._reader.execute(_NEXT_DUE, (handler, after)).fetchone()
        due_at: int | None = found[0]
        return due_at

    def version(self) -> object:
        with as_unavailable():
            return self._reader.execute("PRAGMA data_version").fetchone()[0]

    def owed(self) -> list[str]:
        with as_unavailable():
            return [name for (name,) in self._reader.execute(_OWED)]

    def bury(self, now: int, known: Sequence[str], wait: int) -> int:
        unknown = f"handler NOT IN ({placeholders(known)}) AND state = 'pending'"
        waited = (*known, now - wait)
        due = f"deliveries INDEXED BY deliveries_due WHERE {unknown} AND due_at <= ?"
        parked = (
            "deliveries INDEXED BY deliveries_parked"
            f" WHERE {unknown} AND due_at = {NEVER} AND due_since <= ?"
        )
        with as_unavailable():
            (found,) = self._reader.execute(
                f"SELECT EXISTS (SELECT 1 FROM {due}) OR EXISTS (SELECT 1 FROM {parked})",
                (*waited, *waited),
            ).fetchone()
        if not found:
            return 0
        dead = (
            f"SET state = 'dead', leased = 0, traceback = NULL, cause = '{NO_HANDLER}',"
            f" last_error = '{NO_HANDLER}', due_at = ?, due_since = NULL"
        )
        buried = 0
        with self._transaction() as connection:
            for items in (due, parked):
                table, _, which = items.partition(" WHERE ")
                of = connection.execute(
                    f"SELECT handler, count(*) FROM {items} GROUP BY handler", waited
                ).fetchall()
                counters.add(connection, {(DELIVERIES, name, "dead"): n for name, n in of})
                query = f"UPDATE {table} {dead} WHERE {which}"
                buried += connection.execute(query, (now, *waited)).rowcount
        return buried

    def unpark(self, now: int) -> int:
        with as_unavailable():
            found = self._reader.execute(_LEFT_PARKED, {"now": now}).fetchall()
        if found:
            with self._transaction() as connection:
                _unpark(connection, now, found)
        return len(found)

    def backlog(self, now: int, handlers: Sequence[str]) -> tuple[int, int]:
        asked = {"now": now, "handlers": json.dumps(list(handlers))}
        with as_unavailable():
            due, oldest, parked, longest = self._reader.execute(_BACKLOG, asked).fetchone()
        since = min(at for at in (oldest, longest, now) if at is not None)
        return due + parked, now - since

    def troubles(self, now: int, handlers: Sequence[str]) -> list[tuple[str, int, int]]:
        asked = {"now": now, "handlers": json.dumps(list(handlers))}
        with as_unavailable():
            found: list[tuple[str, int, int]]
            found = self._reader.execute(_TROUBLES, asked).fetchall()
        return found


class Ends:
    """Leases that have ended, as they are written. Made before the lock is taken, and small: it may
    go to another process."""

    def __init__(self, settlements: Sequence[Settlement]) -> None:
        self._of = json.dumps([(s.claim.event_seq, s.claim.handler) for s in settlements])
        #: Most have nothing to tell: their numbers, by handler and fence.
        self._done: dict[tuple[str, int], list[int]] = {}
        self._others: list[Settlement] = []
        for settlement in settlements:
            claim = settlement.claim
            if settlement.state == "done":
                self._done.setdefault((claim.handler, claim.fence), []).append(claim.event_seq)
            else:
                self._others.append(settlement)

    def write(self, connection: sqlite3.Connection, now: int, door: Door) -> None:
        if not (self._done or self._others):
            return
        for lease, seqs in self._done.items():
            connection.execute(_DONE, (now, *lease, json.dumps(seqs)))
        if self._others:
            tells = any(settlement.error for settlement in self._others)
            forgotten = whom(connection, door) if tells else door.whom
            others = [_settled(settlement) for settlement in ended(forgotten, self._others)]
            connection.execute(_SETTLE, (json.dumps(others),))
        _unpark(connection, now, connection.execute(_ENDED, (self._of,)).fetchall())


class _Found:
    """What a claim comes upon, in the order in which it is due, and what is to become of it."""

    def __init__(self, connection: sqlite3.Connection, now: int, want: Want) -> None:
        self._want = want
        self._now = now
        self.leased: list[_Lease] = []
        self.given_up: list[tuple[int, int | None, int]] = []
        self._parked: list[int] = []
        #: Of queues: whether an item is leased, by others or from now on.
        self._held: dict[int, bool] = {}
        after = (-1, -1)
        for count in looks(want.limit):
            met, queues = connection.execute(
                _MET,
                {"handler": want.handler, "now": now, "count": count,
                 "due_at": after[0], "seq": after[1]},
            ).fetchone()  # fmt: skip
            met = json.loads(met)
            firsts = {queue: (held, first) for queue, held, first in json.loads(queues)}
            for _, *item in met:
                self._meet(firsts, *item)
            if not self._room or len(met) < count:
                break
            after = met[-1][:2]

    @property
    def _room(self) -> int:
        return self._want.limit - len(self.leased) - len(self.given_up)

    def _meet(
        self,
        firsts: dict[int, tuple[int, list[int] | None]],
        seq: int,
        queue: int | None,
        leased: int,
        attempts: int,
        fence: int,
    ) -> None:
        if queue is None:
            if self._room:
                self._take(seq, queue, attempts, fence)
            return
        if queue not in self._held:
            if not self._room:
                return
            held, first = firsts[queue]
            first_seq, *of_first = first or (seq, attempts, fence)
            self._held[queue] = bool(held) or self._take(first_seq, queue, *of_first)
        # What is leased is found again when its lease runs out, also if the clock goes back.
        if self._held[queue] and not leased:
            self._parked.append(seq)

    def _take(self, seq: int, queue: int | None, attempts: int, fence: int) -> bool:
        """Whether it is leased, and not given up."""
        if attempts >= self._want.max_attempts + SILENT_ATTEMPTS:
            self.given_up.append((seq, queue, attempts))
            return False
        self.leased.append((seq, self._want.handler, fence + 1, attempts + 1))
        return True

    def write(self, connection: sqlite3.Connection) -> None:
        handler = self._want.handler
        seqs = [seq for seq, *_ in self.leased]
        if seqs:
            until = self._now + self._want.lease
            connection.execute(_LEASE, (until, self._want.owner, handler, json.dumps(seqs)))
        for seq, _, attempts in self.given_up:
            error = f"{GIVEN_UP}: {attempts} attempts, the last ones ended without a word"
            connection.execute(_GIVE_UP, (self._now, error, seq, handler))
        if self.given_up:
            _unpark(connection, self._now, {(queue, handler) for _, queue, _ in self.given_up})
        if parked := set(self._parked).difference(seqs):
            connection.execute(_PARK, (handler, json.dumps(list(parked))))


def _unpark(
    connection: sqlite3.Connection, now: int, queues: Collection[tuple[int | None, str]]
) -> None:
    """Make the first that is parked of each queue and handler due again."""
    if queues:
        connection.execute(_UNPARK, {"now": now, "queues": json.dumps(list(queues))})


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
        settlement.traceback and settlement.traceback.replace("\0", "\ufffd"),
        cause_of(settlement.error, settlement.traceback) if settlement.state == "dead" else "",
    )


# --- SQL


def _queue(handler: str, stand: int, farthest: int) -> str:
    """The items of one stand of the queue `m`, in their order."""
    return f"""
    SELECT occurred_at, event_seq, attempts, fence, due_at
    FROM deliveries INDEXED BY deliveries_in_queue
    WHERE queue = m.queue AND handler = {handler} AND state = 'pending'
      AND {STAND} = {stand}
    ORDER BY occurred_at, event_seq LIMIT {farthest}"""


def _first(handler: str, stand: int) -> str:
    """The first of them that is due; of what is parked, all is."""
    if stand == PARKED:
        return f"SELECT * FROM ({_queue(handler, stand, 1)})"
    queue = _queue(handler, stand, FARTHEST)
    return f"SELECT * FROM (SELECT * FROM ({queue}) WHERE due_at <= :now LIMIT 1)"


# Whether an item of the queue `m` is leased.
_HELD = f"EXISTS (SELECT 1 FROM ({_queue(':handler', LEASED, FARTHEST)}) WHERE due_at > :now)"

#: SQLite before 3.35 does not know the word, and may read it twice.
_READ_ONCE = "MATERIALIZED" if sqlite3.sqlite_version_info >= (3, 35) else ""

# Whether an item is all that is pending of the queue `m`. Most are, and it takes one seek.
_ALONE = """(
SELECT count(*) = 1 FROM (
    SELECT 1 FROM deliveries INDEXED BY deliveries_in_queue
    WHERE queue = m.queue AND handler = :handler AND state = 'pending' LIMIT 2))"""

# What is due, and of each of its queues: whether an item is leased, and the first that is due, if
# that need not be the one that was met.
_MET = f"""
WITH met AS {_READ_ONCE} (
    SELECT due_at, event_seq, queue, leased, attempts, fence
    FROM deliveries INDEXED BY deliveries_due
    WHERE handler = :handler AND state = 'pending' AND due_at <= :now
      AND (due_at, event_seq) > (:due_at, :seq)
    ORDER BY due_at, event_seq LIMIT :count)
SELECT
    (SELECT json_group_array(json_array(due_at, event_seq, queue, leased, attempts, fence))
     FROM met),
    (SELECT json_group_array(json(CASE WHEN {_ALONE} THEN json_array(queue, 0, NULL)
        ELSE json_array(
            queue,
            {_HELD},
            json((SELECT json_array(event_seq, attempts, fence) FROM (
                {" UNION ALL ".join(_first(":handler", stand) for stand in STANDS)})
             ORDER BY occurred_at, event_seq LIMIT 1))) END))
     FROM (SELECT DISTINCT queue FROM met WHERE queue IS NOT NULL) AS m)
"""

_PARK = f"""
UPDATE deliveries SET due_since = due_at, due_at = {NEVER}
WHERE handler = ? AND event_seq IN (SELECT value FROM json_each(?))
"""

# The queues of items that have just been settled. Mostly nothing at all is parked.
_ENDED = f"""
SELECT DISTINCT queue, handler
FROM json_each(?) AS ended CROSS JOIN deliveries AS d
    ON d.event_seq = {item_of("ended.value", 0)} AND d.handler = {item_of("ended.value", 1)}
WHERE d.queue IS NOT NULL AND EXISTS (
    SELECT 1 FROM deliveries INDEXED BY deliveries_parked
    WHERE state = 'pending' AND due_at = {NEVER})
"""

# What has been due is due, also where the clock has gone back.
_UNPARK = f"""
UPDATE deliveries SET due_at = min(due_since, :now), due_since = NULL
WHERE (event_seq, handler) IN (
    SELECT (SELECT event_seq FROM deliveries INDEXED BY deliveries_in_queue
            WHERE queue = {item_of("queue.value", 0)}
              AND handler = {item_of("queue.value", 1)}
              AND state = 'pending' AND {STAND} = {PARKED}
            ORDER BY occurred_at, event_seq LIMIT 1),
           {item_of("queue.value", 1)}
    FROM json_each(:queues) AS queue)
"""

# The queues of which something is parked, found by going from each to the next; and those of
# them of which nothing is leased and nothing else is due, so that nobody would un-park it.
_LEFT_PARKED = f"""
WITH RECURSIVE found (names) AS (
    SELECT (SELECT json_array(handler, queue) FROM deliveries INDEXED BY deliveries_parked
            WHERE state = 'pending' AND due_at = {NEVER} AND queue IS NOT NULL
            ORDER BY handler, queue LIMIT 1)
    UNION ALL
    SELECT (SELECT json_array(handler, queue) FROM deliveries INDEXED BY deliveries_parked
            WHERE state = 'pending' AND due_at = {NEVER}
              AND queue IS NOT NULL
              AND (handler, queue) > ({item_of("names", 0)}, {item_of("names", 1)})
            ORDER BY handler, queue LIMIT 1)
    FROM found WHERE names IS NOT NULL)
SELECT m.queue, m.handler
FROM (SELECT {item_of("names", 0)} AS handler, {item_of("names", 1)} AS queue
      FROM found WHERE names IS NOT NULL) AS m
WHERE NOT EXISTS ({_queue("m.handler", LEASED, 1)})
  AND NOT EXISTS ({_first("m.handler", FRESH)}) AND NOT EXISTS ({_first("m.handler", AGAIN)})
LIMIT 500
"""

# What waits for its next attempt is due later than now, and so is what is leased.
_TROUBLES = f"""
SELECT handler,
    (SELECT count(*) FROM (
        SELECT 1 FROM deliveries AS d INDEXED BY deliveries_by_cause
        WHERE d.handler = asked.handler AND d.state = 'dead' LIMIT {MOST_TOLD}) AS counted),
    (SELECT count(*) FROM (
        SELECT 1 FROM deliveries AS d INDEXED BY deliveries_due
        WHERE d.handler = asked.handler AND d.state = 'pending' AND d.due_at > :now
          AND d.due_at < {NEVER} AND d.leased = 0 AND d.attempts > 0 LIMIT {MOST_TOLD}) AS counted)
FROM (SELECT value AS handler FROM json_each(:handlers)) AS asked
"""

# What came in while the clock was not trusted is due since 0: nobody knows since when.
_BACKLOG = f"""
SELECT * FROM
    (SELECT count(*), min(nullif(due_at, 0)) FROM deliveries INDEXED BY deliveries_due
     WHERE state = 'pending' AND handler IN (SELECT value FROM json_each(:handlers))
       AND due_at <= :now),
    (SELECT count(*), min(nullif(due_since, 0)) FROM deliveries INDEXED BY deliveries_parked
     WHERE state = 'pending' AND handler IN (SELECT value FROM json_each(:handlers))
       AND due_at = {NEVER})
"""

_EVENTS = """
SELECT seq, id, type, message_id, occurred_at, received_at, source, late, redacted, body
FROM events WHERE seq IN (SELECT value FROM json_each(?))
"""

_DIED = """
SELECT event_seq, handler, fence, attempts, id, type, events.message_id, events.occurred_at,
       received_at, source, late, redacted, body, last_error
FROM deliveries JOIN events ON seq = event_seq
WHERE handler = ? AND event_seq IN (SELECT value FROM json_each(?)) AND state = 'dead'
ORDER BY event_seq
"""

# By the indexes of what is pending and of what is dead: not by all that was ever done.
_COUNTS = """
SELECT handler, sum(waiting), sum(dead) FROM (
    SELECT handler, count(*) AS waiting, 0 AS dead FROM deliveries INDEXED BY deliveries_due
    WHERE state = 'pending' GROUP BY handler
    UNION ALL
    SELECT handler, 0, count(*) FROM deliveries INDEXED BY deliveries_by_cause
    WHERE state = 'dead' GROUP BY handler)
GROUP BY handler ORDER BY handler
"""

_DEAD = f"""
SELECT handler, count(*) FROM (
    SELECT handler FROM deliveries INDEXED BY deliveries_dead WHERE state = 'dead'
    LIMIT {MOST_TOLD})
GROUP BY handler ORDER BY handler
"""

_LEASE = """
UPDATE deliveries
SET leased = 1, due_at = ?, due_since = NULL, fence = fence + 1, attempts = attempts + 1, owner = ?
WHERE handler = ? AND event_seq IN (SELECT value FROM json_each(?))
"""

_OWED = """
WITH RECURSIVE owed (handler) AS (
    SELECT min(handler) FROM deliveries INDEXED BY deliveries_due WHERE state = 'pending'
    UNION ALL
    SELECT (SELECT min(handler) FROM deliveries INDEXED BY deliveries_due
            WHERE state = 'pending' AND handler > owed.handler)
    FROM owed WHERE handler IS NOT NULL)
SELECT handler FROM owed WHERE handler IS NOT NULL
"""

# Leases are seldom asked for, and an index of them would be written twice with each claim.
_LEASES = f"""
SELECT d.event_seq, d.handler, d.fence, d.attempts, e.id, e.type, e.message_id, e.occurred_at,
       e.received_at, e.source, e.late, e.redacted, e.body
FROM deliveries AS d INDEXED BY deliveries_due JOIN events AS e ON e.seq = d.event_seq
WHERE d.state = 'pending' AND d.handler IN ({_OWED}) AND d.due_at > ? AND d.due_at < {NEVER}
  AND d.leased AND d.owner = ?
ORDER BY d.event_seq, d.handler
"""

_RENEW = """
UPDATE deliveries SET fence = fence + 1, due_at = ?
WHERE event_seq = ? AND handler = ? AND fence = ? AND leased
"""

# Only while the lease is the one that is settled: the fence says so.
_DONE = """
UPDATE deliveries
SET state = 'done', due_at = ?, last_error = NULL, traceback = NULL, cause = '', leased = 0,
    owner = NULL
WHERE handler = ? AND fence = ? AND event_seq IN (SELECT value FROM json_each(?))
  AND leased = 1 AND state = 'pending'
"""

_SETTLE = f"""
UPDATE deliveries AS d
SET state = ended.state, due_at = ended.due_at, last_error = ended.error,
    traceback = ended.traceback, cause = ended.cause, attempts = attempts - ended.given_back,
    leased = 0, owner = NULL
FROM (SELECT {item_of("value", 0)} AS seq, {item_of("value", 1)} AS handler,
             {item_of("value", 2)} AS fence, {item_of("value", 3)} AS state,
             {item_of("value", 4)} AS due_at, {item_of("value", 5)} AS error,
             {item_of("value", 6)} AS given_back, {item_of("value", 7)} AS traceback,
             {item_of("value", 8)} AS cause
      FROM json_each(?)) AS ended
WHERE d.event_seq = ended.seq AND d.handler = ended.handler AND d.fence = ended.fence
  AND d.leased = 1 AND d.state = 'pending'
"""

_GIVE_UP = f"""
UPDATE deliveries
SET state = 'dead', leased = 0, due_at = ?, due_since = NULL, last_error = ?, traceback = NULL,
    cause = '{GIVEN_UP}'
WHERE event_seq = ? AND handler = ?
"""

# From each handler to the next.
_NEXT_DUE = f"""
SELECT min(due_at) FROM deliveries INDEXED BY deliveries_due
WHERE handler = ? AND state = 'pending' AND due_at > ? AND due_at < {NEVER}
"""
