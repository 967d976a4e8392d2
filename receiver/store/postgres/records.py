"""What has arrived, in PostgreSQL: events page by page, their replay, and quarantine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from psycopg.rows import dict_row

from receiver.event import glance
from receiver.store.claiming import told
from receiver.store.contract import NAMED_AT_ONCE, SHORT_BODY, Claim
from receiver.store.group import replayed
from receiver.store.postgres.pool import Connection
from receiver.store.postgres.transactions import LOCK_OF_QUEUE, Transactions
from receiver.store.views import Item, Numbered, Selection
from receiver.times import iso

_PAGE = 200


class Records(Transactions):
    """See `receiver.store.contract.Records`."""

    def events(self, selection: Selection) -> Iterator[dict[str, Any]]:
        for page in self._pages(selection, bodies=True):
            for _, event in self._told(page):
                yield event

    def _told(self, page: Sequence[dict[str, Any]]) -> list[Numbered]:
        """Events as operators see them, with their deliveries."""
        deliveries: dict[int, list[dict[str, Any]]] = {}
        with self._reader() as connection:
            for seq, *item in connection.execute(
                _DELIVERIES_OF, ([event["seq"] for event in page],)
            ):
                deliveries.setdefault(seq, []).append(told(*item))
        return [
            (event["seq"], self._one(event, deliveries.get(event["seq"], []))) for event in page
        ]

    def _one(self, event: dict[str, Any], deliveries: list[dict[str, Any]]) -> dict[str, Any]:
        short = event["short_body"]
        body = (self.body(event["id"]) or b"") if short is None else short
        return {
            "event_id": event["id"],
            "type": event["type"],
            "message_id": event["message_id"],
            **glance(event["type"], event["id"], event["message_id"], body),
            "occurred_at": iso(event["occurred_at"]),
            "received_at": iso(event["received_at"]),
            "source": event["source"],
            "late": event["late"],
            "repeat": event["repeat"],
            "receipts": event["receipts"],
            "deliveries": deliveries,
        }

    def _pages(
        self, selection: Selection, *, bodies: bool = False
    ) -> Iterator[list[dict[str, Any]]]:
        """
        :param bodies: with those that are short; a page of long ones would be large.
        """
        further, order = ("<", "DESC") if selection.newest else (">", "ASC")
        where, values = conditions(selection, f"d.event_seq {further} %(after)s")
        after = 2**62 if selection.newest else -1
        while True:
            with self._reader() as connection:
                page = rows_of(
                    connection,
                    f"SELECT {columns(bodies=bodies)} FROM events AS e"
                    f" WHERE seq {further} %(after)s AND {where}"
                    f" ORDER BY seq {order} LIMIT {_PAGE}",
                    {**values, "after": after},
                )
            if not page:
                return
            after = page[-1]["seq"]
            yield page

    def body(self, event_id: str) -> bytes | None:
        found = self._read("SELECT body FROM events WHERE id = %s", (event_id,))
        return found[0] if found else None

    def bodies(self, event_ids: Sequence[str]) -> Mapping[str, bytes]:
        with self._reader() as connection:
            return dict(
                connection.execute(
                    "SELECT id, body FROM events WHERE id = ANY (%s)", (list(event_ids),)
                ).fetchall()
            )

    def tracebacks(self, event_id: str) -> Mapping[str, str]:
        with self._reader() as connection:
            return dict(connection.execute(_TRACEBACKS, (event_id,)).fetchall())

    def unclaimed(self, event_id: str, handler: str) -> Claim | None:
        found = self._read(_UNCLAIMED, (handler, event_id))
        return Claim(*found) if found else None

    def replay(
        self,
        selection: Selection,
        *,
        wanting: Callable[[str], Sequence[str]],
        now: int,
        dry_run: bool,
        progress: Callable[[int], None],
        most: int | None = None,
    ) -> int:
        count = 0
        for page in self._pages(selection):
            ids = {event[name] for event in page for name in ("id", "message_id")}
            with self._transaction(ids=ids - {None}) as connection:
                count += _replay_page(connection, page, selection, wanting, now, dry_run)
            progress(count)
            if most is not None and count >= most:
                break
        return count

    def quarantined(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        after = (-(2**63), "")
        while True:
            with self._reader() as connection:
                page = connection.execute(
                    "SELECT received_at, digest FROM quarantine WHERE starts_with(digest, %s)"
                    " AND (received_at, digest) > (%s, %s)"
                    f" ORDER BY received_at, digest LIMIT {NAMED_AT_ONCE}",
                    (prefix, *after),
                ).fetchall()
            if not page:
                return
            for after in page:
                with self._reader() as connection:
                    found = connection.cursor(row_factory=dict_row).execute(_QUARANTINED, after[1:])
                    entries = found.fetchall()
                yield from entries

    def release(self, digest: str) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM quarantine WHERE digest = %s", (digest,))


def _replay_page(
    connection: Connection,
    page: Sequence[dict[str, Any]],
    selection: Selection,
    wanting: Callable[[str], Sequence[str]],
    now: int,
    dry_run: bool,
) -> int:
    seqs = [event["seq"] for event in page]
    connection.execute(_LOCK_QUEUES, {"seqs": seqs, "seed": connection.place.seed})
    existing: dict[int, dict[str, Item]] = {}
    for seq, handler, *item in connection.execute(
        "SELECT event_seq, handler, state, leased AND due_at > %s, cause, due_at FROM deliveries"
        " WHERE event_seq = ANY (%s) ORDER BY event_seq, handler FOR UPDATE",
        (now, seqs),
    ):
        existing.setdefault(seq, {})[handler] = Item(*item)
    items = []
    for event in page:
        items += [
            {"seq": event["seq"], "handler": handler}
            for handler in replayed(event, existing.get(event["seq"], {}), selection, wanting)
        ]
    if items and not dry_run:
        connection.execute(_REPLAY, (now, json.dumps(items)))
    return len(items)


def conditions(selection: Selection, among: str = "true") -> tuple[str, dict[str, Any]]:
    """Which events `e` a selection means.

    :param among: which work items `d` come into question, by their events.
    """
    where = ["true"]
    values: dict[str, Any] = {}
    if selection.ids:
        where.append("e.id = ANY (%(ids)s)")
        values["ids"] = list(selection.ids)
    if selection.event_type is not None:
        family = selection.event_type.endswith(".*")
        values["type"] = selection.event_type.removesuffix("*")
        where.append("starts_with(e.type, %(type)s)" if family else "e.type = %(type)s")
    if selection.numbers:
        where.append("e.message_id IN (SELECT id FROM messages WHERE number = ANY (%(numbers)s))")
        values["numbers"] = list(selection.numbers)
    for condition, name in (
        ("e.message_id = %(message_id)s", "message_id"),
        ("e.received_at >= %(since)s", "since"),
        ("e.received_at <= %(until)s", "until"),
    ):
        values[name] = getattr(selection, name)
        if values[name] is not None:
            where.append(condition)
    if selection.state is not None:
        of_work, of_values = work_conditions(selection)
        where.append(
            # Dead work is little, and has indexes: what is alive is not looked at.
            f"e.seq IN (SELECT event_seq FROM deliveries AS d WHERE {of_work} AND {among})"
            if selection.state == "dead"
            else f"EXISTS (SELECT 1 FROM deliveries AS d WHERE event_seq = e.seq AND {of_work})"
        )
        values |= of_values
    return " AND ".join(where), values


def work_conditions(selection: Selection) -> tuple[str, dict[str, Any]]:
    """Which work items `d` a selection means."""
    where = [_STATES[selection.state]]
    values: dict[str, Any] = {}
    for condition, name in (
        ("d.handler = %(handler)s", "handler"),
        ("d.cause = %(cause)s", "cause"),
        ("d.due_at <= %(died_until)s", "died_until"),
    ):
        value = getattr(selection, name)
        if value is not None:
            where.append(condition)
            values[name] = value
    return " AND ".join(where), values


def columns(*, bodies: bool) -> str:
    """Of events, with the short ones of their bodies or without."""
    short = f"CASE WHEN length(body) <= {SHORT_BODY} THEN body END" if bodies else "NULL"
    return (
        "seq, id, type, message_id, occurred_at, received_at, source, late, repeat, receipts,"
        f" {short} AS short_body"
    )


def rows_of(connection: Connection, query: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is found, each row with the names of its columns."""
    return connection.cursor(row_factory=dict_row).execute(query, values).fetchall()


_STATES: Mapping[str | None, str] = {
    None: "true",
    "any": "true",
    "pending": "d.state = 'pending'",
    "retrying": "d.state = 'pending' AND d.attempts > 0",
    "done": "d.state = 'done'",
    "dead": "d.state = 'dead'",
}

# --- SQL

_UNCLAIMED = """
SELECT seq, %s::text, 0, 1, id, type, message_id, occurred_at, received_at, source, late, redacted,
       body
FROM events WHERE id = %s
"""

_DELIVERIES_OF = """
SELECT event_seq, handler, state, attempts, last_error, due_at, leased FROM deliveries
WHERE event_seq = ANY (%s) ORDER BY event_seq, handler
"""

_TRACEBACKS = """
SELECT handler, traceback FROM deliveries
WHERE event_seq = (SELECT seq FROM events WHERE id = %s) AND traceback IS NOT NULL
  AND last_error IS NOT NULL
"""

_QUARANTINED = """
SELECT digest, received_at, last_received_at, receipts, length, reason, body
FROM quarantine WHERE digest = %s
"""

# Whoever settles the same work waits for this lock, and for no row. An item of no message is a
# queue of its own.
_LOCK_QUEUES = f"""
SELECT count(pg_advisory_xact_lock(key)) FROM (
    SELECT DISTINCT {LOCK_OF_QUEUE.format(handler="m.handler")} AS key
    FROM (SELECT coalesce(message_id, event_seq::text) AS message_id, handler FROM deliveries
          WHERE event_seq = ANY (%(seqs)s) AND state = 'pending') AS m
    ORDER BY key) AS keys
"""

# The fence grows so that whoever still runs the item from before no longer counts.
_REPLAY = """
INSERT INTO deliveries AS d (event_seq, handler, message_id, occurred_at, due_at)
SELECT e.seq, item.handler, e.message_id, e.occurred_at, %s
FROM jsonb_to_recordset(%s::jsonb) AS item (seq bigint, handler text)
JOIN events AS e ON e.seq = item.seq
ON CONFLICT (event_seq, handler) DO UPDATE SET
    state = 'pending', due_at = excluded.due_at, leased = false, fence = d.fence + 1,
    attempts = 0, last_error = NULL, traceback = NULL, cause = '', due_since = NULL
"""
