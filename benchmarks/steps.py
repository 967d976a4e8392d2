"""What one event costs step by step, without a server around it and with nobody in its way.

Two times are taken: on the clock, which includes waiting for the disk, and on the processor. A
process of Python runs one thread at a time, so the second is what bounds its rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import handlers
from benchmarks.load import SECRET, bodies
from receiver import Registry, times
from receiver.event import Incoming
from receiver.providers.zimsend.webhook import parse, sign, verify
from receiver.store import Store, open_store
from receiver.worker import Worker

EVENTS = 2_000
GROUPS = (1, 8, 32)
#: What the requests of 32 connections that share a commit come to, about.
USUAL_GROUP = 8


@dataclass(frozen=True)
class Step:
    """Microseconds for one event.

    :param counts: part of the way of an event; the others are there to compare with.
    """

    name: str
    clock: float
    processor: float
    counts: bool = True


def measure(folder: Path) -> list[Step]:
    """Time every step; leaves a database in the folder."""
    registry = Registry()
    handlers.register(registry)
    store = open_store(f"sqlite:///{folder / 'steps.db'}")
    store.migrate()
    steps = [_verify(), _parse()]
    steps += [_ingest(store, registry, size) for size in GROUPS]
    steps.append(_deliveries(store, registry, EVENTS * len(GROUPS)))
    store.close()
    return steps


def _verify() -> Step:
    secret = SECRET.encode()
    signed = [(body, sign(secret, body)) for body in bodies("verify", EVENTS)]

    def verify_all() -> None:
        for body, signature in signed:
            verify([secret], body, signature)

    return _timed("verify the signature", EVENTS, verify_all)


def _parse() -> Step:
    prepared = list(bodies("parse", EVENTS))
    return _timed("parse the event", EVENTS, lambda: parsed(prepared))


def _ingest(store: Store, registry: Registry, size: int) -> Step:
    events = parsed(bodies(f"group{size}", EVENTS))

    def ingest_all() -> None:
        for start in range(0, EVENTS, size):
            store.ingest(events[start : start + size], registry.wanting, 5.0)

    name = f"store it durably, {size} in a transaction"
    return _timed(name, EVENTS, ingest_all, counts=size == USUAL_GROUP)


def _deliveries(store: Store, registry: Registry, events: int) -> Step:
    """All that has been stored goes to the handlers: claims, calls, ends."""
    worker = Worker(store, registry)

    def deliver_all() -> None:
        worker.start()
        while any(store.next_due(handler.name, 0) for handler in registry):
            time.sleep(0.02)
        worker.drain(10)

    return _timed(f"call {len(registry)} handlers, and write it down", events, deliver_all)


def parsed(prepared: Iterable[bytes]) -> Sequence[Incoming]:
    """Bodies as events that have just been received."""
    received_at, retention = times.now(), 90 * times.DAY
    return [parse(body, received_at=received_at, retention=retention) for body in prepared]


def _timed(name: str, events: int, work: Callable[[], object], *, counts: bool = True) -> Step:
    clock, processor = time.perf_counter(), time.process_time()
    work()
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return Step(name, 1e6 * clock / events, 1e6 * processor / events, counts)
