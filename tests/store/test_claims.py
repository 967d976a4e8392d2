"""What a claim takes, and what it costs, where many work items belong to one message."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import times
from receiver.event import Incoming
from receiver.providers.zimsend.webhook import parse
from receiver.store import SILENT_ATTEMPTS, Claim, Selection, Settlement, Store, Want, open_store
from receiver.store.claiming import FARTHEST, NEVER
from receiver.times import DAY, HOUR, MINUTE, SECOND
from tests.outside import Outside
from tests.postgres import Databases

NOW = times.now()
LEASE = 30 * SECOND
MOST = 3
PATIENCE = 5.0
#: Items of one message; and seconds that a call may take in a test, on a machine that is busy.
MANY = 10_000
GENEROUS = 0.05


def quick(took: list[float]) -> float:
    """What the quicker quarter took at most: the rest may be other programs' doing."""
    return sorted(took)[len(took) // 4]


#: One that leaves the mirror alone, and one that does not.
LOOSE, MIRRORED = "otp.sent", "sms.processing"


def report(
    event_id: str,
    message_id: str | None,
    occurred: int,
    received_at: int = NOW,
    kind: str = LOOSE,
) -> Incoming:
    """An event that occurred so many seconds after the first of all."""
    payload = {
        "event": kind,
        "event_id": event_id,
        "timestamp": times.iso(NOW - 20 * DAY + occurred * SECOND),
        "data": {"message_id": message_id} if message_id else {},
    }
    return parse(json.dumps(payload).encode(), received_at=received_at, retention=90 * DAY)


def ingest(store: Store, *items: Incoming, handlers: tuple[str, ...] = ("h",)) -> None:
    store.ingest(items, lambda event_type: handlers, PATIENCE)


def claim(
    store: Store, *settlements: Settlement, now: int = NOW, limit: int = 8, handler: str = "h"
) -> list[Claim]:
    return store.work(now, settlements, [Want(handler, limit, LEASE, MOST)], PATIENCE)


def done(*claims: Claim) -> list[Settlement]:
    return [Settlement(claim, "done", NOW) for claim in claims]


def ids(claims: list[Claim]) -> list[str]:
    return [claim.event_id for claim in claims]


def drained(store: Store, now: int = NOW, **more: Any) -> list[str]:
    """All that can be claimed, one after the other."""
    order: list[str] = []
    ends: list[Settlement] = []
    while claims := claim(store, *ends, now=now, **more):
        order += ids(claims)
        ends = [Settlement(claim, "done", now) for claim in claims]
    return order


def parked(url: str) -> int:
    with closing(Outside(url)) as outside:
        ((count,),) = outside.execute(
            "SELECT count(*) FROM deliveries WHERE state = 'pending' AND due_at = ?", (NEVER,)
        )
    return int(count)


# --- what it costs


@pytest.mark.parametrize("order", ["oldest first", "newest first"])
def test_a_claim_costs_the_same_however_many_items_a_message_has(store: Store, order: str) -> None:
    def queue(message_id: str, length: int) -> list[str]:
        """Returns the ids in the order in which they must come."""
        at = list(range(length)) if order == "oldest first" else list(range(length, 0, -1))
        for start in range(0, length, 1000):
            numbers = range(start, min(start + 1000, length))
            ingest(
                store,
                *(report(f"{message_id}{n}", message_id, 10 * at[n], NOW + n) for n in numbers),
            )
        return [f"{message_id}{n}" for n in sorted(range(length), key=at.__getitem__)]

    def cost(expected: list[str]) -> tuple[float, float, float]:
        """Seconds of a claim while there is much to park, when it is parked, and after many."""
        took, got = claim_each(store, 500, NOW + MANY)
        assert got == expected[:500]
        return quick(took[:20]), quick(took[50:100]), quick(took[-50:])

    # What is left of the short one is parked behind a lease, and in nobody's way.
    short = cost(queue("short", MANY // 8))
    long = cost(queue("long", MANY))
    assert long[0] < max(GENEROUS, 10 * short[0])
    for few, many in zip(short[1:], long[1:], strict=True):
        assert many < 3 * few + GENEROUS / 10


def claim_each(store: Store, number: int, now: int) -> tuple[list[float], list[str]]:
    """Claim so often, each time with the end of what was claimed before; the seconds that each
    took, and what was claimed."""
    took, got = [], []
    ends: list[Settlement] = []
    for _ in range(number):
        began = time.monotonic()
        claims = claim(store, *ends, now=now)
        took.append(time.monotonic() - began)
        got += ids(claims)
        ends = done(*claims)
    return took, got


def test_many_that_wait_for_their_retry_cost_little(store: Store, database_url: str) -> None:
    count = 5_000
    for start in range(0, count, 1000):
        ingest(store, *(report(f"e{n}", "m", 10 * n) for n in range(start, start + 1000)))
    with closing(Outside(database_url)) as outside:
        outside.execute("UPDATE deliveries SET attempts = 1, due_at = ?", (NOW + HOUR,))
    ingest(store, report("last", "m", 10 * count))
    took = []
    assert claim(store, now=NOW - 1) == []
    (last,) = claim(store)
    assert last.event_id == "last"
    # All are due at the same moment.
    ends = [Settlement(last, "done", NOW + HOUR)]
    seen = []
    for _ in range(100):
        began = time.monotonic()
        claims = claim(store, *ends, now=NOW + HOUR)
        took.append(time.monotonic() - began)
        seen += ids(claims)
        ends = [Settlement(claim, "done", NOW + HOUR) for claim in claims]
    assert seen == [f"e{n}" for n in range(100)]
    assert quick(took) < GENEROUS


def test_more_wait_for_their_retry_than_a_claim_looks_at(store: Store, database_url: str) -> None:
    """Who is due is found all the same."""
    count = FARTHEST + 50
    ingest(store, *(report(f"e{n}", "m", 10 * n) for n in range(count)))
    with closing(Outside(database_url)) as outside:
        outside.execute("UPDATE deliveries SET attempts = 1, due_at = ?", (NOW + HOUR,))
        outside.execute(
            "UPDATE deliveries SET due_at = ? WHERE event_seq = (SELECT max(seq) FROM events)",
            (NOW,),
        )
    assert ids(claim(store)) == [f"e{count - 1}"]


def test_what_is_behind_a_long_queue_is_reached_soon(store: Store) -> None:
    ingest(store, *(report(f"e{n}", "m", 10 * n) for n in range(2_000)))
    ingest(store, *(report(f"other{n}", f"other{n}", n, NOW + 1) for n in range(7)))
    got: list[str] = []
    calls = 0
    while len(got) < 8:
        # What has been met is not in the way again, and the store tells that there is more.
        assert (store.next_due("h", 0) or NOW) <= NOW + 1
        got += ids(claim(store, now=NOW + 1, limit=8 - len(got)))
        calls += 1
    assert got == ["e0", *(f"other{n}" for n in range(7))]
    assert calls < 12


# --- what it takes


def test_all_of_a_message_come_in_their_order(store: Store, database_url: str) -> None:
    occurred = [70, 20, 90, 10, 50, 30, 80, 60, 40]
    ingest(store, *(report(f"{at}", "m", at) for at in occurred), report("x", "other", 0))
    first, other = claim(store)
    assert ids([first, other]) == ["10", "x"]
    assert parked(database_url) == 8
    # One that comes later, and is earlier than all that are parked.
    ingest(store, report("5", "m", 5, NOW + 1))
    assert claim(store, now=NOW + 1) == []
    assert ids(claim(store, *done(first, other), now=NOW + 1)) == ["5"]
    assert parked(database_url) == 8


def test_one_that_waits_for_its_retry_holds_nobody_back(store: Store) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (30, 10, 20)))
    (first,) = claim(store)
    (second,) = claim(store, Settlement(first, "pending", NOW + MINUTE, "later"))
    assert second.event_id == "20"
    (third,) = claim(store, *done(second))
    assert third.event_id == "30"
    assert claim(store, now=NOW + SECOND) == []
    # It is due, and the earliest of all: as soon as the one that runs has ended.
    assert claim(store, now=NOW + MINUTE, limit=1) != []  # the lease of the third has run out


def test_a_retry_that_is_due_comes_before_what_is_parked(store: Store) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (10, 20, 30)))
    (first,) = claim(store)
    (second,) = claim(store, Settlement(first, "pending", NOW + SECOND, "later"))
    assert claim(store, now=NOW + SECOND) == []  # the second runs
    (again,) = claim(store, *done(second), now=NOW + SECOND)
    assert (again.event_id, again.attempt) == ("10", 2)
    assert drained(store, NOW + LEASE + SECOND) == ["10", "30"]


def test_work_that_was_given_back_comes_first_again(store: Store) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (10, 20)))
    (first,) = claim(store)
    (again,) = claim(store, Settlement(first, "pending", NOW, given_back=True))
    assert (again.event_id, again.attempt) == ("10", 1)
    assert ids(claim(store, *done(again))) == ["20"]


def test_a_lease_that_ran_out_frees_what_is_behind_it(store: Store, database_url: str) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (20, 30)))
    (first,) = claim(store)
    ingest(store, report("10", "m", 10))
    assert claim(store) == []
    later = NOW + LEASE
    (earliest,) = claim(store, now=later)
    assert earliest.event_id == "10"
    # The late end of the lease that ran out still counts, as nobody has taken the item.
    assert claim(store, *done(first), now=later) == []
    assert drained(store, later + LEASE) == ["10", "30"]
    assert parked(database_url) == 0


def test_what_is_given_up_frees_what_is_behind_it(store: Store, database_url: str) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (10, 20, 30)))
    now = NOW
    for _ in range(MOST + SILENT_ATTEMPTS):
        assert ids(claim(store, now=now)) == ["10"]
        now += LEASE
    assert claim(store, now=now) == []
    assert drained(store, now) == ["20", "30"]
    assert parked(database_url) == 0


def test_handlers_park_each_for_themselves(store: Store) -> None:
    events = [report(f"{at}", "m", at) for at in (10, 20)]
    ingest(store, *events, handlers=("a", "b"))
    (a,) = claim(store, handler="a")
    assert ids(claim(store, handler="b")) == ["10"]
    assert ids(claim(store, *done(a), handler="a")) == ["20"]
    assert claim(store, handler="b") == []


def replay(store: Store, now: int = NOW, **conditions: Any) -> int:
    return store.replay(
        Selection(**conditions),
        wanting=lambda event_type: ("h",),
        now=now,
        dry_run=False,
        progress=lambda count: None,
    )


def test_replay_of_what_is_parked_keeps_its_place(store: Store, database_url: str) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (10, 20, 30)))
    (first,) = claim(store)
    assert parked(database_url) == 2
    assert replay(store, ids=["30"]) == 1
    assert parked(database_url) == 1
    assert claim(store) == []
    assert ids(claim(store, *done(first))) == ["20"]
    assert replay(store, NOW + LEASE, ids=["10"]) == 1
    assert drained(store, NOW + LEASE) == ["10", "20", "30"]


def test_work_of_unknown_handlers_is_buried_also_where_it_is_parked(
    store: Store, database_url: str
) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (10, 20, 30)))
    claim(store)
    ingest(store, report("40", "m", 40, NOW + DAY))
    assert parked(database_url) == 2
    assert store.bury(NOW + LEASE, ["other"], 0) == 3
    assert drained(store, NOW + DAY) == ["40"]
    assert parked(database_url) == 0


def test_what_is_parked_counts_in_the_backlog(store: Store) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (10, 20, 30)))
    claim(store)
    assert store.backlog(NOW + MINUTE - 1, ["h"]) == (3, MINUTE - 1)
    assert store.backlog(NOW + SECOND, ["h"]) == (2, SECOND)
    assert store.backlog(NOW + SECOND, ["other"]) == (0, 0)


def test_what_nobody_would_un_park_is_found(store: Store, database_url: str) -> None:
    """As where a process of the release before has ended the lease."""
    ingest(store, *(report(f"{n} {at}", f"m{n}", at) for n in range(3) for at in (10, 20)))
    _, second, third = claim(store)
    claim(store, Settlement(second, "pending", NOW + HOUR, "later"), *done(third), limit=0)
    with closing(Outside(database_url)) as outside:
        outside.execute(
            "UPDATE deliveries SET due_since = due_at, due_at = ?"
            " WHERE event_seq IN (SELECT seq FROM events WHERE id IN ('1 20', '2 20'))",
            (NEVER,),
        )
    assert parked(database_url) == 3
    assert claim(store) == []
    assert store.unpark(NOW) == 2
    assert store.unpark(NOW) == 0
    assert sorted(ids(claim(store))) == ["1 20", "2 20"]


def test_the_clock_goes_back_and_what_was_due_still_is(store: Store) -> None:
    ingest(store, *(report(f"{at}", "m", at) for at in (10, 20)))
    (first,) = claim(store)
    before = NOW - HOUR
    assert ids(claim(store, Settlement(first, "done", before), now=before)) == ["20"]


# --- any history


@dataclass
class Item:
    message_id: str | None
    place: tuple[int, int]
    due_at: int
    state: str = "pending"
    leased: bool = False
    fence: int = 0
    attempts: int = 0


class Model:
    """The rule as one would say it, looking at everything."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}

    def claimable(self, now: int) -> set[str]:
        queues: dict[str, list[tuple[tuple[int, int], str]]] = {}
        held: set[str] = set()
        for event_id, item in self.items.items():
            if item.state != "pending":
                continue
            queue = item.message_id or event_id
            if item.due_at <= now:
                queues.setdefault(queue, []).append((item.place, event_id))
            elif item.leased:
                held.add(queue)
        return {min(queue)[1] for name, queue in queues.items() if name not in held}


ARRIVALS = st.tuples(st.integers(0, 30), st.sampled_from([LOOSE, MIRRORED]))
STEPS = st.one_of(
    st.tuples(st.just("ingest"), st.sampled_from(["m1", "m2", None]), ARRIVALS),
    st.tuples(st.just("ingest"), st.just("m1"), ARRIVALS),
    st.tuples(st.just("claim"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("settle"), st.integers(0, 9), st.sampled_from(["done", "dead", "back"])),
    st.tuples(st.just("settle"), st.integers(0, 9), st.sampled_from([0, 1, 40])),
    st.tuples(st.just("replay"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("pass"), st.sampled_from([1, 5, 31]), st.just(0)),
)


@pytest.fixture
def both(tmp_path: Path, databases: Databases) -> Iterator[tuple[Store, Store]]:
    url = databases.lend()
    with (
        closing(open_store(f"sqlite:///{tmp_path / 'r.db'}")) as sqlite,
        closing(open_store(url)) as postgres,
    ):
        sqlite.migrate()
        yield sqlite, postgres
    databases.take_back(url)


def test_any_history_gives_the_claims_that_the_rule_says(both: tuple[Store, Store]) -> None:
    """The same on both engines."""
    runs = iter(range(1_000_000))

    @settings(max_examples=150)
    @given(st.lists(STEPS, min_size=5, max_size=40))
    def check(steps: list[tuple[str, Any, Any]]) -> None:
        History(both, f"{next(runs)}").run(steps)

    check()


class History:
    """One history, in both stores and in the model. Each has events and a handler of its own."""

    def __init__(self, stores: tuple[Store, ...], name: str) -> None:
        self.stores = stores
        self.name = name
        self.model = Model()
        self.now = NOW
        #: Claims whose end is not told yet: of each store the same.
        self.open: list[tuple[Claim, ...]] = []

    def run(self, steps: list[tuple[str, Any, Any]]) -> None:
        for kind, one, other in steps:
            getattr(self, f"_{kind}")(one, other)
            for store in self.stores:
                assert store.unpark(self.now) == 0
        # And everything comes to its end.
        for _ in range(len(self.model.items) * (MOST + SILENT_ATTEMPTS + 1)):
            self._pass(41, 0)
            self._claim(4, 0)
            while self.open:
                self._settle(0, "done")
        assert not [i for i in self.model.items.values() if i.state == "pending"]

    def _ingest(self, message: str | None, arrival: tuple[int, str]) -> None:
        occurred, kind = arrival
        number = len(self.model.items)
        event_id = f"{self.name} {number}"
        message_id = message and f"{self.name} {message}"
        item = report(event_id, message_id, 1_000 * occurred + 3 * number, self.now, kind)
        for store in self.stores:
            ingest(store, item, handlers=(self.name,))
        self.model.items[event_id] = Item(message_id, (item.occurred_at, number), self.now)

    def _claim(self, limit: int, _: int) -> None:
        may = self.model.claimable(self.now)
        got = [claim(s, now=self.now, limit=limit, handler=self.name) for s in self.stores]
        assert len({tuple((c.event_id, c.attempt) for c in claims) for claims in got}) == 1
        ended = set()
        for event_id in may:
            item = self.model.items[event_id]
            if item.attempts >= MOST + SILENT_ATTEMPTS and self._state(event_id) == "dead":
                item.state = "dead"
                ended.add(event_id)
        claimed = [c.event_id for c in got[0]]
        assert set(claimed) <= may - ended
        assert len(claimed) + len(ended) == min(limit, len(may))
        for claims in zip(*got, strict=True):
            item = self.model.items[claims[0].event_id]
            assert item.attempts < MOST + SILENT_ATTEMPTS
            item.leased, item.due_at = True, self.now + LEASE
            item.attempts += 1
            item.fence += 1
            assert claims[0].attempt == item.attempts
            self.open.append(claims)

    def _state(self, event_id: str) -> str:
        states = set()
        for store in self.stores:
            (found,) = store.events(Selection(ids=[event_id]))
            states.add(found["deliveries"][0]["state"])
        (state,) = states
        return str(state)

    def _settle(self, number: int, end: Any) -> None:
        if not self.open:
            return
        claims = self.open.pop(number % len(self.open))
        state = end if end in ("done", "dead") else "pending"
        due_at = self.now + (end if isinstance(end, int) else 0) * SECOND
        for store, mine in zip(self.stores, claims, strict=True):
            settlement = Settlement(mine, state, due_at, given_back=end == "back")
            store.work(self.now, [settlement], [], PATIENCE)
        item = self.model.items[claims[0].event_id]
        if item.leased and self._is_last(item, claims[0]):
            item.state, item.due_at, item.leased = state, due_at, False
            item.attempts -= end == "back"

    @staticmethod
    def _is_last(item: Item, claim: Claim) -> bool:
        return item.fence == claim.fence

    def _replay(self, number: int, _: int) -> None:
        event_id = f"{self.name} {number}"
        item = self.model.items.get(event_id)
        if item is None:
            return
        held = item.state == "pending" and item.leased and item.due_at > self.now
        counts = {
            store.replay(
                Selection(ids=[event_id]),
                wanting=lambda event_type: (self.name,),
                now=self.now,
                dry_run=False,
                progress=lambda count: None,
            )
            for store in self.stores
        }
        assert counts == {0 if held else 1}
        if not held:
            item.state, item.due_at, item.leased, item.attempts = "pending", self.now, False, 0
            item.fence += 1

    def _pass(self, seconds: int, _: int) -> None:
        self.now += seconds * SECOND


def test_the_newest_tells_how_many_come(store: Store) -> None:
    ingest(store, *[report(f"e{number}", None, number) for number in range(5)])
    before = store.newest()
    ingest(store, *[report(f"f{number}", None, number) for number in range(7)])
    assert store.newest() == before + 7
