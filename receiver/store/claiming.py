"""What both engines know of a message's queue: how its work items stand in it, and how far a claim
looks.

Of the items of one message and handler only the first may be claimed. So that the others cost
nothing, a claim that meets them *parks* them: they are due, and no longer found by what is due.
Whoever ends a lease *un-parks* the first of them, and that one is met again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from receiver.calling import call
from receiver.times import iso

log = logging.getLogger(__name__)

#: When a parked item is due, for all who look for what is: never. `due_since` says since when it
#: has been. In this way a release that knows nothing of parking passes over it, too.
NEVER = 2**62

#: How an item stands among the pending ones of its message and handler. Nobody has called it yet;
#: it is parked; it waits for its retry, or is due again; it is leased, or its lease has run out.
STANDS = FRESH, PARKED, AGAIN, LEASED = range(4)
STAND = (
    f"CASE WHEN leased THEN {LEASED} WHEN due_at = {NEVER} THEN {PARKED}"
    f" WHEN attempts > 0 THEN {AGAIN} ELSE {FRESH} END"
)

#: Attempts that may end without a word (a process killed, a lease run out) beyond a handler's
#: `max_attempts` before the work is given up: work that kills its process must end, too.
SILENT_ATTEMPTS = 3

#: The first of a message that is due is looked for among so many of each stand, by their order:
#: many may wait for a retry. The one that was met is due in any case.
FARTHEST = 256
#: How often a claim looks at most, and at how many items after the first time.
LOOKS = 3
_FURTHER = 128


def looks(limit: int) -> list[int]:
    """How many items a claim looks at, one look after the other, until it has what it wants: at as
    many as it wants, and at more where those are of few messages.

    The caller comes back for the rest: what has been met will not be in the way again.
    """
    return [limit, *[_FURTHER] * (LOOKS - 1)]


def told(
    handler: str, state: str, attempts: int, last_error: str | None, due_at: int, leased: bool
) -> dict[str, Any]:
    """A work item as operators see it. Its next attempt is told where it waits for its time: not
    while it runs, and not behind another item of its message."""
    waits = state == "pending" and not leased and due_at != NEVER
    return {
        "handler": handler,
        "state": state,
        "attempts": attempts,
        "last_error": last_error,
        "next_attempt_at": iso(due_at) if waits else None,
    }


def tell_given_up(handler: str, seqs: Sequence[int]) -> None:
    """Log the items whose attempts have all ended without a word: none of their failures has
    been logged."""
    if seqs:
        log.error(
            "%d work items of handler %s are dead: their attempts ended without a word, as where a "
            "call ends its process (`%s` shows them)",
            len(seqs),
            handler,
            call("events list --state dead"),
        )
