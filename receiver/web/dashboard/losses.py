"""What the providers' reports did not bring, and when they are asked for it."""

from __future__ import annotations

from typing import Any

from flask import Response

from receiver.parts import Receiver, parts
from receiver.reconciliation.losses import KINDS, TOGETHER
from receiver.reconciliation.passes import Reconciliation
from receiver.reconciliation.planning import EVERY
from receiver.web.dashboard.pages import blueprint, page

#: Gaps that are shown.
_MOST_GAPS = 50


@blueprint.get("/losses")
def losses() -> Response:
    """What was missed and is still kept; of each account the last pass and the next."""
    receiver = parts()
    whole, count, gaps = receiver.store.missed([f"sms.{k}" for k in KINDS], TOGETHER, _MOST_GAPS)
    return page(
        "losses.html",
        kinds=KINDS,
        whole=whole,
        gaps=gaps,
        gaps_in_all=count,
        accounts=[_account(receiver, *one) for one in receiver.reconciliations.items()],
    )


def _account(receiver: Receiver, provider: str, passes: Reconciliation) -> dict[str, Any]:
    state, now = passes.state(), receiver.now()
    next_at = now if state is None else min(max(state.next_at, now), now + EVERY)
    return {
        "provider": provider,
        "state": state,
        "next_at": next_at if next_at > now else None,
    }
