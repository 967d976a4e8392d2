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

from receiver import times
from receiver.errors import ReceiverError, StoreUnavailable
from receiver.logs import Sparingly
from receiver.store import Expired, Store

Result = TypeVar("Result")

log = logging.getLogger(__name__)

#: Seconds that a batch waits for other writers.
_PATIENCE = 2.0
#: A batch rests so many times what it took, and at least so many seconds.
_YIELD = 3
_SHORTEST_REST = 0.005
#: The turn to look at what has expired.
_TURN = "expiry"


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
    while not stopped():
        batch = patiently(lambda: store.expire(before, _PATIENCE))
        if not any(batch):
            break
        total = total.plus(batch)
        progress(total)
    while not stopped() and patiently(lambda: store.shrink(_PATIENCE)):
        pass
    return total


def patiently(batch: Callable[[], Result]) -> Result:
    """Run one batch, and rest: webhooks write through the same lock. A store that is busy gets two
    more chances."""
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
            time.sleep(max(_SHORTEST_REST, _YIELD * (time.monotonic() - began)))
            return result


class Upkeep:
    """The background thread of one process; the store says whose turn it is.

    :param retention: microseconds that everything is kept.
    :param now: the wall clock, in microseconds.
    """

    #: Seconds between two looks for new texts.
    LOOK = 1.0
    #: How often everything is looked through for what has expired.
    EVERY = 10 * times.MINUTE
    #: If the clock says that the last look was further away than this, one of the two was wrong,
    #: or nobody was there.
    LEAP = 2 * times.DAY

    def __init__(self, store: Store, retention: int, now: Callable[[], int] = times.now) -> None:
        self._store = store
        self._retention = retention
        self._now = now
        self._leaps = Sparingly()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in a thread of its own. After a fork, never before one."""
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

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
        while not self._stopped.is_set() and patiently(lambda: self._store.index_texts(_PATIENCE)):
            pass
        if self._may_expire(now):
            expired = expire(self._store, now - self._retention, stopped=self._stopped.is_set)
            if any(expired):
                log.info("expired: %d messages, %d events, %d bodies in quarantine", *expired)

    def _may_expire(self, now: int) -> bool:
        """Whether it is this process's turn, and the clock has gone on since the last one as clocks
        do.

        What a clock that is months ahead deletes does not come back. So after a leap, or where two
        processes disagree, nothing is deleted before two looks in turn agree.
        """
        until = self._store.turn(_TURN)
        if not until:  # there was none yet
            return self._store.claim_turn(_TURN, now, now + self.EVERY)
        if now < until <= now + times.DAY:
            return False
        if not self._store.keep_turn(_TURN, until, now + self.EVERY):
            return False  # another process was quicker
        leap = now + self.EVERY - until
        if abs(leap) <= self.LEAP:
            return True
        if self._leaps.admit() is not None:
            log.warning(
                "the clock is %.1f days from where it was at the last look at what has expired: "
                "nothing is deleted until it has stayed there for %d minutes",
                leap / times.DAY,
                self.EVERY // times.MINUTE,
            )
        return False
