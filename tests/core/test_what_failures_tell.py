"""What one learns of a handler that fails: in the log, in the store, by `on_dead`."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Flask, current_app, g

from receiver import Event, HandlerError, Registry, times
from receiver.parts import Receiver
from receiver.store import SILENT_ATTEMPTS, Selection, Store, Want
from receiver.times import HOUR, SECOND
from receiver.worker import Worker
from receiver.worker.frames import LONGEST
from tests.conftest import Provider
from tests.core.test_worker import AtOnce, delivery, put, stepping
from tests.payloads import envelope, sms
from tests.server import eventually
from tests.shortage import threads_allowed

SECRET_TEXT = "Votre code est 482913"

PAGER = """
def page(event):
    raise ConnectionError("no pager")
"""
SHOP = f"""
import json
import tests_pager

def by_the_library(event):
    return json.loads("{{")

def by_another_file(event):
    tests_pager.page(event)

def chained(event):
    try:
        tests_pager.page(event)
    except ConnectionError as error:
        raise ValueError("{SECRET_TEXT}") from error

def without_end(event):
    without_end(event)

class Callables:
    def __call__(self, event):
        by_the_library(event)
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A user's own modules."""
    (tmp_path / "tests_pager.py").write_text(PAGER)
    (tmp_path / "tests_shop.py").write_text(SHOP)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("tests_shop")
    for name in ("tests_shop", "tests_pager"):
        sys.modules.pop(name, None)


def failing(
    store: Store, function: Callable[[Event], object], caplog: pytest.LogCaptureFixture
) -> tuple[str, str]:
    """The log's line and the stored traceback of one failure."""
    registry = Registry()
    registry.on("*", name="h")(function)
    event_id = put(store, registry)
    caplog.clear()
    stepping(store, registry)(times.now())
    (line,) = [r.getMessage() for r in caplog.records if "failed at event" in r.getMessage()]
    return line, store.tracebacks(event_id)["h"]


def line_of(source: str, text: str) -> int:
    return next(n for n, line in enumerate(source.splitlines(), 1) if text in line)


def test_the_frame_in_the_handlers_own_file(
    store: Store, shop: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Not where the standard library raised it."""
    place = f" at {tmp_path / 'tests_shop.py'}:{line_of(SHOP, 'json.loads')};"
    line, traceback = failing(store, shop.by_the_library, caplog)
    assert f"JSONDecodeError{place}" in line
    assert traceback.startswith("Traceback (most recent call last):\n  File ")
    assert 'return json.loads("{")' in traceback
    assert "decoder.py" in traceback
    assert traceback.endswith("\nJSONDecodeError")


@pytest.mark.parametrize("wrap", [functools.partial, lambda f: functools.wraps(f)(lambda e: f(e))])
def test_a_handler_that_is_wrapped(
    store: Store, shop: Any, caplog: pytest.LogCaptureFixture, wrap: Any
) -> None:
    line, _ = failing(store, wrap(shop.by_the_library), caplog)
    assert f"tests_shop.py:{line_of(SHOP, 'json.loads')};" in line


def test_a_handler_that_is_an_object(
    store: Store, shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    line, _ = failing(store, shop.Callables(), caplog)
    assert f"tests_shop.py:{line_of(SHOP, 'json.loads')};" in line


def test_what_another_file_of_the_users_has_raised(
    store: Store, shop: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    line, _ = failing(store, shop.by_another_file, caplog)
    own, raised = tmp_path / "tests_shop.py", tmp_path / "tests_pager.py"
    called = SHOP.splitlines().index("    tests_pager.page(event)") + 1
    assert f"ConnectionError at {own}:{called} (raised at {raised}:3); next" in line


def test_a_traceback_has_what_led_to_it_and_no_texts(
    store: Store, shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    line, traceback = failing(store, shop.chained, caplog)
    # A line of the source is no text of an SMS; here it happens to hold one.
    shown = [each for each in traceback.splitlines() if "raise ValueError(" not in each]
    assert SECRET_TEXT not in line + "".join(shown)
    assert "no pager" not in line
    assert [each for each in shown if each in ("ConnectionError", "ValueError")] == [
        "ConnectionError", "ValueError",
    ]  # fmt: skip
    assert "The above exception was the direct cause of the following exception:" in shown


def test_a_traceback_without_end_is_cut(
    store: Store, shop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, traceback = failing(store, shop.without_end, caplog)
    assert "RecursionError" in traceback
    assert len(traceback) <= LONGEST


class Odd(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no cause")


def test_an_exception_that_does_not_want_to_be_looked_at(store: Store) -> None:
    registry = Registry()

    @registry.on("*", name="h")
    def handle(event: Event) -> None:
        raise Odd("\ud800\0")

    event_id = put(store, registry)
    stepping(store, registry)(times.now())
    assert delivery(store, event_id)["last_error"] == "Odd: ?\ufffd"
    assert store.tracebacks(event_id) == {}


def test_a_traceback_lasts_as_long_as_its_error(store: Store) -> None:
    registry, fails = Registry(), [True, True, False]

    @registry.on("*", name="h", max_attempts=2)
    def handle(event: Event) -> None:
        if fails.pop(0):
            raise ValueError

    event_id = put(store, registry)
    step, now = stepping(store, registry), times.now()
    step(now)
    step(now + HOUR)
    assert delivery(store, event_id)["state"] == "dead"
    assert list(store.tracebacks(event_id)) == ["h"]
    wanted = {"wanting": registry.wanting, "dry_run": False, "progress": lambda count: None}
    assert store.replay(Selection(ids=[event_id]), now=now + HOUR, **wanted) == 1
    assert store.tracebacks(event_id) == {}
    step(now + 2 * HOUR)
    assert (delivery(store, event_id)["state"], store.tracebacks(event_id)) == ("done", {})


# --- the application's context


def test_handlers_run_inside_the_application(
    app: Flask, receiver: Receiver, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[object] = []
    app.teardown_appcontext(lambda error: ended.append(error))

    @receiver.registry.on("*", name="inside")
    def handle(event: Event) -> None:
        g.seen = [*getattr(g, "seen", []), event.id]
        assert g.seen == [event.id]  # a context of its own
        assert current_app.extensions["receiver"] is receiver

    worker = Worker(receiver.store, receiver.registry, receiver.now, inside=app.app_context)
    for number in range(3):
        provider.post(envelope("sms.sent", sms("sent", f"m{number}"), event_id=f"e{number}"))
    ended.clear()
    worker.start()
    states = lambda: {  # noqa: E731
        delivery(receiver.store, f"e{number}", "inside")["state"] for number in range(3)
    }
    eventually(lambda: states() == {"done"})
    assert worker.drain(5)
    assert set(ended) == {None}


def test_the_service_gives_its_own_context(receiver: Receiver, provider: Provider) -> None:
    """Threads of a worker's have none by themselves."""
    provider.post(envelope("sms.sent", sms("sent", "m1"), event_id="e1"))
    (first, *_) = receiver.registry
    seen: list[object] = []
    object.__setattr__(first, "function", lambda event: seen.append(current_app.name))
    receiver.worker.start()
    eventually(lambda: seen == ["receiver"])
    assert receiver.worker.drain(5)


def test_a_context_that_cannot_end_is_a_failure(store: Store) -> None:
    app, registry = Flask("host"), Registry()

    @app.teardown_appcontext
    def close(error: BaseException | None) -> None:
        raise OSError("the connection is gone")

    registry.on("*", name="h")(lambda event: None)
    event_id = put(store, registry)
    worker = Worker(store, registry, executor=AtOnce, inside=app.app_context)
    while delivery(store, event_id)["last_error"] is None:
        worker.step(times.now())
    assert delivery(store, event_id)["last_error"] == "OSError: the connection is gone"


# --- on_dead


@pytest.fixture
def told() -> list[tuple[str, str, int, str]]:
    return []


@pytest.fixture
def registry(told: list[tuple[str, str, int, str]]) -> Registry:
    registry = Registry()

    @registry.on_dead
    def tell(event: Event, handler: str, error: str) -> None:
        told.append((event.id, handler, event.attempt, error))

    return registry


def test_on_dead_is_told_of_what_dies_and_of_nothing_else(
    store: Store, registry: Registry, told: list[Any]
) -> None:
    outcomes: list[Exception | None] = [HandlerError("no", permanent=True), None, ValueError("x")]

    @registry.on("*", name="h")
    def handle(event: Event) -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    ids = [put(store, registry, f"m{number}") for number in range(3)]
    stepping(store, registry)(times.now())
    eventually(lambda: len(told) == 1)
    assert told == [(ids[0], "h", 1, "HandlerError: no")]


def test_on_dead_is_told_as_soon_as_there_is_a_thread_for_it(
    store: Store, registry: Registry, told: list[Any]
) -> None:
    @registry.on("*", name="h")
    def dies(event: Event) -> None:
        raise HandlerError("no", permanent=True)

    event_id = put(store, registry)
    step = stepping(store, registry)
    with threads_allowed("on_dead", 0):
        step(times.now())
    assert not told
    step(times.now())  # in which nothing dies
    eventually(lambda: told == [(event_id, "h", 1, "HandlerError: no")])


def test_on_dead_is_told_of_work_that_ends_its_process(
    store: Store, registry: Registry, told: list[Any]
) -> None:
    registry.on("*", name="h", max_attempts=1)(lambda event: None)
    event_id, now = put(store, registry), times.now()
    for _ in range(1 + SILENT_ATTEMPTS):
        (_,) = store.work(now, [], [Want("h", 1, SECOND, 1)], 5)
        now += HOUR
    Worker(store, registry, executor=AtOnce).step(now)
    eventually(lambda: len(told) == 1)
    assert told == [
        (event_id, "h", 4, "given up: 4 attempts, the last ones ended without a word")
    ]  # fmt: skip


def test_on_dead_is_not_told_of_what_another_process_has_ended(
    store: Store, registry: Registry, told: list[Any]
) -> None:
    elsewhere = Registry()
    elsewhere.on("*", name="h")(lambda event: None)

    @registry.on("*", name="h")
    def dies(event: Event) -> None:
        if event.message_id == "m1":  # its lease has run out, and another process does it
            stepping(store, elsewhere)(times.now() + HOUR)
        raise HandlerError("no", permanent=True)

    first = put(store, registry, "m1")
    stepping(store, registry)(times.now())
    assert delivery(store, first)["state"] == "done"
    second = put(store, registry, "m2")
    stepping(store, registry)(times.now())
    eventually(lambda: bool(told))
    assert [event_id for event_id, *_ in told] == [second]


def test_a_function_of_on_dead_that_fails_harms_nothing(
    store: Store, registry: Registry, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    failing = Registry()

    @failing.on_dead
    def careless(event: Event, handler: str, error: str) -> None:
        raise SystemExit(SECRET_TEXT)

    failing.on_dead(registry.dead_functions[0])

    @failing.on("*", name="h", max_attempts=1)
    def handle(event: Event) -> None:
        raise ValueError

    caplog.set_level(logging.ERROR)
    ids = [put(store, failing, f"m{number}") for number in range(3)]
    stepping(store, failing)(times.now())
    eventually(lambda: len(told) == 3)
    assert {event_id for event_id, *_ in told} == set(ids)
    lines = [r.getMessage() for r in caplog.records if "on_dead failed" in r.getMessage()]
    assert len(lines) == 3
    assert all("SystemExit" in line and __file__ in line for line in lines)
    assert SECRET_TEXT not in caplog.text
