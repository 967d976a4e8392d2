"""What has arrived, in SQLite: events page by page, their replay, and quarantine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from receiver.event import glance
from receiver.store.claiming import told
from receiver.store.contract import NAMED_AT_ONCE, SHORT_BODY, Claim
from receiver.store.group import replayed
from receiver.store.sqlite.connections import Connections, as_unavailable, placeholders
from receiver.store.sqlite.mirror import BY_NUMBER, OF_MESSAGE
from receiver.store.sqlite.queues import queue_of
from receiver.store.views import Item, Numbered, Selection
from receiver.times import iso

_PAGE = 200


class Records(Connections):
    """See `receiver.store.contract.Records`."""

    def events(self, selection: Selection) -> Iterator[dict[str, Any]]:
        for page in self._pages(selection, bodies=True):
            for _, event in self._told(page):
                yield event

    def _told(self, page: Sequence[dict[str, Any]]) -> list[Numbered]:
        """Events as operators see them, with their deliveries."""
        deliveries: dict[int, list[dict[str, Any]]] = {}
        with as_unavailable():
            for seq, *item in self._reader.execute(
                "SELECT event_seq, handler, state, attempts, last_error, due_at, leased"
                f" FROM deliveries WHERE event_seq IN ({placeholders(page)})"
                " ORDER BY event_seq, handler",
                [event["seq"] for event in page],
            ):
                deliveries.setdefault(seq, []).append(told(*item))
        return [(event["seq"], self._one(event, deliveries)) for event in page]

    def _one(
        self, event: dict[str, Any], deliveries: Mapping[int, list[dict[str, Any]]]
    ) -> dict[str, Any]:
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
            "late": bool(event["late"]),
            "repeat": bool(event["repeat"]),
            "receipts": event["receipts"],
            "deliveries": deliveries.get(event["seq"], []),
        }

    def _pages(
        self, selection: Selection, *, bodies: bool = False
    ) -> Iterator[list[dict[str, Any]]]:
        """
        :param bodies: with those that are short; a page of long ones would be large.
        """
        further, order = ("<", "DESC") if selection.newest else (">", "ASC")
        where, values = conditions(selection, f"d.event_seq {further} :after")
        after = 2**62 if selection.newest else -1
        while True:
            with as_unavailable():
                page = list(
                    self._reader.query(
                        f"SELECT {columns(bodies=bodies)} FROM events AS e"
                        f" WHERE seq {further} :after AND {where}"
                        f" ORDER BY seq {order} LIMIT {_PAGE}",
                        {**values, "after": after},
                    )
                )
            if not page:
                return
            after = page[-1]["seq"]
            yield page

    def body(self, event_id: str) -> bytes | None:
        with as_unavailable():
            found = self._reader.execute(
                "SELECT body FROM events WHERE id = ?", (event_id,)
            ).fetchone()
        return found[0] if found else None

    def bodies(self, event_ids: Sequence[str]) -> Mapping[str, bytes]:
        with as_unavailable():
            return dict(
                self._reader.execute(
                    f"SELECT id, body FROM events WHERE id IN ({placeholders(event_ids)})",
                    event_ids,
                ).fetchall()
            )

    def tracebacks(self, event_id: str) -> Mapping[str, str]:
        with as_unavailable():
            return dict(self._reader.execute(_TRACEBACKS, (event_id,)).fetchall())

    def unclaimed(self, event_id: str, handler: str) -> Claim | None:
        with as_unavailable():
            found = self._reader.execute(_UNCLAIMED, (handler, event_id)).fetchone()
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
            with self._transaction() as connection:
                for event in page:
                    count += self._replay_one(connection, event, selection, wanting, now, dry_run)
            progress(count)
            if most is not None and count >= most:
                break
        return count

    def _replay_one(
        self,
        connection: sqlite3.Connection,
        event: dict[str, Any],
        selection: Selection,
        wanting: Callable[[str], Sequence[str]],
        now: int,
        dry_run: bool,
    ) -> int:
        existing = {
            name: Item(state, bool(leased and due_at > now), cause, due_at)
            for name, state, leased, cause, due_at in connection.execute(
                "SELECT handler, state, leased, cause, due_at FROM deliveries WHERE event_seq = ?",
                (event["seq"],),
            )
        }
        names = replayed(event, existing, selection, wanting)
        if not dry_run:
            connection.executemany(
                _REPLAY,
                [{"seq": event["seq"], "handler": name, "now": now} for name in names],
            )
        return len(names)

    def quarantined(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        after = (-(2**63), "")
        while True:
            with as_unavailable():
                page = self._reader.execute(
                    "SELECT received_at, digest FROM quarantine WHERE substr(digest, 1, ?) = ?"
                    " AND (received_at, digest) > (?, ?)"
                    f" ORDER BY received_at, digest LIMIT {NAMED_AT_ONCE}",
                    (len(prefix), prefix, *after),
                ).fetchall()
            if not page:
                return
            for after in page:
                with as_unavailable():
                    entries = list(
                        self._reader.query("SELECT * FROM quarantine WHERE digest = ?", after[1:])
                    )
                yield from entries

    def release(self, digest: str) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM quarantine WHERE digest = ?", (digest,))


def conditions(selection: Selection, among: str = "true") -> tuple[str, dict[str, Any]]:
    """Which events `e` a selection means.

    :param among: which work items `d` come into question, by their events.
    """
    where = ["true"]
    values: dict[str, Any] = {}
    if selection.ids:
        where.append("e.id IN (SELECT value FROM json_each(:ids))")
        values["ids"] = json.dumps(list(selection.ids))
    if selection.event_type is not None:
        family = selection.event_type.endswith(".*")
        values["type"] = selection.event_type.removesuffix("*")
        where.append("substr(e.type, 1, length(:type)) = :type" if family else "e.type = :type")
    if selection.numbers:
        number = "m.number IN (SELECT value FROM json_each(:numbers))"
        of_messages = (f"SELECT m.id FROM {table} AND {number}" for table in BY_NUMBER)
        where.append(f"e.message_id IN ({' UNION ALL '.join(of_messages)})")
        values["numbers"] = json.dumps(selection.numbers)
    for condition, name in (
        (OF_MESSAGE, "message_id"),
        ("e.received_at >= :since", "since"),
        ("e.received_at <= :until", "until"),
    ):
        value = getattr(selection, name)
        if value is not None:
            where.append(condition)
            values[name] = value
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
        ("d.handler = :handler", "handler"),
        ("d.cause = :cause", "cause"),
        ("d.due_at <= :died_until", "died_until"),
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
SELECT seq, ?, 0, 1, id, type, message_id, occurred_at, received_at, source, late, redacted, body
FROM events WHERE id = ?
"""

_TRACEBACKS = """
SELECT handler, traceback FROM deliveries
WHERE event_seq = (SELECT seq FROM events WHERE id = ?) AND traceback IS NOT NULL
  AND last_error IS NOT NULL
"""

# The fence grows so that whoever still runs the item from before no longer counts.
_REPLAY = f"""
INSERT INTO deliveries (event_seq, handler, message_id, queue, occurred_at, due_at)
SELECT e.seq, :handler, e.message_id, {queue_of("e.message_id", "e.seq")}, e.occurred_at, :now
FROM events AS e WHERE e.seq = :seq
ON CONFLICT (event_seq, handler) DO UPDATE SET
    state = 'pending', due_at = excluded.due_at, queue = excluded.queue, leased = 0,
    fence = fence + 1, attempts = 0, last_error = NULL, traceback = NULL, cause = '',
    due_since = NULL
"""
