"""Threads beside the event loop, each with one call at a time, and who waits for one of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from receiver import threads

log = logging.getLogger(__name__)

OnLoop = Callable[..., None]


class Gone(Exception):
    """Nobody listens any more."""


class Call(Protocol):
    """What is to be done in a thread."""

    def run(self, on_loop: OnLoop) -> None:
        """Do it, in a thread; raise nothing but `Gone`.

        :param on_loop: lets the event loop call something. Raises `Gone` once the loop has ended.
        """

    def refuse(self) -> None:
        """On the loop: there is no thread for it, and there was none in time."""


class _Waiting(NamedTuple):
    until: float
    weight: int
    call: Call


class Pool:
    """A bounded number of threads, which start when they are needed. Its methods are called on
    the loop.

    :param name: what the threads are called.
    :param most_waiting: the sum of the weights of all that wait for a thread.
    """

    def __init__(
        self, name: str, threads: int, most_waiting: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._name = name
        self._free = self._threads = threads
        self._most_waiting = most_waiting
        self._loop = loop
        self._begun: SimpleQueue[Call] = SimpleQueue()
        #: How many threads there are; another one starts when all of them have something to do.
        self._running = 0
        self._waiting: deque[_Waiting] = deque()
        self._weight = 0

    def put(self, call: Call, wait: float, weight: int = 1) -> None:
        """Let something be done in a thread.

        :param wait: seconds that it waits for a thread at most.
        """
        if self._has_thread():
            self._begin(call)
        elif self._running and self._weight + weight <= self._most_waiting:
            self._waiting.append(_Waiting(time.monotonic() + wait, weight, call))
            self._weight += weight
        else:
            call.refuse()

    @property
    def is_half_taken(self) -> bool:
        return self._free <= self._threads // 2

    @property
    def in_hand(self) -> int:
        """How many calls run or wait."""
        return self._threads - self._free + len(self._waiting)

    def look(self, now: float) -> None:
        """Refuse those that have waited for too long."""
        while self._waiting and self._waiting[0].until < now:
            self._next().refuse()

    def start(self) -> bool:
        """Start one more thread, so that it is there when it is needed; returns whether it is."""
        if threads.begin(self._work, f"{self._name} {self._running}") is None:
            return False
        self._running += 1
        return True

    def _has_thread(self) -> bool:
        """Whether a thread is free, or another one can be started."""
        if not self._free:
            return False
        return self._running > self._threads - self._free or self.start()

    def _begin(self, call: Call) -> None:
        self._free -= 1
        self._begun.put(call)

    def _next(self) -> Call:
        waiting = self._waiting.popleft()
        self._weight -= waiting.weight
        return waiting.call

    def _work(self) -> None:
        with suppress(Gone):
            while True:
                call = self._begun.get()
                try:
                    call.run(self._on_loop)
                except Gone:
                    raise
                except BaseException:  # for want of memory: the thread is needed for others
                    log.exception("a call beside the event loop has failed")
                self._on_loop(self._ended)

    def _on_loop(self, call: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # it has ended, and the process is about to
            raise Gone from None

    def _ended(self) -> None:
        self._free += 1
        self.look(time.monotonic())
        if self._waiting and self._has_thread():
            self._begin(self._next())
