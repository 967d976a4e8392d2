"""Whether events are stored and handled: what `/readyz` tells, and `HEARTBEAT_URL` goes by."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from receiver.calling import call
from receiver.config import Config
from receiver.errors import FileReplaced, SchemaMismatch, StoreUnavailable
from receiver.event import reject
from receiver.logs import Sparingly
from receiver.polling import Polling
from receiver.providers import PROVIDERS
from receiver.registry import Registry
from receiver.store import Store
from receiver.times import MINUTE, SECOND, iso
from receiver.worker import is_held, last_heartbeat, stuck_handlers, warnings_of_handlers

log = logging.getLogger(__name__)

#: For how long work may be due and wait until this is a problem, in microseconds. A retry is not
#: due before its time.
OLDEST = 15 * MINUTE
#: Likewise without a sign of life of any process that runs handlers.
SILENT = 30 * SECOND


@dataclass(frozen=True)
class Seen:
    """What the store shows of the whole service.

    :param problem: what is wrong with the store; nothing else is known then.
    :param waiting: work items that are due; the oldest of them for how many seconds.
    :param stuck: handlers, in whichever process.
    """

    problem: str | None = None
    #: Handlers with dead work, and with work that has failed and is tried again.
    troubles: Sequence[tuple[str, int, int]] = ()
    waiting: int = 0
    oldest: float = 0.0
    stuck: Sequence[str] = ()
    #: Seconds since a process that runs handlers was last alive.
    silent: float = 0.0
    #: What is told of handlers that other services have registered, or nobody.
    elsewhere: Sequence[str] = ()
    #: Handlers wait for a person's word.
    held: bool = False
    #: Why sipgate's history tells nothing at this moment.
    unpolled: str | None = None


class Readiness:
    """Looks at the store, but not at each request: a look writes, and anybody may ask.

    :param problem: of this process's ingest, `None` if it is well.
    """

    #: Seconds for which what was seen is good.
    KEPT = 1.0
    #: Seconds after a trial of what ingest writes, if it succeeded, until the next one.
    TRIED_FOR = 5.0
    #: Seconds that a trial waits for others' locks.
    PATIENCE = 2.5

    def __init__(
        self,
        config: Config,
        store: Store,
        registry: Registry,
        polling: Polling | None,
        problem: Callable[[], str | None],
        now: Callable[[], int],
    ) -> None:
        self._config = config
        self._store = store
        self._registry = registry
        self._polling = polling
        self._problem = problem
        self._now = now
        self._looking = threading.Lock()
        self._seen: Seen | None = None
        self._seen_at = 0.0
        self._failures = Sparingly()
        self._tried_at: float | None = None
        #: The last heartbeat, and since when it is that one.
        self._beat: int | None = None
        self._beat_at = time.monotonic()

    def look(self) -> Seen:
        # A look may take long where the database hangs; whoever asks then must not hold a thread.
        if not self._looking.acquire(timeout=self.KEPT):
            return Seen("it takes long to look at it; ask again")
        try:
            if self._seen is None or time.monotonic() - self._seen_at >= self.KEPT:
                self._seen, self._seen_at = self._look(), time.monotonic()
            return self._seen
        finally:
            self._looking.release()

    def _silence(self, beat: int | None) -> float:
        """Seconds for which the heartbeat has not changed: as seen from here, for the clock of who
        wrote it may be another one."""
        if beat != self._beat:
            self._beat, self._beat_at = beat, time.monotonic()
        return time.monotonic() - self._beat_at

    def _look(self) -> Seen:
        store, now = self._store, self._now()
        try:
            store.prove_writable()
            self._try(now)
            names = [handler.name for handler in self._registry]
            waiting, age = store.backlog(now, names)
            return Seen(
                troubles=store.troubles(now, names),
                waiting=waiting,
                oldest=round(age / SECOND, 1),
                stuck=stuck_handlers(store, now),
                silent=self._silence(last_heartbeat(store)),
                elsewhere=warnings_of_handlers(store, now, names),
                held=is_held(store),
                unpolled=self._unpolled(),
            )
        except (SchemaMismatch, FileReplaced) as error:
            return Seen(str(error))
        except StoreUnavailable as error:
            if self._failures.admit() is not None:  # hosts and users are named in the log alone
                log.error("not ready: %s", error)
            return Seen("it cannot be written or read; the log says why")
        except Exception as error:
            if self._failures.admit() is not None:
                log.exception("not ready: what is to be stored is refused")
            return Seen(f"it refuses what is to be stored ({type(error).__name__}); see the log")

    def _try(self, now: int) -> None:
        if self._tried_at is not None and time.monotonic() - self._tried_at < self.TRIED_FOR:
            return
        self._tried_at = None
        try_to_store(self._store, self._config.retention, now, self.PATIENCE)
        self._tried_at = time.monotonic()

    def failing(self, seen: Seen) -> dict[str, str]:
        """What keeps events from being stored or handled, by the name of the check."""
        failing: dict[str, str] = {}
        if seen.problem is not None:
            failing["store"] = seen.problem
        if (problem := self._problem()) is not None:
            failing["ingest"] = problem
        if seen.oldest * SECOND > OLDEST and not seen.held:
            failing["backlog"] = (
                f"work has waited for {seen.oldest / 60:.0f} minutes: the handlers do not keep up, "
                f"or nothing runs them (where EMBEDDED_WORKER=0, that is `{call('work')}`)"
            )
        if seen.silent * SECOND > SILENT:
            failing["worker"] = (
                "nothing runs the handlers: gunicorn starts their process again where it ends or "
                "hangs at its start, and its log says why; other servers do not, there start "
                f"`{call('work')}`"
                if self._config.embedded_worker
                else f"nothing runs the handlers: start `{call('work')}`"
            )
        if seen.stuck:
            failing["handlers"] = "stuck: " + ", ".join(seen.stuck)
        return failing

    def _unpolled(self) -> str | None:
        went = None if self._polling is None else self._polling.went()
        if went is None or went.problem is None:
            return None
        since = "yet" if went.ended_at is None else f"since {iso(went.ended_at)}"
        return f"what sipgate's history tells could not be learnt {since}: {went.problem}"


def try_to_store(store: Store, retention: int, now: int, patience: float) -> None:
    """Prove that what ingest writes can be written, by an event that is taken back: a right may be
    missing on one table, or somebody may hold a lock on it.

    :param patience: seconds to wait for others' locks.
    :raises StoreUnavailable: if it cannot.
    """
    name = f"readiness-{secrets.token_hex(8)}"
    provider = next(iter(PROVIDERS.values()))
    body = provider.sample("sms.sent", event_id=name, message_id=name, to="+33600000000", now=now)
    (item,) = provider.parse(body, received_at=now, retention=retention)
    unusable = reject(name.encode(), "a trial", received_at=now)
    # Twice: a copy is counted, which is another statement.
    store.try_ingest((item, item, unusable), lambda _: ["readiness"], patience)
