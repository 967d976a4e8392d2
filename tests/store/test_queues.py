"""The queue of a message in SQLite: all of its work items are of one, whatever came first."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from receiver import erasing, forgetting, phone
from receiver.store import Selection, Settlement, Store, copying, open_store
from receiver.store.sqlite import SqliteStore
from receiver.store.sqlite.schema import migrations
from receiver.times import DAY, SECOND
from tests.postgres import Databases
from tests.store.test_claims import LOOSE, MIRRORED, NOW, claim, done, drained, ids, ingest, report

STEP = "queues_are_numbered"
#: A replay for the handler that is there.
AS_IT_IS: dict[str, Any] = {
    "wanting": lambda _: ("h",),
    "now": NOW,
    "dry_run": False,
    "progress": lambda _: None,
}


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(str(tmp_path / "r.db"))) as store:
        store.migrate()
        yield store


KINDS = [(LOOSE, MIRRORED), (MIRRORED, LOOSE), (LOOSE, LOOSE), (MIRRORED, MIRRORED)]


@pytest.mark.parametrize("kinds", KINDS)
def test_what_comes_while_another_is_leased_waits_for_it(
    store: Store, kinds: tuple[str, str]
) -> None:
    ingest(store, report("e0", "m", 0, kind=kinds[0]))
    (first,) = claim(store)
    ingest(store, report("e1", "m", 10, kind=kinds[1]))
    assert claim(store) == []
    assert ids(claim(store, *done(first))) == ["e1"]


@pytest.mark.parametrize("kinds", KINDS)
def test_the_earlier_one_comes_first(store: Store, kinds: tuple[str, str]) -> None:
    ingest(store, report("e0", "m", 10, kind=kinds[0]))
    ingest(store, report("e1", "m", 0, kind=kinds[1]), report("e2", "m", 20))
    assert drained(store) == ["e1", "e0", "e2"]


def test_in_one_group_with_its_message(store: Store) -> None:
    ingest(
        store,
        report("e0", "m", 10),
        report("e1", "m", 0, kind=MIRRORED),
        report("e2", "other", 0),
        report("e3", None, 0),
        handlers=("h", "second"),
    )
    first = claim(store)
    assert sorted(ids(first)) == ["e1", "e2", "e3"]
    assert ids(claim(store, *done(*first))) == ["e0"]
    assert sorted(drained(store, handler="second")) == ["e0", "e1", "e2", "e3"]


# --- what is there already


def as_of_the_release_before(path: Path) -> None:
    """Pending work of a message in the mirror, of one that is not, of none; and what is done."""
    old = Database(str(path))
    migrations.apply(old, stop_before=STEP)
    old.execute(
        "INSERT INTO messages (id, status, at, device_id, number, first_received_at, touched_at,"
        " indexed, registers) VALUES ('m', 'sent', 0, '', '', 0, 0, 1, '{}')"
    )
    works = [("m", 20), ("m", 10), ("beside", 20), ("beside", 10), (None, 0), ("m", 0)]
    for seq, (message_id, occurred) in enumerate(works, 1):
        old.execute(
            "INSERT INTO events (seq, id, type, message_id, occurred_at, received_at, has_error,"
            " source, late, repeat, redacted, body) VALUES (?, ?, 'otp.sent', ?, 0, 0, 0,"
            " 'webhook', 0, 0, 0, ?)",
            (seq, f"e{seq}", message_id, b"{}"),
        )
        old.execute(
            "INSERT INTO deliveries (event_seq, handler, message_id, occurred_at, state, due_at)"
            " VALUES (?, 'h', ?, ?, ?, 0)",
            (seq, message_id, NOW + occurred, "done" if seq == len(works) else "pending"),
        )
    old.conn.commit()
    old.close()


def test_work_of_the_release_before_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    as_of_the_release_before(path)
    with closing(SqliteStore(str(path))) as store:
        assert store.migrate()[0] == STEP
        ingest(store, report("new", "beside", 0))
        first = claim(store)
        assert sorted(ids(first)) == ["e2", "e5", "new"]
        second = claim(store, *done(*first))
        assert sorted(ids(second)) == ["e1", "e4"]
        assert ids(claim(store, *done(*second))) == ["e3"]


def test_the_step_leaves_what_is_done_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    as_of_the_release_before(path)
    with closing(SqliteStore(str(path))) as store:
        store.migrate()
    with closing(sqlite3.connect(path)) as db:
        queues = db.execute("SELECT queue FROM deliveries ORDER BY event_seq").fetchall()
    assert queues == [(1,), (1,), (-3,), (-3,), (None,), (None,)]


def test_work_that_was_copied_keeps_its_order(tmp_path: Path, databases: Databases) -> None:
    url = databases.lend()
    with (
        closing(open_store(url)) as source,
        closing(open_store(f"sqlite:///{tmp_path / 'copy.db'}")) as target,
    ):
        target.migrate()
        ingest(source, report("e0", "m", 20, kind=MIRRORED), report("e1", "m", 10))
        ingest(source, report("e2", "beside", 20), report("e3", "beside", 10))
        copying.copy(source, target, lambda table, done: None)
        first = claim(target)
        assert sorted(ids(first)) == ["e1", "e3"]
        assert sorted(ids(claim(target, *done(*first)))) == ["e0", "e2"]
    databases.take_back(url)


# --- how it is found


def test_no_arrival_and_no_claim_looks_through_all_work(sqlite_store: SqliteStore) -> None:
    """Each statement finds a queue by an index; those of work beside the mirror by a small one."""
    with closing(sqlite3.connect(sqlite_store.path)) as db:
        plans = [
            db.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            for query in (
                "UPDATE deliveries SET queue = 1"
                " WHERE message_id = 'm' AND state = 'pending' AND queue < 0",
                "SELECT 1 FROM deliveries WHERE queue = 1 AND state = 'pending'",
            )
        ]
    assert [json.dumps(plan).count("SCAN") for plan in plans] == [0, 0]
    assert "deliveries_beside" in json.dumps(plans[0])
    assert "deliveries_in_queue" in json.dumps(plans[1])


def test_a_message_with_work_beside_the_mirror_does_not_expire(sqlite_store: SqliteStore) -> None:
    ingest(sqlite_store, report("e0", "m", 0))
    ingest(sqlite_store, report("e1", "m", 10, kind=MIRRORED), handlers=())
    later = NOW + 400 * DAY
    sqlite_store.expire(later, 5)
    assert len(list(sqlite_store.events(Selection()))) == 2
    assert ids(claim(sqlite_store)) == ["e0"]
    assert drained(sqlite_store, now=NOW + 60 * SECOND) == ["e0"]
    sqlite_store.expire(later, 5)
    assert list(sqlite_store.events(Selection())) == []


# --- what changes later


def test_each_message_that_is_replayed_has_a_queue_of_its_own(store: Store) -> None:
    ingest(store, *(report(f"e{number}", f"m{number}", number) for number in range(5)))
    claim(store, *(Settlement(one, "dead", NOW, "error") for one in claim(store)))
    assert store.replay(Selection(state="dead"), **AS_IT_IS) == 5
    assert sorted(ids(claim(store))) == ["e0", "e1", "e2", "e3", "e4"]


@pytest.mark.parametrize("kind", [LOOSE, MIRRORED])
def test_what_is_replayed_waits_for_its_own_message(store: Store, kind: str) -> None:
    ingest(store, report("x1", "x", 0, kind=kind))
    (first,) = claim(store)
    claim(store, *done(first))
    ingest(store, report("y1", "y", 0), report("x2", "x", 10), report("y2", "y", 10))
    second = claim(store)
    assert sorted(ids(second)) == ["x2", "y1"]
    store.replay(Selection(ids=("x1",)), **AS_IT_IS)
    assert claim(store) == []
    assert sorted(ids(claim(store, *done(*second)))) == ["x1", "y2"]


def test_what_was_copied_again_is_of_one_queue(tmp_path: Path, databases: Databases) -> None:
    url = databases.lend()
    with (
        closing(open_store(url)) as source,
        closing(open_store(f"sqlite:///{tmp_path / 'copy.db'}")) as target,
    ):
        target.migrate()
        ingest(source, report("e0", "m", 20), report("e1", "beside", 20))
        copying.fill(source, target, lambda table, done: None)
        ingest(source, report("e2", "m", 10, kind=MIRRORED), report("e3", "beside", 10))
        copying.fill(source, target, lambda table, done: None)
        first = claim(target)
        assert sorted(ids(first)) == ["e2", "e3"]
        assert sorted(ids(claim(target, *done(*first)))) == ["e0", "e1"]
    databases.take_back(url)


def test_what_comes_while_a_number_is_forgotten_is_of_its_messages_queue(store: Store) -> None:
    number = phone.number("+33699888777", None)
    assert number is not None
    ingest(store, report("e0", "about 33699888777", 10))
    store.forget(forgetting.entries(number, "ab" * 32), 5)
    ingest(store, report("e1", "about 33699888777", 0))
    erasing.forget(store, number, lambda told: None)
    assert drained(store) == ["e1", "e0"]


def test_work_without_a_queue_keeps_nobody_parked(sqlite_store: SqliteStore) -> None:
    """As a copy leaves it that was killed."""
    ingest(sqlite_store, *(report(f"e{number}", "m", 10 * number) for number in range(3)))
    ingest(sqlite_store, report("e3", "other", 0), report("e4", "other", 10))
    claim(sqlite_store)
    with closing(sqlite3.connect(sqlite_store.path)) as db:
        db.execute("UPDATE deliveries SET queue = NULL WHERE message_id = 'm'")
        db.execute("UPDATE deliveries SET state = 'done' WHERE event_seq IN (1, 4)")
        db.commit()
    assert sqlite_store.unpark(NOW) == 1
    assert ids(claim(sqlite_store)) == ["e4"]
