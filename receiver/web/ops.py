"""`/healthz` and `/readyz`: for hosts, load balancers and people."""

from __future__ import annotations

import json

from flask import Blueprint, Response

from receiver.errors import StoreUnavailable
from receiver.web import parts

blueprint = Blueprint("ops", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers. Touches nothing else, so that a sick database restarts nobody."""
    return _answer(200, {"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """Whether events are stored and handled; 503 and the failing checks otherwise."""
    receiver = parts()
    failing: dict[str, str] = {}
    seen: dict[str, object] = {}
    try:
        receiver.store.check()
        waiting, age = receiver.store.backlog(receiver.now())
        seen["backlog"] = {"waiting": waiting, "oldest_seconds": round(age / 1e6, 1)}
    except StoreUnavailable as error:
        failing["store"] = str(error)
    if receiver.config.embedded_worker and not receiver.worker.alive:
        failing["worker"] = "the embedded worker does not run in this process"
    if receiver.worker.stuck:
        failing["handlers"] = "stuck: " + ", ".join(receiver.worker.stuck)
    status = "failing" if failing else "ok"
    return _answer(503 if failing else 200, {"status": status, "failing": failing, **seen})


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")
