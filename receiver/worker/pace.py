"""How long the worker rests between two rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from receiver.errors import ReceiverError
from receiver.store import Claim, Store, Want


class Pace:
    """After each round the worker rests, usually `rests` (of the store) times as long as the round
    took: requests, which want the same processor or lock, go first.

    If rounds are full, and more events come than could be called at that pace, handlers fall behind
    anyway. Then the worker rests longer, the more so the farther they fall behind, which leaves
    webhooks the most.
    """

    #: Seconds of a usual rest at least, so that under load one commit serves many calls; and at
    #: most.
    SHORTEST = 0.02
    LONGEST = 0.1
    #: Where far more comes than would be called: so many times what a round takes, at least
    #: `LONGEST` and at most so many seconds; and how much more that is. Less of it lies between.
    GIVES_WAY = 5
    LONGEST_GIVEN = 0.25
    FAR_MORE = 0.25
    #: Seconds between two looks at how much comes; and so many times what a look took, for the
    #: database may be far away.
    LOOK = 0.5
    LOOK_TIMES = 20

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """
        :param clock: in seconds, as no wall clock can turn it back.
        """
        self._store = store
        self._clock = clock
        #: Whether the last round has got all that it wanted, so that there may be more.
        self._was_full = False
        #: By handler, the latest event of its last full round.
        self._reached: dict[str, int] = {}
        #: Averages of full rounds: events between the ends of two, and seconds that one takes.
        self._advance: float | None = None
        self._takes: float | None = None
        #: Time of the last look, and the latest event then; time of the next look.
        self._looked: tuple[float, int] | None = None
        self._look_at = 0.0
        #: Events a second that come; 0 until the second look.
        self._arrive = 0.0

    def claimed(self, claims: Sequence[Claim], wants: Sequence[Want]) -> None:
        """What a round has got, of what it wanted."""
        number = Counter(claim.handler for claim in claims)
        most = max(wants, key=lambda want: number[want.handler], default=None)
        self._was_full = most is not None and number[most.handler] >= most.limit
        if most is None or not self._was_full:
            self._reached.clear()
            return
        reached = max(claim.event_seq for claim in claims if claim.handler == most.handler)
        before = self._reached.get(most.handler, reached)
        if reached > before:
            self._advance = _lately(self._advance, reached - before)
        self._reached[most.handler] = reached
        if self._looked is None or self._clock() >= self._look_at:
            with suppress(ReceiverError):
                self._look()

    def _look(self) -> None:
        began = self._clock()
        latest = self._store.newest()
        ended = self._clock()
        self._arrive = 0.0
        # Not over a time in which nobody had fallen behind.
        if self._looked is not None and began < self._look_at + 3 * self.LOOK:
            at, before = self._looked
            self._arrive = (latest - before) / (ended - at)
        self._looked = ended, latest
        self._look_at = ended + max(self.LOOK, self.LOOK_TIMES * (ended - began))

    def rest(self, took: float) -> float:
        """Seconds until the next round.

        :param took: seconds that the last one took.
        """
        usual = self._usual(took)
        was_full, self._was_full = self._was_full, False  # the next round may not claim at all
        if not was_full:
            return usual
        self._takes = _lately(self._takes, took)
        if self._advance is None:
            return usual
        called = self._advance / (self._takes + self._usual(self._takes))
        longest = max(self.LONGEST, min(self.LONGEST_GIVEN, self.GIVES_WAY * took))
        share = (self._arrive / called - 1) / self.FAR_MORE
        return usual + (longest - usual) * min(1.0, max(0.0, share))

    def _usual(self, took: float) -> float:
        return max(self.SHORTEST, min(self.LONGEST, self._store.rests * took))


def _lately(average: float | None, value: float) -> float:
    return value if average is None else average + (value - average) / 8
