"""Lives of their own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from receiver.providers.smscx.simulator.world import World as SmsCxWorld
from receiver.providers.zimsend.simulator.world import World
from tests.conftest import Clock
from tests.providers.zimsend.reports import BEGAN
from tests.reconciliation.life import Life
from tests.reconciliation.smscx_life import SmsCxLife
from tests.sqlite_files import migrated

WORLDS: dict[str, tuple[Any, Any]] = {"zimsend": (Life, World), "smscx": (SmsCxLife, SmsCxWorld)}


@pytest.fixture
def live(environ: dict[str, str]) -> Iterator[Callable[..., Life]]:
    """Lives in memory, where there is such a place: what is tested here is not the disk."""
    memory = Path("/dev/shm")
    folder = TemporaryDirectory(dir=memory if memory.is_dir() else None)
    environ["HANDLERS"] = Life.__module__
    if environ["DATABASE_URL"].startswith("sqlite:"):
        environ["DATABASE_URL"] = migrated(Path(folder.name, "receiver.db"))
    lives: list[Life] = []

    def begin(provider: str = "zimsend", **settings: Any) -> Life:
        began = settings.pop("began", BEGAN)
        kind, world = WORLDS[provider]
        life = kind(environ, Clock(began), world(began=began, **settings))
        lives.append(life)
        return life

    yield begin
    for life in lives:
        life.close()
    folder.cleanup()
