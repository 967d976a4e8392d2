"""The account's 100 requests a minute, counted in the store for all processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from receiver.errors import StoreUnavailable
from receiver.providers.budget import Tokens
from receiver.store import Store
from receiver.times import MILLISECOND, SECOND


class Counted:
    """Counts what callers ask for, and never holds it up: a `Budget` of
    `receiver.providers.budget`.

    :param now: the wall clock, in microseconds.
    """

    #: Microseconds for one request: 100 of them last 70 s, for ZimSend counts a request when it
    #: arrives, and that may be up to its time-out of 10 s later.
    INTERVAL = 700 * MILLISECOND

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now

    def take(self) -> float:
        with suppress(StoreUnavailable):  # an SMS is worth more than its place in the count
            self._store.take("tokens:all", self._now(), self.INTERVAL, None)
        return 0.0


class Half:
    """Lets reconciliation have what callers leave of the 100, and at most half of them.

    One thread asks at a time.
    """

    #: In any 70 s at most 15 at once and 35 after them.
    INTERVAL = 2 * SECOND
    AT_ONCE = 15

    def __init__(self, store: Store, now: Callable[[], int]) -> None:
        self._own = Tokens(store, "tokens:half", now, interval=self.INTERVAL, at_once=self.AT_ONCE)
        # No room to be ahead: then the last minute had not even 100, whoever made them.
        self._all = Tokens(store, "tokens:all", now, interval=Counted.INTERVAL, at_once=1)
        #: A token of its own that was taken while there was none of all.
        self._in_hand = False

    def take(self) -> float:
        """
        :raises StoreUnavailable: if nobody can tell what is left.
        """
        if not self._in_hand:
            if wait := self._own.take():
                return wait
            self._in_hand = True
        if wait := self._all.take():
            return wait
        self._in_hand = False
        return 0.0
