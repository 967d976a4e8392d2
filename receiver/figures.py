"""What `/metrics` tells: what was counted, and what the store holds.

Counters are read at each scrape, which is one small table. So of two scrapes, whichever processes
answer them, the later one tells no less. What the store holds is read in the background, now and
then: no scrape waits for that, however much work there is.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from receiver import ids, polling, threads
from receiver.errors import ReceiverError
from receiver.forks import renew_in_forks
from receiver.logs import Sparingly
from receiver.metrics import Key
from receiver.providers import PROVIDERS
from receiver.reconciliation import passes
from receiver.store import Store
from receiver.times import SECOND
from receiver.worker import noted_handlers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """A handler's work: how much is due, for how many seconds the oldest of it, how much is
    dead."""

    due: int = 0
    oldest: float = 0.0
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Figures:
    """What the store holds at one moment.

    :param messages: how many are kept, by status.
    :param size: bytes of the store.
    :param work: by handler, also of those that have none.
    :param successes: when the history of each provider was last read to its end, in seconds.
    """

    messages: Mapping[str, int]
    size: int
    work: Mapping[str, Work]
    successes: Mapping[str, float]


def look(store: Store, now: int) -> Figures:
    """Read it."""
    owed = set(store.owed())
    dead = {name: number for name, _, number in store.work_counts()}
    work = {}
    for name in {*noted_handlers(store), *owed, *dead}:
        due, age = store.backlog(now, [name]) if name in owed else (0, 0)
        work[name] = Work(due, max(0, age) / SECOND, dead.get(name, 0))
    return Figures(*store.kept(), work, _successes(store))


def _successes(store: Store) -> dict[str, float]:
    notes = {name: ids.of(name, passes.NAME) for name in PROVIDERS}
    notes["sipgate"] = polling.NOTE
    found = {}
    for provider, name in notes.items():
        ended = json.loads(store.note(name) or "{}").get("ended_at")
        if ended is not None:
            found[provider] = ended / SECOND
    return found


class Told(NamedTuple):
    """What a scrape is told.

    :param age: of what is not counters, in seconds; of all, where the store is away.
    """

    counters: Mapping[Key, int]
    figures: Figures
    age: float


class Snapshots:
    """The last figures of this process, and the thread that renews them while somebody asks."""

    #: Seconds from one look to the next, and so many times what the last one took.
    EVERY = 4.0
    YIELD = 4
    #: Seconds without a question until nobody looks any more.
    UNTIL = 300.0
    #: Seconds that the first question waits for its answer, and others for who reads counters.
    PATIENCE = 4.0
    SHORT_PATIENCE = 1.0

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now
        self._change: threading.Condition
        renew_in_forks(self, "_change", threading.Condition)
        self._process: int | None = None
        self._seen: tuple[Figures, float] | None = None
        self._asked_at = 0.0
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._failures = Sparingly()
        #: Held by who reads the counters, and what was read; when that failed.
        self._reading = threading.Lock()
        self._counters: Mapping[Key, int] = {}
        self._failed_at: float | None = None

    def latest(self) -> Told | None:
        """All of it; `None` if nobody could read the store yet."""
        with self._change:
            self._asked_at = time.monotonic()
            if self._process != os.getpid():  # it was never asked, or is a fork of who was
                self._reading, self._seen = threading.Lock(), None
                self._thread = threads.begin(self._run, "figures")
                self._process = None if self._thread is None else os.getpid()
            if self._seen is None and self._thread is not None:
                self._change.wait(self.PATIENCE)
            if self._seen is None:
                return None
            figures, at = self._seen
        return Told(self._read_counters(), figures, time.monotonic() - at)

    def stop(self) -> None:
        """Look no more, and wait a moment for a look that is being taken."""
        self._stopped.set()
        with self._change:
            thread = self._thread
        if thread is not None:
            thread.join(self.SHORT_PATIENCE)

    def _read_counters(self) -> Mapping[Key, int]:
        """Those of this moment; the last ones where the store does not answer."""
        if not self._reading.acquire(timeout=self.SHORT_PATIENCE):
            return self._counters
        try:
            failed = self._failed_at
            if failed is None or time.monotonic() - failed > self.EVERY:
                self._failed_at = time.monotonic()
                self._counters = self._store.counters()
                self._failed_at = None
        except Exception as error:
            self._failed_at = time.monotonic()
            self._tell(error)
        finally:
            self._reading.release()
        return self._counters

    def _tell(self, error: Exception) -> None:
        if self._failures.admit() is not None:
            known = isinstance(error, ReceiverError)
            log.error("/metrics: %s", error, exc_info=None if known else error)

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                seen = look(self._store, self._now()), began
            except Exception as error:
                self._tell(error)
                seen = None
            with self._change:
                self._seen = seen or self._seen
                self._change.notify_all()
            took = time.monotonic() - began
            if self._stopped.wait(max(self.EVERY, self.YIELD * took)):
                return
            with self._change:
                if time.monotonic() - self._asked_at > self.UNTIL:
                    self._process = self._seen = None
                    return
