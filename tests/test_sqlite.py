"""What only SQLite has: its pragmas, its file, several processes that migrate at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.mirror import Search
from receiver.store.sqlite import SqliteStore
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


def test_many_processes_may_migrate_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from receiver.store import open_store;"
        "s = open_store(sys.argv[1]); print(len(s.migrate())); s.check(); s.close()"
    )
    url = f"sqlite:///{tmp_path / 'r.db'}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    outputs = [process.communicate(timeout=30)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sorted(outputs, key=int)[:7] == ["0"] * 7
    assert int(max(outputs, key=int)) > 0


def test_a_database_without_tables_says_what_to_do(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "r.db"))
    with pytest.raises(SchemaMismatch, match="flask migrate"):
        store.check()
    with pytest.raises(SchemaMismatch, match="flask migrate"):
        store.message("m1")
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
        assert time.monotonic() - began < 1
        assert fresh.message("m1") is None  # readers do not wait
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
        patched.setattr("receiver.store.sqlite_mirror.page", interrupted)
        with pytest.raises(StoreUnavailable, match="interrupted"):
            store.history(Search(), 0, 10)
    assert store.history(Search(), 0, 10) == (0, [])
    store.close()
