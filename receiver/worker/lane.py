"""What one handler has claimed, and how much more it may."""

from __future__ import annotations

from receiver.registry import Handler
from receiver.worker.calls import Call, State
from receiver.worker.threads import Executor


class Lane:
    """The calls of one handler, from the claim until their end is heard of.

    Only the worker's loop uses it; `executor` is where the calls run meanwhile.
    """

    #: Claimed ahead for each thread at most, and for how many seconds of work at most.
    DEEPEST = 64
    AHEAD = 0.1

    def __init__(self, handler: Handler, executor: Executor) -> None:
        self.handler = handler
        self.calls: set[Call] = set()
        self.stuck = False
        self.look_at = 0  # when to ask the store for work again, unless something is heard before
        self._executor = executor
        self._average: float | None = None  # seconds that a call takes, lately

    @property
    def overdue(self) -> int:
        """Threads that a call past its time-out still holds."""
        return sum(1 for call in self.calls if call.state is State.OVERTAKEN)

    def room(self) -> int:
        """How many more items to claim: ahead of time if the calls are quick."""
        threads = self.handler.concurrency - self.overdue
        depth = 1
        if self._average is not None:
            depth = max(1, min(self.DEEPEST, int(self.AHEAD / max(self._average, 1e-6))))
        return max(0, threads * depth - (len(self.calls) - self.overdue))

    def add(self, call: Call) -> None:
        self.calls.add(call)
        self._executor.add(call)

    def ring(self) -> None:
        self._executor.ring(self.calls, self._average)

    def stop(self) -> None:
        self._executor.stop()

    def remove(self, call: Call) -> None:
        """It has ended, or was given back and will not begin."""
        self.calls.remove(call)
        if call.begun:
            took = call.took
            self._average = took if self._average is None else 0.9 * self._average + 0.1 * took
