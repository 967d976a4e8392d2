"""A store that does what a test of group commit says, and what is put into it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from receiver import times
from receiver.errors import StoreUnavailable
from receiver.event import Incoming
from receiver.ingest import Ingest, Ticket
from receiver.providers.zimsend.webhook import parse
from receiver.times import DAY
from tests.payloads import envelope, sms
from tests.server import eventually


def item(**changes: Any) -> Incoming:
    body = json.dumps(envelope("sms.sent", sms("sent")) | changes).encode()
    return parse(body, received_at=times.now(), retention=90 * DAY)


class Scripted:
    """Stands in for a store: holds each commit until told, and fails as told."""

    def __init__(self, committers: int) -> None:
        self.committers = committers
        self.groups: list[list[str]] = []
        self.patience: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: BaseException | None = None
        self.bad: set[str] = set()
        #: What a group begins with that is held all the same.
        self.held: set[str] = set()
        #: What a group begins with that fails alone.
        self.refused: set[str] = set()
        self.takes = 0.0  # seconds

    def ingest(
        self, items: Any, wanting: Any, patience: float, reading_done: Any = lambda: None
    ) -> list[str]:
        reading_done()
        self.groups.append([i.id for i in items])
        self.patience.append(patience)
        self.gate.wait(30)
        eventually(lambda: items[0].id not in self.held)
        time.sleep(self.takes)
        if items[0].id in self.refused:
            raise StoreUnavailable("locked")
        if self.error is not None:
            raise self.error
        if self.bad & {i.id for i in items}:
            raise OverflowError("no column holds this")
        return ["accepted"] * len(items)


def no_handlers(event_type: str) -> tuple[str, ...]:
    return ()


def later(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def all_of(groups: list[list[Ticket]]) -> list[Ticket]:
    return [ticket for group in groups for ticket in group]


def submit(ingest: Ingest, *items: Incoming, seconds: float = 30.0) -> list[str]:
    """Store them, with so much time that a machine that stands still fails no test."""
    return list(ingest.submit_all(items or [item()], later(seconds)))


def tickets(count: int, tell: Callable[[list[Ticket]], None], name: str) -> list[Ticket]:
    return [Ticket([item(event_id=f"{name}{n}")], later(), tell) for n in range(count)]
