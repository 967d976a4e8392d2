"""What a process that has died had leased, and claims of which the worker has not heard."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import closing
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from receiver import Registry, times
from receiver.errors import StoreUnavailable
from receiver.providers.zimsend.webhook import parse
from receiver.registry import Handler
from receiver.store import Selection, Store, Want, open_store
from receiver.times import DAY, MINUTE, SECOND
from receiver.worker import Call, Worker, memory_for
from tests.distance import Distance, at_port
from tests.payloads import envelope, sms
from tests.postgres import Databases


class Dies(BaseException):
    """The process ends in the middle of a call."""


class Life:
    """One process of several: its worker has the name and the memory of the one before.

    It is an `Executor` for all handlers: calls begin when the test says so.
    """

    def __init__(self, store: Store, registry: Registry, before: Life | None = None) -> None:
        self.waiting: list[tuple[Handler, Call]] = []
        self.clock = before.clock + 60 if before else 0.0
        self.now = before.now + SECOND if before else times.now() + MINUTE
        self.worker = Worker(store, registry, lambda: self.now, self._made, lambda: self.clock)
        self.memory = before.memory if before else memory_for(self.worker.most_calls)
        self.worker.succeed("somebody", self.memory)

    def _made(self, handler: Handler, ended: Callable[[Call], None]) -> _Calls:
        self._ended = ended
        return _Calls(self, handler)

    def step(self) -> list[str]:
        """A round; returns the events that wait for a thread."""
        self.clock += 1.0
        self.worker.step(self.now)
        return [call.claim.event_id for _, call in self.waiting]

    def call(self) -> list[str]:
        """Begin all that waits, and end it, unless one ends the process."""
        waiting, self.waiting = self.waiting, []
        for _, call in waiting:
            assert call.begin(self.clock)
        if any(call.claim.event_id == "poison" for _, call in waiting):
            raise Dies
        for handler, call in waiting:
            call.end(handler, lambda: self.clock)
            self._ended(call)
        return [call.claim.event_id for _, call in waiting]


class _Calls:
    def __init__(self, life: Life, handler: Handler) -> None:
        self._life = life
        self._handler = handler

    def add(self, call: Call) -> None:
        self._life.waiting.append((self._handler, call))

    def ring(self, calls: Collection[Call], average: float | None) -> None: ...

    def stop(self) -> None: ...


def put(store: Store, *event_ids: str, handlers: tuple[str, ...] = ("h",)) -> None:
    for event_id in event_ids:
        payload = envelope("sms.sent", sms("sent", f"m {event_id}")) | {"event_id": event_id}
        item = parse(json.dumps(payload).encode(), received_at=times.now(), retention=90 * DAY)
        assert list(store.ingest([item], lambda _: handlers, 5)) == ["accepted"]


def state(store: Store, event_id: str) -> tuple[str, int]:
    (found,) = store.events(Selection(ids=[event_id]))
    (one,) = found["deliveries"]
    return one["state"], one["attempts"]


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.on("*", name="h", max_attempts=2, concurrency=4)(lambda event: None)
    return registry


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "PATIENCE", 5.0)
    monkeypatch.setattr("receiver.worker.ends.backoff", lambda failures: SECOND)


def test_of_several_in_flight_only_the_one_that_kills_ends_dead(
    store: Store, registry: Registry
) -> None:
    put(store, "a", "poison", "b")
    deaths, life = 0, Life(store, registry)
    for _ in range(40):
        life.step()
        try:
            life.call()
        except Dies:
            deaths += 1
            life = Life(store, registry, life)
        life.now += SECOND
    assert {name: state(store, name) for name in ("a", "b", "poison")} == {
        "a": ("done", 1), "b": ("done", 1), "poison": ("dead", 2),
    }  # fmt: skip
    # The first death is nobody's; of the next two each counts an attempt.
    assert deaths == 3


def test_suspects_are_called_alone_and_the_rest_is_given_back_at_once(
    store: Store, registry: Registry
) -> None:
    put(store, "a", "poison", "b")
    life = Life(store, registry)
    life.step()
    with pytest.raises(Dies):
        life.call()
    put(store, "new")
    life = Life(store, registry, life)
    assert life.step() == ["a"]
    assert life.step() == ["a"]  # nothing else meanwhile
    assert life.call() == ["a"]
    assert life.step() == ["poison"]
    with pytest.raises(Dies):
        life.call()
    life = Life(store, registry, life)
    # What has not begun is free again, and so is all that is new. Who was alone waits.
    assert sorted(life.step()) == ["b", "new"]
    assert state(store, "poison") == ("pending", 1)
    life.call()
    life.step()
    assert state(store, "b") == state(store, "new") == ("done", 1)


def test_what_was_alone_is_counted_and_waits_for_its_retry(
    store: Store, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    put(store, "poison")
    life = Life(store, registry)
    life.step()
    with pytest.raises(Dies):
        life.call()
    life = Life(store, registry, life)
    assert life.step() == []
    assert state(store, "poison") == ("pending", 1)
    assert "ProcessEnded" in caplog.text
    life.now += SECOND
    assert life.step() == ["poison"]


def test_beside_a_call_past_its_timeout_none_was_alone(store: Store, registry: Registry) -> None:
    """It still ran, so it may be what has ended the process."""
    put(store, "overdue")
    life = Life(store, registry)
    life.step()
    assert life.waiting[0][1].begin(life.clock)
    life.clock += 21
    life.step()
    put(store, "beside")
    life.waiting.clear()
    life.step()
    assert life.waiting[0][1].begin(life.clock)
    life = Life(store, registry, life)
    assert life.step() == ["beside"]
    assert state(store, "beside") == ("pending", 1)
    life.call()
    life.step()
    assert state(store, "beside") == ("done", 1)


def test_what_no_call_has_begun_is_given_back_and_never_counts(
    store: Store, registry: Registry
) -> None:
    """As where the process is killed again and again between a claim and its calls."""
    put(store, "a", "b")
    life = Life(store, registry)
    for _ in range(10):
        life.step()
        life = Life(store, registry, life)
    life.step()
    assert state(store, "a") == state(store, "b") == ("pending", 1)
    life.call()
    life.step()
    assert state(store, "a") == state(store, "b") == ("done", 1)


def test_an_orderly_end_is_nobodys_fault(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its last words were not heard: the store was away."""
    monkeypatch.setattr(Worker, "DRAIN", 0.1)
    put(store, "a")
    life = Life(store, registry)
    life.step()
    assert life.waiting[0][1].begin(life.clock)
    worker = life.worker

    def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    def passes(_: float) -> None:
        life.clock += 1

    with monkeypatch.context() as patched:
        patched.setattr(store, "work", away)
        patched.setattr("receiver.worker.worker.time.sleep", passes)
        worker.stop()
        worker.run()
    assert state(store, "a") == ("pending", 1)
    life = Life(store, registry, life)
    life.step()
    assert life.step() == ["a"]
    assert state(store, "a") == ("pending", 1)


def test_a_stop_among_suspects_gives_them_back(store: Store, registry: Registry) -> None:
    put(store, "a", "poison")
    life = Life(store, registry)
    life.step()
    with pytest.raises(Dies):
        life.call()
    life = Life(store, registry, life)
    assert life.step() == ["a"]
    life.worker.stop()
    life.step()
    assert state(store, "a") == state(store, "poison") == ("pending", 0)


def test_what_others_have_leased_is_theirs(store: Store, registry: Registry) -> None:
    put(store, "theirs", "taken")
    life = Life(store, registry)
    (theirs, taken) = store.work(life.now, [], [Want("h", 2, DAY, 9, "another")], 5)
    assert life.step() == []
    assert store.leases("another", 0) == [theirs, taken]
    assert store.leases("somebody", 0) == []
    # A lease that has run out is another's as soon as he takes it.
    put(store, "late")
    (late,) = store.work(life.now, [], [Want("h", 1, SECOND, 9, "somebody")], 5)
    (again,) = store.work(life.now + SECOND, [], [Want("h", 1, DAY, 9, "another")], 5)
    assert again.event_id == "late"
    assert store.renew(late, life.now + DAY, 5) is None
    assert Life(store, registry, life).step() == []
    assert again in store.leases("another", 0)


def test_work_of_a_handler_that_the_next_process_does_not_have_is_given_back(
    store: Store, registry: Registry
) -> None:
    put(store, "poison")
    life = Life(store, registry)
    life.step()
    with pytest.raises(Dies):
        life.call()
    renamed = Registry()
    renamed.on("*", name="h2")(lambda event: None)
    Life(store, renamed, life).step()
    assert state(store, "poison") == ("pending", 0)
    assert store.leases("somebody", 0) == []


def test_a_store_that_is_away_at_the_start_loses_nothing(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "poison")
    life = Life(store, registry)
    life.step()
    with pytest.raises(Dies):
        life.call()
    life = Life(store, registry, life)

    def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    for method in ("leases", "work"):
        with monkeypatch.context() as patched:
            patched.setattr(store, method, away)
            for _ in range(20):
                with pytest.raises(StoreUnavailable):
                    life.step()
    assert life.step() == []
    assert state(store, "poison") == ("pending", 1)


@pytest.mark.parametrize("method", ["work", "renew"])
def test_what_was_done_and_not_heard_of_is_given_back_at_once(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """More often than there are attempts: nothing dies without having been called."""
    put(store, "a", "b")
    life = Life(store, registry)
    if method == "renew":
        life.step()
        assert all(call.begin(life.clock) for _, call in life.waiting)
        life = Life(store, registry, life)
    real = getattr(store, method)

    def unheard(*arguments: Any) -> None:
        real(*arguments)
        raise StoreUnavailable("the answer was lost")

    for _ in range(10 if method == "work" else 1):
        with monkeypatch.context() as patched:
            patched.setattr(store, method, unheard)
            with pytest.raises(StoreUnavailable):
                life.step()
    called: list[str] = []
    for _ in range(5):  # no time passes: no lease has run out
        life.step()
        called += life.call()
    assert sorted(called) == ["a", "b"]
    assert state(store, "a") == state(store, "b") == ("done", 1)


def test_at_distance_a_claim_that_was_cut_off_is_given_back(
    databases: Databases, registry: Registry
) -> None:
    url = databases.lend()
    way = Distance(int(conninfo_to_dict(url)["port"]), 0.15)
    with closing(open_store(url)) as near, closing(open_store(at_port(url, way.port))) as far:
        put(near, "a")
        life = Life(far, registry)
        life.step()
        life = Life(far, registry, life)
        way.cut_at("COMMIT\0")
        with pytest.raises(StoreUnavailable):
            life.step()
        (leased,) = near.leases("somebody", 0)
        assert leased.fence == 2  # given back and leased again, and nobody knows
        while not life.step():
            assert life.clock < 100
        assert state(near, "a") == ("pending", 1)
        life.call()
        life.step()
        assert state(near, "a") == ("done", 1)
    way.close()
    databases.take_back(url)
