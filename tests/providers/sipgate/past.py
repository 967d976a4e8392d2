"""A history, and what a store would know, without a network and without a database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from receiver import ids, status, times
from receiver.event import Incoming
from receiver.providers.errors import NotFound
from receiver.providers.sipgate import polling
from receiver.providers.sipgate.intents import Book, Intent, intent
from receiver.providers.sipgate.polling import Found, State
from receiver.store import Report
from receiver.times import DAY, MINUTE, SECOND

NOON = 1_795_600_800 * SECOND
RETENTION = 90 * DAY
NUMBER = "+4915799000002"


class Account:
    """What is asked of `Sipgate`, of a list of entries."""

    sms_id = "s0"

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.fetched: list[str] = []

    def add(self, entry_id: str, created: int, **changes: Any) -> None:
        row = {
            "id": entry_id,
            "type": "SMS",
            "direction": "OUTGOING",
            "target": NUMBER,
            "created": times.iso(created),
            "connectionIds": ["s0"],
            "smsContent": "Hello",
            "scheduled": None,
        }
        self.rows.insert(0, row | changes)

    def entries(self, **which: Any) -> Iterator[Mapping[str, Any]]:
        self.asked.append(which)
        for row in self.rows:
            created = times.to_datetime(times.read(row["created"]) or 0)
            until = which["until"]
            if which["since"] <= created and (until is None or created <= until):
                yield row

    def entry(self, entry_id: str) -> Mapping[str, Any]:
        self.fetched.append(entry_id)
        for row in self.rows:
            if row["id"] == entry_id:
                return row
        raise NotFound("no such entry")


class Memory:
    """Notes, events and rows, as a store would keep them."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.events: dict[str, Incoming] = {}
        self.rows: dict[str, status.Row] = {}

    def notes(self, prefix: str) -> Mapping[str, str]:
        return {name: text for name, text in self.texts.items() if name.startswith(prefix)}

    def write_notes(self, texts: Mapping[str, str | None]) -> None:
        for name, text in texts.items():
            if text is None:
                self.texts.pop(name, None)
            else:
                self.texts[name] = text

    def write_note(self, name: str, text: str) -> None:
        self.write_notes({name: text})

    def note(self, name: str) -> str | None:
        return self.texts.get(name)

    def learn(self, events: Iterable[Incoming]) -> None:
        for event in events:
            known = self.events.setdefault(event.id, event)
            # The same id for another thing would be kept as a second event.
            assert (known.type, known.message_id) == (event.type, event.message_id)
            if event.says is not None and event.message_id is not None:
                row = self.rows.get(event.message_id, {})
                self.rows[event.message_id] = status.merge(row, event.says)

    def stored(self, event_ids: Collection[str]) -> set[str]:
        return {each for each in event_ids if each in self.events}

    def reports(self, message_ids: Collection[str]) -> dict[str, Sequence[Report]]:
        found: dict[str, Sequence[Report]] = {}
        for event in self.events.values():
            if event.message_id in message_ids:
                report = Report(event.type, event.reported_at, False, event.source)
                found[event.message_id] = [*found.get(event.message_id, ()), report]
        return found

    def status(self, own_id: str) -> str | None:
        return status.status(self.rows.get(ids.key("sipgate", own_id), {}))

    @property
    def states(self) -> dict[str, str | None]:
        return {ids.split(key)[1]: status.status(row) for key, row in self.rows.items()}


class Service:
    """What a process does with an account and a memory."""

    def __init__(self, account: Any = None, memory: Any = None, began: int = NOON) -> None:
        self.account = account or Account()
        self.memory = memory or Memory()
        self.book = Book(self.memory)
        self.now = began

    def intend(self, own_id: str, text: str = "Hello", **how: Any) -> Intent:
        told = {"sms_id": "s0", "to": NUMBER, "now": self.now} | how
        kept = intent(own_id, text=text, **told)
        self.book.keep([kept])
        return kept

    @property
    def state(self) -> State:
        return polling.state(self.memory.note(polling.NOTE), self.now)

    def look(self) -> Found:
        return polling.look(
            self.account,
            self.book.open,
            self.memory,
            self.state,
            lambda: self.now,
            retention=RETENTION,
        )

    def poll(self, after: int = 5 * MINUTE) -> Found:
        self.now += after
        found = self.look()
        polling.keep(found, self.memory.learn, self.book.drop, self.memory.write_note)
        return found

    @property
    def open(self) -> list[str]:
        return [each.id for each in self.book.open()]
