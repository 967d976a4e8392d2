"""Group commit and failing fast, with a store that does what the test says."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from receiver.errors import StoreUnavailable
from receiver.ingest import AT_LEAST, Ingest, Ticket, deadline_for
from receiver.store import Selection, Store
from tests.core.committing import Scripted, all_of, item, later, no_handlers, submit
from tests.forks import in_a_fork
from tests.server import eventually
from tests.shortage import threads_allowed


@pytest.fixture(params=[1, 2], ids=["one committer", "two"])
def scripted(request: pytest.FixtureRequest) -> Iterator[Scripted]:
    scripted = Scripted(request.param)
    yield scripted
    scripted.gate.set()


@pytest.fixture
def ingest(scripted: Scripted) -> Iterator[Ingest]:
    ingest = Ingest(scripted, no_handlers)  # type: ignore[arg-type]
    ingest.LONG = 60.0  # also while a test holds a commit
    yield ingest
    ingest.LONG = Ingest.LONG
    scripted.gate.set()
    ingest.stop()


# --- any number of committers


def test_requests_that_wait_at_the_same_moment_share_one_commit(
    ingest: Ingest, scripted: Scripted
) -> None:
    scripted.gate.clear()
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(submit, ingest)
        eventually(lambda: scripted.groups)
        others = [pool.submit(submit, ingest) for _ in range(12)]
        eventually(lambda: ingest.waiting == 12)
        scripted.gate.set()
        assert [f.result() for f in [first, *others]] == [["accepted"]] * 13
    assert [len(group) for group in scripted.groups] == [1, 12]


def test_the_ends_of_a_group_are_handed_over_at_once(ingest: Ingest, scripted: Scripted) -> None:
    """Each hand-over wakes an event loop, which costs more than the commit of one event."""
    told: list[list[Ticket]] = []
    others: list[list[Ticket]] = []
    scripted.gate.clear()
    ingest.put(Ticket([item()], later(), told.append))
    eventually(lambda: scripted.groups)
    tickets = [Ticket([item()], later(), told.append) for _ in range(5)]
    for ticket in [*tickets, Ticket([item()], later(), others.append)]:
        ingest.put(ticket)
    scripted.gate.set()
    eventually(lambda: others)
    assert [len(group) for group in told] == [1, 5]
    assert told[1] == tickets
    assert [ticket.result() for ticket in tickets] == [["accepted"]] * 5


@pytest.mark.parametrize(
    ("more", "takes", "sizes"),
    [
        (31, 0.0, [1, 16, 15]),
        (500, 0.0, [1, 128, 128, 128, 116]),
        (13, 0.0, [1, 13]),  # a transaction is worth more than that
        (31, 0.1, [1, 31]),
    ],
    ids=["halves", "no more than a group holds", "few", "a slow disk"],
)
def test_one_half_is_written_while_the_other_is_answered(
    ingest: Ingest, scripted: Scripted, more: int, takes: float, sizes: list[int]
) -> None:
    """With all in one group, those who send wait for their turn together, again and again."""
    ingest.WORTH_ANOTHER = 1_000
    if not takes:
        ingest.LONGEST_TO_HALVE = 60.0  # also while this test holds a commit
    told: list[list[Ticket]] = []
    scripted.gate.clear()
    scripted.takes = takes
    ingest.put(Ticket([item()], later(), told.append))
    eventually(lambda: scripted.groups)
    ingest.put(*[Ticket([item()], later(), told.append) for _ in range(more)])
    scripted.gate.set()
    eventually(lambda: sum(map(len, told)) == 1 + more)
    assert [len(group) for group in scripted.groups] == sizes


def test_what_is_under_way_is_counted_to_its_end(ingest: Ingest, scripted: Scripted) -> None:
    """Also what failed: else halves grow until they are none."""
    ingest.WORTH_ANOTHER, ingest.LONGEST_TO_HALVE = 1_000, 60.0
    ingest.KNOWN_FOR, ingest.SLOW_PROBE = 0.0, 60.0  # nobody is refused meanwhile
    told: list[list[Ticket]] = []
    for error in [StoreUnavailable("gone"), OverflowError("bad"), None]:
        scripted.error = error
        for _ in range(3):
            ingest.put(*[Ticket([item()], later(), told.append) for _ in range(40)])
            eventually(lambda: not ingest.waiting)
    eventually(lambda: sum(map(len, told)) == 360)
    scripted.groups.clear()
    scripted.gate.clear()
    ingest.put(Ticket([item()], later(), told.append))
    eventually(lambda: scripted.groups)
    ingest.put(*[Ticket([item()], later(), told.append) for _ in range(31)])
    scripted.gate.set()
    eventually(lambda: sum(map(len, told)) == 392)
    assert [len(group) for group in scripted.groups][:2] == [1, 16]


def test_a_request_of_several_items_is_one_ticket(ingest: Ingest, scripted: Scripted) -> None:
    told: list[list[Ticket]] = []
    ticket = Ticket([item(event_id=f"e{n}") for n in range(200)], later(), told.append)
    ingest.put(ticket)
    eventually(lambda: told)
    assert ticket.result() == ["accepted"] * 200
    assert [len(group) for group in scripted.groups] == [200]


def test_one_bad_event_fails_alone(ingest: Ingest, scripted: Scripted) -> None:
    scripted.gate.clear()
    items = [item(event_id=f"e{n}") for n in range(10)]
    scripted.bad = {"e5"}
    with ThreadPoolExecutor(10) as pool:
        blocker = pool.submit(submit, ingest)
        eventually(lambda: scripted.groups)
        futures = [pool.submit(submit, ingest, i) for i in items[:9]]
        eventually(lambda: ingest.waiting == 9)
        scripted.gate.set()
        assert blocker.result() == ["accepted"]
        for number, future in enumerate(futures):
            if number == 5:
                with pytest.raises(OverflowError):
                    future.result()
            else:
                assert future.result() == ["accepted"]
    assert submit(ingest) == ["accepted"]


def test_many_threads_one_store(store: Store) -> None:
    commits: list[int] = []
    ingest = Ingest(store, no_handlers, lambda: commits.append(1))
    items = [item(event_id=f"e{n}") for n in range(150)] * 2
    with ThreadPoolExecutor(32) as pool:
        outcomes = [each for [each] in pool.map(lambda i: submit(ingest, i), items)]
    assert sorted(outcomes) == ["accepted"] * 150 + ["duplicate"] * 150
    assert sum(e["receipts"] for e in store.events(Selection())) == 300
    assert len(commits) <= 300


def test_the_committer_of_a_fork_is_its_own(ingest: Ingest) -> None:
    assert submit(ingest) == ["accepted"]
    assert in_a_fork(lambda: submit(ingest, seconds=15) == ["accepted"])


def test_the_committer_ends_and_begins_again(ingest: Ingest) -> None:
    before = set(threading.enumerate())
    for _ in range(2):
        assert submit(ingest) == ["accepted"]
        for _ in range(2):
            ingest.stop()
        assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("shortage", [OSError(24, "Too many open files"), MemoryError()])
def test_a_shortage_of_the_machine_is_an_outage(
    ingest: Ingest, scripted: Scripted, shortage: Exception
) -> None:
    """And no defect, for which an event would be kept apart."""
    scripted.error = shortage
    with pytest.raises(StoreUnavailable):
        submit(ingest)
    assert ingest.problem == "no commit succeeds"
    scripted.error = None
    assert eventually(lambda: stored(ingest)) == ["accepted"]
    assert ingest.problem is None


def stored(ingest: Ingest) -> list[str]:
    try:
        return submit(ingest)
    except StoreUnavailable:  # it is known for a while
        return []


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_without_a_thread_nothing_queues_and_the_next_one_tries_again(
    ingest: Ingest, error: type[Exception]
) -> None:
    with threads_allowed("committer", 0, error):
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="thread"):
                submit(ingest)
        assert ingest.problem == "no commit succeeds"
    assert ingest.waiting == 0
    assert submit(ingest) == ["accepted"]
    assert ingest.problem is None


def test_with_a_thread_less_all_is_committed(ingest: Ingest) -> None:
    with threads_allowed("committer", 1):
        assert submit(ingest) == ["accepted"]
    assert submit(ingest, *[item() for _ in range(50)]) == ["accepted"] * 50
    ingest.stop()


def test_a_committer_for_which_there_was_no_thread_is_tried_again() -> None:
    scripted = Scripted(2)
    ingest = Ingest(scripted, no_handlers)  # type: ignore[arg-type]
    ended: list[list[Ticket]] = []
    scripted.gate.clear()
    with threads_allowed("committer", 1):
        ingest.put(Ticket([item()], later(), ended.append))
        eventually(lambda: scripted.groups)
    ingest.LONG = 0.01  # so that one ticket is worth another committer
    ingest.put(Ticket([item()], later(), ended.append))
    eventually(lambda: len(scripted.groups) == 2)  # beside the first
    scripted.gate.set()
    eventually(lambda: len(all_of(ended)) == 2)
    ingest.stop()


def test_the_death_of_the_committer_is_told(ingest: Ingest, scripted: Scripted) -> None:
    """Not as an outage, which ends: this process must be restarted."""
    scripted.error = SystemExit("as a defect in C might end it")
    scripted.gate.clear()
    told: list[list[Ticket]] = []
    ingest.put(Ticket([item()], later(), told.append))
    eventually(lambda: scripted.groups)
    ingest.put(Ticket([item()], later(), told.append))
    assert ingest.problem is None
    scripted.gate.set()
    tickets = eventually(lambda: all_of(told) if len(all_of(told)) == 2 else None)
    for ticket in tickets:
        with pytest.raises(StoreUnavailable):
            ticket.result()
    with pytest.raises(StoreUnavailable, match="died"):
        submit(ingest)
    assert "died" in (ingest.problem or "")


def test_a_death_that_nobody_can_tell_of_is_one_all_the_same(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(logging.getLogger("receiver.ingest"), "critical", fails)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    scripted.error = SystemExit()
    with pytest.raises(StoreUnavailable):
        submit(ingest)
    assert ingest.has_died


# --- deadlines


@pytest.mark.parametrize(
    ("first", "last", "deadline"),
    [
        (10.0, 10.0, 13.5),  # sent at once
        (10.0, 11.0, 14.5),  # the body took a second: 4.5 from the first byte
        (10.0, 12.0, 14.5),
        (10.0, 70.0, 71.0),  # it took for ever: there is still a second for the commit
    ],
)
def test_one_deadline_a_request(first: float, last: float, deadline: float) -> None:
    assert deadline_for(first, last) == deadline
    assert deadline - last >= AT_LEAST


def test_who_has_little_time_left_does_not_spoil_it_for_the_others(
    ingest: Ingest, scripted: Scripted
) -> None:
    scripted.gate.clear()
    ended: list[list[Ticket]] = []
    ingest.put(Ticket([item()], later(), ended.append))
    eventually(lambda: scripted.groups)
    for seconds in (0.5, 40.0):
        ingest.put(Ticket([item()], later(seconds), ended.append))
    scripted.gate.set()
    eventually(lambda: all_of(ended) if len(all_of(ended)) == 3 else None)
    assert scripted.patience[-1] > 20
    assert all(ticket.result() for ticket in all_of(ended))


def test_a_commit_that_hangs_holds_nobody_else(ingest: Ingest, scripted: Scripted) -> None:
    """A disk that does not answer cannot be interrupted; those who wait leave in time."""
    scripted.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        hanging = pool.submit(submit, ingest)
        eventually(lambda: scripted.groups)
        waiting = [pool.submit(submit, ingest, seconds=0.3) for _ in range(2)]
        for future in waiting:
            with pytest.raises(StoreUnavailable):
                future.result(timeout=20)
        with pytest.raises(StoreUnavailable):
            submit(ingest)
        scripted.gate.set()
        assert hanging.result() == ["accepted"]
    # Those who left are not committed behind their backs as part of somebody's group.
    assert submit(ingest, item(event_id="last")) == ["accepted"]
    assert scripted.groups[-1] == ["last"]


def test_a_commit_that_hangs_is_told_for_as_long_as_it_does(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingest, "TOLD_FOR", 0.0)  # as if that had gone by
    scripted.gate.clear()
    ended: list[list[Ticket]] = []
    for number in range(scripted.committers):
        assert ingest.problem is None
        ingest.LONG = 0.01  # each ticket has a committer of its own
        ticket = Ticket([item()], later(), ended.append)
        ingest.put(ticket)
        eventually(lambda number=number: len(scripted.groups) == number + 1)  # type: ignore[misc]
    monkeypatch.setattr(Ingest, "HANGS", 0.05)
    eventually(lambda: ingest.problem)
    ingest.give_up(ticket)
    assert ingest.problem == "no commit succeeds"
    scripted.gate.set()
    eventually(lambda: ingest.problem is None)


def test_a_group_that_is_stored_one_by_one_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take long in all: what counts is the time since the last commit."""
    scripted = Scripted(1)
    ingest = Ingest(scripted, no_handlers)  # type: ignore[arg-type]
    ended: list[list[Ticket]] = []
    scripted.gate.clear()
    scripted.bad, scripted.held = {"bad"}, {"first"}
    ingest.put(Ticket([item()], later(), ended.append))
    eventually(lambda: scripted.groups)
    for name in ("bad", "first", "second"):
        ingest.put(Ticket([item(event_id=name)], later(), ended.append))
    scripted.gate.set()
    eventually(lambda: scripted.groups[-1:] == [["first"]])
    time.sleep(1.1)
    monkeypatch.setattr(Ingest, "HANGS", 1.0)
    assert ingest.problem == "no commit succeeds"
    scripted.held = {"second"}
    eventually(lambda: scripted.groups[-1:] == [["second"]])
    assert ingest.problem is None
    eventually(lambda: ingest.problem)
    scripted.held = set()
    eventually(lambda: len(all_of(ended)) == 4)
    assert ingest.problem is None
    ingest.stop()


# --- a queue with bounds


def test_what_queues_is_bounded_by_number_and_by_bytes(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[list[Ticket]] = []
    scripted.gate.clear()
    ingest.put(Ticket([item()], later(), ended.append))
    eventually(lambda: scripted.groups)
    monkeypatch.setattr(Ingest, "MOST_TICKETS", 2)
    for _ in range(2):
        ingest.put(Ticket([item()], later(), ended.append))
    with pytest.raises(StoreUnavailable, match="hold"):
        ingest.put(Ticket([item()], later(), ended.append))
    monkeypatch.setattr(Ingest, "MOST_TICKETS", 100)
    monkeypatch.setattr(Ingest, "MOST_BYTES", 1)
    with pytest.raises(StoreUnavailable, match="hold"):
        ingest.put(Ticket([item()], later(), ended.append))
    scripted.gate.set()
    eventually(lambda: len(all_of(ended)) == 3)
    assert submit(ingest) == ["accepted"]


def test_what_could_not_be_committed_in_time_is_refused_at_once(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingest, "LARGEST_GROUP", 1)
    scripted.takes = 0.04
    for _ in range(30):  # until it is known how long a commit takes
        submit(ingest)
    ended: list[list[Ticket]] = []
    for _ in range(20):
        ingest.put(Ticket([item()], later(), ended.append))
    with pytest.raises(StoreUnavailable, match="in time"):
        ingest.put(Ticket([item()], later(0.2), ended.append))
    eventually(lambda: len(all_of(ended)) == 20)


def test_what_queues_is_counted_by_its_items(ingest: Ingest, scripted: Scripted) -> None:
    scripted.takes = 0.04
    for _ in range(30):
        submit(ingest)
    many = [item() for _ in range(ingest.LARGEST_GROUP)]
    ended: list[list[Ticket]] = []
    for _ in range(20):  # a transaction each
        ingest.put(Ticket(many, later(), ended.append))
    with pytest.raises(StoreUnavailable, match="in time"):
        ingest.put(Ticket([item()], later(0.2), ended.append))
    scripted.takes = 0.0
    eventually(lambda: len(all_of(ended)) == 20)


# --- outages


def test_an_outage_fails_all_at_once_and_then_one_probes(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ingest, "KNOWN_FOR", 60)
    recovered: list[int] = []
    ingest.on_recovery = lambda: recovered.append(1)
    scripted.gate.clear()
    scripted.error = StoreUnavailable("locked")
    with ThreadPoolExecutor(10) as pool:
        futures = [pool.submit(submit, ingest)]
        eventually(lambda: scripted.groups)
        futures += [pool.submit(submit, ingest) for _ in range(9)]
        eventually(lambda: ingest.waiting == 9)
        scripted.gate.set()
        for future in futures:
            with pytest.raises(StoreUnavailable):
                future.result()
    assert len(scripted.groups) == 1
    assert ingest.problem is not None

    # Now it is known to be stuck: one request probes, the rest fail at once.
    scripted.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(submit, ingest)
        eventually(lambda: len(scripted.groups) == 2)
        assert scripted.patience[-1] <= Ingest.PROBE_PATIENCE
        took = []
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                submit(ingest)
            took.append(time.monotonic() - began)
        assert min(took) < 0.2
        assert len(scripted.groups) == 2
        # The first success ends it.
        scripted.error = None
        scripted.gate.set()
        assert probe.result() == ["accepted"]
    assert recovered == [1]
    assert ingest.problem is None
    assert submit(ingest) == ["accepted"]
    assert scripted.patience[-1] > Ingest.PROBE_PATIENCE


def test_a_probe_waits_longer_than_the_way_to_any_database(ingest: Ingest) -> None:
    """Two round trips of 400 ms, and a connection that is tried: else a hiccup never ends."""
    assert ingest.PROBE_PATIENCE >= 4 * 0.4


def test_a_failure_of_long_ago_refuses_nobody_beside_the_probe(
    ingest: Ingest, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.error = StoreUnavailable("locked")
    with pytest.raises(StoreUnavailable):
        submit(ingest)
    scripted.error = None
    monkeypatch.setattr(Ingest, "KNOWN_FOR", 0.0)  # as if time had passed
    monkeypatch.setattr(Ingest, "SLOW_PROBE", 60.0)
    scripted.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        probe = pool.submit(submit, ingest)
        eventually(lambda: len(scripted.groups) == 2)
        beside = pool.submit(submit, ingest)
        eventually(lambda: ingest.waiting or beside.done())
        scripted.gate.set()
        assert [probe.result(), beside.result()] == [["accepted"], ["accepted"]]


# --- several at once


def test_several_that_come_at_once_share_commits() -> None:
    scripted = Scripted(1)
    ingest = Ingest(scripted, no_handlers)  # type: ignore[arg-type]
    scripted.gate.clear()
    ingest.put(Ticket([item()], later(), lambda _: None))
    eventually(lambda: scripted.groups)
    items = [item(event_id=f"e{n}") for n in range(300)]
    with ThreadPoolExecutor(1) as pool:
        several = pool.submit(submit, ingest, *items)
        eventually(lambda: ingest.waiting == 300)
        scripted.gate.set()
        assert several.result() == ["accepted"] * 300
    assert [len(group) for group in scripted.groups[1:]] == [128, 128, 44]
    assert [i for group in scripted.groups[1:] for i in group] == [each.id for each in items]
    assert ingest.submit_all([]) == []
    assert len(scripted.groups) == 4


def test_of_several_the_bad_one_fails_alone(ingest: Ingest, scripted: Scripted) -> None:
    scripted.bad = {"e5"}
    with pytest.raises(OverflowError):
        submit(ingest, *(item(event_id=f"e{n}") for n in range(10)))
    assert {i for group in scripted.groups if len(group) == 1 for i in group} >= {"e5"}
    stored = {i for group in scripted.groups if not scripted.bad & set(group) for i in group}
    assert stored == {f"e{n}" for n in range(10)} - {"e5"}
    assert submit(ingest) == ["accepted"]


def test_several_leave_nobody_behind_in_an_outage(ingest: Ingest, scripted: Scripted) -> None:
    scripted.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(submit, ingest)
        eventually(lambda: scripted.groups)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            submit(ingest, *(item() for _ in range(200)), seconds=0.3)
        assert time.monotonic() - began < 8
        scripted.gate.set()
        assert hanging.result() == ["accepted"]
    scripted.error = StoreUnavailable("locked")
    with pytest.raises(StoreUnavailable):
        submit(ingest, *(item() for _ in range(200)))
    scripted.error = None
    assert submit(ingest, item(), item()) == ["accepted"] * 2
