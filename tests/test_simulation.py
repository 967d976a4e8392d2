"""Everything that takes part, under one seeded scheduler; see `tests/simulation.py`.

make simulate-seeds N=100000        as many seeds as you have time for
SEED=4711 pytest tests/test_simulation.py     one seed alone
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.store import open_store
from tests.simulation import PLANTS, Broken, simulate

SEEDS = int(os.environ.get("SEEDS", "2000"))
PARTS = 8


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: what is tested here is not the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def template(folder: Path) -> Path:
    path = folder / "template.db"
    store = open_store(f"sqlite:///{path}")
    store.migrate()
    store.close()
    return path


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_whatever_happens(template: Path, folder: Path, part: int) -> None:
    one = os.environ.get("SEED")
    seeds = [int(one)] if one else range(part, SEEDS, PARTS)
    for seed in seeds:
        simulate(template, folder, seed)


@pytest.mark.parametrize("bug", PLANTS)
def test_a_planted_bug_is_found(template: Path, folder: Path, bug: str) -> None:
    for seed in range(2_000):
        try:
            simulate(template, folder, seed, bug)
        except Broken:
            return
    pytest.fail(f"2,000 seeds did not find: {bug}")
