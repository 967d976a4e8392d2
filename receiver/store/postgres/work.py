"""The queue in PostgreSQL: work is claimed, settled and buried."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg

from receiver.causes import GIVEN_UP, NO_HANDLER, cause_of
from receiver.metrics import DELIVERIES
from receiver.store.claiming import (
    AGAIN,
    FARTHEST,
    FRESH,
    LEASED,
    LOOKS,
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
from receiver.store.forgetting import Door, ended, queues_of
from receiver.store.postgres import counters
from receiver.store.postgres.forgetting import whom
from receiver.store.postgres.pool import Connection
from receiver.store.postgres.transactions import LOCK_OF_QUEUE, Transactions

#: Seconds that a round may take, answers included. The server may be 400 ms away: a claim whose
#: answer comes too late is a lease that nobody works on.
_WHOLE = 10.0


class Work(Transactions):
    """See `receiver.store.contract.Work`."""

    #: No webhook waits for what a round locks, but both want the processor.
    rests = 1

    def work(
        self,
        now: int,
        settlements: Sequence[Settlement],
        wants: Sequence[Want],
        patience: float,
        given_up: Callable[[str, Sequence[int]], None] = tell_given_up,
    ) -> list[Claim]:
        with self._transaction(_WHOLE, lock_patience=patience) as connection:
            connection.execute(_PLANS)
            if settlements:
                _settle(connection, now, settlements, self._door)
            found = _find(connection, now, wants)
            # Only now, with the locks, is it sure what may be leased.
            answers = [connection.execute(_LEASE, f.asked(now), binary=True) for f in found]
            # Each event once for all its handlers.
            loose = [seq for f in found for seq in f.loose]
            queues = json.dumps([queue for f in found for queue in f.queues(now)])
            found_events = connection.execute(_EVENTS, (loose, queues), binary=True)
        events = {seq: event for seq, *event in found_events}
        claims = []
        for f, answer in zip(found, answers, strict=True):
            leases: dict[str | int, tuple[int, str, int, int]] = {}
            given_up_here: list[int] = []
            for seq, message_id, fence, attempt, dead in answer:
                if dead:
                    given_up_here.append(seq)
                else:
                    name = seq if message_id is None else message_id
                    leases[name] = seq, f.want.handler, fence, attempt
            given_up(f.want.handler, given_up_here)
            in_order = [leases[name] for name in f.expected if name in leases]
            claims += [Claim(*lease, *events[lease[0]]) for lease in in_order]
        return claims

    def write_apart(self) -> None:
        pass  # what a claim locks, no webhook waits for

    def leases(self, owner: str, after: int) -> list[Claim]:
        with self._worker_reads() as connection:
            found = connection.execute(_LEASES, (after, owner), binary=True)
            return [Claim(*claim) for claim in found]

    def renew(self, claim: Claim, until: int, patience: float) -> Claim | None:
        held = (until, claim.event_seq, claim.handler, claim.fence)
        with self._transaction(_WHOLE, lock_patience=patience) as connection:
            renewed = connection.execute(_RENEW, held)
        return claim._replace(fence=claim.fence + 1) if renewed.rowcount else None

    def died(self, handler: str, seqs: Sequence[int]) -> list[tuple[Claim, str]]:
        with self._reader() as connection:
            found = connection.execute(_DIED, (handler, list(seqs)), binary=True).fetchall()
        return [(Claim(*claim), error or "") for *claim, error in found]

    def work_counts(self) -> list[tuple[str, int, int]]:
        with self._reader() as connection:
            return connection.execute(_COUNTS).fetchall()

    def dead_of_handlers(self) -> list[tuple[str, int]]:
        with self._worker_reads() as connection:
            return connection.execute(_DEAD).fetchall()

    def newest(self) -> int:
        (seq,) = self._row(_NEWEST, ())
        return int(seq)

    def next_due(self, handler: str, after: int) -> int | None:
        (due_at,) = self._row(_NEXT_DUE, (handler, after))
        return None if due_at is None else int(due_at)

    def version(self) -> object:
        # What other processes commit is not heard of, but looked for each second.
        return self._commits, int(time.monotonic())

    def owed(self) -> list[str]:
        with self._worker_reads() as connection:
            return [name for (name,) in connection.execute(_OWED)]

    def bury(self, now: int, known: Sequence[str], wait: int) -> int:
        with self._transaction() as connection:
            asked = {"known": list(known), "before": now - wait, "now": now}
            buried = connection.execute(_BURY, asked)
            of = Counter(name for (name,) in buried.fetchall())
            if of:
                counters.add(connection, {(DELIVERIES, name, "dead"): n for name, n in of.items()})
        return of.total()

    def unpark(self, now: int) -> int:
        (found,) = self._row(_LEFT_PARKED, {"now": now})
        if found:
            with self._transaction() as connection:
                connection.execute(_PLANS)
                queues = json.dumps(found)
                _lock_queues(connection, queues)
                connection.execute(_UNPARK, {"now": now, "queues": queues})
        return len(found)

    def backlog(self, now: int, handlers: Sequence[str]) -> tuple[int, int]:
        asked = {"now": now, "handlers": list(handlers)}
        due, oldest, parked, longest = self._row(_BACKLOG, asked)
        since = min(at for at in (oldest, longest, now) if at is not None)
        return due + parked, now - since

    def troubles(self, now: int, handlers: Sequence[str]) -> list[tuple[str, int, int]]:
        with self._reader() as connection:
            asked = {"now": now, "handlers": list(handlers)}
            return connection.execute(_TROUBLES, asked).fetchall()


class _Found:
    """What a claim comes upon, in the order in which it is due. It has the locks of all of it."""

    def __init__(self, want: Want) -> None:
        self.want = want
        #: Items that belong to no message.
        self.loose: list[int] = []
        #: What will be leased, if it is as it looks: messages, and items that belong to none.
        self.expected: list[str | int] = []
        #: Of messages: the first item that was met, and whether one may be leased; if not, what
        #: was met is parked.
        self._messages: dict[str, tuple[int, bool]] = {}
        self._met: list[tuple[int, str]] = []
        self._after = (-1, -1)
        self._over = False

    def look(self, connection: Connection, now: int, count: int) -> psycopg.Cursor[Any] | None:
        """Ask for what is due behind that which was met, unless there is enough of it."""
        if self._over:
            return None
        due_at, seq = self._after
        asked = {"now": now, "handler": self.want.handler, "due_at": due_at, "seq": seq}
        asked["seed"] = connection.place.seed
        return connection.execute(_MET, {**asked, "count": count})

    def meet(self, met: list[tuple[int, int, str | None, bool, bool]], count: int) -> None:
        for due_at, seq, message_id, ours, held in met:
            self._after = due_at, seq
            if not ours:
                continue  # at this moment somebody else claims or settles work of this message
            if message_id is None:
                if self._room:
                    self.expected.append(seq)
                    self.loose.append(seq)
                continue
            if message_id not in self._messages:
                if not (held or self._room):
                    continue
                self._messages[message_id] = seq, not held
                if not held:
                    self.expected.append(message_id)
            self._met.append((seq, message_id))
        self._over = not self._room or len(met) < count

    @property
    def _room(self) -> int:
        return self.want.limit - len(self.expected)

    def asked(self, now: int) -> dict[str, Any]:
        return {
            "handler": self.want.handler,
            "now": now,
            "until": now + self.want.lease,
            "owner": self.want.owner,
            "most": self.want.max_attempts + SILENT_ATTEMPTS,
            "messages": list(self._messages),
            "firsts": [seq for seq, _ in self._messages.values()],
            "free": [free for _, free in self._messages.values()],
            "met": [seq for seq, _ in self._met],
            "met_of": [message_id for _, message_id in self._met],
            "loose": self.loose,
        }

    def queues(self, now: int) -> list[dict[str, Any]]:
        """Where to find what has been leased of messages."""
        until = now + self.want.lease
        return [
            {"message_id": name, "handler": self.want.handler, "until": until}
            for name, (_, free) in self._messages.items()
            if free
        ]


def _find(connection: Connection, now: int, wants: Sequence[Want]) -> list[_Found]:
    """All handlers' first looks are one round trip, and so are all second ones."""
    found = [_Found(want) for want in wants]
    for number in range(LOOKS):
        counts = [looks(f.want.limit)[number] for f in found]
        answers = [f.look(connection, now, n) for f, n in zip(found, counts, strict=True)]
        for f, count, answer in zip(found, counts, answers, strict=True):
            if answer is not None:
                f.meet(answer.fetchall(), count)
    return found


def _settle(
    connection: Connection, now: int, settlements: Sequence[Settlement], door: Door
) -> None:
    """Only who has the lock of a queue parks in it: nothing is parked between these statements."""
    # It costs the way to the server: only where somebody's number may be written.
    tells = any(settlement.error for settlement in settlements)
    forgotten = whom(connection, door) if tells else door.whom
    settlements = ended(forgotten, settlements)
    names = {queue for queue in queues_of(forgotten, settlements) if queue[0]}
    queues = _queues(names)
    # An item of no message is a queue of its own, which a replay locks, too: neither of the two
    # waits for a row that the other one has.
    alone = {
        (str(s.claim.event_seq), s.claim.handler) for s in settlements if not s.claim.message_id
    }
    _lock_queues(connection, _queues(names | alone))
    connection.execute(_SETTLE, (json.dumps([_settled(s) for s in settlements]),))
    if names:
        connection.execute(_UNPARK, {"now": now, "queues": queues})


def _queues(names: Iterable[tuple[str | None, str]]) -> str:
    return json.dumps([{"message_id": name, "handler": handler} for name, handler in names])


def _lock_queues(connection: Connection, queues: str) -> None:
    connection.execute(_LOCK_QUEUES, {"queues": queues, "seed": connection.place.seed})


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
        "traceback": settlement.traceback and settlement.traceback.replace("\0", "\ufffd"),
        "cause": (
            cause_of(settlement.error, settlement.traceback) if settlement.state == "dead" else ""
        ),
    }


# --- SQL

_NEWEST = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM event_seqs"

# Each of these statements finds few rows by an index, in the index's order, whatever the statistics
# of the table say of a queue that was short a minute ago. A plan that takes all that a message has
# and sorts it is never the better one, and to plan anew takes longer than to execute.
_PLANS = """
SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true),
       set_config('plan_cache_mode', 'force_generic_plan', true)
"""

# Of an item that is found by its key: it does not say `state = 'pending'`, by which the planner
# would come upon the indexes of what is pending, and read all that a handler has.
_PENDING = "d.state <> ALL ('{done,dead}')"


def _queue(handler: str, stand: int, farthest: int) -> str:
    """The items of one stand of the message `m`, in their order."""
    return f"""
    SELECT occurred_at, event_seq, attempts, due_at FROM deliveries
    WHERE message_id = m.message_id AND handler = {handler} AND state = 'pending'
      AND ({STAND}) = {stand}
    ORDER BY occurred_at, event_seq LIMIT {farthest}"""


def _first(handler: str, stand: int) -> str:
    """The first of them that is due; of what is parked, all is."""
    if stand == PARKED:
        return f"({_queue(handler, stand, 1)})"
    queue = _queue(handler, stand, FARTHEST)
    return f"(SELECT * FROM ({queue}) AS queue WHERE due_at <= %(now)s LIMIT 1)"


# Whether an item of the message `m` is leased.
_HELD = f"""
EXISTS (SELECT 1 FROM ({_queue("%(handler)s", LEASED, FARTHEST)}) AS queue WHERE due_at > %(now)s)
"""

# What others are about to lease is passed over. The snapshot is from before the lock: so `held` is
# only a guess, by which it is decided whether to look further.
_MET = f"""
SELECT due_at, event_seq, message_id, ours, ours AND message_id IS NOT NULL AND {_HELD}
FROM (
    SELECT due_at, event_seq, message_id, message_id IS NULL OR pg_try_advisory_xact_lock(
        {LOCK_OF_QUEUE.format(handler="%(handler)s")}) AS ours
    FROM (
        SELECT due_at, event_seq, message_id FROM deliveries
        WHERE handler = %(handler)s AND state = 'pending' AND due_at <= %(now)s
          AND (due_at, event_seq) > (%(due_at)s, %(seq)s)
        ORDER BY due_at, event_seq LIMIT %(count)s FOR UPDATE SKIP LOCKED) AS m
    OFFSET 0) AS m
"""

# So this looks again. Of each message that is free the first that is due is leased, and what else
# was met of it is parked. Work whose attempts have all ended without a word is given up: then the
# next one is un-parked. Somebody who met the first one, and not the lock of its message, keeps it
# locked for a moment, and may want what is locked here: then the message has its turn next time.
_LEASE = f"""
WITH m AS MATERIALIZED (
    SELECT m.*, {_HELD} AS held
    FROM unnest(%(messages)s::text[], %(firsts)s::bigint[], %(free)s::boolean[])
        AS m (message_id, met, free)),
due AS MATERIALIZED (
    SELECT m.message_id, due.event_seq, due.attempts
    FROM m CROSS JOIN LATERAL (
        {" UNION ALL ".join(_first("%(handler)s", stand) for stand in STANDS)}
        UNION ALL
        SELECT occurred_at, event_seq, attempts, due_at FROM deliveries AS d
        WHERE event_seq = m.met AND handler = %(handler)s AND {_PENDING} AND due_at <= %(now)s
        ORDER BY occurred_at, event_seq LIMIT 1) AS due
    WHERE m.free AND NOT m.held),
unlocked AS MATERIALIZED (
    SELECT event_seq FROM deliveries
    WHERE handler = %(handler)s AND event_seq = ANY (ARRAY(SELECT event_seq FROM due))
    FOR UPDATE SKIP LOCKED),
first AS MATERIALIZED (SELECT due.* FROM due JOIN unlocked USING (event_seq)),
parked AS (
    UPDATE deliveries AS d SET due_since = d.due_at, due_at = {NEVER}
    WHERE d.handler = %(handler)s AND d.event_seq = ANY (ARRAY(
        SELECT met.seq FROM unnest(%(met)s::bigint[], %(met_of)s::text[]) AS met (seq, message_id)
        JOIN m USING (message_id) LEFT JOIN first USING (message_id)
        WHERE m.held OR first.attempts < %(most)s AND first.event_seq <> met.seq))
      AND {_PENDING} AND d.due_at <= %(now)s
      -- What is leased is found again when its lease runs out, also if the clock goes back.
      AND NOT d.leased),
unparked AS (
    UPDATE deliveries AS d SET due_at = least(d.due_since, %(now)s), due_since = NULL
    WHERE d.handler = %(handler)s AND d.event_seq = ANY (ARRAY(
        SELECT next.event_seq FROM first AS m CROSS JOIN LATERAL (
            SELECT queue.event_seq FROM ({_queue("%(handler)s", PARKED, 2)}) AS queue
            WHERE queue.event_seq <> m.event_seq LIMIT 1) AS next
        WHERE m.attempts >= %(most)s)))
UPDATE deliveries AS d SET
    state = CASE WHEN d.attempts < %(most)s THEN 'pending' ELSE 'dead' END,
    leased = d.attempts < %(most)s,
    due_at = CASE WHEN d.attempts < %(most)s THEN %(until)s ELSE %(now)s END,
    due_since = NULL,
    fence = d.fence + 1,
    attempts = d.attempts + (d.attempts < %(most)s)::integer,
    owner = %(owner)s,
    traceback = CASE WHEN d.attempts < %(most)s THEN d.traceback END,
    cause = CASE WHEN d.attempts < %(most)s THEN '' ELSE '{GIVEN_UP}' END,
    last_error = CASE WHEN d.attempts < %(most)s THEN d.last_error ELSE
        format('{GIVEN_UP}: %%s attempts, the last ones ended without a word', d.attempts) END
WHERE d.handler = %(handler)s
  AND d.event_seq = ANY (%(loose)s::bigint[] || ARRAY(SELECT event_seq FROM first))
  AND {_PENDING} AND (d.due_at <= %(now)s OR d.due_at >= {NEVER})
RETURNING d.event_seq, d.message_id, d.fence, d.attempts, d.state = 'dead'
"""


_RENEW = """
UPDATE deliveries SET fence = fence + 1, due_at = %s
WHERE event_seq = %s AND handler = %s AND fence = %s AND leased
"""

_DIED = """
SELECT d.event_seq, d.handler, d.fence, d.attempts, e.id, e.type, e.message_id, e.occurred_at,
       e.received_at, e.source, e.late, e.redacted, e.body, d.last_error
FROM deliveries AS d JOIN events AS e ON e.seq = d.event_seq
WHERE d.handler = %s AND d.event_seq = ANY (%s) AND d.state = 'dead'
ORDER BY d.event_seq
"""

# By the indexes of what is pending and of what is dead: not by all that was ever done.
_COUNTS = """
SELECT handler, sum(waiting)::bigint, sum(dead)::bigint FROM (
    SELECT handler, count(*) AS waiting, 0 AS dead FROM deliveries
    WHERE state = 'pending' GROUP BY handler
    UNION ALL
    SELECT handler, 0, count(*) FROM (
        SELECT handler FROM deliveries WHERE state = 'dead' ORDER BY handler, cause OFFSET 0
    ) AS dead GROUP BY handler) AS owed
GROUP BY handler ORDER BY handler
"""

_DEAD = f"""
SELECT handler, count(*) FROM (
    SELECT handler FROM deliveries WHERE state = 'dead' LIMIT {MOST_TOLD}) AS dead
GROUP BY handler ORDER BY handler
"""

# The events of what this transaction has leased.
_EVENTS = f"""
SELECT seq, id, type, message_id, occurred_at, received_at, source, late, redacted, body
FROM events WHERE seq = ANY (%s::bigint[] || ARRAY(
    SELECT queue.event_seq
    FROM jsonb_to_recordset(%s::jsonb) AS m (message_id text, handler text, until bigint)
    CROSS JOIN LATERAL ({_queue("m.handler", LEASED, FARTHEST)}) AS queue
    WHERE queue.due_at = m.until))
"""

# All take these locks in one order, after those of events and messages and before any row; or they
# do not wait for them.
_LOCK_QUEUES = f"""
SELECT count(pg_advisory_xact_lock(key)) FROM (
    SELECT DISTINCT {LOCK_OF_QUEUE.format(handler="m.handler")} AS key
    FROM jsonb_to_recordset(%(queues)s::jsonb) AS m (message_id text, handler text)
    ORDER BY key) AS keys
"""

# In these two, items are named by their keys beside the join: by its statistics, which may be older
# than a queue, the planner takes what is leased or parked for nothing, and would read all of it.

# Only while the lease is the one that is settled: the fence says so. What is leased is pending.
_SETTLE = """
WITH ended AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS ended (
        seq bigint, handler text, fence bigint, state text, due_at bigint, error text,
        given_back boolean, traceback text, cause text))
UPDATE deliveries AS d
SET state = ended.state, due_at = ended.due_at, last_error = ended.error,
    traceback = ended.traceback, cause = ended.cause,
    attempts = d.attempts - ended.given_back::integer, leased = false, owner = NULL
FROM ended
WHERE d.event_seq = ANY (ARRAY(SELECT seq FROM ended))
  AND d.event_seq = ended.seq AND d.handler = ended.handler AND d.fence = ended.fence AND d.leased
"""

# What has been due is due, also where the clock has gone back.
_UNPARK = f"""
WITH first AS MATERIALIZED (
    SELECT first.event_seq, m.handler
    FROM jsonb_to_recordset(%(queues)s::jsonb) AS m (message_id text, handler text)
    CROSS JOIN LATERAL ({_queue("m.handler", PARKED, 1)}) AS first)
UPDATE deliveries AS d SET due_at = least(d.due_since, %(now)s), due_since = NULL
FROM first
WHERE d.event_seq = ANY (ARRAY(SELECT event_seq FROM first))
  AND d.event_seq = first.event_seq AND d.handler = first.handler AND {_PENDING}
  AND d.due_at >= {NEVER}
"""

# What others have locked is left for the next time, so that nobody waits in a circle.
_BURY = f"""
UPDATE deliveries SET state = 'dead', leased = false, due_at = %(now)s, due_since = NULL,
    last_error = '{NO_HANDLER}', traceback = NULL, cause = '{NO_HANDLER}'
WHERE (event_seq, handler) IN (
    SELECT event_seq, handler FROM deliveries
    WHERE handler <> ALL (%(known)s) AND state = 'pending'
      AND (due_at <= %(before)s OR due_at = {NEVER} AND due_since <= %(before)s)
    FOR UPDATE SKIP LOCKED)
RETURNING handler
"""

# The messages of which something is parked, found by going from each to the next; and those of
# them of which nothing is leased and nothing else is due, so that nobody would un-park it.
_LEFT_PARKED = f"""
WITH RECURSIVE m (handler, message_id) AS (
    (SELECT handler, message_id FROM deliveries WHERE state = 'pending' AND due_at = {NEVER}
     ORDER BY handler, message_id LIMIT 1)
    UNION ALL
    SELECT next.* FROM m CROSS JOIN LATERAL (
        SELECT handler, message_id FROM deliveries WHERE state = 'pending' AND due_at = {NEVER}
          AND (handler, message_id) > (m.handler, m.message_id)
        ORDER BY handler, message_id LIMIT 1) AS next)
SELECT coalesce(jsonb_agg(left_parked), '[]') FROM (
    SELECT m.message_id, m.handler FROM m
    WHERE NOT EXISTS ({_queue("m.handler", LEASED, 1)})
      AND NOT EXISTS {_first("m.handler", FRESH)} AND NOT EXISTS {_first("m.handler", AGAIN)}
    LIMIT 500) AS left_parked
"""

# From each handler to the next.
_OWED = """
WITH RECURSIVE owed (handler) AS (
    (SELECT handler FROM deliveries WHERE state = 'pending' ORDER BY handler LIMIT 1)
    UNION ALL
    SELECT (SELECT d.handler FROM deliveries AS d
            WHERE d.state = 'pending' AND d.handler > owed.handler ORDER BY d.handler LIMIT 1)
    FROM owed WHERE owed.handler IS NOT NULL)
SELECT handler FROM owed WHERE handler IS NOT NULL
"""

# What is leased is pending until its lease ends, and few others are due later than now.
_LEASES = f"""
SELECT d.event_seq, d.handler, d.fence, d.attempts, e.id, e.type, e.message_id, e.occurred_at,
       e.received_at, e.source, e.late, e.redacted, e.body
FROM deliveries AS d JOIN events AS e ON e.seq = d.event_seq
WHERE d.state = 'pending' AND d.handler = ANY (ARRAY({_OWED})) AND d.due_at > %s
  AND d.due_at < {NEVER} AND d.leased AND d.owner = %s
ORDER BY d.event_seq, d.handler
"""

_NEXT_DUE = f"""
SELECT min(due_at) FROM deliveries
WHERE handler = %s AND state = 'pending' AND due_at > %s AND due_at < {NEVER}
"""

# What waits for its next attempt is due later than now, and so is what is leased.
_TROUBLES = f"""
SELECT handler,
    (SELECT count(*) FROM (
        SELECT 1 FROM deliveries AS d
        WHERE d.handler = asked.handler AND d.state = 'dead' LIMIT {MOST_TOLD}) AS counted),
    (SELECT count(*) FROM (
        SELECT 1 FROM deliveries AS d
        WHERE d.handler = asked.handler AND d.state = 'pending' AND d.due_at > %(now)s
          AND d.due_at < {NEVER} AND NOT d.leased AND d.attempts > 0 LIMIT {MOST_TOLD}) AS counted)
FROM (SELECT unnest(%(handlers)s::text[]) AS handler) AS asked
"""

# What came in while the clock was not trusted is due since 0: nobody knows since when.
_BACKLOG = f"""
SELECT * FROM
    (SELECT count(*), min(nullif(due_at, 0)) FROM deliveries
     WHERE handler = ANY (%(handlers)s) AND state = 'pending' AND due_at <= %(now)s) AS due,
    (SELECT count(*), min(nullif(due_since, 0)) FROM deliveries
     WHERE handler = ANY (%(handlers)s) AND state = 'pending' AND due_at = {NEVER}) AS parked
"""
