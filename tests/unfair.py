"""`HANDLERS=tests.unfair`: a handler that hangs, one that always fails, and one that works."""

from __future__ import annotations

import time

from receiver import Event, HandlerError, Registry
from tests.handlers import saw


def register(registry: Registry) -> None:
    @registry.on("*", name="hangs", timeout=1, concurrency=2)
    def hangs(event: Event) -> None:
        time.sleep(3600)

    @registry.on("*", name="fails")
    def fails(event: Event) -> None:
        raise HandlerError("always")

    @registry.on("*", name="works")
    def works(event: Event) -> None:
        saw("works", event)
