"""One claimed item on its way through a handler."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, nullcontext
from enum import Enum, auto
from functools import partial

from receiver import ids, times
from receiver.errors import HandlerError
from receiver.event import Event
from receiver.providers import provider_of
from receiver.registry import Handler
from receiver.store import Claim
from receiver.worker.begun import Begun
from receiver.worker.ends import Failure, failure_of

#: What a handler runs inside: made anew for each call.
Surroundings = Callable[[], AbstractContextManager[object]]

#: What a call returns that has not run yet.
_NOT_RUN = (Awaitable, Generator, AsyncGenerator)


class State(Enum):
    """How far a call is. It begins as `WAITING`, and leaves each state once."""

    #: Nobody has begun it.
    WAITING = auto()
    #: It has begun, and its end counts when it comes.
    RUNNING = auto()
    #: It was returned to the store before it began, and will not begin.
    GIVEN_BACK = auto()
    #: It has begun, and its end was decided without it: what it brings no longer counts.
    OVERTAKEN = auto()


class Call:
    """One claimed item. Whoever runs it begins it; the worker's loop gives it back or overtakes it.

    :param claimed: when it was claimed, by the worker's clock.
    :param begun: where it is written down that it runs.
    """

    __slots__ = (
        *("_begun", "_changing", "_inside", "_slot"),
        *("claim", "claimed", "failure", "started", "state", "took"),
    )

    def __init__(
        self, claim: Claim, claimed: float, begun: Begun, inside: Surroundings = nullcontext
    ) -> None:
        self._inside = inside
        self.claim = claim
        self.claimed = claimed
        self._begun = begun
        self._slot: int | None = None
        self.state = State.WAITING
        #: When it began; it says nothing before that.
        self.started = 0.0
        #: Once it has ended: how many seconds it took, and what the handler raised.
        self.took = 0.0
        self.failure: Failure | None = None
        self._changing = threading.Lock()

    def change(self, before: State, after: State) -> bool:
        """Go from one state to another; returns whether it was in the first one.

        So of those that begin a call and give it back at the same moment, one succeeds.
        """
        with self._changing:
            if self.state is not before:
                return False
            self.state = after
            return True

    def begin(self, now: float) -> bool:
        """Whether it has begun now, and must be brought to its end: not if it was given back."""
        self.started = now  # before the state says so
        if not self.change(State.WAITING, State.RUNNING):
            return False
        self._slot = self._begun.begin(self.claim)
        return True

    def end(self, handler: Handler, clock: Callable[[], float]) -> None:
        """Call the handler, and note what came of it. Raises nothing."""
        try:
            with self._inside():
                call(handler, event_of(self.claim))
        except BaseException as error:  # also SystemExit: it ends no thread of ours
            self.failure = failure_of(error, handler)
        self._begun.end(self._slot)
        self.took = clock() - self.started

    @property
    def begun(self) -> bool:
        """Whether it has begun. It holds its place in its handler until its end is heard of."""
        return self.state is State.RUNNING or self.state is State.OVERTAKEN

    @property
    def settled(self) -> bool:
        """Whether its end is decided, so that what it may still bring does not count."""
        return self.state is State.GIVEN_BACK or self.state is State.OVERTAKEN


def call(handler: Handler, event: Event) -> None:
    """Call a handler.

    :raises BaseException: whatever the handler raises.
    """
    returned = handler.function(event)
    if isinstance(returned, _NOT_RUN):  # a wrapper hid what the registry refuses
        if isinstance(returned, Coroutine):
            returned.close()  # or Python warns of it
        kind = type(returned).__name__
        raise HandlerError(f"its call returned a {kind}, which nobody runs")


def event_of(claim: Claim) -> Event:
    """The event as a handler sees it."""
    provider = provider_of(claim.event_id)
    return Event(
        id=ids.written(claim.event_id),
        type=claim.event_type,
        occurred_at=times.to_datetime(claim.occurred_at),
        received_at=times.to_datetime(claim.received_at),
        message_id=None if claim.message_id is None else ids.split(claim.message_id)[1],
        source=claim.source,
        late=bool(claim.late),
        redacted=bool(claim.redacted),
        raw=provider.raw(claim.body),
        attempt=claim.attempt,
        provider=provider.name,
        _told=partial(provider.read, claim.body),
    )
