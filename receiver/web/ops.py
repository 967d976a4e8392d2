"""`/healthz` and `/readyz`: for hosts and load balancers."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, current_app
from flask.blueprints import BlueprintSetupState

from receiver.checks.here import try_to_store
from receiver.errors import FileReplaced, SchemaMismatch, StoreUnavailable
from receiver.logs import Sparingly
from receiver.parts import Receiver, parts
from receiver.store.contract import MOST_TOLD
from receiver.times import SECOND, iso
from receiver.web.answers import json_answer
from receiver.web.paths import HEALTH, READINESS
from receiver.web.problems import response
from receiver.worker import is_held, last_heartbeat, stuck_handlers, warnings_of_handlers

log = logging.getLogger(__name__)
blueprint = Blueprint("ops", __name__)

#: The process answers. On the event loop it is answered there.
HEALTHY = json_answer(200, '{"status": "ok"}')


#: Seconds that work may be due and wait before this is a problem. A retry is not due before its
#: time.
OLDEST = 900
#: Seconds without a sign of life of any process that runs handlers.
SILENT = 30.0


@dataclass(frozen=True)
class _Seen:
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


class _Store:
    """Looks at the store, but not at each request: a look writes, and anybody may ask."""

    #: Seconds for which what was seen is good.
    KEPT = 1.0
    #: Seconds after a trial of what ingest writes, if it succeeded, until the next one.
    TRIED_FOR = 5.0
    #: Seconds that a trial waits for others' locks.
    PATIENCE = 2.5

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._seen: _Seen | None = None
        self._seen_at = 0.0
        self._failures = Sparingly()
        self._tried_at: float | None = None
        #: The last heartbeat, and since when it is that one.
        self._beat: int | None = None
        self._beat_at = time.monotonic()

    def look(self, receiver: Receiver) -> _Seen:
        # A look may take long where the database hangs; whoever asks then must not hold a thread.
        if not self._looking.acquire(timeout=self.KEPT):
            return _Seen("it takes long to look at it; ask again")
        try:
            if self._seen is None or time.monotonic() - self._seen_at >= self.KEPT:
                self._seen, self._seen_at = self._look(receiver), time.monotonic()
            return self._seen
        finally:
            self._looking.release()

    def _silence(self, beat: int | None) -> float:
        """Seconds for which the heartbeat has not changed: as seen from here, for the clock of who
        wrote it may be another one."""
        if beat != self._beat:
            self._beat, self._beat_at = beat, time.monotonic()
        return time.monotonic() - self._beat_at

    def _look(self, receiver: Receiver) -> _Seen:
        store, now = receiver.store, receiver.now()
        try:
            store.prove_writable()
            self._try(receiver, now)
            names = [handler.name for handler in receiver.registry]
            waiting, age = store.backlog(now, names)
            return _Seen(
                troubles=store.troubles(now, names),
                waiting=waiting,
                oldest=round(age / SECOND, 1),
                stuck=stuck_handlers(store, now),
                silent=self._silence(last_heartbeat(store)),
                elsewhere=warnings_of_handlers(store, now, names),
                held=is_held(store),
                unpolled=_unpolled(receiver),
            )
        except (SchemaMismatch, FileReplaced) as error:
            return _Seen(str(error))
        except StoreUnavailable as error:
            if self._failures.admit() is not None:  # hosts and users are named in the log alone
                log.error("not ready: %s", error)
            return _Seen("it cannot be written or read; the log says why")
        except Exception as error:
            if self._failures.admit() is not None:
                log.exception("not ready: what is to be stored is refused")
            return _Seen(f"it refuses what is to be stored ({type(error).__name__}); see the log")

    def _try(self, receiver: Receiver, now: int) -> None:
        """Prove that what ingest writes can be written, by an event that is taken back: a right
        may be missing on one table, or somebody may hold a lock on it."""
        if self._tried_at is not None and time.monotonic() - self._tried_at < self.TRIED_FOR:
            return
        self._tried_at = None
        try_to_store(receiver, now, self.PATIENCE)
        self._tried_at = time.monotonic()


@blueprint.record_once
def _begin(state: BlueprintSetupState) -> None:
    state.app.extensions["readiness"] = _Store()


@blueprint.get(HEALTH)
def healthz() -> Response:
    """The process answers. Touches nothing else, so that a sick database restarts nobody."""
    return response(HEALTHY)


@blueprint.get(READINESS)
def readyz() -> Response:
    """Whether events are stored and handled; 503 and the failing checks otherwise."""
    receiver = parts()
    seen: _Seen = current_app.extensions["readiness"].look(receiver)
    failing: dict[str, str] = {}
    if seen.problem is not None:
        failing["store"] = seen.problem
    if receiver.ingest.problem is not None:
        failing["ingest"] = receiver.ingest.problem
    if seen.oldest > OLDEST and not seen.held:
        failing["backlog"] = (
            f"work has waited for {seen.oldest / 60:.0f} minutes: the handlers do not keep up, "
            "or nothing runs them (where EMBEDDED_WORKER=0, that is `flask work`)"
        )
    if seen.silent > SILENT:
        failing["worker"] = (
            "nothing runs the handlers: start `flask work`"
            if not receiver.config.embedded_worker
            else "nothing runs the handlers: gunicorn starts their process again, and its log says "
            "why it ended; other servers do not, there start `flask work`"
        )
    if seen.stuck:
        failing["handlers"] = "stuck: " + ", ".join(seen.stuck)
    body: dict[str, object] = {
        "status": "failing" if failing else "ok",
        "failing": failing,
        "warnings": _warnings(seen, receiver),
    }
    if seen.problem is None:
        body["backlog"] = {"waiting": seen.waiting, "oldest_seconds": seen.oldest}
    if seen.held:
        body["held"] = "handlers wait since a restore: `flask restore --run-work` lets them run"
    return _answer(503 if failing else 200, body)


def _warnings(seen: _Seen, receiver: Receiver) -> dict[str, str]:
    """What somebody should look at, although events are stored and handled."""
    warnings = {}
    dead = [f"{_number(dead)} of {handler}" for handler, dead, _ in seen.troubles if dead]
    if dead:
        warnings["dead"] = (
            f"work was given up: {', '.join(dead)}; `flask events list --state dead` shows it, and "
            "`flask replay --failed` gives it to the handlers again"
        )
    again = [f"{_number(failed)} of {handler}" for handler, _, failed in seen.troubles if failed]
    if again:
        warnings["retries"] = f"work has failed and is tried again: {', '.join(again)}"
    if refused := receiver.receiving.refusals.lately():
        warnings["refusals"] = f"{refused} webhooks were refused by this process; its log says why"
    if seen.elsewhere:
        warnings["handlers"] = "; ".join(seen.elsewhere)
    if (told := receiver.store.warning()) is not None:
        warnings["store"] = told
    if seen.unpolled is not None:
        warnings["polling"] = seen.unpolled
    return warnings


def _unpolled(receiver: Receiver) -> str | None:
    went = None if receiver.polling is None else receiver.polling.went()
    if went is None or went.problem is None:
        return None
    since = "yet" if went.ended_at is None else f"since {iso(went.ended_at)}"
    return f"what sipgate's history tells could not be learnt {since}: {went.problem}"


def _number(count: int) -> str:
    return f"{MOST_TOLD} or more" if count >= MOST_TOLD else str(count)


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")
