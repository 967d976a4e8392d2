"""`HANDLERS=tests.slow`: a handler that takes its time, and says when it began and ended."""

from __future__ import annotations

import time

from receiver import Event, Registry
from tests.handlers import saw


def register(registry: Registry) -> None:
    @registry.on("*", name="slow", timeout=30, concurrency=2)
    def slow(event: Event) -> None:
        saw("began", event)
        time.sleep(1)
        saw("ended", event)
