"""`HANDLERS=tests.twice`: two handlers of one name."""

from __future__ import annotations

from receiver import Event, Registry


def register(registry: Registry) -> None:
    for _ in range(2):

        @registry.on("*", name="same")
        def same(event: Event) -> None: ...
