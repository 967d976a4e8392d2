"""`/healthz` and `/readyz`: for hosts and load balancers."""

from __future__ import annotations

import json

from flask import Blueprint, Response

from receiver.calling import call
from receiver.parts import Receiver, parts
from receiver.readiness import Seen
from receiver.store.contract import MOST_TOLD
from receiver.web.answers import json_answer
from receiver.web.paths import HEALTH, READINESS
from receiver.web.problems import response

blueprint = Blueprint("ops", __name__)

#: The process answers. On the event loop it is answered there.
HEALTHY = json_answer(200, '{"status": "ok"}')


@blueprint.get(HEALTH)
def healthz() -> Response:
    """The process answers. Touches nothing else, so that a sick database restarts nobody."""
    return response(HEALTHY)


@blueprint.get(READINESS)
def readyz() -> Response:
    """Whether events are stored and handled; 503 and the failing checks otherwise."""
    receiver = parts()
    seen = receiver.readiness.look()
    failing = receiver.readiness.failing(seen)
    body: dict[str, object] = {
        "status": "failing" if failing else "ok",
        "failing": failing,
        "warnings": _warnings(seen, receiver),
    }
    if seen.problem is None:
        body["backlog"] = {"waiting": seen.waiting, "oldest_seconds": seen.oldest}
    if seen.held:
        release = call("restore --run-work")
        body["held"] = f"handlers wait since a restore: `{release}` lets them run"
    return _answer(503 if failing else 200, body)


def _warnings(seen: Seen, receiver: Receiver) -> dict[str, str]:
    """What somebody should look at, although events are stored and handled."""
    warnings = {}
    dead = [f"{_number(dead)} of {handler}" for handler, dead, _ in seen.troubles if dead]
    if dead:
        warnings["dead"] = (
            f"work was given up: {', '.join(dead)}; `{call('events list --state dead')}` shows it, "
            f"and `{call('replay --failed')}` gives it to the handlers again"
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


def _number(count: int) -> str:
    return f"{MOST_TOLD} or more" if count >= MOST_TOLD else str(count)


def _answer(status: int, body: dict[str, object]) -> Response:
    return Response(json.dumps(body), status, content_type="application/json")
