"""A life of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import Clock
from tests.polling.life import Life
from tests.sqlite_files import migrated


@pytest.fixture
def life(environ: dict[str, str], clock: Clock) -> Iterator[Life]:
    """In memory, where there is such a place: what is tested here is not the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if environ["DATABASE_URL"].startswith("sqlite:"):
            environ["DATABASE_URL"] = migrated(Path(folder, "receiver.db"))
        life = Life(environ, clock)
        yield life
        life.close()
