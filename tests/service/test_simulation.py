"""Everything that takes part, under one seeded scheduler; see `tests/simulation.py`.

make simulate-seeds N=100000        as many seeds as you have time for
SEED=4711 pytest tests/service/test_simulation.py     one seed alone
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.conftest import new_database
from tests.plants import OF_AN_ENGINE, PLANTS
from tests.simulation import Broken, simulate

#: Of each engine; a seed on PostgreSQL takes ten times as long.
SEEDS = {"sqlite": 600, "postgres": 40}
if "SEEDS" in os.environ:
    SEEDS = dict.fromkeys(SEEDS, int(os.environ["SEEDS"]))
PARTS = 8

NewDatabase = Callable[[], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: what is tested here is not the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def fresh(engine: str, request: pytest.FixtureRequest, folder: Path) -> NewDatabase:
    """Makes a database for one seed."""

    @contextmanager
    def fresh() -> Iterator[str]:
        with new_database(engine, request, folder) as url:
            yield url
            for left in folder.glob("receiver.db*"):
                left.unlink()

    return fresh


@pytest.mark.each_engine
@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_whatever_happens(fresh: NewDatabase, engine: str, part: int) -> None:
    one = os.environ.get("SEED")
    seeds = [int(one)] if one else range(part, SEEDS[engine], PARTS)
    for seed in seeds:
        with fresh() as url:
            simulate(url, seed)


@pytest.mark.parametrize(
    ("engine", "bug"),
    [
        *(("sqlite", bug) for bug in PLANTS),
        *(("postgres", bug) for bug in PLANTS if "TORTURE" in os.environ or bug in OF_AN_ENGINE),
    ],
    scope="module",
)
def test_a_planted_bug_is_found(fresh: NewDatabase, bug: str) -> None:
    for seed in range(2_000):
        with fresh() as url:
            try:
                simulate(url, seed, bug)
            except Broken:
                return
    pytest.fail(f"2,000 seeds did not find: {bug}")
