"""Many processes on one PostgreSQL database at once."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from receiver import mirror, phone, status, times
from receiver.event import Incoming
from receiver.forgetting import Forgotten, entries
from receiver.mirror import Search
from receiver.providers.zimsend.webhook import parse
from receiver.store import Claim, Selection, Settlement, Want
from receiver.store.postgres import PostgresStore, records
from receiver.store.postgres import work as postgres_work
from receiver.store.postgres.place import Place
from receiver.times import DAY, MINUTE, SECOND
from tests.payloads import body_of, envelope
from tests.postgres import SCHEMA
from tests.server import eventually
from tests.store.postgres.work import LEASE, NOW, ids, incoming, ingest, one_handler, sent, work


def lease_by_hand(outside: psycopg.Connection[Any]) -> list[str]:
    """What a worker does in `work`, up to its commit."""
    outside.place = Place(SCHEMA)  # type: ignore[attr-defined]
    (found,) = postgres_work._find(outside, NOW, [Want("h", 10, LEASE, 3)])  # type: ignore[arg-type]
    leased = [row[0] for row in outside.execute(postgres_work._LEASE, found.asked(NOW))]
    events = outside.execute("SELECT id FROM events WHERE seq = ANY (%s) ORDER BY seq", (leased,))
    return [event_id for (event_id,) in events]


@pytest.mark.parametrize("careful", [True, False])
def test_an_earlier_event_that_comes_while_a_lease_is_being_taken_waits(
    store: PostgresStore,
    other: PostgresStore,
    outside: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    careful: bool,
) -> None:
    """Also tried without the lock, to see that this test would notice."""
    if not careful:
        lock = re.compile(r"pg_try_advisory_xact_lock\(.*?\) AS ours", re.DOTALL)
        monkeypatch.setattr(postgres_work, "_MET", lock.sub("true AS ours", postgres_work._MET))
    ingest(store, sent("m1", minutes_ago=1, event_id="later"))
    with outside.transaction():
        assert lease_by_hand(outside) == ["later"]
        ingest(store, sent("m1", minutes_ago=2, event_id="earlier"), sent("m2", event_id="else"))
        expected = ["else"] if careful else ["earlier", "else"]
        assert sorted(ids(work(other))) == sorted(expected)
    if careful:
        assert work(other) == []
        (later,) = (claim for claim in claims_of(outside, "later"))
        assert ids(work(other, Settlement(later, "done", NOW))) == ["earlier"]


def claims_of(outside: psycopg.Connection[Any], event_id: str) -> list[Claim]:
    return [
        Claim(seq, "h", fence, 1, event_id, "", message_id, 0, 0, "", False, False, b"")
        for seq, fence, message_id in outside.execute(
            "SELECT event_seq, fence, e.message_id FROM deliveries JOIN events AS e"
            " ON seq = event_seq WHERE id = %s",
            (event_id,),
        )
    ]


def test_a_candidate_that_was_seen_before_another_lease_is_not_leased(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    ingest(store, sent("m1", minutes_ago=1, event_id="e1"))
    (claimed,) = work(store)
    ingest(store, sent("m1", minutes_ago=2, event_id="e2"))
    (seq,) = outside.execute("SELECT seq FROM events WHERE id = 'e2'").fetchone() or (0,)
    stale = {
        "handler": "h", "now": NOW, "until": NOW + LEASE, "most": 6, "messages": ["m1"],
        "firsts": [seq], "free": [True], "met": [seq], "met_of": ["m1"], "loose": [],
        "owner": None,
    }  # fmt: skip
    assert outside.execute(postgres_work._LEASE, stale).fetchall() == []
    assert ids(work(store, Settlement(claimed, "done", NOW))) == ["e2"]


def test_the_end_of_a_lease_waits_for_whoever_parks_behind_it(
    store: PostgresStore, other: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    """Else it would not see what is parked, and nobody would ever un-park that."""
    ingest(store, sent("m1", minutes_ago=2, event_id="e1"))
    (first,) = work(store)
    ingest(store, sent("m1", minutes_ago=1, event_id="e2"))
    with ThreadPoolExecutor(1) as executor:
        with outside.transaction():
            assert lease_by_hand(outside) == []
            end = executor.submit(work, other, Settlement(first, "done", NOW))
            wait_until_somebody_waits(outside)
        assert ids(end.result()) == ["e2"]


def test_a_claim_waits_for_no_item_that_another_look_has_locked(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    """Whoever meets an item of a message that somebody else claims keeps it locked to its end, and
    may want an item that is locked here: they would wait in a circle."""
    ingest(store, sent("m1", minutes_ago=1, event_id="later"), sent("m2", event_id="else"))
    with outside.transaction():
        ingest(store, sent("m1", minutes_ago=2, event_id="earlier"))
        outside.execute(
            "SELECT 1 FROM deliveries JOIN events ON seq = event_seq WHERE id = 'earlier'"
            " FOR UPDATE OF deliveries"
        )
        (claimed,) = work(store, patience=1)
        assert claimed.event_id == "else"
    assert ids(work(store, Settlement(claimed, "done", NOW))) == ["earlier"]


def test_replay_beside_workers_of_the_same_messages(
    store: PostgresStore, other: PostgresStore, postgres_url: str
) -> None:
    """Each takes locks that the other one wants: none of them waits in a circle."""
    events = [
        sent(f"m{number % 3}", minutes_ago=number + 1, event_id=f"e{number}")
        for number in range(60)
    ]
    ingest(store, *events)
    over = threading.Event()

    def replay() -> None:
        while not over.is_set():
            other.replay(
                Selection(event_type="sms.*"), wanting=one_handler, now=NOW, dry_run=False,
                progress=lambda count: None,
            )  # fmt: skip

    with ThreadPoolExecutor(1) as executor:
        replaying = executor.submit(replay)
        claims: list[Claim] = []
        for _ in range(200):
            claims = work(store, *(Settlement(claim, "done", NOW) for claim in claims))
        over.set()
        replaying.result()
    while claims:
        claims = work(store, *(Settlement(claim, "done", NOW) for claim in claims))
    states = {d["state"] for event in store.events(Selection()) for d in event["deliveries"]}
    assert states == {"done"}
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        found = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        assert found.fetchone() == (0,)


def test_whoever_settles_work_waits_for_a_replay_of_it_and_for_no_row(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    """Also of work that belongs to no message: of several rows each would get some, and wait for
    those of the other one."""
    ingest(store, incoming(envelope("device.online", {"device_id": "d1"})), sent("m1"))
    for claim in work(store):
        seqs = {"seqs": [claim.event_seq], "seed": Place(SCHEMA).seed}
        with ThreadPoolExecutor(1) as executor:
            with outside.transaction():
                outside.execute(records._LOCK_QUEUES, seqs)
                settling = executor.submit(work, store, Settlement(claim, "done", NOW))
                wait_until_somebody_waits(outside)
                outside.execute("SELECT 1 FROM deliveries FOR UPDATE NOWAIT")
            assert settling.result() == []


def test_whoever_renames_a_message_waits_for_whoever_settles_its_work_and_for_no_row(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    number = phone.number("+33699888777", None)
    assert number is not None
    whom = Forgotten(1, entries(number, "ab" * 32))
    ingest(store, sent("to-33699888777"))
    key = {"queues": json.dumps([{"message_id": "to-33699888777", "handler": "h"}])}
    with ThreadPoolExecutor(1) as executor:
        with outside.transaction():
            outside.execute(postgres_work._LOCK_QUEUES, {**key, "seed": Place(SCHEMA).seed})
            sweep = executor.submit(store.sweep, "messages", None, whom, 20, dry_run=False)
            wait_until_somebody_waits(outside)
            outside.execute("SELECT 1 FROM deliveries FOR UPDATE NOWAIT")
        assert sweep.result() == (1, None)
    (claim,) = work(store)
    assert claim.message_id == whom.id("to-33699888777")


def wait_until_somebody_waits(outside: psycopg.Connection[Any]) -> None:
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    eventually(lambda: outside.execute(waiting).fetchone() is not None, 10)


def test_many_workers_never_run_two_events_of_one_message_at_once(
    store: PostgresStore, other: PostgresStore
) -> None:
    """While more events come in, always earlier ones."""
    guard = threading.Lock()
    running: Counter[str] = Counter()
    handled: Counter[str] = Counter()
    overlaps: list[str] = []
    over = threading.Event()

    def worker(mine: PostgresStore) -> None:
        settlements: list[Settlement] = []
        while not over.is_set():
            claims = mine.work(NOW, settlements, [Want("h", 3, LEASE, 3)], 5)
            with guard:
                for claim in claims:
                    running[claim.message_id or ""] += 1
                    if running[claim.message_id or ""] > 1:
                        overlaps.append(claim.event_id)
            time.sleep(0.001)
            with guard:
                for claim in claims:
                    running[claim.message_id or ""] -= 1
                    handled[claim.event_id] += 1
            settlements = [Settlement(claim, "done", NOW) for claim in claims]

    with ThreadPoolExecutor(4) as executor:
        workers = [executor.submit(worker, mine) for mine in (store, other) * 2]
        count = 0
        for minutes in range(40, 0, -1):
            for message in ("a", "b", "c"):
                ingest(store, sent(message, minutes_ago=100 - minutes, event_id=f"e{count}"))
                count += 1
        eventually(lambda: len(handled) == count or any(w.done() for w in workers))
        over.set()
        for future in workers:
            future.result()
    assert not overlaps
    assert set(handled.values()) == {1}


def random_events(seed: int, count: int) -> list[Incoming]:
    """About few messages, some of them twice."""
    chance = random.Random(seed)
    states = ("queued", "sent", "delivered", "failed")
    made = []
    for number in range(count):
        state = chance.choice(states)
        at = times.iso(NOW - chance.randrange(100) * MINUTE)
        data = {
            "message_id": f"m{chance.randrange(8)}",
            f"{state}_at": at,
            "message": chance.choice(("one", "two")),
            "device_id": chance.choice(("d1", "d2")),
        }
        body = body_of(f"sms.{state}", data, timestamp=at, event_id=f"e{number}")
        made.append(parse(body, received_at=NOW, retention=90 * DAY))
    return made


def test_the_same_events_in_several_processes_at_once(postgres_url: str) -> None:
    """Each event once, each row the join of all, and no deadlock, whatever the order in a group."""
    stores = [PostgresStore(postgres_url) for _ in range(4)]
    events = random_events(1, 300)
    accepted: Counter[str] = Counter()
    guard = threading.Lock()

    def send(number: int) -> None:
        chance = random.Random(number)
        mine = [*events, *events[::3]]
        chance.shuffle(mine)
        while mine:
            size = chance.choice((1, 3, 12, 30))
            group, mine = mine[:size], mine[size:]
            outcomes = ingest(stores[number], *group, patience=10)
            with guard:
                accepted.update(
                    i.id for i, o in zip(group, outcomes, strict=True) if o == "accepted"
                )

    def disturb(_: int) -> None:
        """Nothing is old enough to go; locks are taken all the same."""
        for _ in range(20):
            stores[3].expire(NOW - DAY, 10)
            stores[3].replay(
                Selection(event_type="sms.*"), wanting=one_handler, now=NOW, dry_run=False,
                progress=lambda count: None,
            )  # fmt: skip
            claims = work(stores[3])
            work(stores[3], *(Settlement(claim, "done", NOW) for claim in claims))

    with ThreadPoolExecutor(5) as executor:
        futures = [executor.submit(send, number) for number in range(4)]
        futures.append(executor.submit(disturb, 0))
        for future in futures:
            future.result()
    assert set(accepted.values()) == {1}
    listed = list(stores[0].events(Selection()))
    assert sorted(event["event_id"] for event in listed) == sorted(e.id for e in events)
    assert sum(event["receipts"] for event in listed) == 4 * (len(events) + len(events[::3]))
    rows: dict[str, status.Row] = {}
    for item in events:
        assert item.message_id
        assert item.says
        rows[item.message_id] = status.merge(rows.get(item.message_id, {}), item.says)
    assert dict(stores[0].history(Search(), 0, 100)[1]) == rows
    cells = Counter(
        (s.cell.day, s.status) for s in (mirror.summarize(r, NOW) for r in rows.values())
    )
    counted = {(day, state): n for day, state, n in stores[0].statistics(None, None, None) if n}
    assert counted == cells
    with psycopg.connect(postgres_url) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        found = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        assert found.fetchone() == (0,)
    for store in stores:
        store.close()


def test_expiry_beside_new_reports_of_the_same_messages(
    store: PostgresStore, other: PostgresStore
) -> None:
    """Whoever comes first: statistics count each message once, and none is lost."""
    old = NOW - 100 * DAY
    stop = threading.Event()

    def report(number: int, at: int) -> Incoming:
        data = {"message_id": f"m{number}", "sent_at": times.iso(at)}
        return parse(
            body_of("sms.sent", data, timestamp=times.iso(at)), received_at=at, retention=90 * DAY
        )

    def forget() -> None:
        while not stop.is_set():
            other.expire(NOW - 90 * DAY, 5)

    for start in range(0, 300, 50):
        ingest(store, *(report(number, old) for number in range(start, start + 50)))
    total = sum(n for *_, n in store.statistics(None, None, None))
    assert total == 300
    with ThreadPoolExecutor(1) as executor:
        forgetting = executor.submit(forget)
        for number in range(300):
            assert ingest(store, report(number, NOW)) == ["accepted"]
        eventually(lambda: not any(store.expirable(NOW - 90 * DAY)))
        stop.set()
        forgetting.result()
    total, rows = store.history(Search(), 0, 1000)
    assert total == len(rows) == 300  # by the statistics, and by counting
    assert all(row["sent"][2] == NOW // SECOND * SECOND or "sent" in row for _, row in rows)
