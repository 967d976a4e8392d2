"""`/healthz` and `/readyz`: for hosts, load balancers and people."""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING

from flask import Blueprint, Response, current_app
from flask.blueprints import BlueprintSetupState

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.logs import Sparingly
from receiver.web import parts

if TYPE_CHECKING:
    from app import Receiver

log = logging.getLogger(__name__)
blueprint = Blueprint("ops", __name__)


#: Seconds that work may be due and wait before this is a problem. A retry is not due before its
#: time.
OLDEST = 900


class _Store:
    """What the last look at the store found: a look writes to the disk, and anybody may ask."""

    #: Seconds after which it is looked at again.
    KEPT = 1.0

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._looked_at = -self.KEPT
        self._problem: str | None = None
        self._backlog: dict[str, float] | None = None
        self._failures = Sparingly()

    def look(self, receiver: Receiver) -> tuple[str | None, dict[str, float] | None]:
        """What is wrong with it; and how much work waits, if that could be read."""
        with self._looking:
            if time.monotonic() - self._looked_at >= self.KEPT:
                self._problem, self._backlog = self._found(receiver)
                self._looked_at = time.monotonic()
            return self._problem, self._backlog

    def _found(self, receiver: Receiver) -> tuple[str | None, dict[str, float] | None]:
        try:
            receiver.store.check()
            names = [handler.name for handler in receiver.registry]
            waiting, age = receiver.store.backlog(receiver.now(), names)
        except SchemaMismatch as error:
            return str(error), None
        except StoreUnavailable as error:
            # Names of hosts and users are for the log.
            if self._failures.admit() is not None:
                log.error("not ready: %s", error)
            return "it cannot be written or read; the log says why", None
        return None, {"waiting": waiting, "oldest_seconds": round(age / 1e6, 1)}


@blueprint.record_once
def _begin(state: BlueprintSetupState) -> None:
    state.app.extensions["readiness"] = _Store()


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers. Touches nothing else, so that a sick database restarts nobody."""
    return _answer(200, {"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Whether events are stored and handled; 503 and the failing checks otherwise."""
    receiver = parts()
    failing: dict[str, str] = {}
    problem, backlog = current_app.extensions["readiness"].look(receiver)
    if problem is not None:
        failing["store"] = problem
    if backlog is not None and backlog["oldest_seconds"] > OLDEST:
        failing["backlog"] = (
            f"work has been waiting for {backlog['oldest_seconds'] / 60:.0f} minutes; the handlers "
            "do not keep up, or nothing runs them (`flask work`, where EMBEDDED_WORKER=0)"
        )
    if receiver.config.embedded_worker and not receiver.worker.alive:
        failing["worker"] = "the embedded worker does not run in this process"
    if receiver.worker.stuck:
        failing["handlers"] = "stuck: " + ", ".join(receiver.worker.stuck)
    body: dict[str, object] = {"status": "failing" if failing else "ok", "failing": failing}
    if backlog is not None:
        body["backlog"] = backlog
    return _answer(503 if failing else 200, body)


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")
