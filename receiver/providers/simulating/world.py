"""A simulated world: plans, requests that are tried, and what comes back. No clock, no network.

Time is an argument and only moves forward. What happens to the n-th message, and to the n-th event,
is drawn from the seed and n alone, so the same seed gives the same world however threads and
answers happen to interleave.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from receiver.times import SECOND, iso


@dataclass(frozen=True, slots=True)
class Weather:
    """How bad a world it is. Shares are from 0 to 1.

    :param failed: SMS that fail.
    :param duplicates: events that are sent once more after they were received.
    :param reorder: events whose first try comes up to 20 seconds late.
    :param drop: tries that never arrive.
    :param lost_answers: tries that arrive, and whose answer is lost.
    :param outage: from when to when no try arrives; microseconds after the beginning.
    """

    failed: float = 0.0
    duplicates: float = 0.0
    reorder: float = 0.0
    drop: float = 0.0
    lost_answers: float = 0.0
    outage: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Try:
    """One attempt to deliver an event: when, and what came back (a status, or what went wrong)."""

    at: int
    outcome: str = "on its way"
    #: How long the sender waited for the answer.
    took_ms: int = 0


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One request to a receiver, with its tries."""

    id: str
    number: int
    type: str
    at: int
    url: str
    body: bytes
    tries: list[Try] = field(default_factory=list)
    #: `pending`, `received` (answered with 200), or `dropped` after the last try; or `test`.
    state: str = "pending"
    #: It reached the receiver, whether its answer came back or not.
    arrived: bool = False

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json"}

    @property
    def about(self) -> str:
        """What it tells of, for people."""
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        """What became of it."""
        return {
            "at": iso(self.at),
            "state": self.state,
            "arrived": self.arrived,
            "tries": [{"at": iso(t.at), "outcome": t.outcome} for t in self.tries],
        }


@dataclass(frozen=True, slots=True)
class Post:
    """A request to be sent now."""

    event: Any
    number: int
    #: It does not arrive; `Try.outcome` says so.
    lost: bool
    #: It arrives, and what comes back is not seen.
    answer_lost: bool

    @property
    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = self.event.headers
        return headers


class SimulatedWorld:
    """What a simulated provider does by itself.

    :param began: its first moment.
    :param tries: when a request is tried, after it happened.
    """

    def __init__(
        self, *, began: int, seed: int, weather: Weather | None, tries: Sequence[int]
    ) -> None:
        self.began = self.now = began
        self.seed = seed
        self.weather = weather or Weather()
        self.events: list[Any] = []
        #: Every try that has ended, with its number, in that order.
        self.log: list[tuple[Any, int]] = []
        self._tries = tries
        self._posts: list[Post] = []
        #: When, in which order, what, and whether it still holds.
        self._plans: list[tuple[int, int, Callable[[], None], Callable[[], bool]]] = []
        self._order = itertools.count()

    # --- time

    def advance(self, now: int) -> list[Post]:
        """Let time pass, and take the requests that are due."""
        self.pass_time(now)
        posts, self._posts = self._posts, []
        return posts

    def pass_time(self, now: int) -> None:
        """Let time pass; the requests that are due wait to be taken."""
        while self._plans and self._plans[0][0] <= now:
            self.now, _, happen, holds = heapq.heappop(self._plans)
            if holds():
                happen()
        self.now = max(self.now, now)

    @property
    def is_out(self) -> bool:
        """Whether nothing arrives at this moment (`Weather.outage`)."""
        begins, ends = (self.began + moment for moment in self.weather.outage)
        return begins <= self.now < ends

    @property
    def next_at(self) -> int | None:
        """When something happens next by itself."""
        return self._plans[0][0] if self._plans else None

    @property
    def at_rest(self) -> bool:
        """Every message has come to its end, and every event was received or dropped."""
        return (
            not self._posts
            and not any(holds() for *_, holds in self._plans)
            and all(event.state != "pending" for event in self.events)
        )

    def plan(
        self, at: int, happen: Callable[[], None], holds: Callable[[], bool] = lambda: True
    ) -> None:
        heapq.heappush(self._plans, (max(at, self.now), next(self._order), happen, holds))

    def chance(self, *about: object) -> random.Random:
        """The randomness of one thing, whatever happened before it."""
        return random.Random("/".join(map(str, (self.seed, *about))))

    def plan_campaign(
        self, count: int, rate: float, send: Callable[[str, str, int], object]
    ) -> None:
        """Plan a customer's SMS.

        :param rate: SMS a second.
        :param send: is called with the recipient, the text, and the order's number.
        """

        def one(number: int) -> Callable[[], None]:
            chance = self.chance("campaign", number)

            def happen() -> None:
                to = f"+336{chance.randrange(10**8):08}"
                code = chance.randrange(10**6)
                send(to, f"Votre commande CMD-{1000 + number} est prête. Code {code}", number)

            return happen

        for number in range(count):
            self.plan(self.began + int(number / rate * SECOND), one(number))

    # --- requests to the receiver

    def deliver(self, event: Delivery) -> None:
        """Try to deliver an event, from now on."""
        self.events.append(event)
        chance = self.chance("event", event.number)
        late = chance.random() < self.weather.reorder
        self._plan_try(event, self.now + (int(chance.uniform(1, 20) * SECOND) if late else 0))

    def _plan_try(self, event: Delivery, at: int) -> None:
        self.plan(at, lambda: self._try(event))

    def _try(self, event: Delivery) -> None:
        number = len(event.tries)
        chance = self.chance("try", event.number, number)
        lost = chance.random() < self.weather.drop or self.is_out
        answer_lost = chance.random() < self.weather.lost_answers
        event.tries.append(Try(self.now))
        self._posts.append(Post(event, number, lost, answer_lost))

    def answered(self, post: Post, outcome: str, took_ms: int = 0) -> None:
        """Tell what came back of a request.

        :param outcome: the status, or a word for what went wrong; only `200` is a success.
        :param took_ms: how long the sender waited for it.
        """
        event, number = post.event, post.number
        if post.lost:
            outcome = "lost on the way"
        else:
            event.arrived = event.arrived or outcome == "200"
            if post.answer_lost:
                outcome = f"{outcome}, but the answer was lost"
        event.tries[number].outcome, event.tries[number].took_ms = outcome, took_ms
        self.log.append((event, number))
        if event.state != "pending":
            return  # a duplicate, or a test
        if outcome == "200":
            event.state = "received"
            if self.chance("duplicate", event.number).random() < self.weather.duplicates:
                self.repeat(event)
        elif number + 1 < len(self._tries):
            self._plan_try(event, event.tries[0].at + self._tries[number + 1])
        else:
            event.state = "dropped"

    def repeat(self, event: Delivery) -> None:
        """Send once more what was received."""
        self._plan_try(event, self.now + SECOND)

    # --- the truth

    def states(self) -> Iterable[str]:
        """The state of each message."""
        raise NotImplementedError

    def report(self) -> Iterator[str]:
        """Lines for people: how many messages and events, and what never arrived."""
        states = list(self.states())
        yield f"{len(states)} messages: {_counted(states)}"
        yield f"{len(self.events)} events: {_counted(event.state for event in self.events)}"
        for event in self.events:
            if not event.arrived:
                outcomes = ", ".join(each.outcome for each in event.tries) or "not tried yet"
                yield f"lost: {event.id} {event.type} {event.about} ({outcomes})"

    def truth(self) -> Mapping[str, Any]:
        """What really became of every message and every event."""
        return {
            "simulator": "not the provider",
            "seed": self.seed,
            "now": iso(self.now),
            "at_rest": self.at_rest,
        }


def _counted(states: Iterable[str]) -> str:
    counts = sorted(Counter(states).items())
    return ", ".join(f"{count} {state}" for state, count in counts) or "none"
