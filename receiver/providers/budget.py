"""How many calls an account may make, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from receiver.store.contract import Store
from receiver.times import SECOND


class Budget(Protocol):
    """Says when a call may be made, for instance a token bucket that several processes share."""

    def take(self) -> float:
        """Ask for one call.

        :returns: 0: make it, it is counted. Else the seconds to wait before asking again;
            nothing was taken.
        """


class Tokens:
    """A bucket of tokens, one for each call, in the store for all processes.

    :param name: the bucket's, in the store. Each account has its own.
    :param now: in microseconds.
    :param interval: microseconds in which one token comes back.
    :param at_once: how many there are at most.
    """

    def __init__(
        self, store: Store, name: str, now: Callable[[], int], *, interval: int, at_once: int
    ) -> None:
        self._store = store
        self._name = name
        self._now = now
        self._interval = interval
        self._room = at_once * interval

    def take(self) -> float:
        """
        :raises StoreUnavailable: if nobody can tell what is left.
        """
        return self._store.take(self._name, self._now(), self._interval, self._room) / SECOND
