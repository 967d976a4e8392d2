"""The worker: its loop against a real store, its steps with a time that the test gives."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import Event, HandlerError, Registry, times
from receiver.errors import StoreUnavailable
from receiver.providers.zimsend.webhook import parse
from receiver.registry import Handler
from receiver.store import Selection, Store, Want
from receiver.times import DAY, HOUR, MINUTE, SECOND
from receiver.worker import FIRST_BACKOFF, Call, Executors, Threads, Worker, backoff
from receiver.worker.notes import bury
from tests.payloads import envelope, sms
from tests.server import eventually
from tests.shortage import threads_allowed


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step of a worker fails because the machine stood still for a moment."""
    assert Worker.PATIENCE < 0.5  # webhooks wait for the same lock
    monkeypatch.setattr(Worker, "PATIENCE", 5.0)


def put(store: Store, registry: Registry, message_id: str = "m1", **changes: Any) -> str:
    """Store one event as the webhook does, and return its id."""
    payload = envelope("sms.sent", sms("sent", message_id)) | changes
    item = parse(json.dumps(payload).encode(), received_at=times.now(), retention=90 * DAY)
    assert list(store.ingest([item], registry.wanting, 5)) == ["accepted"]
    return item.id


def delivery(store: Store, event_id: str, handler: str = "h") -> dict[str, Any]:
    (found,) = store.events(Selection(ids=[event_id]))
    (one,) = (d for d in found["deliveries"] if d["handler"] == handler)
    result: dict[str, Any] = one
    return result


@contextmanager
def running(store: Store, registry: Registry, executor: Executors = Threads) -> Iterator[Worker]:
    worker = Worker(store, registry, executor=executor)
    worker.start()
    try:
        yield worker
    finally:
        assert worker.drain(30)


class AtOnce:
    """Runs each call in the round that has claimed it: an `Executor` without threads."""

    def __init__(self, handler: Handler, ended: Callable[[Call], None]) -> None:
        self._handler = handler
        self._ended = ended

    def add(self, call: Call) -> None:
        assert call.begin(time.monotonic())
        call.end(self._handler, time.monotonic)
        self._ended(call)

    def ring(self, calls: Collection[Call], average: float | None) -> None: ...

    def stop(self) -> None: ...


def stepping(store: Store, registry: Registry) -> Callable[[int], None]:
    """The steps of a worker: `step(now)` until everything that is due is settled."""
    worker = Worker(store, registry, executor=AtOnce)

    def step(now: int) -> None:
        worker.step(now)
        while not worker.settled:
            worker.step(now)

    return step


def test_done_dead_and_tried_again(store: Store) -> None:
    registry = Registry()
    outcomes: dict[str, Exception | None] = {}

    @registry.on("*", name="h", max_attempts=3)
    def handle(event: Event) -> None:
        error = outcomes[event.id]
        if error is not None:
            raise error

    def add(error: Exception | None) -> str:
        event_id = put(store, registry, f"m{len(outcomes)}")
        outcomes[event_id] = error
        return event_id

    fine = add(None)
    defect = add(ValueError("some text"))
    permanent = add(HandlerError("no", permanent=True))
    in_an_hour = add(HandlerError("busy", retry_after=3600))
    step = stepping(store, registry)
    now = times.now()
    step(now)
    assert delivery(store, fine) == {
        "handler": "h", "state": "done", "attempts": 1, "last_error": None, "next_attempt_at": None,
    }  # fmt: skip
    assert delivery(store, permanent)["state"] == "dead"
    assert delivery(store, permanent)["last_error"] == "HandlerError: no"
    assert delivery(store, defect)["state"] == "pending"
    assert delivery(store, defect)["last_error"] == "ValueError: some text"
    step(now + HOUR - 1)
    assert delivery(store, in_an_hour)["attempts"] == 1
    assert delivery(store, defect)["attempts"] == 2
    step(now + HOUR)
    assert delivery(store, in_an_hour)["attempts"] == 2
    outcomes[in_an_hour] = None
    step(now + 3 * HOUR)
    assert delivery(store, defect)["state"] == "dead"
    assert delivery(store, defect)["attempts"] == 3
    assert delivery(store, in_an_hour)["state"] == "done"


def test_the_next_event_of_a_message_is_claimed_where_the_end_of_the_one_before_is_written(
    store: Store,
) -> None:
    """While the first runs, the second is parked, and nothing is due."""
    registry = Registry()
    calls: list[str] = []
    registry.on("*", name="h")(lambda event: calls.append(event.id))
    expected = [
        put(store, registry, event=kind, timestamp=times.iso(times.now() - age * MINUTE))
        for kind, age in (("otp.sent", 3), ("otp.verified", 2), ("otp.failed", 1))
    ]
    worker = Worker(store, registry, executor=AtOnce)
    now = times.now()
    for count in (1, 2, 3):
        worker.step(now)
        assert calls == expected[:count]
    worker.step(now)
    assert worker.settled


def test_a_handler_may_even_exit(store: Store) -> None:
    registry = Registry()

    @registry.on("*", name="h")
    def handle(event: Event) -> None:
        raise SystemExit(1)

    event_id = put(store, registry)
    with running(store, registry) as worker:
        eventually(lambda: delivery(store, event_id)["last_error"] == "SystemExit: 1")
        assert worker.alive


class Unpleasant(HandlerError):
    """A failure that forgets its base, and that nobody can print."""

    def __init__(self) -> None: ...

    @property
    def retry_after(self) -> float:  # type: ignore[override]
        raise RuntimeError("no number")

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_whatever_a_handler_raises_its_work_is_settled(store: Store) -> None:
    registry = Registry()

    @registry.on("*", name="h", max_attempts=2)
    def handle(event: Event) -> None:
        if event.message_id == "m1":
            raise Unpleasant
        error = HandlerError("x")
        error.retry_after = float("inf")
        raise error

    ids = [put(store, registry, "m1"), put(store, registry, "m2")]
    step = stepping(store, registry)
    now = times.now()
    step(now)
    assert [delivery(store, i)["state"] for i in ids] == ["pending", "pending"]
    assert delivery(store, ids[0])["last_error"] == "Unpleasant"
    step(now + HOUR)
    assert [delivery(store, i)["state"] for i in ids] == ["dead", "dead"]


def test_work_that_ends_its_process_again_and_again_dies_and_is_told_of(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()

    @registry.on("*", name="h", max_attempts=1, timeout=1)
    def handle(event: Event) -> None: ...

    event_id = put(store, registry)
    now = times.now()
    for _ in range(4):  # leased, and never heard of again
        (_,) = store.work(now, [], [Want("h", 1, SECOND, 1)], 5)
        now += MINUTE
    Worker(store, registry).step(now)
    assert delivery(store, event_id)["state"] == "dead"
    assert "1 work items of handler h are dead: their attempts ended without a word" in caplog.text


async def asynchronous(event: Event) -> None: ...


def generator(event: Event) -> Any:
    yield event


async def both(event: Event) -> Any:
    yield event


@pytest.mark.parametrize("function", [asynchronous, generator, both])
def test_what_a_wrapper_hides_is_not_run_and_fails(store: Store, function: Any) -> None:
    registry = Registry()
    registry.on("*", name="h")(lambda event: function(event))
    event_id = put(store, registry)
    step = stepping(store, registry)
    step(times.now())
    assert delivery(store, event_id)["state"] == "pending"
    assert "which nobody runs" in delivery(store, event_id)["last_error"]


def test_drain_says_what_it_could_not_write_down(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, began, go_on = Registry(), threading.Event(), threading.Event()

    @registry.on("*", name="h")
    def handle(event: Event) -> None:
        began.set()
        go_on.wait(30)

    put(store, registry)
    worker = Worker(store, registry)
    worker.start()
    assert began.wait(30)

    def away(*arguments: Any) -> None:
        raise StoreUnavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(store, "work", away)
        go_on.set()
        assert not worker.drain(0.1)
    assert Worker(store, registry).drain(1)


def test_work_of_a_handler_that_is_gone_waits_a_week_from_then_on(store: Store) -> None:
    gone, left = Registry(), Registry()

    @gone.on("*", name="gone", timeout=1)
    def fail(event: Event) -> None: ...

    event_id = put(store, gone)
    began = times.now()
    bury(store, began + 8 * DAY, ["gone"])  # as where it was stuck for a week
    for hours in range(9 * 24, 16 * 24, 12):
        Worker(store, left).step(began + hours * HOUR + MINUTE)
        state = "pending" if hours < 15 * 24 else "dead"
        assert delivery(store, event_id, "gone")["state"] == state, hours


def test_a_quick_handler_that_turns_slow_still_gets_all_its_threads(store: Store) -> None:
    registry = Registry()
    go_on = threading.Event()
    inside: list[str] = []

    @registry.on("*", name="h", concurrency=4)
    def handle(event: Event) -> None:
        if event.data.get("slow"):
            inside.append(event.id)
            go_on.wait(30)

    threads: list[Threads] = []

    def made(handler: Handler, ended: Callable[[Call], None]) -> Threads:
        threads.append(Threads(handler, ended))
        return threads[0]

    with running(store, registry, made) as worker:
        for number in range(20):
            quick = put(store, registry, f"quick{number}")
            worker.wake()
            eventually(lambda i=quick: delivery(store, i)["state"] == "done")
        for number in range(8):
            put(store, registry, data=sms("sent", f"slow{number}", slow=True))
        worker.wake()
        eventually(lambda: len(inside) == 4)
        # Nobody hears the bell meanwhile, so it does not ring again and again.
        assert threads[0].unheard <= 4
        go_on.set()
        eventually(lambda: len(inside) == 8)


@pytest.mark.parametrize("number", [0, 1])
def test_a_handler_without_all_its_threads_holds_nothing_up(store: Store, number: int) -> None:
    registry = Registry()
    both = threading.Barrier(2)

    @registry.on("*", name="h", concurrency=2)
    def handle(event: Event) -> None:
        if event.data.get("waits"):
            both.wait(30)

    @registry.on("*", name="other")
    def handle_as_well(event: Event) -> None:
        pass

    with threads_allowed("handler h", number) as allowed, running(store, registry) as worker:
        first = put(store, registry, data=sms("sent", "m0"))
        worker.wake()
        eventually(lambda: delivery(store, first, "other")["state"] == "done")
        ids = [put(store, registry, data=sms("sent", f"m{n}", waits=True)) for n in (1, 2)]
        worker.wake()
        for event_id in ids:
            eventually(lambda i=event_id: delivery(store, i, "other")["state"] == "done")
        eventually(lambda: allowed.refused)
        assert delivery(store, ids[0])["state"] == "pending"
        if number:
            eventually(lambda: delivery(store, first)["state"] == "done")
        else:
            assert delivery(store, first)["state"] == "pending"
        allowed.number = 2
        for event_id in [first, *ids]:
            eventually(lambda i=event_id: delivery(store, i)["state"] == "done")


def test_a_call_past_its_timeout_failed_and_holds_a_slot_until_it_returns(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.worker.ends.backoff", lambda failures: HOUR)
    registry = Registry()
    go_on = threading.Event()
    ran: list[str] = []

    @registry.on("*", name="h", timeout=1, concurrency=2)
    def handle(event: Event) -> None:
        if event.attempt == 1 and event.message_id != "quick":
            go_on.wait(30)
        ran.append(event.id)

    hanging = [put(store, registry, f"m{n}") for n in range(2)]
    with running(store, registry) as worker:
        eventually(lambda: worker.stuck == ["h"])
        for event_id in hanging:
            eventually(lambda i=event_id: delivery(store, i)["last_error"])
            assert delivery(store, event_id)["last_error"] == ("TimeoutError: no answer within 1 s")
        quick = put(store, registry, "quick")
        worker.wake()
        go_on.set()
        # What the overdue calls bring no longer counts, but their threads serve again.
        eventually(lambda: worker.stuck == [])
        eventually(lambda: delivery(store, quick)["state"] == "done")
        assert {delivery(store, event_id)["state"] for event_id in hanging} == {"pending"}


def test_a_slow_handler_cannot_take_the_threads_of_another(store: Store) -> None:
    registry = Registry()
    go_on = threading.Event()
    most_at_once = [0, 0]

    @registry.on("*", name="slow", concurrency=3)
    def slow(event: Event) -> None:
        most_at_once[0] += 1
        most_at_once[1] = max(most_at_once)
        go_on.wait(30)
        most_at_once[0] -= 1

    @registry.on("*", name="quick")
    def quick(event: Event) -> None: ...

    ids = [put(store, registry, f"m{n}") for n in range(50)]
    with running(store, registry):
        for event_id in ids:
            eventually(lambda i=event_id: delivery(store, i, "quick")["state"] == "done")
        assert most_at_once[1] == 3
        go_on.set()
        for event_id in ids:
            eventually(lambda i=event_id: delivery(store, i, "slow")["state"] == "done")
        assert most_at_once[1] == 3


def test_two_workers_never_run_two_events_of_one_message_at_once(store: Store) -> None:
    registry = Registry()
    inside: dict[str, int] = {}
    overlaps: list[str] = []
    order: dict[str, list[int]] = {}
    lock = threading.Lock()

    @registry.on("*", name="h", concurrency=8)
    def handle(event: Event) -> None:
        message = event.message_id or ""
        with lock:
            inside[message] = inside.get(message, 0) + 1
            if inside[message] > 1:
                overlaps.append(message)
            order.setdefault(message, []).append(event.data["n"])
        time.sleep(0.002)
        with lock:
            inside[message] -= 1

    now = times.now()
    for n in range(30):
        for message in ("a", "b", "c"):
            data = sms("sent", message, sent_at=times.iso(now - (100 - n) * 3 * SECOND), n=n)
            put(store, registry, data=data)
    with running(store, registry), running(store, registry):
        eventually(lambda: all(len(order.get(m, [])) == 30 for m in ("a", "b", "c")), 30)
    assert overlaps == []
    assert all(numbers == sorted(numbers) for numbers in order.values())


def test_a_database_error_is_logged_and_survived(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    registry.on("*", name="h")(lambda event: None)
    event_id = put(store, registry)
    broken = threading.Event()
    broken.set()
    work = store.work

    def failing(*arguments: Any) -> Any:
        if broken.is_set():
            raise StoreUnavailable("disk I/O error")
        return work(*arguments)

    monkeypatch.setattr(store, "work", failing)
    with running(store, registry) as worker:
        eventually(lambda: "disk I/O error" in caplog.text)
        assert worker.alive
        broken.clear()
        eventually(lambda: delivery(store, event_id)["state"] == "done")


def test_a_result_that_could_not_be_written_is_written_later(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    calls: list[str] = []
    registry.on("*", name="h")(lambda event: calls.append(event.id))
    event_id = put(store, registry)
    worker = Worker(store, registry, executor=AtOnce)
    worker.step(times.now())
    with monkeypatch.context() as patch:
        patch.setattr(store, "work", lambda *_: (_ for _ in ()).throw(StoreUnavailable("no")))
        with pytest.raises(StoreUnavailable):
            worker.step(times.now())
    worker.step(times.now())
    assert delivery(store, event_id)["state"] == "done"
    assert calls == [event_id]


def test_no_text_of_an_exception_is_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()

    @registry.on("*", name="h")
    def handle(event: Event) -> None:
        raise ValueError(event.data["message"])

    event_id = put(store, registry, event_id="e", data=sms("sent", message="code 4711"))
    with caplog.at_level(logging.DEBUG), running(store, registry):
        eventually(lambda: delivery(store, event_id)["last_error"])
    assert "ValueError" in caplog.text
    assert "test_worker.py" in caplog.text
    assert "4711" not in caplog.text


def test_drain_gives_back_what_no_thread_has_begun(store: Store) -> None:
    registry = Registry()
    began, go_on = threading.Event(), threading.Event()

    @registry.on("*", name="h", concurrency=1)
    def handle(event: Event) -> None:
        began.set()
        go_on.wait(30)

    ids = [put(store, registry, f"m{n}") for n in range(5)]
    worker = Worker(store, registry)
    worker.start()
    assert began.wait(30)
    threading.Timer(1.5, go_on.set).start()  # by then it has heard of the stop
    assert worker.drain(30)
    assert sorted(delivery(store, i)["state"] for i in ids) == ["done"] + ["pending"] * 4
    assert sorted(delivery(store, i)["attempts"] for i in ids) == [0, 0, 0, 0, 1]


def test_drain_does_not_wait_for_ever(store: Store) -> None:
    registry = Registry()
    began, go_on = threading.Event(), threading.Event()

    @registry.on("*", name="h", timeout=60)
    def handle(event: Event) -> None:
        began.set()
        go_on.wait(30)

    event_id = put(store, registry)
    worker = Worker(store, registry)
    worker.start()
    assert began.wait(30)
    since = time.monotonic()
    assert worker.drain(3)
    assert time.monotonic() - since < 15
    # The work is due again, and the attempt counts: the handler has seen the event.
    assert delivery(store, event_id)["state"] == "pending"
    assert delivery(store, event_id)["attempts"] == 1
    assert store.backlog(times.now(), ["h"])[0] == 1
    go_on.set()


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_has_full_jitter_and_grows_to_an_hour(failures: int, drawn: float) -> None:
    ceiling = min(HOUR, FIRST_BACKOFF * 2 ** (min(failures, 40) - 1))
    assert backoff(failures, lambda: drawn) == int(ceiling * drawn)
    assert 0 <= backoff(failures, lambda: drawn) < HOUR
