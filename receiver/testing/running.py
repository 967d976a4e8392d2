"""A receiver whose worker runs in the thread of a test, by a clock that the test moves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, partial
from threading import RLock
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from receiver import ids
from receiver.event import Incoming
from receiver.parts import Receiver, parts
from receiver.providers import PROVIDERS
from receiver.registry import Handler, Registry
from receiver.store import Selection
from receiver.worker import Call, Worker, event_of

#: Rounds of the worker after which handlers that never come to an end are given up.
_MOST_ROUNDS = 10_000


class Receiving:
    """A receiver with a worker in this thread.

    :param now: the worker's clock.
    :param client: makes what sends requests, to the program that the receiver is in.
    :param prefix: what stands before the paths of webhooks there.
    """

    def __init__(
        self,
        app: Flask,
        now: Callable[[], int],
        client: Callable[[], FlaskClient],
        prefix: str = "",
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._here: Receiver = parts(app)
        self.store = self._here.store
        self.now = now
        #: The clock of the webhook.
        self.received_now = self._here.now
        #: What handlers have raised, by event and handler.
        self.raised: dict[tuple[str, str], BaseException] = {}
        #: Ctrl-C, or the end that pytest makes of a test: of no concern to the worker.
        self._interrupt: BaseException | None = None
        self._calling: tuple[str, str] = "", ""
        self._calls = 0
        self._one_thread = RLock()
        self._runs = False
        self.store.migrate()
        self._told = self._dead()

    @cached_property
    def _worker(self) -> Worker:
        """Of the handlers that there are at the first event."""
        registry = Registry()
        copy(self._here.registry, registry)  # without `on_dead`, for which it has a thread
        return Worker(
            self.store, registry, self.now, self._executor, lambda: 0.0, inside=self._inside
        )

    def post(self, body: bytes, provider: str) -> tuple[int, Mapping[str, Any], str]:
        """Send a body as the provider would.

        :returns: the answer's status and JSON, and the id of the (first) event, empty without one.
        """
        door, config = PROVIDERS[provider].door, self._here.config
        assert door is not None
        answered = self._client().post(
            self._prefix + door.address(config),
            data=body,
            content_type="application/json",
            headers=dict(door.headers(config, body)),
        )
        answer = answered.get_json(silent=True) or {}
        event_id = ""
        if answered.status_code == 200:
            event_id = answer.get("event_id") or self._id_of(body, provider)
        return answered.status_code, answer, event_id

    def _id_of(self, body: bytes, provider: str) -> str:
        """The id of a body's first event, where the answer does not tell it."""
        config = self._here.config
        first, *_ = PROVIDERS[provider].parse(
            body,
            received_at=self._here.now(),
            retention=config.retention,
            text_mode=config.text_mode,
        )
        return ids.written(first.id) if isinstance(first, Incoming) else ""

    def run(self) -> int:
        """Run what is due, and what becomes due by that without waiting.

        :returns: the number of calls. A handler that sends events itself leaves them to the run
            that it is called in.
        """
        with self._one_thread:
            if self._runs:
                return 0
            self._runs = True
            try:
                return self._run()
            finally:
                self._runs = False

    def _run(self) -> int:
        began = self._calls
        for _ in range(_MOST_ROUNDS):
            before = self._calls
            self._worker.wake()
            self._worker.step(self.now())
            if self._interrupt is not None:
                interrupt, self._interrupt = self._interrupt, None
                raise interrupt
            if self._calls == before and self._worker.settled:
                break
        else:
            raise RuntimeError(f"there is still work after {_MOST_ROUNDS} rounds")
        for died in self._dead():
            if died not in self._told:
                self._told.append(died)
                self._tell(*died)
        return self._calls - began

    def next_due(self) -> int | None:
        """When the next attempt of a handler is due."""
        due = [self.store.next_due(handler.name, -1) for handler in self._here.registry]
        return min((each for each in due if each is not None), default=None)

    def _dead(self) -> list[tuple[str, str, str]]:
        """Event, handler and last error of work that is dead, in the order of the events."""
        return [
            (event["event_id"], delivery["handler"], delivery["last_error"])
            for event in self.store.events(Selection(state="dead"))
            for delivery in event["deliveries"]
            if delivery["state"] == "dead"
        ]

    def _tell(self, event_id: str, handler: str, error: str) -> None:
        """What `Registry.on_dead` was given. What it raises reaches the test."""
        claim = self.store.unclaimed(event_id, handler)
        if claim is not None:
            for function in self._here.registry.dead_functions:
                with self._here.inside():
                    function(event_of(claim), handler, error)

    def _executor(self, handler: Handler, ended: Callable[[Call], None]) -> AtOnce:
        return AtOnce(handler, ended, self._begin)

    def _begin(self, call: Call) -> None:
        self._calls += 1
        self._calling = call.claim.event_id, call.claim.handler

    def _inside(self) -> AbstractContextManager[object]:
        return _Watched(self._here.inside(), partial(self._raised, self._calling))

    def _raised(self, calling: tuple[str, str], error: BaseException) -> None:
        self.raised[calling] = error
        if not isinstance(error, Exception | SystemExit):
            self._interrupt = error


class _Watched(ExitStack):
    """What a handler is called inside of, remembering what is raised in it.

    Of a class, and not a generator, whose frames would be a part of each traceback.
    """

    def __init__(
        self, inside: AbstractContextManager[object], remember: Callable[[BaseException], None]
    ) -> None:
        super().__init__()
        self._remember = remember
        self.enter_context(inside)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> bool:
        if error is not None:
            self._remember(error)
        return bool(super().__exit__(kind, error, traceback))


class AtOnce:
    """Runs the calls of a handler in the thread of the worker's loop (`receiver.worker.Executor`).

    :param begin: told of each call before it runs.
    """

    def __init__(
        self, handler: Handler, ended: Callable[[Call], None], begin: Callable[[Call], None]
    ) -> None:
        self._handler = handler
        self._ended = ended
        self._begin = begin
        self._waiting: deque[Call] = deque()

    def add(self, call: Call) -> None:
        self._waiting.append(call)

    def ring(self, calls: Collection[Call], average: float | None) -> None:
        while self._waiting:
            call = self._waiting.popleft()
            if call.begin(0.0):
                self._begin(call)
                call.end(self._handler, lambda: 0.0)
            self._ended(call)

    def stop(self) -> None: ...


def register(registry: Registry) -> None:
    """For `HANDLERS`: none. `FakeZimSend.handlers` adds them when the receiver is there."""


def copy(from_: Registry, to: Registry) -> None:
    """Register the same handlers."""
    for handler in from_:
        to.on(
            *handler.patterns,
            name=handler.name,
            max_attempts=handler.max_attempts,
            timeout=handler.timeout,
            concurrency=handler.concurrency,
        )(handler.function)
