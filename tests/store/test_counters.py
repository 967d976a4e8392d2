"""Counters: each thing once, whatever fails and whoever counts; and they never fall."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from receiver.counting import Counting
from receiver.errors import StoreUnavailable
from receiver.metrics import ACCEPTED, DELIVERIES, MISSED, REFUSED
from receiver.providers import TYPES
from receiver.store import Store, open_store
from receiver.store.copying import copy
from tests.server import eventually
from tests.shortage import threads_allowed
from tests.store.test_store import NOW, claim, ingest, sent, settle

ONE = {(REFUSED, "store"): 1}
SENT = (ACCEPTED, "zimsend", "sms.sent")


@pytest.fixture
def other(store: Store, database_url: str) -> Iterator[Store]:
    """Another process's store."""
    store = open_store(database_url)
    yield store
    store.close()


def count_all(store: Store) -> None:
    while store.count_arrivals(TYPES, 5):
        pass


def test_what_is_added_is_added_once_for_a_token(store: Store, other: Store) -> None:
    store.add_counts("a", ONE, 5)
    other.add_counts("b", {**ONE, (REFUSED, "size"): 5}, 5)
    for _ in range(2):
        store.add_counts("a", ONE, 5)
        other.add_counts("a", ONE, 5)
    assert store.counters() == {(REFUSED, "store"): 2, (REFUSED, "size"): 5}


def test_tokens_are_not_kept_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{type(store).__module__}.counters._REMEMBERED", 2)
    for number in range(5):
        store.add_counts(str(number), ONE, 5)
    store.add_counts("4", ONE, 5)
    store.add_counts("3", ONE, 5)
    assert store.counters() == {(REFUSED, "store"): 5}
    store.add_counts("0", ONE, 5)  # long forgotten
    assert store.counters() == {(REFUSED, "store"): 6}


def test_any_label_is_kept_as_it_is(store: Store) -> None:
    names = ["a\0b", 'say "hi"', "ünï\ud800", "", "x" * 3_000, "[1]"]
    store.add_counts("a", {(DELIVERIES, name, "done"): 1 for name in names}, 5)
    assert {key[1] for key in store.counters()} == set(names)


def test_each_event_is_counted_once(store: Store, other: Store) -> None:
    ingest(store, *(sent(f"m{n}", event_id=f"e{n}") for n in range(20)))
    ingest(store, sent("m1", event_id="e1"))
    with ThreadPoolExecutor(4) as threads:
        for each in [threads.submit(count_all, s) for s in (store, other, store, other)]:
            each.result()
    ingest(other, sent("m1", event_id="last"))
    count_all(store)
    assert other.counters()[SENT] == 21


def test_many_are_counted_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{type(store).__module__}.counters._COUNTED_AT_ONCE", 3)
    ingest(store, *(sent(f"m{n}", event_id=f"e{n}") for n in range(7)))
    assert store.count_arrivals(TYPES, 5)
    assert store.counters()[SENT] == 3
    count_all(store)
    assert store.counters()[SENT] == 7


def test_only_what_was_missed_is_missed(store: Store) -> None:
    def learnt(name: str, kind: str = "sms.sent", **changes: Any) -> Any:
        return sent(f"m{name}", event_id=f"e{name}")._replace(
            type=kind, source="reconciliation", **changes
        )

    ingest(store, sent("m1", event_id="e1"))
    ingest(store, learnt("2"), learnt("3", reported_at=None), learnt("4", "sms.queued"))
    ingest(store, sent("m1")._replace(id="again", source="reconciliation"))
    count_all(store)
    counters = store.counters()
    assert {key: n for key, n in counters.items() if key[0] == MISSED} == {
        (MISSED, "zimsend", "sent"): 1
    }


def test_what_was_not_counted_in_time_is_counted_before_it_expires(store: Store) -> None:
    from receiver.upkeep import expire

    ingest(store, sent("m1"), wanting=lambda _: ())
    assert expire(store, 2 * NOW).messages == 1
    count_all(store)
    assert store.counters()[SENT] == 1


def test_buried_work_is_counted_as_dead(store: Store) -> None:
    ingest(store, sent("m1"), sent("m2"), wanting=lambda _: ("a", "b"))
    assert store.bury(NOW, ["b"], 0) == 2
    assert store.counters() == {(DELIVERIES, "a", "dead"): 2}


def test_messages_are_told_by_what_was_counted(store: Store) -> None:
    ingest(store, sent("m1"), sent("m2"), sent("msg_test1", event_id="evt_test1"))
    assert {k: n for k, n in store.kept()[0].items() if n} == {"sent": 3}
    (one,) = claim(store, limit=1)
    settle(store, one, "done")
    assert store.kept()[1] > 0


def test_counters_come_along(store: Store, tmp_path: Any) -> None:
    ingest(store, *(sent(f"m{n}") for n in range(3)))
    count_all(store)
    store.add_counts("a", ONE, 5)
    target = open_store(f"sqlite:///{tmp_path}/target.db")
    target.migrate()
    try:
        copy(store, target, lambda *_: None)
        count_all(target)
        assert target.counters() == store.counters()
        ingest(target, sent("more"))
        count_all(target)
        assert target.counters()[SENT] == 4
    finally:
        target.close()


def test_an_answer_that_is_lost_adds_nothing_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the server is so far away that its answer comes too late."""
    counting = Counting(store)
    add = type(store).add_counts

    def add_and_fail(self: Store, *arguments: Any) -> None:
        add(self, *arguments)
        raise StoreUnavailable("too late")

    with monkeypatch.context() as far_away:
        far_away.setattr(type(store), "add_counts", add_and_fail)
        for number in range(3):
            counting.count(REFUSED, "store")
            assert not counting.flush()
            assert store.counters() == {(REFUSED, "store"): 1}, number
    assert counting.flush()
    assert store.counters() == {(REFUSED, "store"): 3}
    counting.stop()


def test_without_a_thread_nothing_that_was_counted_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "EVERY", 0.01)
    counting = Counting(store)
    with threads_allowed("counting", 0):
        for _ in range(2):
            counting.count(REFUSED, "store")
    counting.count(REFUSED, "store")
    eventually(lambda: store.counters().get((REFUSED, "store")) == 3)
    counting.stop()


def test_a_process_adds_by_itself(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "EVERY", 0.01)
    others = set(threading.enumerate())
    counting = Counting(store)
    for number in range(1, 3):
        counting.count(REFUSED, "store")
        counting.observe("ack_duration_seconds", 0.02)
        eventually(
            lambda n=number: store.counters().get(("ack_duration_seconds_sum",)) == 20_000 * n
        )
    counting.stop()
    assert store.counters() == {
        (REFUSED, "store"): 2,
        ("ack_duration_seconds_bucket", "0.025"): 2,
        ("ack_duration_seconds_sum",): 40_000,
    }
    eventually(lambda: "counting" not in {t.name for t in set(threading.enumerate()) - others})
