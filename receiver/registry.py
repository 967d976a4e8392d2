"""Which handlers there are, and which events each of them wants."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from receiver.event import ALIASES, Event

#: Types come from outside, so what is remembered of them is bounded.
_REMEMBERED_TYPES = 1_000

_PATTERN = re.compile(r"\*|[^\s*]+(?:\.\*)?")
HandlerFunction = Callable[[Event], object]
#: Given the event, the handler's name, and its last error.
DeadFunction = Callable[[Event, str, str], object]
_NOT_PLAIN = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered function with its limits.

    :param timeout: seconds that one call may take.
    :param concurrency: calls at once in one process.
    """

    name: str
    function: HandlerFunction
    patterns: tuple[str, ...]
    max_attempts: int
    timeout: float
    concurrency: int

    def wants(self, event_type: str) -> bool:
        """Whether one of the patterns matches."""
        return any(matches(pattern, event_type) for pattern in self.patterns)


def matches(pattern: str, event_type: str) -> bool:
    """Whether a pattern matches: `*`, `sms.*`, or the type itself."""
    return (
        pattern == "*"
        or pattern == event_type
        or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))
    )


def _check(function: Callable[..., object], given: Sequence[str]) -> None:
    """Whether a call with these arguments can work.

    :raises ValueError: if none ever could.
    """
    if not callable(function):
        raise ValueError(f"{function!r} is no function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C do not tell
        signature = None
    try:
        if signature is not None:
            signature.bind(*given)
    except TypeError:
        name = _qualified_name(function)
        raise ValueError(
            f"{name}{signature} cannot be called with what it is given: write "
            f"def {name.rpartition('.')[2]}({', '.join(given)})"
        ) from None
    for kind in _NOT_PLAIN:
        if kind(function) or kind(type(function).__call__):
            raise ValueError(
                f"{_qualified_name(function)} is an `async def` or a generator, which a call does "
                "not run: write a plain function (in it, asyncio.run() can run what is async)"
            )


class Registry:
    """The handlers of one process. Each module of `HANDLERS` adds its own; a program that the
    service is built into may add some at any time."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._wanting: dict[str, tuple[str, ...]] = {}
        self._on_dead: list[DeadFunction] = []
        #: The modules of `HANDLERS` that have added theirs.
        self.modules: set[str] = set()

    def on(
        self,
        *patterns: str,
        name: str | None = None,
        max_attempts: int = 12,
        timeout: float = 20,
        concurrency: int = 4,
    ) -> Callable[[HandlerFunction], HandlerFunction]:
        """Register the decorated function for events whose type matches one of the patterns.

        :param patterns: types (`sms.failed`), families (`sms.*`) or everything (`*`).
        :param name: what identifies the handler across restarts; the default is the function's
            qualified name.
        :param max_attempts: calls that may fail before the work is dead.
        :param timeout: seconds after which a call counts as failed.
        :param concurrency: calls at once in one process.
        :raises ValueError: if a pattern or a number makes no sense, or the name is taken; also for
            an `async def` or a generator, which a call would not run, and for a function that does
            not take one argument.
        """
        if not patterns:
            raise ValueError('on() needs at least one pattern, like "sms.failed" or "*"')
        for pattern in patterns:
            if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
                raise ValueError(
                    f"{pattern!r} is no pattern: use a type, a family like 'sms.*', or '*'"
                )
        for label, number in (("max_attempts", max_attempts), ("concurrency", concurrency)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                raise ValueError(f"{label} must be a whole number from 1 on, not {number!r}")
        if (
            isinstance(timeout, bool)
            or not isinstance(timeout, int | float)
            or not 0 < timeout <= 3_600
        ):
            raise ValueError(f"timeout must lie between 0 and 3600 seconds, not {timeout!r}")

        def register(function: HandlerFunction) -> HandlerFunction:
            _check(function, ["event"])
            self._add(
                Handler(
                    name=name if name is not None else _qualified_name(function),
                    function=function,
                    patterns=tuple(ALIASES.get(pattern, pattern) for pattern in patterns),
                    max_attempts=max_attempts,
                    timeout=timeout,
                    concurrency=concurrency,
                )
            )
            return function

        return register

    def on_dead(self, function: DeadFunction) -> DeadFunction:
        """Have a function told of work that has died: of the event, the handler's name and its
        last error, as `function(event, handler, error)`.

        Once for each that dies, in the process that runs the handlers, after it was written down.
        If that process ends in the same moment, or the function raises, it is not told again: the
        log and `flask events list --state dead` know of all. Nor is it told of work that nobody
        has had a handler for.

        :raises ValueError: if the function cannot be called so.
        """
        _check(function, ["event", "handler", "error"])
        self._on_dead.append(function)
        return function

    @property
    def dead_functions(self) -> Sequence[DeadFunction]:
        """What `on_dead` was given, in that order."""
        return tuple(self._on_dead)

    def _add(self, handler: Handler) -> None:
        name = handler.name
        if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
            raise ValueError(
                f"{handler.name!r} is no name for a handler: 1 to 200 printable characters"
            )
        if handler.name in self._handlers:
            raise ValueError(
                f"two handlers are called {handler.name!r}: give one of them another name="
            )
        self._handlers[handler.name] = handler
        self._wanting = {}  # a new one: whoever fills the old one meanwhile has not seen it

    def __iter__(self) -> Iterator[Handler]:
        return iter(tuple(self._handlers.values()))

    def __len__(self) -> int:
        return len(self._handlers)

    def get(self, name: str) -> Handler | None:
        return self._handlers.get(name)

    def unmatched(self, types: Collection[str]) -> list[tuple[str, str]]:
        """The names and patterns of handlers that match none of these types."""
        return [
            (handler.name, pattern)
            for handler in self
            for pattern in handler.patterns
            if not any(matches(pattern, event_type) for event_type in types)
        ]

    def wanting(self, event_type: str) -> tuple[str, ...]:
        """The names of the handlers that want events of this type."""
        remembered = self._wanting
        names = remembered.get(event_type)
        if names is None:
            names = tuple(handler.name for handler in self if handler.wants(event_type))
            if len(remembered) < _REMEMBERED_TYPES:
                remembered[event_type] = names
        return names


def _qualified_name(function: Callable[..., object]) -> str:
    """Module and name. That a handler is defined inside `register` says nothing about it."""
    qualified = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{qualified.rpartition('<locals>.')[2]}"
