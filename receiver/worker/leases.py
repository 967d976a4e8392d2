"""What the store has leased to this process without its knowledge.

Two things come to that. The process before has died: its leases are this one's, under the same
name. Or a claim was committed and its answer was lost. Either way the items are given back at once,
and no attempt counts. Except for what had begun when the process died, for that may be why: what
was alone has failed, and of several each is called again, alone.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Collection, Mapping

from receiver.registry import Handler
from receiver.store import Claim, Settlement, Store
from receiver.times import MINUTE
from receiver.worker.begun import Begun
from receiver.worker.ends import Failure, settlement

log = logging.getLogger(__package__)

#: Seconds after a failure, or the end of the process before, in which a commit may still come to
#: its end at the server; and between two looks meanwhile.
_LATE = 15.0
_LOOK = 1.0
#: Microseconds for which a lease may have run out: longer than a process waits for its next life.
_RUN_OUT = 2 * MINUTE

_ENDED = Failure(
    "ProcessEnded", "", "ProcessEnded: the handlers' process ended while this call alone ran"
)


class Leases:
    """The leases of this process, where they are not as it thinks.

    :param handlers: those of this process, by name.
    :param owner: whose they are. The next process has the same name; only one lives at a time.
    """

    def __init__(
        self, handlers: Mapping[str, Handler], begun: Begun, clock: float, owner: str = ""
    ) -> None:
        self._handlers = handlers
        self.begun = begun
        self.owner = owner or secrets.token_hex(8)
        #: What had begun beside others when the process before died: called alone, one by one.
        self.suspects: deque[Claim] = deque()
        self._looked = not owner  # nobody else has had a name that was made here
        self._look_at = clock
        self._look_until = clock + _LATE if owner else clock

    def doubt(self, clock: float) -> None:
        """A call to the store has failed: it may have been done all the same."""
        self._look_until = clock + _LATE

    def look(
        self, store: Store, now: int, clock: float, held: Callable[[], Collection[Claim]]
    ) -> list[Settlement]:
        """Find what is leased and not held, as long as there may be any; returns its ends."""
        if self._looked and not self._look_at <= clock < self._look_until:
            return []
        known = {_key(claim) for claim in (*held(), *self.suspects)}
        found = [
            claim for claim in store.leases(self.owner, now - _RUN_OUT) if _key(claim) not in known
        ]
        self._look_at = clock + _LOOK
        ends = []
        for claim in found:
            handler = self._handlers.get(claim.handler)
            if self._looked or handler is None or not self.begun.had_begun(claim):
                ends.append(Settlement(claim, "pending", now, given_back=True))
            elif self.begun.before == 1:
                ends.append(settlement(handler, claim, _ENDED, now))
            else:
                self.suspects.append(claim)
        if self.suspects and not self._looked:
            log.warning(
                "calls that ran when the handlers' process ended: %d; each is called again, alone",
                len(self.suspects),
            )
        self._looked = True
        return ends


def _key(claim: Claim) -> tuple[int, str, int]:
    return claim.event_seq, claim.handler, claim.fence
