"""PostgreSQL's schema: migrations beside processes of this release and of others."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from receiver.errors import SchemaMismatch
from receiver.mirror import Search
from receiver.store import Selection, Want
from receiver.store.postgres import PostgresStore
from receiver.store.postgres import schema as postgres_schema
from receiver.store.postgres.place import SCHEMA
from receiver.store.postgres.pool import place_of
from receiver.times import HOUR
from tests.conftest import row_of
from tests.payloads import envelope, sms
from tests.postgres import Databases
from tests.server import ROOT, eventually
from tests.store.postgres.work import LEASE, NOW, incoming, ingest, sent, work


def test_many_processes_may_migrate_at_once(databases: Databases) -> None:
    program = (
        "import sys; from receiver.store import open_store, postgres, sqlite;"
        "postgres.SHORT_PATIENCE = sqlite.SHORT_PATIENCE = 30;"  # beside seven that start
        "s = open_store(sys.argv[1]); print(len(s.migrate())); s.prove_writable(); s.close()"
    )
    url = databases.create(empty=True)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sorted(outputs, key=int)[:7] == ["0"] * 7
    assert int(max(outputs, key=int)) == len(postgres_schema.STEPS)
    databases.drop(url)


def everything(store: PostgresStore) -> list[Callable[[], Any]]:
    """Each way to write."""
    return [
        lambda: ingest(store, sent("m1")),
        lambda: work(store),
        lambda: store.expire(NOW, 1),
        lambda: store.bury(NOW, [], 0),
        lambda: store.claim_turn("expiry", NOW, NOW + HOUR),
        lambda: store.release("digest"),
    ]


def test_a_database_without_tables_says_what_to_do(databases: Databases) -> None:
    url = databases.create(empty=True)
    store = PostgresStore(url)
    for call in (store.prove_writable, lambda: row_of(store, "m1"), *everything(store)):
        with pytest.raises(SchemaMismatch, match="flask migrate"):
            call()
    store.close()
    databases.drop(url)


@pytest.mark.spoils_the_schema
def test_a_schema_of_an_older_release_is_refused(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    store.prove_writable()
    outside.execute("DELETE FROM schema_steps")
    with pytest.raises(SchemaMismatch, match="older than this release: run `flask migrate`"):
        store.prove_writable()


@pytest.mark.spoils_the_schema
def test_an_additive_step_of_a_newer_release_does_not_stop_this_one(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    outside.execute("INSERT INTO schema_steps VALUES (999, 'adds a column', false)")
    outside.execute("ALTER TABLE events ADD COLUMN colour text")
    outside.execute("ALTER TABLE messages ADD COLUMN colour text NOT NULL DEFAULT 'red'")
    assert store.migrate() == []
    store.prove_writable()
    for call in everything(store):
        call()
    assert [event["message_id"] for event in store.events(Selection())] == ["m1"]


@pytest.mark.spoils_the_schema
def test_after_a_breaking_step_of_a_newer_release_this_one_writes_nothing(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    assert ingest(store, sent("m0")) == ["accepted"]
    outside.execute("INSERT INTO schema_steps VALUES (999, 'changes a meaning', true)")
    before = contents(outside)
    for call in (store.prove_writable, store.migrate, *everything(store)):
        with pytest.raises(SchemaMismatch, match="newer than this release"):
            call()
    assert contents(outside) == before


def contents(outside: psycopg.Connection[Any]) -> list[Any]:
    return [
        outside.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        for table in ("events", "messages", "deliveries", "statistics", "marks")
    ]


@pytest.mark.spoils_the_schema
def test_no_write_goes_on_under_a_schema_that_changes_meanwhile(
    store: PostgresStore, postgres_url: str, outside: psycopg.Connection[Any]
) -> None:
    lock = place_of(postgres_url).lock(SCHEMA)
    with ThreadPoolExecutor(1) as executor:
        with outside.transaction():
            outside.execute(f"SELECT pg_advisory_xact_lock({lock})")
            outside.execute("INSERT INTO schema_steps VALUES (999, 'changes a meaning', true)")
            writing = executor.submit(ingest, store, sent("m1"))
            time.sleep(0.3)
            assert not writing.done()
        with pytest.raises(SchemaMismatch):
            writing.result()
    assert not list(store.events(Selection()))


@pytest.mark.spoils_the_schema
def test_a_migration_that_has_to_wait_holds_up_nobody(
    store: PostgresStore, outside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ALTER that waits for a reader makes all others wait: so it gives up, and tries again."""

    def add_a_column(connection: psycopg.Connection[Any]) -> None:
        connection.execute("ALTER TABLE events ADD COLUMN colour text")

    step = postgres_schema.Step("add_a_column", add_a_column)
    monkeypatch.setattr(postgres_schema, "STEPS", (*postgres_schema.STEPS, step))
    monkeypatch.setattr(postgres_schema, "_LOCK_TIMEOUT", "200ms")
    monkeypatch.setattr(postgres_schema, "_REST", 0.2)
    with ThreadPoolExecutor(1) as executor:
        with outside.transaction():
            outside.execute("SELECT count(*) FROM events")
            migrating = executor.submit(store.migrate)
            took = []
            for number in range(20):
                began = time.monotonic()
                assert ingest(store, sent(f"m{number}")) == ["accepted"]
                took.append(time.monotonic() - began)
                time.sleep(0.05)
            assert sum(seconds > 0.5 for seconds in took) <= 2  # the machine's, not the lock's
            assert not migrating.done()
        assert migrating.result() == ["add_a_column"]


@pytest.mark.spoils_the_schema
@pytest.mark.parametrize("writes", [True, False])
def test_a_migration_and_who_is_at_work_do_not_stop_each_other(
    store: PostgresStore,
    postgres_url: str,
    outside: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    writes: bool,
) -> None:
    """One has a table and wants another; the migration takes them in the other order."""
    altered: list[float] = []

    def change_both(connection: psycopg.Connection[Any]) -> None:
        connection.execute("ALTER TABLE deliveries ADD COLUMN colour text")
        altered.append(time.monotonic())
        connection.execute("ALTER TABLE messages ADD COLUMN colour text")

    step = postgres_schema.Step("change_both", change_both)
    monkeypatch.setattr(postgres_schema, "STEPS", (*postgres_schema.STEPS, step))
    monkeypatch.setattr(postgres_schema, "_LOCK_TIMEOUT", "5s")
    monkeypatch.setattr(postgres_schema, "_REST", 0.1)
    lock = place_of(postgres_url).lock(SCHEMA)
    with ThreadPoolExecutor(1) as executor:
        with outside.transaction():
            # The migration is the one that finds out.
            outside.execute("SET LOCAL deadlock_timeout = '10s'")
            if writes:
                outside.execute(f"SELECT pg_advisory_xact_lock_shared({lock})")
            outside.execute("SELECT count(*) FROM messages")
            migrating = executor.submit(store.migrate)
            eventually(lambda: waits_for_a_lock(postgres_url))
            assert bool(altered) is not writes
            outside.execute("SELECT count(*) FROM deliveries")
        assert migrating.result() == ["change_both"]
    assert len(altered) == (1 if writes else 2)


def waits_for_a_lock(url: str) -> bool:
    with psycopg.connect(url) as connection:
        (waiting,) = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted"
        ).fetchone() or (0,)
    return bool(waiting)


def test_search_needs_no_extension(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_schema, "_TRIGRAMS", "CREATE INDEX nonsense")
    url = databases.create(empty=True)
    store = PostgresStore(url)
    assert store.migrate() == [step.name for step in postgres_schema.STEPS]
    ingest(store, incoming(envelope("sms.sent", sms("sent", "m1", message="100 % Été_\\"))))
    for text, found in (("0 %", 1), ("ete_", 1), ("\\", 1), ("e%e", 0), ("et__", 0)):
        assert store.history(Search(text=text), 0, 10)[0] == found, text
    store.close()
    databases.drop(url)


def test_an_index_that_each_end_of_a_call_read_goes(databases: Databases) -> None:
    url = databases.create()
    with closing(PostgresStore(url)) as store, psycopg.connect(url, autocommit=True) as outside:
        store.migrate()
        outside.execute("CREATE INDEX deliveries_leased ON deliveries (owner) WHERE leased")
        outside.execute("DELETE FROM schema_steps WHERE name = 'leases_have_no_index'")
        assert store.migrate() == ["leases_have_no_index"]
        indexes = outside.execute("SELECT indexname FROM pg_indexes").fetchall()
        assert ("deliveries_leased",) not in indexes
        assert ("deliveries_due",) in indexes
        ingest(store, sent("m1", event_id="e1"))
        (claim,) = store.work(NOW, [], [Want("h", 1, LEASE, 3, "somebody")], 5)
        assert store.leases("somebody", NOW) == [claim]
        assert store.leases("somebody else", NOW) == []
        assert store.leases("somebody", NOW + LEASE) == []
    databases.drop(url)
