"""The count of requests to ZimSend: callers are never held up, reconciliation keeps to its half."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import bucket
from receiver.errors import StoreUnavailable
from receiver.providers.zimsend.budget import Counted, Half
from receiver.store import Store
from receiver.times import DAY, MINUTE, SECOND

NOW = 20_000 * DAY


class Marks:
    """The buckets of a store."""

    def __init__(self) -> None:
        self.marks: dict[str, int] = {}
        self.now = NOW

    def take(self, name: str, now: int, interval: int, room: int | None) -> int:
        self.marks[name], wait = bucket.take(self.marks.get(name), now, interval, room)
        return wait


def budgets(store: Any) -> tuple[Counted, Half]:
    return Counted(store, lambda: store.now), Half(store, lambda: store.now)


@given(
    st.lists(
        st.tuples(st.integers(0, 20 * SECOND), st.sampled_from([1, 1, 2, 30, 120])), max_size=60
    )
)
def test_no_minute_has_too_many(callers: list[tuple[int, int]]) -> None:
    """Reconciliation asks as often as it may, while callers come as they like."""
    store = Marks()
    counted, half = budgets(store)
    made: list[int] = []
    own: list[int] = []

    def reconcile(until: int) -> None:
        while True:
            if wait := round(half.take() * SECOND):
                if store.now + wait > until:
                    return
                store.now += wait
            else:
                made.append(store.now)
                own.append(store.now)
                assert sum(at > store.now - MINUTE for at in made) <= 100
                assert sum(at > store.now - MINUTE - 10 * SECOND for at in own) <= 50

    for pause, number in callers:
        until = store.now + pause
        reconcile(until)
        store.now = until
        for _ in range(number):
            assert counted.take() == 0
            made.append(store.now)
    until = store.now + 3 * MINUTE
    reconcile(until)
    # Nobody else asks any more: then it gets its half.
    assert sum(at > until - MINUTE for at in own) >= 25


def test_it_waits_no_longer_than_it_must() -> None:
    store = Marks()
    _, half = budgets(store)
    assert half.take() == 0
    assert half.take() == pytest.approx(0.7)
    assert half.take() == pytest.approx(0.7)  # what it had in hand is not taken twice
    store.now += 700_000
    assert half.take() == 0


def test_processes_share_it(store: Store) -> None:
    for each in (Counted(store, lambda: NOW), Counted(store, lambda: NOW)):
        assert each.take() == 0
    assert Half(store, lambda: NOW).take() == pytest.approx(1.4)
    assert Half(store, lambda: NOW + 2 * SECOND).take() == 0


def test_a_store_that_cannot_be_used_holds_up_no_caller() -> None:
    class Stuck(Marks):
        def take(self, *_: Any) -> int:
            raise StoreUnavailable("locked")

    counted, half = budgets(Stuck())
    assert counted.take() == 0
    with pytest.raises(StoreUnavailable):
        half.take()
