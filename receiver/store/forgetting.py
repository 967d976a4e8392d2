"""What of each row goes when a number is forgotten: pure, and the same for each engine.

Ids, times, states and statistics stay. An id that holds the number becomes a digest of itself, in
one transaction wherever it stands, so that what comes under it later is still known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from receiver import ids, mirror
from receiver.event import Incoming, Rejected
from receiver.forgetting import NOBODY, Entry, Forgotten
from receiver.mirror import Summary
from receiver.store.contract import Settlement
from receiver.store.erasing import RowKey
from receiver.store.group import Known

_ENCODE = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

#: The mark that counts how often the list has grown.
FORGOTTEN = "forgotten"
#: Rows that are looked at in one transaction that reads, and changed in one that writes.
LOOKED_AT = 500
CHANGED = 64
#: Bytes of bodies after which no more rows are changed in one transaction.
CHANGED_BYTES = 256 * 1024


class Door:
    """Whom this process redacts on the way in: the list as far as it has read it.

    Any thread may read it anew at any time. So who redacts takes `whom` once, and compares the
    version of that with the one that its transaction sees.
    """

    def __init__(self) -> None:
        self.whom: Forgotten = NOBODY

    def read(self, version: int, entries: Iterable[Sequence[Any]]) -> Forgotten:
        """The list has changed: this is what it says now."""
        whom = self.whom = Forgotten(version, [Entry(*entry) for entry in entries])
        return whom


def redact(whom: Forgotten, items: Sequence[Incoming | Rejected]) -> Sequence[Incoming | Rejected]:
    """The same without the numbers; `items` itself where nobody was forgotten."""
    if not whom:
        return items
    return [
        whom.incoming(item) if isinstance(item, Incoming) else whom.rejected(item) for item in items
    ]


def ids_of(items: Iterable[Incoming | Rejected]) -> tuple[set[str], set[str]]:
    """The ids of events and of messages that a store must look up, with those from before."""
    events, messages = set(), set()
    for item in items:
        if isinstance(item, Incoming):
            events |= {item.id} if item.came is None else {item.id, item.came.id}
            found = (item.message_id, item.came and item.came.message_id)
            messages |= {message_id for message_id in found if message_id is not None}
    return events, messages


def as_stored(
    items: Sequence[Incoming | Rejected], known: Known, whom: Forgotten
) -> Sequence[Incoming | Rejected]:
    """The arrivals under the ids that they have in the store: as long as a number is being
    forgotten, some rows have them as they came. Changes what is in `known`."""
    if not any(isinstance(item, Incoming) and item.came is not None for item in items):
        return items
    found: list[Incoming | Rejected] = []
    for item in items:
        if isinstance(item, Incoming) and (came := item.came) is not None:
            digest = item.message_id
            if came.message_id in known.messages:
                item = item._replace(message_id=came.message_id)
            if came.id in known.ids:
                item = item._replace(id=came.id)
            if item.id in known.ids:
                kind, message_id = known.ids[item.id]
                if message_id is not None and whom.id(message_id) == digest:
                    known.ids[item.id] = kind, item.message_id
        found.append(item)
    return found


# --- rows


class Part(NamedTuple):
    """A table whose rows change one by one.

    :param key: the columns of its key.
    :param columns: those that may hold a number.
    :param change: makes the values of these columns new ones.
    """

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    change: Callable[[Forgotten, RowKey], RowKey]


def _event(whom: Forgotten, row: RowKey) -> RowKey:
    event_id, kind, message_id, body, redacted = row
    shown = whom.body(bytes(body))
    return (
        whom.id(event_id),
        whom.text(kind),
        message_id and whom.id(message_id),
        body if shown == body else shown,
        redacted or shown != body,
    )


def _delivery(whom: Forgotten, row: RowKey) -> RowKey:
    message_id, *told = row
    return message_id and whom.id(message_id), *(text and whom.text(text) for text in told)


def _quarantined(whom: Forgotten, row: RowKey) -> RowKey:
    reason, body = row
    shown = None if body is None else whom.body(bytes(body))
    return whom.text(reason), body if shown == body else shown


def _note(whom: Forgotten, row: RowKey) -> RowKey:
    name, text = row
    return whom.text(name), whom.json(text)


def ended(whom: Forgotten, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
    """Ends of leases as they are written: an error may quote the number, and a message that was
    claimed may have another id by now."""
    if not whom:
        return settlements
    return [
        settlement._replace(
            error=settlement.error and whom.text(settlement.error),
            traceback=settlement.traceback and whom.text(settlement.traceback),
        )
        for settlement in settlements
    ]


def queues_of(whom: Forgotten, settlements: Iterable[Settlement]) -> set[tuple[str | None, str]]:
    """Message and handler of each settlement; also under the id that the message may have now."""
    found = {(s.claim.message_id, s.claim.handler) for s in settlements}
    if whom:
        found |= {(message_id and whom.id(message_id), name) for message_id, name in found}
    return found


def is_about_id(mark: str) -> bool:
    """Whether a mark's name ends in the id of a message."""
    return mark.startswith("asked:")


def mark(whom: Forgotten, name: str) -> str:
    """The name of a mark without a number."""
    what, colon, message_id = name.partition(":")
    return f"{what}{colon}{whom.id(message_id)}" if is_about_id(name) else name


_DELIVERY = ("message_id", "last_error", "traceback", "cause")
ROWS = {
    "events": Part("events", ("seq",), ("id", "type", "message_id", "body", "redacted"), _event),
    "deliveries": Part("deliveries", ("event_seq", "handler"), _DELIVERY, _delivery),
    "quarantine": Part("quarantine", ("digest",), ("reason", "body"), _quarantined),
    "notes": Part("notes", ("name",), ("name", "text"), _note),
    "marks": Part("marks", ("name",), ("name",), lambda whom, row: (mark(whom, row[0]),)),
}


class Message(NamedTuple):
    """What becomes of a message's row."""

    id: str
    registers: str
    summary: Summary


def message(
    whom: Forgotten, message_id: str, registers: str, first_received_at: int
) -> Message | None:
    """`None` if it holds none of the numbers."""
    new_id = whom.id(message_id)
    if new_id == message_id and not whom.holds(registers):
        return None
    row = whom.row(json.loads(registers))
    new = _ENCODE(row)
    if (new_id, new) == (message_id, registers):
        return None
    summary = mirror.summarize(row, first_received_at)
    return Message(new_id, new, summary._replace(provider=ids.provider(message_id)))


def cell(whom: Forgotten, device_id: str, code: str) -> tuple[str, str]:
    """The device and the code that a message counts by, without the numbers."""
    return whom.id(device_id), whom.text(code)
