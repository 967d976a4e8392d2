"""What leaves no row in the store, counted: in memory, and added to the store now and then.

So any process of any machine tells what all of them have counted, also when they are gone. A kill
loses what was counted since the last time; nothing is lost where the store is away, and nothing is
added twice where the answer to a commit is lost: each batch has a token.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from bisect import bisect_left

from receiver import metrics, threads
from receiver.errors import ReceiverError
from receiver.forks import renew_in_forks
from receiver.metrics import Key
from receiver.providers import TYPES
from receiver.store import Store

log = logging.getLogger(__name__)


class Uncounted:
    """Where nobody asks for numbers, there are none."""

    def count(self, *key: str, by: int = 1) -> None:
        """Count something.

        :param key: a counter of `receiver.metrics`, and the values of its labels.
        """

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Note how long something took, in a histogram of `receiver.metrics`."""


class Counting(Uncounted):
    """The counts of one process. Its thread starts with the first of them."""

    #: Seconds between two batches. A batch takes a moment: 15 s are promised.
    EVERY = 10.0
    #: Seconds that a batch waits for the store.
    PATIENCE = 1.0

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Guards the counts; never held while the store works.
        self._guard: threading.Lock
        renew_in_forks(self, "_guard", threading.Lock)
        self._counts: dict[Key, int] = {}
        #: By histogram: how many there were in each bucket, and all their seconds.
        self._cells: dict[Key, list[float]] = {}
        self._process: int | None = None
        self._thread: threading.Thread | None = None
        #: Held while a batch is added; and that batch, until it is known to be.
        self._adding = threading.Lock()
        self._batch: tuple[str, dict[Key, int]] | None = None
        self._heard = threading.Event()
        self._stopped = threading.Event()

    def count(self, *key: str, by: int = 1) -> None:
        with self._guard:
            if self._process != os.getpid() or self._thread is None:
                self._start()
            self._counts[key] = self._counts.get(key, 0) + by
        if not self._heard.is_set():
            self._heard.set()

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        bounds = metrics.BOUNDS[name]
        with self._guard:
            if self._process != os.getpid() or self._thread is None:
                self._start()
            cells = self._cells.get((name, *labels))
            if cells is None:
                cells = self._cells[name, *labels] = [0] * (len(bounds) + 2)
            cells[bisect_left(bounds, seconds)] += 1
            cells[-1] += seconds
        if not self._heard.is_set():
            self._heard.set()

    def _start(self) -> None:
        """In this process, which may be a fork: what had been counted is the other's to tell."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._counts, self._cells, self._batch = {}, {}, None
            self._adding, self._heard = threading.Lock(), threading.Event()
        self._thread = threads.begin(self._run, "counting")

    def _run(self) -> None:
        while not self._stopped.wait(self.EVERY):
            self._heard.wait()
            self._heard.clear()
            if not self._stopped.is_set() and not self.flush():
                self._heard.set()  # later again

    def stop(self) -> None:
        """Add nothing more by itself, and wait a moment for a batch that is being added."""
        self._stopped.set()
        self._heard.set()
        with self._guard:
            thread = self._thread
        if thread is not None:
            thread.join(self.PATIENCE)

    def flush(self) -> bool:
        """Add to the store what was counted here, and what rows say that nobody has counted yet.

        :returns: whether the store has it all.
        """
        try:
            while self._add():
                pass
            while self._store.count_arrivals(TYPES, self.PATIENCE):
                pass
        except ReceiverError as error:  # whoever needs the store more has told of it
            log.debug("what was counted is kept until the store is back: %s", error)
            return False
        except Exception:
            log.exception("what was counted cannot be added to the store")
            return False
        return True

    def _add(self) -> bool:
        """Add a batch, if there is one: that which failed before is the first."""
        with self._adding:
            with self._guard:
                if self._process != os.getpid():
                    return False
                if self._batch is None and (self._counts or self._cells):
                    counts, self._counts = self._counts, {}
                    for key, cells in self._cells.items():
                        counts |= metrics.of_observations(key, cells)
                    self._cells = {}
                    self._batch = uuid.uuid4().hex, counts
            if self._batch is None:
                return False
            self._store.add_counts(*self._batch, self.PATIENCE)
            self._batch = None
            return True
