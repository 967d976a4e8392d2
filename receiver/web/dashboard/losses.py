"""What the providers' reports did not bring, and when they are asked for it."""

from __future__ import annotations

from typing import Any

from flask import Response

from receiver.parts import Receiver, parts
from receiver.polling import Polling
from receiver.providers import PROVIDERS
from receiver.reconciliation.losses import KINDS, TOGETHER
from receiver.reconciliation.passes import Reconciliation
from receiver.store import Missed
from receiver.web.dashboard.pages import blueprint, page

#: Gaps that are shown.
_MOST_GAPS = 50


@blueprint.get("/losses")
def losses() -> Response:
    """What was missed and is still kept; of each account the last pass and the next."""
    receiver = parts()
    whole, count, gaps = _missed(receiver, _MOST_GAPS, None)
    return page(
        "losses.html",
        kinds=KINDS,
        whole=whole,
        gaps=gaps,
        gaps_in_all=count,
        accounts=[
            *(_account(receiver, *one) for one in receiver.reconciliations.items()),
            *([] if receiver.polling is None else [_polled(receiver.polling, receiver.now())]),
        ],
        can_ask=bool(receiver.reconciliations),
    )


def _account(receiver: Receiver, provider: str, passes: Reconciliation) -> dict[str, Any]:
    state, now = passes.state(), receiver.now()
    next_at = now if state is None else state.next_pass(now, passes.account.history)
    whole, _, _ = _missed(receiver, 1, provider)
    return {
        "title": passes.account.title,
        "state": state,
        "next_at": next_at if next_at > now and not passes.is_wanted() else None,
        "missed": 0 if whole is None else sum(whole.counts),
    }


def _polled(polling: Polling, now: int) -> dict[str, Any]:
    """sipgate: it has no reports that could be missing, and is asked for all that is learnt."""
    went = polling.went()
    return {
        "title": PROVIDERS["sipgate"].title,
        "state": went,
        "next_at": went.next_at if went is not None and went.next_at > now else None,
        "missed": None,
    }


def _missed(
    receiver: Receiver, most: int, provider: str | None
) -> tuple[Missed | None, int, list[Missed]]:
    kinds = [f"sms.{kind}" for kind in KINDS]
    return receiver.store.missed(kinds, TOGETHER, most, provider)
