"""Group commit and failing fast, with a store that does what the test says."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from receiver import times
from receiver.errors import StoreUnavailable
from receiver.event import Incoming
from receiver.ingest import Ingest
from receiver.providers.zimsend.webhook import parse
from receiver.store import Selection, Store
from receiver.times import DAY
from tests.payloads import envelope, sms
from tests.server import eventually


def item(**changes: Any) -> Incoming:
    body = json.dumps(envelope("sms.sent", sms("sent")) | changes).encode()
    return parse(body, received_at=times.now(), retention=90 * DAY)


class Scripted:
    """Stands in for a store: holds each commit until told, and fails as told."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.patience: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.bad: set[str] = set()

    def ingest(self, items: Any, wanting: Any, patience: float) -> list[str]:
        self.groups.append([i.id for i in items])
        self.patience.append(patience)
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        if self.bad & {i.id for i in items}:
            raise OverflowError("no column holds this")
        return ["accepted"] * len(items)


def no_handlers(event_type: str) -> tuple[str, ...]:
    return ()


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def ingest(scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    monkeypatch.setattr(Ingest, "PATIENCE", 30)  # a test of patience has its own
    return Ingest(scripted, no_handlers)  # type: ignore[arg-type]


def test_requests_that_wait_at_the_same_moment_share_one_commit(
    ingest: Ingest, scripted: Scripted
) -> None:
    scripted.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(ingest.submit, item())
        eventually(lambda: scripted.groups)
        others = [pool.submit(ingest.submit, item()) for _ in range(19)]
        eventually(lambda: len(ingest._queue) == 19)
        scripted.gate.set()
        assert {f.result() for f in [first, *others]} == {"accepted"}
    assert [len(group) for group in scripted.groups] == [1, 19]


def test_one_bad_event_fails_alone(ingest: Ingest, scripted: Scripted) -> None:
    scripted.gate.clear()
    items = [item(event_id=f"e{n}") for n in range(10)]
    scripted.bad = {"e5"}
    with ThreadPoolExecutor(10) as pool:
        blocker = pool.submit(ingest.submit, item())
        eventually(lambda: scripted.groups)
        futures = [pool.submit(ingest.submit, i) for i in items[:9]]
        eventually(lambda: len(ingest._queue) == 9)
        scripted.gate.set()
        assert blocker.result() == "accepted"
        for number, future in enumerate(futures):
            if number == 5:
                with pytest.raises(OverflowError):
                    future.result()
            else:
                assert future.result() == "accepted"
    assert ingest.submit(item()) == "accepted"


def test_an_outage_fails_all_at_once_and_then_one_probes(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Ingest.KNOWN_FOR > Ingest.PROBE_PATIENCE
    monkeypatch.setattr(Ingest, "KNOWN_FOR", 60)
    scripted.gate.clear()
    scripted.error = StoreUnavailable("locked")
    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(ingest.submit, item())]
        eventually(lambda: scripted.groups)
        futures += [pool.submit(ingest.submit, item()) for _ in range(9)]
        eventually(lambda: len(ingest._queue) == 9)
        scripted.gate.set()
        for future in futures:
            with pytest.raises(StoreUnavailable):
                future.result()
    assert len(scripted.groups) == 1

    # Now it is known to be stuck: one request probes with little patience, the rest fail at once.
    scripted.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(ingest.submit, item())
        eventually(lambda: len(scripted.groups) == 2)
        assert scripted.patience[-1] <= Ingest.PROBE_PATIENCE
        took = []
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                ingest.submit(item())
            took.append(time.monotonic() - began)
        assert min(took) < 0.2
        assert len(scripted.groups) == 2
        # The first success ends it.
        scripted.error = None
        scripted.gate.set()
        assert probe.result() == "accepted"
    assert ingest.submit(item()) == "accepted"
    assert scripted.patience[-1] > Ingest.PROBE_PATIENCE


def test_a_commit_that_hangs_holds_nobody_else(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer cannot be interrupted; those who wait leave in time."""
    monkeypatch.setattr(Ingest, "PATIENCE", 0.3)
    scripted.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        hanging = pool.submit(ingest.submit, item())
        eventually(lambda: scripted.groups)
        waiting = [pool.submit(ingest.submit, item()) for _ in range(2)]
        for future in waiting:
            with pytest.raises(StoreUnavailable):
                future.result(timeout=5)
        with pytest.raises(StoreUnavailable):
            ingest.submit(item())
        scripted.gate.set()
        assert hanging.result() == "accepted"
    # Those who left are not committed behind their backs as part of somebody's group.
    assert ingest.submit(item(event_id="last")) == "accepted"
    assert scripted.groups[-1] == ["last"]


def test_many_threads_one_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ingest, "PATIENCE", 30)
    monkeypatch.setattr(Ingest, "LOCK_PATIENCE", 30)
    commits = []
    ingest = Ingest(store, no_handlers, lambda: commits.append(1))
    items = [item(event_id=f"e{n % 150}") for n in range(300)]
    with ThreadPoolExecutor(32) as pool:
        outcomes = list(pool.map(ingest.submit, items))
    assert sorted(outcomes) == ["accepted"] * 150 + ["duplicate"] * 150
    assert sum(e["receipts"] for e in store.events(Selection())) == 300
    assert len(commits) <= 300


# --- several at once


def test_several_that_come_at_once_share_commits(ingest: Ingest, scripted: Scripted) -> None:
    items = [item(event_id=f"e{n}") for n in range(300)]
    ingest.submit_all(items)
    assert [len(group) for group in scripted.groups] == [128, 128, 44]
    assert [i for group in scripted.groups for i in group] == [each.id for each in items]
    ingest.submit_all([])
    assert len(scripted.groups) == 3


def test_several_wait_for_whoever_commits(ingest: Ingest, scripted: Scripted) -> None:
    scripted.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ingest.submit, item())
        eventually(lambda: scripted.groups)
        several = [pool.submit(ingest.submit_all, [item() for _ in range(200)]) for _ in range(2)]
        eventually(lambda: len(ingest._queue) == 400)
        scripted.gate.set()
        assert first.result() == "accepted"
        for each in several:
            each.result()
    assert [len(group) for group in scripted.groups] == [1, 128, 128, 128, 16]
    assert ingest.submit(item()) == "accepted"


def test_of_several_the_bad_one_fails_alone(ingest: Ingest, scripted: Scripted) -> None:
    scripted.bad = {"e5"}
    with pytest.raises(OverflowError):
        ingest.submit_all([item(event_id=f"e{n}") for n in range(10)])
    assert len(scripted.groups) == 11
    assert ingest.submit(item()) == "accepted"


def test_several_leave_nobody_behind_in_an_outage(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingest, "PATIENCE", 0.3)
    scripted.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(ingest.submit, item())
        eventually(lambda: scripted.groups)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            ingest.submit_all([item() for _ in range(200)])
        assert time.monotonic() - began < 8
        scripted.gate.set()
        assert hanging.result() == "accepted"
    scripted.error = StoreUnavailable("locked")
    with pytest.raises(StoreUnavailable):
        ingest.submit_all([item() for _ in range(200)])
    scripted.error = None
    ingest.submit_all([item(), item()])
    assert len(scripted.groups[-1]) == 2


def test_a_failure_of_long_ago_refuses_nobody_beside_the_probe(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.error = StoreUnavailable("locked")
    with pytest.raises(StoreUnavailable):
        ingest.submit(item())
    scripted.error = None
    monkeypatch.setattr(Ingest, "KNOWN_FOR", 0.0)  # as if time had passed
    scripted.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        probe = pool.submit(ingest.submit, item())
        eventually(lambda: len(scripted.groups) == 2)
        beside = pool.submit(ingest.submit, item())
        eventually(lambda: ingest._queue or beside.done())
        scripted.gate.set()
        assert [probe.result(), beside.result()] == ["accepted", "accepted"]
