"""Everything from one store into another, whatever their engines.

Rows travel as tuples of plain values, table by table in the order of their keys, and replace what
an interrupted copy has left there. At the end both sides are read again and compared.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from typing import Any

from receiver.errors import CopyRefused
from receiver.store.contract import Store, Table
from receiver.store.views import Selection

#: Rows in one transaction.
_BATCH = 500
#: Notes. By the first two a target knows its source: until the copy is whole, and from then on.
_COPYING = "copying from"
_COPIED = "copied from"
_IDENTITY = "identity"

#: A row of a table, as it travels.
Values = tuple[Any, ...]

#: Messages come before the events that refer to them, and these before their work.
TABLES = (
    Table("messages", 1, (
        "id", "status", "at", "device_id", "number", "code", "provider",
        "first_received_at", "touched_at", "registers",
    )),
    Table("events", 1, (
        "seq", "id", "type", "message_id", "occurred_at", "received_at", "last_received_at",
        "timestamp", "reported_at", "has_error", "source", "late", "repeat", "redacted", "loose",
        "receipts", "body",
    )),
    Table("deliveries", 2, (
        "event_seq", "handler", "message_id", "occurred_at", "state", "due_at", "leased", "fence",
        "attempts", "last_error", "due_since", "traceback", "cause",
    )),
    Table("statistics", 5, (
        "day", "provider", "device_id", "status", "code", "total", "live",
    )),
    Table("codes", 3, ("day", "provider", "code")),
    Table("quarantine", 1, (
        "digest", "received_at", "last_received_at", "receipts", "length", "reason", "body",
    )),
    Table("counters", 2, ("name", "labels", "value")),
    Table("marks", 1, ("name", "value")),
    Table("notes", 1, ("name", "text")),
    Table("forgotten", 1, ("digest", "key", "length", "inside")),
)  # fmt: skip
#: Columns that are true or false, which one engine writes as 1 or 0.
BOOLEANS = {"has_error", "late", "repeat", "redacted", "loose", "leased"}
#: What has a meaning only where it is.
_MARKS_LEFT = {"seq", "counted", "expiry", "expiries", "checks", "wiped"}
_NOTES_LEFT = {_COPYING, _COPIED, _IDENTITY}

#: Told the table, and how many of its rows are done.
Progress = Callable[[str, int], None]


def copy(source: Store, target: Store, progress: Progress) -> dict[str, int]:
    """Copy everything. Nobody else may write into either of them meanwhile.

    After an interruption it is called again, with the same two; where all has been done, that only
    compares them.

    :returns: the number of rows by table.
    :raises CopyRefused: if the target holds something else, or both sides do not agree at the end.
    """
    identity = source.note(_IDENTITY) or identify(source)
    if target.note(_COPIED) != identity:
        _claim(source, target, identity)
        for table in TABLES:
            done = 0
            for batch in batches(source, table):
                target.put_rows(table, batch)
                done += len(batch)
                progress(table.name, done)
        target.settle_copy()
        while target.index_texts(5.0):
            pass
    counts = _compare(source, target, progress)
    target.write_note(_COPIED, identity)
    target.write_note(_COPYING, "")
    return counts


def fill(source: Store, target: Store, progress: Progress) -> None:
    """Copy everything, as it is at one moment, into a new store. Others may write meanwhile."""
    with source.moment():
        for table in TABLES:
            done = 0
            for batch in batches(source, table):
                target.put_rows(table, batch)
                done += len(batch)
                progress(table.name, done)
    target.settle_copy()


def identify(store: Store) -> str:
    """Give a store an identity of its own: a copy that was begun from it knows it again."""
    identity = uuid.uuid4().hex
    store.write_note(_IDENTITY, identity)
    return identity


def _claim(source: Store, target: Store, identity: str) -> None:
    """
    :raises CopyRefused: if the target is not empty, and not a copy that was begun and left alone.
    """
    if target.note(_COPYING) == identity:
        _refuse_strangers(source, target)
        return
    if target.note(_IDENTITY) == identity:
        raise CopyRefused("both are the same database")
    if next(iter(target.events(Selection())), None) is not None:
        raise CopyRefused(
            "the target is not empty: it holds events that did not come from an unfinished copy of "
            "this source. Copy into a new database, or empty this one"
        )
    target.write_note(_COPYING, identity)


def _refuse_strangers(source: Store, target: Store) -> None:
    """
    :raises CopyRefused: if the target has events that the source has not: they would be lost.
    """
    (events,) = (table for table in TABLES if table.name == "events")
    ours = ((row[0], row[1]) for batch in batches(source, events) for row in batch)
    for theirs in ((row[0], row[1]) for batch in batches(target, events) for row in batch):
        if theirs not in ours:  # reads on as far as it has to
            raise CopyRefused(
                "the target has taken in events of its own since the copy was begun: a service "
                "runs on it. Stop it, and copy into a new database"
            )


def batches(store: Store, table: Table) -> Iterator[list[Values]]:
    """What is copied of a table."""
    after: Values | None = None
    while batch := store.rows(table, after, _BATCH):
        after = batch[-1][: table.key]
        kept = [row for row in batch if _is_kept(table, row)]
        if kept:
            yield kept


def _is_kept(table: Table, row: Values) -> bool:
    if table.name == "marks":
        return row[0] not in _MARKS_LEFT
    if table.name == "notes":
        return row[0] not in _NOTES_LEFT
    # A cell that nothing counts in any more is none.
    return table.name != "statistics" or any(row[3:])


def _compare(source: Store, target: Store, progress: Progress) -> dict[str, int]:
    """Count the rows of each table.

    :raises CopyRefused: at the first row that is not the same on both sides.
    """
    counts = {}
    for table in TABLES:
        count = 0
        for here, there in zip_longest(_rows(source, table), _rows(target, table)):
            if here != there:
                key = (here or there)[0]
                raise CopyRefused(
                    f"both sides differ in {table.name} from {key!r} on: something has been "
                    "written since they were copied. Stop the service on both; then copy again, or "
                    "into a new database"
                )
            count += 1
            if count % _BATCH == 0:
                progress(f"comparing {table.name}", count)
        counts[table.name] = count
    return counts


def _rows(store: Store, table: Table) -> Iterator[Values]:
    for batch in batches(store, table):
        yield from map(_plain, batch)


def _plain(row: Iterable[Any]) -> Values:
    """For comparing: bodies may be large."""
    return tuple(
        hashlib.sha256(value).digest() if isinstance(value, bytes) else value for value in row
    )
