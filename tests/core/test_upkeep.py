"""Upkeep, where there is always more to do of one kind."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from receiver import times
from receiver.store.sqlite import SqliteStore
from receiver.upkeep import Upkeep


class NeverAllIndexed(SqliteStore):
    """Texts come faster than they are indexed."""

    batches = 0

    def index_texts(self, patience: float) -> bool:
        self.batches += 1
        return True


def test_texts_without_end_leave_all_else_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Upkeep, "LONGEST_INDEXING", 0.1)
    with closing(NeverAllIndexed(str(tmp_path / "r.db"))) as store:
        store.migrate()
        upkeep = Upkeep(store, 90 * times.DAY)
        upkeep.step(times.now())
        assert store.batches > 1
        assert store.note("surely past") is not None  # the last thing of a step
