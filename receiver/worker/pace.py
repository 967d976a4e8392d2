"""How long the worker rests between two rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from receiver.errors import ReceiverError
from receiver.store import Claim, Store, Want


class Pace:
    """Requests go first where they keep the processor or the store busy: a rest is so many times as
    long as the round before it as the store says.

    Where rounds are full, that may be too long to keep up, or too short: if more comes than would
    be called at that pace, handlers fall behind anyway, and webhooks are left as much as can be.
    """

    #: Seconds of a usual rest at least, so that under load one commit serves many calls; and at
    #: most.
    SHORTEST = 0.02
    LONGEST = 0.1
    #: Where more comes than would be called: so many times what a round takes, at least `LONGEST`
    #: and at most so many seconds.
    GIVES_WAY = 5
    LONGEST_GIVEN = 0.25
    #: Seconds between two looks at how much comes.
    LOOK = 0.5

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Whether the last round has got all that it wanted, so that there may be more.
        self._was_full = False
        #: By handler, the latest event of its last full round.
        self._reached: dict[str, int] = {}
        #: Lately, in full rounds: events by which one goes on, and seconds that it takes.
        self._goes_on: float | None = None
        self._takes: float | None = None
        #: When somebody looked for the last time, and what the latest event was.
        self._looked: tuple[float, int] | None = None
        #: Events a second that come; 0 as long as nobody has looked twice.
        self._come = 0.0

    def claimed(self, claims: Sequence[Claim], wants: Sequence[Want], clock: float) -> None:
        """What a round has got, of what it wanted.

        :param clock: in seconds; no wall clock.
        """
        number = Counter(claim.handler for claim in claims)
        most = max(wants, key=lambda want: number[want.handler], default=None)
        self._was_full = most is not None and number[most.handler] >= most.limit
        if most is None or not self._was_full:
            self._reached.clear()
            return
        reached = max(claim.event_seq for claim in claims if claim.handler == most.handler)
        before = self._reached.get(most.handler, reached)
        if reached > before:
            self._goes_on = _lately(self._goes_on, reached - before)
        self._reached[most.handler] = reached
        if self._looked is None or clock >= self._looked[0] + self.LOOK:
            with suppress(ReceiverError):
                self._look(clock)

    def _look(self, clock: float) -> None:
        latest = self._store.newest()
        at, before = self._looked or (clock, latest)
        since = clock - at
        self._come = (latest - before) / since if self.LOOK <= since < 4 * self.LOOK else 0.0
        self._looked = clock, latest

    def rest(self, took: float) -> float:
        """Seconds until the next round.

        :param took: seconds that the last one took.
        """
        usual = max(self.SHORTEST, min(self.LONGEST, self._store.rests * took))
        if not self._was_full:
            return usual
        self._takes = _lately(self._takes, took)
        if self._goes_on is None:
            return usual
        called = self._goes_on / (self._takes * (1 + self._store.rests))
        if called >= self._come:
            return usual
        return max(self.LONGEST, min(self.LONGEST_GIVEN, self.GIVES_WAY * took))


def _lately(average: float | None, value: float) -> float:
    return value if average is None else average + (value - average) / 8
