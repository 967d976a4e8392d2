"""`GET /v1/reconciliation`: what the providers' reports did not bring, and how sipgate is asked."""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response

from receiver import ids, times
from receiver.parts import Receiver, parts
from receiver.polling import Polling
from receiver.providers import PROVIDERS
from receiver.providers.sipgate.polling import EVERY as POLLED_EVERY
from receiver.reconciliation.losses import KINDS, TOGETHER
from receiver.store import Missed
from receiver.web.v1 import authenticate, ignored

blueprint = Blueprint("reconciliation", __name__, url_prefix="/v1")
blueprint.before_request(authenticate)

#: Gaps that are shown at most; there is a number of all of them.
MOST_GAPS = 100


@blueprint.get("/reconciliation", provide_automatic_options=False)
def reconciliation() -> Response:
    """Of each provider the last pass, the next one, and all that was missed and is still kept; of
    ZimSend also beside `providers`, as before there were others."""
    receiver = parts()
    told = {name: _of_provider(receiver, name) for name in PROVIDERS}
    answer = {
        "success": True,
        **told[ids.FIRST],
        "providers": {
            name: about
            for name, about in told.items()
            if name in receiver.reconciliations or about["missed"] is not None
        },
        "polling": None if receiver.polling is None else _polling(receiver.polling, receiver.now()),
        "ignored": ignored(),
    }
    return Response(json.dumps(answer), content_type="application/json")


def _of_provider(receiver: Receiver, name: str) -> dict[str, Any]:
    # Without an account nobody asks; what was learnt before is still told.
    passes = receiver.reconciliations.get(name)
    state = None if passes is None else passes.state()
    whole, count, gaps = receiver.store.missed(
        [f"sms.{kind}" for kind in KINDS], TOGETHER, MOST_GAPS, name
    )
    last = complete_at = None
    next_at = receiver.now()
    if passes is not None and state is not None:
        next_at = state.next_pass(next_at, passes.account.history)
        last = {
            "ended_at": times.iso(state.tried_at),
            "complete": state.problem is None,
            "problem": state.problem,
            "waiting": len(state.failed),
            "budget": {
                "used": state.calls,
                "per_minute": passes.account.history.per_minute,
            },
        }
        complete_at = state.ended_at
    return {
        "last_pass": last,
        "last_complete_at": None if complete_at is None else times.iso(complete_at),
        "next_pass_at": None if passes is None else times.iso(next_at),
        "missed": None if whole is None else _told(whole),
        "gaps_total": count,
        "gaps": [_told(gap) for gap in gaps],
    }


def _polling(polling: Polling, now: int) -> dict[str, Any]:
    went = polling.went()
    if went is None:
        last, complete_at, next_at = None, None, now
    else:
        last = {
            "ended_at": times.iso(went.tried_at),
            "complete": went.problem is None,
            "problem": went.problem,
            "waiting": went.waiting,
        }
        complete_at = went.ended_at
        next_at = min(max(went.next_at, now), now + POLLED_EVERY)
    return {
        "provider": "sipgate",
        "last_pass": last,
        "last_complete_at": None if complete_at is None else times.iso(complete_at),
        "next_pass_at": times.iso(next_at),
    }


def _told(missed: Missed) -> dict[str, Any]:
    return {
        "from": times.iso(missed.first),
        "to": times.iso(missed.last),
        "messages": missed.messages,
        "reports": sum(missed.counts),
        **dict(zip(KINDS, missed.counts, strict=True)),
    }
