"""The registry: who wants what, and which registrations are refused."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest

from receiver import Event, Registry


def handle(event: Event) -> None: ...


def other(event: Event) -> None: ...


class Callables:
    def method(self, event: Event) -> None: ...

    def __call__(self, event: Event) -> None: ...


async def asynchronous(event: Event) -> None: ...


def generator(event: Event) -> Any:
    yield event


async def both(event: Event) -> Any:
    yield event


class Asynchronous:
    async def __call__(self, event: Event) -> None: ...


@pytest.mark.parametrize(
    "function", [asynchronous, generator, both, Asynchronous(), functools.partial(asynchronous)]
)
def test_what_a_call_would_not_run_is_refused(registry: Registry, function: Any) -> None:
    with pytest.raises(ValueError, match="write a plain function"):
        registry.on("*", name="h")(function)


def test_what_cannot_be_called_is_refused(registry: Registry) -> None:
    with pytest.raises(ValueError, match="'h' is no function"):
        registry.on("*")("h")  # type: ignore[arg-type]


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.mark.parametrize(
    ("pattern", "event_type", "wanted"),
    [
        ("*", "sms.sent", True),
        ("*", "fax.sent", True),
        ("*", "", True),
        ("sms.*", "sms.sent", True),
        ("sms.*", "sms.sent.twice", True),
        ("sms.*", "sms.", True),
        ("sms.*", "sms", False),
        ("sms.*", "smsx.sent", False),
        ("sms.*", "SMS.sent", False),
        ("sms.*", "device.connected", False),
        ("a.b.*", "a.b.c", True),
        ("a.b.*", "a.c", False),
        ("sms.sent", "sms.sent", True),
        ("sms.sent", "sms.sent.twice", False),
        ("sms.sent", "sms.sen", False),
        ("sms.sent", "smsxsent", False),
        ("ping", "ping", True),
        ("événement", "événement", True),
        # What one document calls the events of a per-message webhook.
        ("sent", "sms.sent", True),
        ("delivered", "sms.delivered", True),
        ("failed", "sms.failed", True),
        ("failed", "sms.sent", False),
    ],
)
def test_patterns(registry: Registry, pattern: str, event_type: str, wanted: bool) -> None:
    registry.on(pattern, name="it")(handle)
    assert registry.wanting(event_type) == (("it",) if wanted else ())


def test_several_patterns_are_one_handler(registry: Registry) -> None:
    registry.on("sms.failed", "device.*", "sms.*", name="it")(handle)
    assert len(registry) == 1
    for event_type in ("sms.failed", "sms.sent", "device.connected"):
        assert registry.wanting(event_type) == ("it",)
    assert registry.wanting("otp.sent") == ()


def test_all_who_want_it_in_the_order_of_registration(registry: Registry) -> None:
    registry.on("sms.sent", name="z")(handle)
    registry.on("device.*", name="m")(handle)
    registry.on("*", name="a")(handle)
    assert registry.wanting("sms.sent") == ("z", "a")
    assert [handler.name for handler in registry] == ["z", "m", "a"]


def test_one_who_registers_later_is_asked_as_well(registry: Registry) -> None:
    registry.on("*", name="first")(handle)
    assert registry.wanting("sms.sent") == ("first",)
    registry.on("*", name="second")(handle)
    assert registry.wanting("sms.sent") == ("first", "second")


def test_any_number_of_types_is_answered(registry: Registry) -> None:
    """Types come from outside; what is remembered of them must neither grow nor go wrong."""
    registry.on("sms.*", name="it")(handle)
    for number in range(3_000):
        assert registry.wanting(f"sms.{number}") == ("it",)
        assert registry.wanting(f"fax.{number}") == ()
    remembered = vars(registry)["_wanting"]
    assert len(remembered) <= 1_000


def test_the_defaults_are_the_documented_ones(registry: Registry) -> None:
    registry.on("*")(handle)
    (handler,) = registry
    assert (handler.max_attempts, handler.timeout, handler.concurrency) == (12, 20, 4)
    assert handler.function is handle


def test_limits_are_kept(registry: Registry) -> None:
    registry.on("*", name="it", max_attempts=1, timeout=0.5, concurrency=1)(handle)
    handler = registry.get("it")
    assert handler is not None
    assert (handler.max_attempts, handler.timeout, handler.concurrency) == (1, 0.5, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        handler.timeout = 1  # type: ignore[misc]


def test_the_decorated_function_stays_what_it_is(registry: Registry) -> None:
    assert registry.on("*")(handle) is handle


def test_who_is_not_registered_is_nobody(registry: Registry) -> None:
    assert registry.get("nobody") is None
    assert registry.wanting("sms.sent") == ()
    assert len(registry) == 0


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (handle, f"{__name__}.handle"),
        (Callables().method, f"{__name__}.Callables.method"),
        (Callables(), f"{__name__}.Callables"),
        (functools.partial(handle), "functools.partial"),
    ],
)
def test_the_default_name_is_the_qualified_one(
    registry: Registry, function: Callable[[Event], object], name: str
) -> None:
    registry.on("*")(function)
    assert [handler.name for handler in registry] == [name]


def test_that_it_is_defined_within_register_is_not_part_of_its_name(registry: Registry) -> None:
    @registry.on("*")
    def page_someone(event: Event) -> None: ...

    assert [handler.name for handler in registry] == [f"{__name__}.page_someone"]


def test_the_same_name_twice_is_an_error(registry: Registry) -> None:
    registry.on("*", name="it")(handle)
    with pytest.raises(ValueError, match="'it'"):
        registry.on("sms.sent", name="it")(other)
    (handler,) = registry
    assert handler.function is handle


def test_the_same_function_twice_needs_a_name(registry: Registry) -> None:
    registry.on("sms.sent")(handle)
    with pytest.raises(ValueError, match="handle"):
        registry.on("sms.failed")(handle)
    registry.on("sms.failed", name="again")(handle)
    assert len(registry) == 2


@pytest.mark.parametrize(
    "pattern",
    [
        *("", " ", "sms. sent", "sms.sent ", "sms*", "*.sent", "sms.*.x", "**", "*.*", ".*"),
        *("a\nb", None, 5, b"sms.sent", handle),
    ],
)
def test_what_is_no_pattern_is_refused(registry: Registry, pattern: Any) -> None:
    with pytest.raises(ValueError, match="pattern"):
        registry.on(pattern)
    with pytest.raises(ValueError, match="pattern"):
        registry.on("sms.sent", pattern)


def test_no_pattern_at_all_is_refused(registry: Registry) -> None:
    with pytest.raises(ValueError, match="pattern"):
        registry.on(name="it")


@pytest.mark.parametrize("limit", ["max_attempts", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None])
def test_a_limit_that_makes_no_sense_is_refused(registry: Registry, limit: str, value: Any) -> None:
    with pytest.raises(ValueError, match=limit):
        registry.on("*", **{limit: value})


@pytest.mark.parametrize("value", [0, -1, 3_600.1, float("nan"), float("inf"), True, "20", None])
def test_a_timeout_that_makes_no_sense_is_refused(registry: Registry, value: Any) -> None:
    with pytest.raises(ValueError, match="timeout"):
        registry.on("*", timeout=value)


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00", "a\u2028b", "\ud800", "n" * 201, 5])
def test_what_is_no_name_is_refused(registry: Registry, name: Any) -> None:
    with pytest.raises(ValueError, match="name"):
        registry.on("*", name=name)(handle)
    assert len(registry) == 0


@pytest.mark.parametrize("name", ["a", "n" * 200, "alertes à Paris"])
def test_what_is_a_name_is_taken(registry: Registry, name: str) -> None:
    registry.on("*", name=name)(handle)
    assert registry.get(name) is not None


# --- what a call cannot be given


def takes_nothing() -> None: ...


def takes_two(event: Event, other: object) -> None: ...


def takes_it_by_name(*, event: Event) -> None: ...


class TakesNothing:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    "function", [takes_nothing, takes_two, takes_it_by_name, TakesNothing(), lambda: None]
)
def test_what_cannot_take_an_event_is_refused(registry: Registry, function: Any) -> None:
    with pytest.raises(ValueError, match=r"cannot be called with what it is given: write def .*\("):
        registry.on("*", name="h")(function)


@pytest.mark.parametrize(
    "function",
    [print, lambda *events: None, lambda event, again=False: None, functools.partial(other)],
)
def test_what_can_take_an_event(registry: Registry, function: Any) -> None:
    registry.on("*", name="h")(function)
    assert len(registry) == 1


@pytest.mark.parametrize("function", [handle, takes_nothing, takes_two, asynchronous, None])
def test_what_cannot_be_told_of_dead_work_is_refused(registry: Registry, function: Any) -> None:
    with pytest.raises(ValueError, match=r"is no function|cannot be called|write a plain function"):
        registry.on_dead(function)


def test_patterns_that_match_no_type_of_a_list(registry: Registry) -> None:
    registry.on("sms.deliverd", "sms.sent", "sm.*", name="a")(handle)
    registry.on("*", "sms.*", "delivered", name="b")(handle)
    assert registry.unmatched(["sms.sent", "sms.delivered"]) == [
        ("a", "sms.deliverd"), ("a", "sm.*"),
    ]  # fmt: skip
