"""Tells the functions of `Registry.on_dead` of work that has died, as well as it can."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from receiver import ids, threads
from receiver.errors import ReceiverError
from receiver.registry import Registry
from receiver.store import Settlement, Store, tell_given_up
from receiver.worker.calls import Surroundings, event_of
from receiver.worker.frames import place_of

log = logging.getLogger(__package__)


class Deaths:
    """What has died and is to be told, in one process.

    The functions run one after the other in a thread of their own, which starts with the first
    death: they hold up no handler.

    :param registry: knows the functions.
    :param inside: what each is called inside of.
    """

    #: Deaths that may wait to be told.
    MOST = 1_000
    #: Seconds for those that wait when the process ends.
    WAIT = 1.0

    def __init__(self, store: Store, registry: Registry, inside: Surroundings) -> None:
        self._store = store
        self._registry = registry
        self._inside = inside
        self._waiting: deque[tuple[str, int]] = deque()
        self._change = threading.Condition()
        self._telling = self._started = False

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Their ends are written down; some may have died of them."""
        for end in settlements:
            if end.state == "dead":
                self._add(end.claim.handler, [end.claim.event_seq])

    def given_up(self, handler: str, seqs: Sequence[int]) -> None:
        """These have died without a word."""
        tell_given_up(handler, seqs)
        self._add(handler, seqs)

    def wait(self) -> None:
        """Give what waits a moment, before the process ends."""
        with self._change:
            self._change.wait_for(lambda: not (self._waiting or self._telling), self.WAIT)

    def _add(self, handler: str, seqs: Sequence[int]) -> None:
        if not self._registry.dead_functions or not seqs:
            return
        with self._change:
            room = self.MOST - len(self._waiting)
            self._waiting.extend((handler, seq) for seq in seqs[:room])
            self._change.notify_all()
        if room < len(seqs):
            log.error("on_dead: %d dead work items are not told of", len(seqs) - room)

    def look(self) -> None:
        """Begin to tell, if there is something and nobody does yet. Called in every round."""
        if self._waiting and not self._started:
            self._started = threads.begin(self._tell_all, "on_dead") is not None

    def _tell_all(self) -> None:
        while True:
            with self._change:
                self._telling = False
                self._change.notify_all()
                self._change.wait_for(lambda: self._waiting)
                self._telling = True
                handler, seq = self._waiting.popleft()
            try:
                # Another process may have ended it otherwise.
                died = self._store.died(handler, [seq])
            except ReceiverError as error:
                log.error("on_dead is not told of dead work of handler %s: %s", handler, error)
                continue
            for claim, last_error in died:
                for function in self._registry.dead_functions:
                    try:
                        with self._inside():
                            function(event_of(claim), handler, last_error)
                    except BaseException as error:  # also SystemExit: it ends no thread of ours
                        log.error(
                            "on_dead failed at event %s of handler %s: %s%s",
                            ids.written(claim.event_id),
                            handler,
                            type(error).__name__,
                            place_of(error, function),
                        )
