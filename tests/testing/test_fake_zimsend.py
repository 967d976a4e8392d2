"""`receiver.testing`: what users test their handlers with."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Flask, current_app

from app import create_app
from receiver import ConfigError, Event, HandlerError, Registry, calling
from receiver.flask import ZimSendReceiver
from receiver.testing import FakeZimSend, zimsend
from tests.conftest import SECRET

__all__ = ["zimsend"]


def registered(function: Callable[[Event], object], *patterns: str, **options: Any) -> Registry:
    registry = Registry()
    registry.on(*patterns or ("*",), name="h", **options)(function)
    return registry


def test_a_handler_gets_the_event_and_is_done(zimsend: FakeZimSend) -> None:
    seen: list[Event] = []
    zimsend.handlers(registered(seen.append, "sms.failed"))
    metadata = {"order": 17, "deep": [{"a": None}]}
    result = zimsend.send(
        "sms.failed",
        to="+33600000000",
        error_code="NO_CREDIT",
        error_message="Plus de crédit",
        text="Bonjour 👋",
        metadata=metadata,
        device_id="d1",
    )
    assert (result.status_code, result.answer["status"]) == (200, "accepted")
    assert not result.duplicate
    assert result.calls == {"h": "done"}
    assert result.attempts == {"h": 1}
    assert result.errors == {}
    (event,) = seen
    assert event == result.event
    assert (event.to, event.error_code, event.device_id) == ("+33600000000", "NO_CREDIT", "d1")
    assert (event.error_message, event.data["message"]) == ("Plus de crédit", "Bonjour 👋")
    assert event.metadata == metadata
    assert zimsend.status(event.message_id or "") == "failed"
    assert zimsend.send("sms.sent").calls == {}


def test_a_handler_that_fails_is_tried_again_when_the_clock_says_so(zimsend: FakeZimSend) -> None:
    failures = iter([ValueError("a defect"), HandlerError("busy", retry_after=600)])
    moments: list[int] = []

    def handle(event: Event) -> None:
        moments.append(event.attempt)
        if (error := next(failures, None)) is not None:
            raise error

    zimsend.handlers(registered(handle))
    result = zimsend.send()
    assert result.calls == {"h": "failed"}
    assert str(result.errors["h"]) == "a defect"
    told = "".join(traceback.format_exception(result.errors["h"]))
    assert "raise error" in told
    zimsend.wait(minutes=1)
    assert (result.calls, result.attempts) == ({"h": "failed"}, {"h": 2})
    assert isinstance(result.errors["h"], HandlerError)
    zimsend.wait(minutes=8)
    assert moments == [1, 2]
    zimsend.wait(minutes=2)
    assert (result.calls, moments) == ({"h": "done"}, [1, 2, 3])


def test_work_that_dies_is_told_to_on_dead(zimsend: FakeZimSend) -> None:
    registry, told = Registry(), []

    @registry.on("*", max_attempts=3)
    def never(event: Event) -> None:
        raise ValueError("no")

    @registry.on("sms.failed")
    def refuses(event: Event) -> None:
        raise HandlerError("never", permanent=True)

    registry.on_dead(lambda event, handler, error: told.append((event.type, handler, error)))
    zimsend.handlers(registry)
    names = [f"{__name__}.{function.__name__}" for function in (never, refuses)]
    result = zimsend.send("failed")
    assert result.calls == dict(zip(names, ("failed", "dead"), strict=True))
    assert told == [("sms.failed", names[1], "HandlerError: never")]
    zimsend.finish()
    assert result.calls == dict.fromkeys(names, "dead")
    assert result.attempts == dict(zip(names, (3, 1), strict=True))
    assert told[1:] == [("sms.failed", names[0], "ValueError: no")]


def test_an_alarm_that_fails_is_seen_by_the_test(zimsend: FakeZimSend) -> None:
    def dies(event: Event) -> None:
        raise HandlerError("never", permanent=True)

    registry = registered(dies)
    registry.on_dead(lambda event, handler, error: 1 // 0)
    zimsend.handlers(registry)
    with pytest.raises(ZeroDivisionError):
        zimsend.send()


@pytest.mark.parametrize("end", [KeyboardInterrupt, pytest.fail.Exception])
def test_what_ends_a_test_is_no_failure_of_a_handler(
    zimsend: FakeZimSend, end: type[BaseException]
) -> None:
    def ends(event: Event) -> None:
        raise end

    zimsend.handlers(registered(ends, max_attempts=2))
    with pytest.raises(end):
        zimsend.send()
    with pytest.raises(end):  # who catches it goes on
        zimsend.finish()
    zimsend.finish()


def test_a_handler_may_send_events(zimsend: FakeZimSend) -> None:
    """They are run after it, as everywhere else."""

    def sends(event: Event) -> None:
        seen.append(event.type)
        if event.type == "sms.failed":
            assert zimsend.send("sms.sent").calls == {"h": "waiting"}

    seen: list[str] = []
    zimsend.handlers(registered(sends))
    assert zimsend.send("sms.failed").calls == {"h": "done"}
    assert seen == ["sms.failed", "sms.sent"]


def test_no_thread_and_no_open_file_is_left(tmp_path: Path) -> None:
    def left() -> tuple[set[threading.Thread], int]:
        return set(threading.enumerate()), len(os.listdir("/proc/self/fd"))

    before = left()
    fake = FakeZimSend(tmp_path)
    fake.handlers(registered(lambda event: None))
    assert fake.send().calls == {"h": "done"}
    fake.close()
    threads, files = left()
    assert threads <= before[0]  # what other tests have left may end meanwhile
    assert files <= before[1]


def test_a_handler_that_would_end_its_process_has_failed(zimsend: FakeZimSend) -> None:
    def ends(event: Event) -> None:
        raise SystemExit(3)

    zimsend.handlers(registered(ends))
    assert zimsend.send().calls == {"h": "failed"}


def test_a_duplicate_calls_nobody(zimsend: FakeZimSend) -> None:
    seen: list[Event] = []
    zimsend.handlers(registered(seen.append))
    one = zimsend.send("sms.sent", id="evt_1", message_id="m1")
    again = zimsend.send("sms.sent", id="evt_1", message_id="m1")
    assert (one.duplicate, again.duplicate) == (False, True)
    assert one.calls == again.calls == {"h": "done"}
    assert len(seen) == 1
    for kind in ("accepted", "duplicates"):
        smscx = zimsend.send("sms.sent", id="1", message_id="m1", provider="smscx",
                             occurred_at=datetime.now(UTC))  # fmt: skip
        assert smscx.answer[kind] == 1
    assert smscx.duplicate


def test_events_that_come_out_of_order(zimsend: FakeZimSend) -> None:
    seen: list[tuple[str, bool]] = []
    zimsend.handlers(registered(lambda event: seen.append((event.type, event.late))))
    now = datetime.now(UTC)
    zimsend.send("sms.delivered", message_id="m1", occurred_at=now)
    zimsend.send("sms.sent", message_id="m1", occurred_at=now - timedelta(seconds=5))
    assert seen == [("sms.delivered", False), ("sms.sent", True)]
    assert zimsend.status("m1") == "delivered"
    assert zimsend.status("m2") is None


def test_a_later_event_of_a_message_that_fails_waits_for_nobody(zimsend: FakeZimSend) -> None:
    def fails_at_sent(event: Event) -> None:
        if event.type == "sms.sent":
            raise ValueError("no")

    zimsend.handlers(registered(fails_at_sent))
    sent = zimsend.send("sms.sent", message_id="m1")
    assert zimsend.send("sms.delivered", message_id="m1").calls == {"h": "done"}
    assert sent.calls == {"h": "failed"}


def test_other_providers(zimsend: FakeZimSend) -> None:
    seen: list[Event] = []
    zimsend.handlers(registered(seen.append))
    result = zimsend.send("sms.failed", message_id="m1", error_code="27", provider="smscx")
    assert result.calls == {"h": "done"}
    (event,) = seen
    assert (event.provider, event.error_code, event.data["errorCode"]) == ("smscx", "27", 27)
    assert event.id == result.event_id
    assert event.id.startswith("smscx:")
    assert zimsend.status("smscx:m1") == "failed"
    with pytest.raises(ValueError, match="'sipgate' sends no events: zimsend, smscx do"):
        zimsend.send(provider="sipgate")
    with pytest.raises(ValueError, match=r"SMS\.CX's sms\.failed has no text"):
        zimsend.send("sms.failed", text="x", provider="smscx")


def test_bodies_of_ones_own(zimsend: FakeZimSend) -> None:
    seen: list[Event] = []
    zimsend.handlers(registered(seen.append))
    assert zimsend.post({"event": "fax.sent", "data": {"pages": 3}}).calls == {"h": "done"}
    assert seen[0].data == {"pages": 3}
    result = zimsend.post(b"[]")
    assert (result.status_code, result.event_id, result.calls) == (400, "", {})
    with pytest.raises(LookupError, match="400"):
        _ = result.event


def test_modules_names_and_functions_that_register(zimsend: FakeZimSend) -> None:
    module = ModuleType("my_handlers")
    module.register = lambda registry: registry.on("*", name="of a module")(print)  # type: ignore[attr-defined]
    zimsend.handlers(
        "tests.handlers,handlers.log", module, lambda r: r.on("*", name="of a function")(print)
    )
    calls = zimsend.send("sms.sent", metadata={}).calls
    assert {"log", "of a module", "of a function"} < calls.keys()
    assert set(calls.values()) == {"done"}


def test_settings_and_the_applications_context(zimsend: FakeZimSend) -> None:
    seen: list[tuple[str, Any]] = []
    zimsend.handlers(
        registered(lambda event: seen.append((current_app.name, event.data["message"]))),
        STORE_TEXT="masked",
    )
    zimsend.send(text="Code 4829")
    assert seen == [("receiver", "Code ****")]


def test_what_is_wrong_is_told(zimsend: FakeZimSend) -> None:
    with pytest.raises(RuntimeError, match=r"say first which handlers"):
        zimsend.send()
    with pytest.raises(ConfigError, match="no_such_module"):
        FakeZimSend(Path("nowhere")).handlers("no_such_module")
    with pytest.raises(ConfigError, match="STORE_TEXT"):
        FakeZimSend(Path("nowhere")).handlers(STORE_TEXT="some")
    zimsend.handlers()
    with pytest.raises(RuntimeError, match="named already"):
        zimsend.handlers()
    with pytest.raises(ValueError, match=r"ZimSend documents no 'sms\.deliverd', but sms\.queued"):
        zimsend.send("sms.deliverd")
    with pytest.raises(ValueError, match=r"sms\.sent has no error"):
        zimsend.send("sms.sent", error_code="NO_CREDIT")
    with pytest.raises(ValueError, match="not JSON compliant"):
        zimsend.send("sms.sent", metadata={"n": float("inf")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        zimsend.post({"event": "sms.sent", "data": {"n": float("nan")}})
    with pytest.raises(TypeError, match=r"no 'error_kode'; it can be given device_id, error_code"):
        zimsend.send("sms.failed", error_kode="NO_CREDIT")  # type: ignore[call-arg]


def test_an_application_that_one_has(app: Flask, zimsend: FakeZimSend) -> None:
    zimsend.use(app)
    calls = zimsend.send("sms.delivered", message_id="m1").calls
    assert calls
    assert set(calls.values()) == {"done"}
    assert zimsend.status("m1") == "delivered"


@pytest.mark.each_engine
def test_an_application_whose_handler_fails(
    environ: dict[str, str], zimsend: FakeZimSend, engine: str
) -> None:
    """Its clock goes on by itself; the worker's goes ahead of it."""
    app = create_app(environ)
    registry = app.extensions["receiver"].registry
    attempts: list[int] = []

    @registry.on("sms.sent", name="twice")
    def twice(event: Event) -> None:
        attempts.append(event.attempt)
        if event.attempt == 1:
            raise ValueError("once")

    zimsend.use(app)
    result = zimsend.send("sms.sent")
    assert result.calls["twice"] == "failed"
    zimsend.wait(hours=2)
    assert (result.calls["twice"], attempts) == ("done", [1, 2])
    zimsend.wait(hours=72)
    later = zimsend.send("sms.delivered").event
    assert abs(later.occurred_at - later.received_at) < timedelta(minutes=1)
    app.extensions["receiver"].store.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Flask, ZimSendReceiver]]:
    """A program of somebody else's with a receiver in it."""
    app = Flask("shop")
    settings = {"ZIMSEND_WEBHOOK_SECRET": SECRET, "DATABASE_URL": f"sqlite:///{tmp_path / 'r.db'}"}
    receiver = ZimSendReceiver(app, prefix="/sms", settings=settings)
    yield app, receiver
    receiver.close()
    calling.be_called("flask")


def test_a_program_that_a_receiver_was_built_into(
    shop: tuple[Flask, ZimSendReceiver], zimsend: FakeZimSend
) -> None:
    """By its own door, and in its own context; also what is registered later."""
    app, receiver = shop
    zimsend.use(app)
    seen: list[str] = []

    @receiver.on("sms.failed", name="h")
    def handle(event: Event) -> None:
        seen.append(current_app.name)
        raise HandlerError("no", permanent=event.attempt == 2)

    receiver.registry.on_dead(lambda event, handler, error: seen.append(current_app.name + error))
    result = zimsend.send("sms.failed", message_id="m1")
    assert (result.calls["h"], seen) == ("failed", ["shop"])
    zimsend.finish()
    assert (result.calls["h"], seen) == ("dead", ["shop", "shop", "shopHandlerError: no"])
    assert zimsend.status("m1") == "failed"


def test_which_receiver_is_meant(shop: tuple[Flask, ZimSendReceiver], zimsend: FakeZimSend) -> None:
    with pytest.raises(ValueError, match="nothing has no receiver"):
        zimsend.use(Flask("nothing"))
    with pytest.raises(ValueError, match="prefix= is one of /sms"):
        zimsend.use(shop[0], prefix="/other")
    (embedded,) = shop[0].extensions["zimsend_receivers"].values()
    zimsend.use(embedded)
    assert zimsend.send().status_code == 200
