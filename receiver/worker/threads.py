"""Where the calls of a handler run: in threads, or wherever an `Executor` takes them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from queue import SimpleQueue
from typing import Protocol

from receiver import threads
from receiver.registry import Handler
from receiver.worker.calls import Call


class Executor(Protocol):
    """Runs the calls of one handler, and nothing else.

    It is made as `executor(handler, ended)`. It has at most `handler.concurrency` calls running at
    once. Each it begins (`Call.begin`), brings to its end if it has begun (`Call.end`), and reports
    in any case, from any thread: `ended(call)`.
    """

    def add(self, call: Call) -> None:
        """Take a claimed call, to run it after the next `ring`."""

    def ring(self, calls: Collection[Call], average: float | None) -> None:
        """Run what waits. Called in every round, so calls that hang may be looked for here.

        :param calls: all that were added, but for those whose end the worker has heard of.
        :param average: seconds that a call takes, lately.
        """

    def stop(self) -> None:
        """The worker has ended: whatever waits for calls may go."""


#: Makes the executor of a handler; the second argument is to be called at the end of each call.
Executors = Callable[[Handler, Callable[[Call], None]], Executor]


class Threads:
    """Threads of a handler's own, so that no handler can take those of another."""

    #: Seconds of work that are worth waking one more thread for.
    WORTH_A_THREAD = 0.005

    def __init__(self, handler: Handler, ended: Callable[[Call], None]) -> None:
        self._handler = handler
        self._ended = ended
        self._waiting: deque[Call] = deque()
        #: A thread that hears `False` ends.
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._threads = 0

    @property
    def unheard(self) -> int:
        """How often the bell has rung and no thread has heard it yet."""
        return self._bell.qsize()

    def add(self, call: Call) -> None:
        self._waiting.append(call)

    def ring(self, calls: Collection[Call], average: float | None) -> None:
        """Wake as many threads as what waits is worth: a thread takes one call after the other."""
        waiting = len(self._waiting)
        if not waiting:
            return
        wanted = waiting
        if average is not None:
            wanted = min(waiting, 1 + int(waiting * average / self.WORTH_A_THREAD))
        # What has rung and was not heard yet will be: no bell is needed twice.
        for _ in range(min(wanted, self._handler.concurrency) - self.unheard):
            self._bell.put(True)
        # Threads that are in a call may hang there, so they count as missing.
        busy = sum(1 for call in calls if call.begun)
        while self._threads < min(self._handler.concurrency, busy + wanted):
            if threads.begin(self._work, f"handler {self._handler.name}") is None:
                return  # those that there are go on
            self._threads += 1

    def stop(self) -> None:
        """A thread that hangs in a call ends with that."""
        for _ in range(self._threads):
            self._bell.put(False)

    def _work(self) -> None:
        while self._bell.get():
            while self._waiting:
                try:
                    call = self._waiting.popleft()
                except IndexError:  # another thread was quicker
                    break
                if call.begin(time.monotonic()):
                    call.end(self._handler, time.monotonic)
                self._ended(call)
