"""Handlers of the tests' own receivers. What they saw goes into files, to be read from outside."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from receiver import Event, Registry

SEEN = "SEEN"  # the variable that names the folder


def saw(name: str, event: Event) -> None:
    """Append one line in one write, so that processes and threads do not mix theirs."""
    folder = os.environ.get(SEEN)
    if folder:
        line = json.dumps({"id": event.id, "at": time.time(), "attempt": event.attempt}) + "\n"
        with (Path(folder) / name).open("ab", buffering=0) as file:
            file.write(line.encode())


def seen(folder: Path, name: str) -> list[dict[str, object]]:
    """What a handler saw, in order."""
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def register(registry: Registry) -> None:
    @registry.on("*", name="first", timeout=1)
    def first(event: Event) -> None:
        saw("first", event)

    @registry.on("sms.*", name="second", timeout=1)
    def second(event: Event) -> None:
        saw("second", event)
