"""What the service does by itself in the background: it makes texts searchable, and it forgets.

Both go in small batches, each a transaction of its own, with a rest after each: the webhook
writes through the same lock. Killed at any point, what is left is done by the next one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from receiver import times, turns
from receiver.errors import ReceiverError, StoreUnavailable
from receiver.logs import Sparingly
from receiver.providers import TYPES
from receiver.store import Expired, Store

Result = TypeVar("Result")

log = logging.getLogger(__name__)

#: Seconds that a batch waits for other writers.
_PATIENCE = 2.0
#: A batch rests so many times what it took, and at least so many seconds. Texts rest longer: under
#: load there is always one more batch of them, and nobody waits for it.
_YIELD = 3
_YIELD_OF_TEXTS = 20
_SHORTEST_REST = 0.005
#: The turn to look at what has expired; and the note of the time that has surely come.
_TURN = "expiry"
_SURELY = "surely past"
#: A clock that is no more than this ahead of what is sure is believed. Nobody was there meanwhile.
LEAP = times.HOUR
#: One is told of a clock that is so far ahead.
TOLD_FROM = 2 * times.DAY
_NOT_BELIEVED = (
    "the clock says %s, which is %s: only what has expired for sure is deleted. The next signed "
    "event tells whether the clock is right"
)


def expire(
    store: Store,
    before: int,
    *,
    progress: Callable[[Expired], None] = lambda so_far: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Expired:
    """Delete all that was last touched before a time, and give the space back to the disk.

    :param progress: told how much has been deleted so far, after each batch.
    :param stopped: asked after each batch whether to leave the rest to another time.
    """
    total = Expired()
    while not stopped() and patiently(lambda: store.count_arrivals(TYPES, _PATIENCE)):
        pass  # each event is counted before it can go
    while not stopped():
        batch = patiently(lambda: store.expire(before, _PATIENCE))
        if not any(batch):
            break
        total = total.plus(batch)
        progress(total)
    while not stopped() and patiently(lambda: store.shrink(_PATIENCE)):
        pass
    return total


def surely_past(store: Store, now: int, running: int = 0) -> int | None:
    """The time that has surely come, whatever the clock says: what a wrong one deletes does not
    come back. It goes on by what signed events tell, and by real time while somebody looks.

    :param now: the clock. What is sure is never later.
    :param running: microseconds of real time since this process has looked for the last time.
    :returns: `None` if the clock is before the date of this release.
    """
    if now < times.RELEASED:
        return None
    noted, told = store.note(_SURELY), store.latest()
    known = [time for time in (int(noted) if noted else None, told) if time is not None]
    surely = max(known, default=now)
    surely = now if now - surely <= LEAP else surely + running
    store.write_note(_SURELY, str(surely))
    return surely


def patiently(batch: Callable[[], Result], rests: float = _YIELD) -> Result:
    """Run one batch, and rest: webhooks write through the same lock. A store that is busy gets two
    more chances.

    :param rests: how many times what it took.
    """
    chances = 3
    while True:
        began = time.monotonic()
        try:
            result = batch()
        except StoreUnavailable:
            chances -= 1
            if not chances:
                raise
            time.sleep(_PATIENCE)
        else:
            # The longer it took, or had to wait, the more there is to make way for.
            time.sleep(max(_SHORTEST_REST, rests * (time.monotonic() - began)))
            return result


class Upkeep:
    """The background thread of one process; the store says whose turn it is.

    :param retention: microseconds that everything is kept.
    :param now: the wall clock, in microseconds.
    """

    #: Seconds between two looks for new texts.
    LOOK = 1.0
    #: Seconds that texts are indexed, until all else has its turn.
    LONGEST_INDEXING = 5.0
    #: How often everything is looked through for what has expired.
    EVERY = 10 * times.MINUTE
    #: Seconds between two looks for events that nobody has counted.
    COUNT_EVERY = 5.0
    #: What quarantine may take. All that is in it was answered 400.
    QUARANTINE_BYTES = 256 * 1024 * 1024

    def __init__(self, store: Store, retention: int, now: Callable[[], int] = times.now) -> None:
        self._store = store
        self._retention = retention
        self._now = now
        self._leaps = Sparingly()
        #: Of which one has been told.
        self._full = self._warned = False
        #: The last look, by `time.monotonic`.
        self._looked = time.monotonic()
        self._count_at = 0.0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Run in a thread of its own. After a fork, never before one."""
        threading.Thread(target=self._run, name="upkeep", daemon=True).start()

    def stop(self) -> None:
        """Begin no other batch. What is in hand is a transaction, and may die at any point."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self.LOOK):
            try:
                self.step(self._now())
            except Exception as error:
                known = isinstance(error, ReceiverError)
                log.error("upkeep failed and goes on: %s", error, exc_info=None if known else error)
                self._stopped.wait(10 * self.LOOK)

    def step(self, now: int) -> None:
        """Index what is new; expire, if it is this process's turn."""
        self._store.tidy()
        began = time.monotonic()
        while not self._stopped.is_set() and patiently(
            lambda: self._store.index_texts(_PATIENCE), _YIELD_OF_TEXTS
        ):
            # Where they come faster than they are indexed, there is no end.
            if time.monotonic() - began > self.LONGEST_INDEXING:
                break
        if (looked := time.monotonic()) >= self._count_at:
            self._count_at = looked + self.COUNT_EVERY
            while patiently(lambda: self._store.count_arrivals(TYPES, _PATIENCE)):
                pass
        self._bound_quarantine()
        self._warn()
        before = self._expirable(now)
        if before is not None:
            expired = expire(self._store, before, stopped=self._stopped.is_set)
            if any(expired):
                log.info("expired: %d messages, %d events, %d bodies in quarantine", *expired)

    def _bound_quarantine(self) -> None:
        gone = 0
        while not self._stopped.is_set():
            batch = patiently(
                lambda: self._store.bound_quarantine(self.QUARANTINE_BYTES, _PATIENCE)
            )
            if not batch:
                break
            gone += batch
        if gone and not self._full:
            self._full = True
            log.warning(
                "quarantine is full: of bodies that were answered 400 it keeps %d MB, and the "
                "oldest go first",
                self.QUARANTINE_BYTES >> 20,
            )

    def _warn(self) -> None:
        """Once, until it is well again."""
        warning = self._store.warning()
        if warning is not None and not self._warned:
            log.warning("%s", warning)
        self._warned = warning is not None

    def _expirable(self, now: int) -> int | None:
        """Before which time everything has expired; `None` if it is not this process's turn, or
        nobody knows."""
        if not turns.claim(self._store, _TURN, now, now + self.EVERY):
            return None
        running, self._looked = time.monotonic() - self._looked, time.monotonic()
        surely = surely_past(self._store, now, min(int(running * times.SECOND), self.EVERY))
        if surely is None or now - surely > TOLD_FROM:
            if self._leaps.admit() is not None:
                ahead = (
                    "before the date of this release"
                    if surely is None
                    else f"{(now - surely) / times.DAY:.0f} days later than anything seen here"
                )
                log.warning(_NOT_BELIEVED, times.iso(now), ahead)
            if surely is None:
                return None
        else:
            self._store.date_undated(now)
        return surely - self._retention
