"""What happens to a request that brings events, without sockets, Flask or event loop.

The description is a generator. It stops where somebody else has work to do: it yields the items
that are to be stored and is sent what became of them, or yields `ELSEWHERE` before a computation
that would hold up an event loop. Two drivers run it: the event loop, which awaits the commit, and
an ordinary Flask route, which blocks for it (`blocking`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from receiver import event, ids, metrics, times
from receiver.calling import call
from receiver.config import Config
from receiver.counting import Uncounted
from receiver.errors import Refused, StoreUnavailable, Unusable, is_shortage
from receiver.event import Incoming
from receiver.logs import Sparingly
from receiver.providers import Door, Item, Provider
from receiver.refusals import BODY, LARGEST, STORE, Refusals
from receiver.store import Outcome, stored_as

log = logging.getLogger(__name__)

#: Yields what is to be stored or `ELSEWHERE`, is sent the outcomes or `None`, and returns the JSON
#: of the 200. Raises what becomes any other answer.
Steps = Generator["Sequence[Item] | None", "Sequence[Outcome] | None", str]

#: The next step may take milliseconds of computing.
ELSEWHERE = None
#: Bytes of a body above which parsing it counts as such a step.
LARGE = 16_384


class Visit(NamedTuple):
    """Whose requests come to a path.

    :param claimed: the secret in the path, if there is one.
    """

    provider: Provider
    door: Door
    claimed: str | None = None

    def accepts(self, method: str) -> bool:
        """Whether such a request brings events."""
        return method in self.door.methods


class Receiving:
    """The way of a request, for each provider that sends some.

    :param providers: those that are set up.
    :param now: the wall clock, in microseconds.
    :param counting: told of what leaves no row.
    """

    def __init__(
        self,
        config: Config,
        providers: Iterable[Provider],
        now: Callable[[], int],
        counting: Uncounted | None = None,
    ) -> None:
        self._config = config
        self._counting = counting or Uncounted()
        self._now = now
        self._retries = Sparingly()
        self._collisions = Sparingly()
        self._shortages = Sparingly()
        #: By the path of their requests; and those where the secret is one more part of it.
        self._fixed: dict[str, Visit] = {}
        self._secret: dict[str, Visit] = {}
        for provider in providers:
            if provider.door is not None:
                known = self._secret if provider.door.header is None else self._fixed
                known[provider.door.path] = Visit(provider, provider.door)
        self.refusals = Refusals([*self._fixed, *(f"{path}/TOKEN" for path in self._secret)])
        self.refusals.on_refusal = partial(self._counting.count, metrics.REFUSED)

    @property
    def largest_body(self) -> int:
        """Bytes; a larger body is answered 413."""
        return self._config.max_body_bytes

    def find(self, path: str) -> Visit | None:
        """Whose requests come to a path; `None` for a path of nobody's, and for a wrong secret."""
        visit = self._fixed.get(path)
        if visit is not None or not self._secret:
            return visit
        parent, _, claimed = path.rpartition("/")
        visit = self._secret.get(parent)
        if visit is None or not visit.door.authenticate(self._config, b"", claimed):
            return None
        return visit._replace(claimed=claimed)

    def needs_secret(self, path: str) -> bool:
        """Whether a path is one of those that only `find` with a right secret."""
        return path.rpartition("/")[0] in self._secret

    def authenticate(self, provider: Provider, body: bytes, claimed: str | None) -> None:
        """
        :param claimed: the header as the server joined it, or the secret in the path, or `None`.
        :raises Refused: the same for what is missing, malformed, or made with another secret.
        """
        door = provider.door
        if door is None or not door.authenticate(self._config, body, claimed):
            raise Refused(401, "the signature is missing, or does not match the body")

    def refused(self, visit: Visit, body: bytes, headers: Mapping[str, str]) -> None:
        """Count a request that was answered 401. Why is looked for later, and elsewhere.

        :param headers: names in lower case.
        """
        look = partial(visit.door.likely_cause, self._config, body[: LARGEST + 1], headers)
        self.refusals.signature(look)

    def cut_short(self) -> None:
        """Count a webhook whose body did not come whole, or cannot be read."""
        self._counting.count(metrics.REFUSED, BODY)

    def receive(self, provider: Provider, body: bytes, claimed: str | None) -> Steps:
        """Authenticate the raw bytes, parse them, let them be stored, and say so.

        :raises Refused, StoreUnavailable: where the answer is not 200.
        """
        self.authenticate(provider, body, claimed)
        now = times.receipt(self._now())
        try:
            if len(body) > LARGE:
                yield ELSEWHERE
            items = self._items(provider, body, now)
            try:
                outcomes = yield items
            except Exception as error:
                if _is_outage(error):
                    raise
                # Whatever is authenticated is kept, also where this program has a defect.
                log.exception("an event could not be stored and goes into quarantine")
                items, outcomes = yield from self._one_by_one(provider, items, now)
        except Exception as error:
            if not _is_outage(error):
                raise
            self._counting.count(metrics.REFUSED, STORE)
            if isinstance(error, StoreUnavailable):
                raise
            if self._shortages.admit() is not None:
                log.error("events cannot be taken now: %s", type(error).__name__)
            raise StoreUnavailable("this process is short of files or memory") from None
        assert outcomes is not None
        if any(outcome.endswith("apart") for outcome in outcomes):
            items, outcomes = self._apart(items, outcomes)
        if "duplicate" in outcomes:
            self._count_duplicates(provider, items, outcomes)
        assert provider.door is not None
        try:
            return provider.door.answer(items, outcomes)
        except Refused:
            self._counting.count(metrics.REFUSED, BODY)
            raise

    def _count_duplicates(
        self, provider: Provider, items: Sequence[Item], outcomes: Sequence[Outcome]
    ) -> None:
        number = outcomes.count("duplicate")
        self._counting.count(metrics.DUPLICATES, by=number)
        if provider.tries is None:
            return
        self._counting.count(metrics.RETRIES, by=number)
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome == "duplicate" and isinstance(item, Incoming):
                self._tell_of_a_retry(provider, item.id)

    def _items(self, provider: Provider, body: bytes, now: int) -> Sequence[Item]:
        """What a body says; where it says nothing of use, what quarantine keeps of it."""
        config = self._config
        try:
            return provider.parse(
                body, received_at=now, retention=config.retention, text_mode=config.text_mode
            )
        except Unusable as unusable:
            return [self._reject(provider, body, unusable.reason, now)]
        except Exception as error:
            if _is_outage(error):
                raise
            # Its words may hold what was read, and so does a traceback that ends in them.
            log.error("an event cannot be read, by a defect: %s", type(error).__name__)
            reason = f"it cannot be read; after an update, `{call('quarantine retry')}` may take it"
            return [self._reject(provider, body, reason, now)]

    def _one_by_one(
        self, provider: Provider, items: Sequence[Item], now: int
    ) -> Generator[Sequence[Item], Sequence[Outcome] | None, tuple[list[Item], list[Outcome]]]:
        """Let items be stored each by itself; what the store refuses goes into quarantine."""
        stored: list[Item] = []
        ends: list[Outcome] = []
        for item in items:
            try:
                outcomes = (yield [item]) if len(items) > 1 else None
            except Exception as error:
                if _is_outage(error):
                    raise
                outcomes = None
            if outcomes is None and isinstance(item, Incoming):
                reason = (
                    "the store refused it; after an update, "
                    f"`{call('quarantine retry')}` may take it"
                )
                item = self._reject(provider, item.body, reason, now)
            if outcomes is None:
                outcomes = yield [item]
            assert outcomes is not None
            stored.append(item)
            ends += outcomes
        return stored, ends

    def _reject(self, provider: Provider, body: bytes, reason: str, now: int) -> event.Rejected:
        return event.reject(
            body,
            reason,
            received_at=now,
            text_mode=self._config.text_mode,
            provider=provider.name,
        )

    def _tell_of_a_retry(self, provider: Provider, key: str) -> None:
        """An event that comes again is one whose first answer its provider did not see in time."""
        held_back = self._retries.admit()
        if held_back is not None:
            log.warning(
                "event %s is stored, and came again: its first answer was late or lost; %s drops "
                "an event after %d such tries%s",
                ids.written(key),
                provider.title,
                provider.tries,
                f" ({held_back} more came again since the last such line)" if held_back else "",
            )

    def _apart(
        self, items: Sequence[Item], outcomes: Sequence[Outcome]
    ) -> tuple[list[Item], list[Outcome]]:
        """The items as they were stored, where some of them had others' ids."""
        stored: list[Item] = []
        ends: list[Outcome] = []
        for came, outcome in zip(items, outcomes, strict=True):
            item, end = stored_as(came, outcome) if isinstance(came, Incoming) else (came, outcome)
            if isinstance(came, Incoming) and isinstance(item, Incoming) and item is not came:
                self._tell_of_a_collision(came.id, item.id)
            stored.append(item)
            ends.append(end)
        return stored, ends

    def _tell_of_a_collision(self, key: str, own_key: str) -> None:
        held_back = self._collisions.admit()
        if held_back is not None:
            log.warning(
                "event ids collide: %s came with another type or message before, so this event is "
                "kept as %s%s; each event needs an id of its own at its sender",
                ids.written(key),
                ids.written(own_key),
                f" ({held_back} more since the last such line)" if held_back else "",
            )


def _is_outage(error: Exception) -> bool:
    """Whether it may be over when the sender tries again: nothing is to be kept apart for it."""
    return isinstance(error, StoreUnavailable) or is_shortage(error)


def blocking(steps: Steps, store: Callable[[Sequence[Item]], Sequence[Outcome]]) -> str:
    """Run the description to its end in this thread.

    :param store: returns when the items are on the disk.
    """
    try:
        step = next(steps)
        while True:
            try:
                outcomes = None if step is ELSEWHERE else store(step)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(outcomes)
    except StopIteration as end:
        text: str = end.value
        return text
