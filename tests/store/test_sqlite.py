"""What only SQLite has: its pragmas, its file, several processes that migrate at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receiver import status, times
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.event import Incoming
from receiver.mirror import Search
from receiver.providers.zimsend.webhook import parse
from receiver.store import Selection, Want
from receiver.store.sqlite import SqliteStore
from receiver.store.sqlite.group import Group
from receiver.times import DAY, MINUTE, iso
from tests.conftest import row_of
from tests.payloads import body_of
from tests.server import ROOT


def test_pragmas_of_every_connection(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "r.db"))
    store.migrate()
    for db in (store._writer, store._reader):
        assert db is not None
        found = {
            name: db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum")
        }
        # synchronous 2 = FULL: with NORMAL a power cut may take back what was acknowledged.
        assert found == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "auto_vacuum": 2,
        }
    store.close()


class Interrupted(SqliteStore):
    """Lets something else happen between what it reads and what it writes at once."""

    def __init__(self, path: Path, meanwhile: Callable[[], object]) -> None:
        super().__init__(str(path))
        self.meanwhile: Callable[[], object] | None = meanwhile

    def ingest(self, items: Any, wanting: Any, patience: float) -> list[Any]:
        write = Group.write

        def interrupted(group: Group, connection: sqlite3.Connection) -> None:
            meanwhile, self.meanwhile = self.meanwhile, None
            if meanwhile is not None:
                meanwhile()
            write(group, connection)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Group, "write", interrupted)
            return list(super().ingest(items, wanting, patience))


def incoming(state: str, event_id: str, *, at: int, message_id: str = "m") -> Incoming:
    data = {"message_id": message_id, f"{state}_at": iso(at), "metadata": {"from": event_id}}
    body = body_of(f"sms.{state}", data, timestamp=iso(at), event_id=event_id)
    return parse(body, received_at=at, retention=90 * DAY)


@pytest.mark.parametrize("known", [False, True], ids=["new message", "known message"])
@pytest.mark.parametrize(
    ("other", "outcome", "repeat"),
    [
        (("delivered", "e2"), "accepted", False),
        (("sent", "e1"), "duplicate", False),
        (("sent", "e3"), "accepted", True),
    ],
)
def test_what_others_write_between_reading_and_writing_is_seen(
    tmp_path: Path, known: bool, other: tuple[str, str], outcome: str, repeat: bool
) -> None:
    path, at, wanting = tmp_path / "r.db", times.now(), lambda _: ("log",)
    elsewhere = SqliteStore(str(path))
    elsewhere.migrate()
    if known:
        elsewhere.ingest([incoming("queued", "e0", at=at - MINUTE)], wanting, 5)
    theirs = incoming(*other, at=at)
    store = Interrupted(path, lambda: elsewhere.ingest([theirs], wanting, 5))
    assert store.ingest([incoming("sent", "e1", at=at)], wanting, 5) == [outcome]
    assert store.meanwhile is None

    events = {event["event_id"]: event for event in store.events(Selection())}
    assert events.keys() == {"e1", other[1]} | ({"e0"} if known else set())
    assert events["e1"]["repeat"] is repeat
    assert events["e1"]["late"] is (other[0] == "delivered")
    found = store.evidence("m", 10)
    assert found is not None
    assert status.status(found[0]) == other[0]
    assert found[1] == len(events)
    counts = [cell for cell in store.statistics(None, None, None) if cell[2]]
    assert counts == [(at // DAY, other[0], 1)]
    elsewhere.close()
    store.close()


def test_a_group_may_be_larger_than_what_one_statement_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one request brings thousands of reports, and SQLite was built without Debian's
    wider limit."""
    really = sqlite3.connect

    def limited(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = really(*arguments, **options)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
        return connection

    monkeypatch.setattr(sqlite3, "connect", limited)
    at = times.now()
    items = [
        incoming(state, f"{state} {number}", at=at, message_id=f"m{number}")
        for state in ("sent", "delivered")
        for number in range(1_000)
    ]
    store = SqliteStore(str(tmp_path / "r.db"))
    store.migrate()
    assert set(store.ingest(items, lambda _: ("log",), 5)) == {"accepted"}
    counts = [cell for cell in store.statistics(None, None, None) if cell[2]]
    assert counts == [(at // DAY, "delivered", 1_000)]
    assert store.backlog(at, ["log"])[0] == len(items)
    assert set(store.ingest(items, lambda _: (), 5)) == {"duplicate"}
    store.close()


def test_what_expires_between_reading_and_writing_is_not_brought_back(tmp_path: Path) -> None:
    path, at, wanting = tmp_path / "r.db", times.now(), lambda _: ()
    elsewhere = SqliteStore(str(path))
    elsewhere.migrate()
    elsewhere.ingest([incoming("queued", "e0", at=at - MINUTE)], wanting, 5)
    store = Interrupted(path, lambda: elsewhere.expire(at, 5))
    assert store.ingest([incoming("sent", "e1", at=at)], wanting, 5) == ["accepted"]
    found = store.evidence("m", 10)
    assert found is not None
    assert set(found[0]) == {"sent", "metadata"}  # nothing of what has expired
    assert store.statistics(None, None, None) == [
        ((at - MINUTE) // DAY, "queued", 1),
        (at // DAY, "sent", 1),
    ]
    elsewhere.close()
    store.close()


def test_many_processes_may_migrate_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from receiver.store import open_store, postgres, sqlite;"
        "postgres.SHORT_PATIENCE = sqlite.SHORT_PATIENCE = 30;"  # beside seven that start
        "s = open_store(sys.argv[1]); print(len(s.migrate())); s.prove_writable(); s.close()"
    )
    url = f"sqlite:///{tmp_path / 'r.db'}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sorted(outputs, key=int)[:7] == ["0"] * 7
    assert int(max(outputs, key=int)) > 0


def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    old = SqliteStore(str(path))
    old.migrate()
    old.ingest([incoming("sent", "e1", at=times.now())], lambda _: (), 5)
    newer = sqlite3.connect(path)  # while the older release runs
    newer.execute("CREATE TABLE something_new (a)")
    newer.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
        " VALUES ('receiver', 'something_new', '2027-01-01')"
    )
    newer.commit()
    for write in (
        old.prove_writable,
        old.migrate,
        lambda: old.ingest([incoming("sent", "e2", at=times.now())], lambda _: (), 5),
        lambda: old.work(times.now(), [], [Want("h", 1, 1, 1)], 5),
        SqliteStore(str(path)).migrate,
    ):
        with pytest.raises(SchemaMismatch, match="newer than this release"):
            write()
    assert newer.execute("SELECT id FROM events").fetchall() == [("e1",)]
    newer.close()
    old.close()


def test_a_database_without_tables_says_what_to_do(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "r.db"))
    with pytest.raises(SchemaMismatch, match="flask migrate"):
        store.prove_writable()
    with pytest.raises(SchemaMismatch, match="flask migrate"):
        row_of(store, "m1")
    store.close()


def test_a_locked_database_is_unavailable_in_time_and_usable_after(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "r.db"))
    store.migrate()
    locker = sqlite3.connect(tmp_path / "r.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    for fresh in (store, SqliteStore(store.path)):  # with and without an open connection
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            fresh.ingest([], lambda kind: (), 0.3)
        assert time.monotonic() - began < 4
        assert row_of(fresh, "m1") is None  # readers do not wait
        fresh.close()
    locker.execute("ROLLBACK")
    locker.close()
    assert store.ingest([], lambda kind: (), 0.3) == []
    store.close()


def test_what_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_bytes(b"this is no database file at all" * 100)
    store = SqliteStore(str(tmp_path / "r.db"))
    with pytest.raises(StoreUnavailable):
        store.migrate()
    missing = SqliteStore(str(tmp_path / "none" / "r.db"))
    with pytest.raises(StoreUnavailable, match="DATABASE_URL"):
        missing.migrate()


def test_a_read_that_failed_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(str(tmp_path / "r.db"))
    store.migrate()

    def interrupted(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(lambda: 1, 1)
        connection.execute("SELECT count(*) FROM events")

    with monkeypatch.context() as patched:
        patched.setattr("receiver.store.sqlite.mirror.page", interrupted)
        with pytest.raises(StoreUnavailable, match="interrupted"):
            store.history(Search(), 0, 10)
    assert store.history(Search(), 0, 10) == (0, [])
    store.close()


def test_long_texts_are_indexed_in_small_steps(tmp_path: Path) -> None:
    """The write lock is held for so many characters, not for so many messages."""
    store = SqliteStore(str(tmp_path / "r.db"))
    store.migrate()
    now = times.now()
    for number in range(4):
        data = {"message_id": f"m{number}", "message": f"{number} " + "long " * 9_000}
        item = parse(body_of("sms.sent", data), received_at=now, retention=90 * DAY)
        store.ingest([item], lambda _: (), 5)
    steps = 1
    while store.index_texts(5):
        steps += 1
    assert steps == 2
    assert store.history(Search(text="long long"), 0, 1)[0] == 4
    store.close()


def test_nothing_is_written_under_a_schema_that_came_while_it_waited(tmp_path: Path) -> None:
    """A process of this release stands between reading and writing, or waits for the lock, while
    the next release migrates."""
    path = tmp_path / "r.db"
    SqliteStore(str(path)).migrate()

    def migrate() -> None:
        newer = sqlite3.connect(path)
        newer.execute("CREATE TABLE something_new (a)")
        newer.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('receiver', 'something_new', '2027-01-01')"
        )
        newer.commit()
        newer.close()

    store = Interrupted(path, migrate)
    store.prove_writable()  # it knows the schema
    with pytest.raises(SchemaMismatch, match="newer than this release"):
        store.ingest([incoming("sent", "e1", at=times.now())], lambda _: ("log",), 5)
    with sqlite3.connect(path) as there:
        for table in ("events", "messages", "deliveries", "statistics"):
            assert there.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    there.close()
    store.close()


def test_an_index_that_nothing_uses_goes(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with closing(SqliteStore(str(path))) as store:
        store.migrate()
    with closing(sqlite3.connect(path)) as db:  # as an earlier state has left it
        db.execute("CREATE INDEX deliveries_leased ON deliveries (owner) WHERE leased")
        db.execute("DELETE FROM _sqlite_migrations WHERE name = 'leases_have_no_index'")
        db.commit()
    with closing(SqliteStore(str(path))) as store:
        assert store.migrate() == ["leases_have_no_index"]
        assert store.leases("somebody", 0) == []
    with closing(sqlite3.connect(path)) as db:
        indexes = db.execute("SELECT name FROM sqlite_schema WHERE type = 'index'").fetchall()
    assert ("deliveries_leased",) not in indexes
    assert ("deliveries_due",) in indexes
