"""`HEARTBEAT_URL`: whoever watches from outside is told each minute that all is well.

It is asked while `/readyz` is well, by one process of all. Where it is not asked, the watcher
tells: also when this machine, its network or its database is gone, of which nothing here could.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import httpx

from receiver import times, turns
from receiver.errors import ReceiverError
from receiver.outgoing import http_client, read_at_most, time_limit
from receiver.readiness import Readiness
from receiver.store import Store
from receiver.times import SECOND

log = logging.getLogger(__name__)

_TURN = "heartbeat url"
#: Seconds in which it must have answered.
_WITHIN = 10.0


class Heartbeat:
    """In a thread of each process that runs handlers; the store says whose turn it is."""

    #: Seconds between two looks at whose turn it is; and between two questions, of all processes.
    LOOK = 5.0
    EVERY = 60.0

    def __init__(
        self, url: str, store: Store, readiness: Readiness, now: Callable[[], int] = times.now
    ) -> None:
        self._url = url
        self._store = store
        self._readiness = readiness
        self._now = now
        #: What was told in the log last; `None`: all is well.
        self._told: str | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Run in a thread of its own. After a fork, never before one."""
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Ask no more. Safe in a signal handler."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self.LOOK):
            try:
                self.step(self._now())
            except ReceiverError as error:  # then nobody is told that all is well
                log.debug("whether all is well cannot be seen: %s", error)
            except Exception:
                log.exception("HEARTBEAT_URL failed and goes on")

    def step(self, now: int) -> bool:
        """Ask it, if it is this process's turn and all is well.

        :returns: whether it was asked, and answered with 2xx.
        """
        until = now + int((self.EVERY - self.LOOK / 2) * SECOND)  # looks come a little late
        if not turns.claim(self._store, _TURN, now, until):
            return False
        if self._readiness.failing(self._readiness.look()):
            return False
        problem = self._ask()
        if problem is not None and problem != self._told:
            log.warning("HEARTBEAT_URL %s; whoever watches it may raise an alarm", problem)
        if problem is None and self._told is not None:
            log.info("HEARTBEAT_URL answers again")
        self._told = problem
        return problem is None

    def _ask(self) -> str | None:
        """What went wrong, without the address: it is a secret."""
        headers = {"User-Agent": "zimsend-receiver"}
        try:
            with (
                time_limit(_WITHIN),
                http_client(timeout=_WITHIN, headers=headers) as client,
                client.stream("GET", self._url) as answer,
            ):
                read_at_most(answer, 4_096)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"could not be asked ({type(error).__name__})"
        return None if answer.is_success else f"answered {answer.status_code}"
