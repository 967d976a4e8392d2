"""`flask handlers`, `flask try`, and what `flask events show` tells of a failure."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, current_app
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import Event, HandlerError, working
from receiver.parts import Receiver
from receiver.store import Selection, Settlement, Want
from receiver.times import SECOND
from receiver.worker import Worker
from tests.conftest import Provider
from tests.core.test_worker import AtOnce
from tests.payloads import envelope, sms

TEXT = "Votre code est 482913"


def ran(runner: FlaskCliRunner, *arguments: str, status: int = 0) -> tuple[str, str]:
    result = runner.invoke(args=list(arguments))
    assert result.exit_code == status, result.output
    return result.stdout, result.stderr


@pytest.fixture
def post(provider: Provider) -> Callable[[str], None]:
    def post(event_id: str) -> None:
        data = sms("sent", f"m {event_id}") | {"message": TEXT}
        assert provider.post(envelope("sms.sent", data, event_id=event_id)).status_code == 200

    return post


@pytest.fixture
def failing(receiver: Receiver) -> None:
    @receiver.registry.on("sms.*", name="failing", max_attempts=1)
    def failing(event: Event) -> None:
        current_app.logger.debug("inside the application")
        raise ValueError(f"cannot read {event.data['message']}\x1b[2J")


@pytest.mark.each_engine
def test_what_is_registered_and_what_it_owes(
    runner: FlaskCliRunner, receiver: Receiver, post: Any
) -> None:
    receiver.registry.on("sms.sent", "device.*", name="gone")(lambda event: None)
    for event_id in ("e1", "e2", "e3"):
        post(event_id)
    now = receiver.now()
    for claim in receiver.store.work(now, [], [Want("second", 2, 30 * SECOND, 3)], 5):
        receiver.store.work(now, [Settlement(claim, "dead", now, "x")], [], 5)
    (done,) = receiver.store.work(now, [], [Want("gone", 1, 30 * SECOND, 3)], 5)
    receiver.store.work(now, [Settlement(done, "done", now)], [], 5)
    receiver.store.work(now, [], [Want("gone", 1, 30 * SECOND, 3)], 5)
    shown, told = ran(runner, "handlers")
    assert [line.split() for line in shown.splitlines()] == [
        ["HANDLER", "EVENTS", "WAITING", "DEAD"],
        ["first", "*", "3", "0"],
        ["second", "sms.*", "1", "2"],
        ["gone", "sms.sent,", "device.*", "2", "0"],
    ]
    assert told == ""


def test_work_of_a_handler_that_is_gone(environ: dict[str, str], post: Any) -> None:
    post("e1")
    later = create_app({**environ, "HANDLERS": "handlers.log"}).test_cli_runner()
    shown, _ = ran(later, "handlers")
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["log", "*", "0", "0"],
        ["first", "(not", "registered)", "1", "0"],
        ["second", "(not", "registered)", "1", "0"],
    ]


def test_a_pattern_that_no_documented_type_matches(
    runner: FlaskCliRunner,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told at the start, and stops nothing: the provider may have a new type."""
    receiver.registry.on("sms.deliverd", "sms.*", "fax.received", name="h")(lambda event: None)
    expected = [
        "handler h wants 'sms.deliverd', which is no documented type of event: is 'sms.delivered' "
        "meant?",
        "handler h wants 'fax.received', which is no documented type of event",
    ]
    assert ran(runner, "handlers")[1].splitlines() == expected
    monkeypatch.setattr(working, "work", lambda *_: None)
    caplog.set_level(logging.WARNING)
    ran(runner, "work")
    assert [record.getMessage() for record in caplog.records] == expected


@pytest.mark.each_engine
@pytest.mark.usefixtures("failing")
def test_a_failure_is_shown_with_its_traceback(
    app: Flask, runner: FlaskCliRunner, receiver: Receiver, post: Any
) -> None:
    post("e1")
    worker = Worker(
        receiver.store, receiver.registry, receiver.now, executor=AtOnce, inside=app.app_context
    )
    worker.step(receiver.now())
    while not worker.settled:
        worker.step(receiver.now())
    shown = json.loads(ran(runner, "events", "show", "e1")[0])
    failed, first, _ = shown["deliveries"]
    assert (failed["handler"], failed["state"]) == ("failing", "dead")
    assert failed["traceback"][0] == "Traceback (most recent call last):"
    assert failed["traceback"][-1] == "ValueError"
    assert TEXT not in "".join(failed["traceback"])
    assert TEXT in failed["last_error"]
    assert "traceback" not in first


@pytest.mark.each_engine
def test_a_handler_is_tried(runner: FlaskCliRunner, receiver: Receiver, post: Any) -> None:
    seen: list[Event] = []
    receiver.registry.on("sms.failed", name="h", max_attempts=1)(seen.append)
    post("e1")
    before = list(receiver.store.events(Selection(ids=["e1"])))
    shown, told = ran(runner, "try", "h", "e1")
    assert shown == "h has handled e1 (sms.sent)\n"
    assert told == "h does not want sms.sent and would not get it; it runs all the same\n"
    (event,) = seen
    assert (event.id, event.type, event.attempt) == ("e1", "sms.sent", 1)
    assert event.data["message"] == TEXT
    assert list(receiver.store.events(Selection(ids=["e1"]))) == before


@pytest.mark.usefixtures("failing")
def test_a_handler_is_tried_and_fails(
    runner: FlaskCliRunner, receiver: Receiver, post: Any
) -> None:
    post("e1")
    before = list(receiver.store.events(Selection(ids=["e1"])))
    _, told = ran(runner, "try", "failing", "e1", status=1)
    lines = told.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].startswith(f'  File "{__file__}"')
    assert f"ValueError: cannot read {TEXT}\\x1b[2J" in lines
    assert lines[-1] == "Error: failing raised ValueError; the worker would try again"
    assert list(receiver.store.events(Selection(ids=["e1"]))) == before
    assert receiver.store.tracebacks("e1") == {}


@pytest.mark.parametrize(
    ("error", "then"),
    [
        (HandlerError("x", permanent=True), "its work would be dead"),
        (HandlerError("x", retry_after=60), "the worker would try again in 60 s"),
        (SystemExit(0), "the worker would try again"),
    ],
)
def test_what_would_become_of_it(
    runner: FlaskCliRunner, receiver: Receiver, post: Any, error: BaseException, then: str
) -> None:
    @receiver.registry.on("*", name="h")
    def handle(event: Event) -> None:
        raise error

    post("e1")
    _, told = ran(runner, "try", "h", "e1", status=1)
    assert told.splitlines()[-1] == f"Error: h raised {type(error).__name__}; {then}"


def test_what_cannot_be_tried(runner: FlaskCliRunner, post: Any) -> None:
    post("e1")
    assert (
        "no handler 'h' is registered: first, second" in ran(runner, "try", "h", "e1", status=2)[1]
    )
    assert "there is no event 'e2'" in ran(runner, "try", "first", "e2", status=1)[1]
