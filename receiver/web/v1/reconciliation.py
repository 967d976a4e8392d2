"""`GET /v1/reconciliation`: what ZimSend's webhooks did not bring."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response

from receiver import times
from receiver.parts import parts
from receiver.reconciliation.losses import KINDS, TOGETHER
from receiver.reconciliation.planning import EVERY
from receiver.store import Missed
from receiver.web.v1 import authenticate, ignored

blueprint = Blueprint("reconciliation", __name__, url_prefix="/v1")
blueprint.before_request(authenticate)

#: Half of ZimSend's limit of requests: no minute of a pass has more.
PER_MINUTE = 50
#: Gaps that are shown at most; there is a number of all of them.
MOST_GAPS = 100


@blueprint.get("/reconciliation", provide_automatic_options=False)
def reconciliation() -> Response:
    """The last pass, the next one, and all that was missed and is still kept."""
    receiver = parts()
    # Without an account nobody asks; what was learnt before is still told.
    passes = receiver.reconciliations.get("zimsend")
    state = None if passes is None else passes.state()
    whole, count, gaps = receiver.store.missed(
        [f"sms.{kind}" for kind in KINDS], TOGETHER, MOST_GAPS
    )
    last = complete_at = None
    next_at = receiver.now()
    if state is not None:
        next_at = min(max(state.next_at, next_at), next_at + EVERY)
        last = {
            "ended_at": times.iso(state.tried_at),
            "complete": state.problem is None,
            "problem": state.problem,
            "waiting": len(state.failed),
            "budget": {"used": state.calls, "per_minute": PER_MINUTE},
        }
        complete_at = state.ended_at
    answer = {
        "success": True,
        "last_pass": last,
        "last_complete_at": None if complete_at is None else times.iso(complete_at),
        "next_pass_at": None if passes is None else times.iso(next_at),
        "missed": None if whole is None else _told(whole),
        "gaps_total": count,
        "gaps": [_told(gap) for gap in gaps],
        "ignored": ignored(),
    }
    return Response(json.dumps(answer), content_type="application/json")


def _told(missed: Missed) -> dict[str, Any]:
    return {
        "from": times.iso(missed.first),
        "to": times.iso(missed.last),
        "messages": missed.messages,
        "reports": sum(missed.counts),
        **dict(zip(KINDS, missed.counts, strict=True)),
    }
