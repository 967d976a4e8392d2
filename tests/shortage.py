"""A system that is short of something."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Allowed:
    """How many threads of a name may still start."""

    def __init__(self, name: str, number: int, error: type[Exception]) -> None:
        self.name = name
        self.number = number
        self.error = error
        self.refused = 0

    def ask(self, thread: threading.Thread) -> None:
        if not thread.name.startswith(self.name):
            return
        if not self.number:
            self.refused += 1
            raise self.error("can't start new thread")
        self.number -= 1


@contextmanager
def threads_allowed(
    name: str, number: int, error: type[Exception] = RuntimeError
) -> Iterator[Allowed]:
    """Of the threads whose names begin so, only so many may start meanwhile."""
    allowed = Allowed(name, number, error)
    really = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        allowed.ask(thread)
        really(thread)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        yield allowed
