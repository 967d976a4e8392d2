"""What only PostgreSQL has: its connections, many processes at once, a server that goes away."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from receiver import mirror, status, times
from receiver.errors import ConfigError, SchemaMismatch, StoreUnavailable
from receiver.event import Incoming
from receiver.mirror import Search
from receiver.providers.zimsend.webhook import parse
from receiver.store import Claim, Selection, Settlement, Want, open_store, postgres
from receiver.store.postgres import PostgresStore
from receiver.store.postgres import schema as postgres_schema
from receiver.store.postgres.pool import CONNECTIONS, settings_of
from receiver.times import DAY, HOUR, MINUTE, SECOND
from tests.conftest import row_of
from tests.payloads import body_of, envelope, sms
from tests.postgres import Databases, PostgresServer
from tests.server import ROOT, eventually

NOW = times.now()
LEASE = 30 * SECOND


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    if request.node.get_closest_marker("spoils_the_schema"):
        url = databases.create()
        yield url
        databases.drop(url)
    else:
        url = databases.lend()
        yield url
        databases.take_back(url)


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    yield store
    store.close()


@pytest.fixture
def other(postgres_url: str) -> Iterator[PostgresStore]:
    """Another process's store on the same database."""
    store = PostgresStore(postgres_url)
    yield store
    store.close()


@pytest.fixture
def outside(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's connection."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop and kill."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


def incoming(payload: dict[str, Any], received_at: int = NOW) -> Incoming:
    return parse(json.dumps(payload).encode(), received_at=received_at, retention=90 * DAY)


def sent(message_id: str, minutes_ago: int = 1, **changes: Any) -> Incoming:
    data = sms("sent", message_id, sent_at=times.iso(NOW - minutes_ago * MINUTE))
    return incoming(envelope("sms.sent", data, **changes))


def one_handler(event_type: str) -> tuple[str, ...]:
    return ("h",)


def ingest(store: PostgresStore, *items: Incoming, patience: float = 5) -> list[str]:
    return list(store.ingest(items, one_handler, patience))


def work(store: PostgresStore, *settlements: Settlement, patience: float = 5) -> list[Claim]:
    return store.work(NOW, settlements, [Want("h", 10, LEASE, 3)], patience)


def ids(claims: list[Claim]) -> list[str]:
    return [claim.event_id for claim in claims]


def refused_within(seconds: float, call: Callable[[], Any]) -> str:
    """That a call ends in `StoreUnavailable` in time, at the third go at the latest: a machine
    that stands still is no slow store. Returns what it says."""
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            call()
        took = time.monotonic() - began
        assert took < seconds + 5
        if took < seconds:
            return str(caught.value)
    raise AssertionError(f"it took {took:.1f} s, three times in a row")


# --- connections


@pytest.mark.parametrize(
    ("url", "sslmode"),
    [
        ("postgres://u:p@db.example.com/receiver", "require"),
        ("postgresql://u:p@10.0.0.7:5432/receiver", "require"),
        ("postgres://u:p@db.example.com/receiver?sslmode=verify-full", "verify-full"),
        ("postgres://u:p@db.internal/receiver?sslmode=disable", "disable"),
        ("postgres://u:p@127.0.0.1,db.example.com/receiver", "require"),
        ("postgres:///receiver?host=db.example.com", "require"),
        ("postgres://localhost/receiver?hostaddr=192.0.2.7", "require"),
        ("postgres://u:p@127.0.0.1/receiver", None),
        ("postgres://u:p@[::1]:5433/receiver", None),
        ("postgres://localhost/receiver", None),
        ("postgres:///receiver", None),
        ("postgres:///receiver?host=/var/run/postgresql", None),
        ("postgres://%2Fvar%2Frun%2Fpostgresql/receiver", None),
    ],
)
def test_tls_is_required_unless_the_url_or_the_place_says_otherwise(
    url: str, sslmode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGSSLMODE"):
        monkeypatch.delenv(name, raising=False)
    assert settings_of(url).get("sslmode") == sslmode


def test_the_hosts_variables_count_as_the_driver_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "db.example.com")
    assert settings_of("postgres:///receiver")["sslmode"] == "require"
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert "sslmode" not in settings_of("postgres:///receiver")  # nothing weaker than asked for


def test_a_server_without_tls_is_refused_with_a_hint(server: PostgresServer) -> None:
    store = open_store(f"{server.url}?sslmode=require")
    assert "sslmode=disable" in refused_within(5, store.migrate)


def test_a_wrong_url_is_refused_without_its_password() -> None:
    for url in (
        "postgres://u:hunter2/secret@host/db",
        "postgres://u:hunter2@h/db?no_such=1",
        "postgres://u:hunter2@[::1/db",
        "postgres://u:half@hunter2@host/db",
    ):
        with pytest.raises(ConfigError) as caught:
            open_store(url)
        assert "DATABASE_URL" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_nothing_is_connected_before_the_first_use(postgres_url: str) -> None:
    before = threading.active_count()
    store = PostgresStore(postgres_url)
    assert threading.active_count() == before
    assert row_of(store, "m1") is None
    store.close()
    assert row_of(store, "m1") is None  # and again, after an end
    store.close()


def test_at_most_four_connections_and_readers_leave_one_to_the_webhook(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    stop = threading.Event()
    reads: list[int] = []
    most = 0

    def read_slowly() -> None:
        while not stop.is_set():
            with suppress(StoreUnavailable), store._reading() as connection:
                connection.execute("SELECT pg_sleep(0.3)")
                reads.append(1)

    def look() -> None:
        while not stop.is_set():
            with suppress(StoreUnavailable):
                store.backlog(NOW, ["h"])
                store.expirable(0)

    with ThreadPoolExecutor(14) as executor:
        readers = [executor.submit(read_slowly) for _ in range(10)]
        others = [executor.submit(look) for _ in range(3)]
        began = time.monotonic()
        took = []
        while time.monotonic() - began < 2:
            commit = time.monotonic()
            assert ingest(store, sent(f"m{commit}")) == ["accepted"]
            took.append(time.monotonic() - commit)
            (count,) = outside.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'zimsend-receiver'"
            ).fetchone() or (0,)
            most = max(most, count)
        stop.set()
        for future in (*readers, *others):
            future.result()
    assert most == CONNECTIONS
    assert sum(reads) > 0
    assert sorted(took)[len(took) * 8 // 10] < 0.2  # less than a reader takes


@pytest.mark.spoils_the_schema
def test_a_commit_is_synced_whatever_the_servers_default(
    postgres_url: str, outside: psycopg.Connection[Any], store: PostgresStore
) -> None:
    (name,) = outside.execute("SELECT current_database()").fetchone() or ("",)
    outside.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    outside.execute(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable')
    with store._transaction() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)


# --- a server that is slow, hangs, or goes away


def test_locked_rows_make_it_unavailable_in_time_and_usable_after(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    ingest(store, sent("m1"))
    with outside.transaction():
        outside.execute("LOCK TABLE messages IN EXCLUSIVE MODE")
        later = incoming(envelope("sms.delivered", sms("delivered", "m1")))
        refused_within(0.6, lambda: ingest(store, later, patience=0.5))
        assert row_of(store, "m1")  # readers do not wait
    assert ingest(store, later) == ["accepted"]


def test_a_statement_in_vain_costs_its_own_connection_alone(
    store: PostgresStore, outside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server ends it well before we give up on its word.
    monkeypatch.setattr("receiver.store.postgres._EARLIER", 3.5)

    def backend(patience: float) -> int:
        with store._transaction(patience) as connection:
            if patience < 5:
                connection.execute("LOCK TABLE messages IN ACCESS SHARE MODE")
            return connection.info.backend_pid

    with store._reader() as held:
        first, other = held.info.backend_pid, backend(5)
    with outside.transaction():
        outside.execute("LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):
            backend(4)
    with store._reader() as one, store._reader() as two:
        kept = {one.info.backend_pid, two.info.backend_pid}
    assert len(kept & {first, other}) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_goes_away_and_comes_back(
    server: PostgresServer, how: signal.Signals
) -> None:
    """Under load: each call ends in time, none in another error; then all goes on by itself."""
    store = PostgresStore(server.url)
    store.migrate()
    stop = threading.Event()
    back = threading.Event()
    acknowledged: list[str] = []
    errors: list[BaseException] = []
    slowest: list[float] = []
    recovered: list[float] = []

    def send(call: Callable[[], Any]) -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                call()
                if back.is_set():
                    recovered.append(time.monotonic())
                    return
            except StoreUnavailable:
                time.sleep(0.05)
            except BaseException as error:
                errors.append(error)
                return
            slowest.append(time.monotonic() - began)

    def put() -> None:
        event = envelope("sms.sent", sms("sent"))
        assert ingest(store, incoming(event), patience=0.5) == ["accepted"]
        acknowledged.append(event["event_id"])

    calls = [put, lambda: work(store, patience=0.5), lambda: row_of(store, "m1")]
    with ThreadPoolExecutor(4) as executor:
        futures = [executor.submit(send, call) for call in calls]
        eventually(lambda: len(acknowledged) > 20)
        if how == signal.SIGSTOP:
            server.send(signal.SIGSTOP)
        else:
            server.stop(how)
        refused_within(0.7, lambda: ingest(store, sent("m1"), patience=0.5))
        time.sleep(1.5)
        returned = time.monotonic()
        if how == signal.SIGSTOP:
            server.send(signal.SIGCONT)
        else:
            server.start()
            returned = time.monotonic()
        back.set()
        eventually(lambda: all(future.done() for future in futures) or errors)
        stop.set()
    assert not errors
    assert max(recovered) - returned < 8
    found = {event["event_id"] for event in store.events(Selection())}
    assert found.issuperset(acknowledged)
    if how != signal.SIGSTOP:
        assert max(slowest) < 10
    store.close()


def test_what_lay_idle_is_tried_before_it_is_used(
    store: PostgresStore, outside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.store.postgres.pool._FRESH", 0.0)
    assert ingest(store, sent("m1")) == ["accepted"]
    outside.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'zimsend-receiver'"
    )
    assert ingest(store, sent("m2")) == ["accepted"]


def test_no_server_at_all_says_why(tmp_path: Any) -> None:
    store = PostgresStore("postgres://u:hunter2@127.0.0.1:1/none")
    for call in (store.migrate, lambda: ingest(store, sent("m1"), patience=2)):
        told = refused_within(4, call)
        assert "refused" in told
        assert "hunter2" not in told
    store.close()


# --- schema


def test_many_processes_may_migrate_at_once(databases: Databases) -> None:
    program = (
        "import sys; from receiver.store import open_store, postgres, sqlite;"
        "postgres._CHECK_PATIENCE = sqlite._CHECK_PATIENCE = 30;"  # beside seven that start
        "s = open_store(sys.argv[1]); print(len(s.migrate())); s.check(); s.close()"
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
    for call in (store.check, lambda: row_of(store, "m1"), *everything(store)):
        with pytest.raises(SchemaMismatch, match="flask migrate"):
            call()
    store.close()
    databases.drop(url)


@pytest.mark.spoils_the_schema
def test_a_schema_of_an_older_release_is_refused(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    store.check()
    outside.execute("DELETE FROM schema_steps")
    with pytest.raises(SchemaMismatch, match="older than this release: run `flask migrate`"):
        store.check()


@pytest.mark.spoils_the_schema
def test_an_additive_step_of_a_newer_release_does_not_stop_this_one(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    outside.execute("INSERT INTO schema_steps VALUES (999, 'adds a column', false)")
    outside.execute("ALTER TABLE events ADD COLUMN colour text")
    outside.execute("ALTER TABLE messages ADD COLUMN colour text NOT NULL DEFAULT 'red'")
    assert store.migrate() == []
    store.check()
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
    for call in (store.check, store.migrate, *everything(store)):
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
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    with ThreadPoolExecutor(1) as executor:
        with outside.transaction():
            outside.execute(f"SELECT pg_advisory_xact_lock({postgres_schema.SCHEMA})")
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


# --- many at once


def lease_by_hand(outside: psycopg.Connection[Any]) -> list[str]:
    """What a worker does in `work`, up to its commit."""
    values = {"handler": "h", "now": NOW, "limit": 10, "until": NOW + LEASE, "most": 6}
    seqs = [seq for (seq,) in outside.execute(postgres._CLAIMABLE, values)]
    leased = [row[0] for row in outside.execute(postgres._LEASE, {**values, "seqs": seqs})]
    found = outside.execute("SELECT id FROM events WHERE seq = ANY (%s) ORDER BY seq", (leased,))
    return [event_id for (event_id,) in found]


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
        naive = postgres._CLAIMABLE.partition("WHERE message_id IS NULL OR pg_try")[0]
        monkeypatch.setattr(postgres, "_CLAIMABLE", naive)
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
        Claim(seq, "h", fence, 1, event_id, "", None, 0, 0, "", False, False, b"")
        for seq, fence in outside.execute(
            "SELECT event_seq, fence FROM deliveries JOIN events ON seq = event_seq WHERE id = %s",
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
    values = {"handler": "h", "now": NOW, "until": NOW + LEASE, "most": 6, "seqs": [seq]}
    assert outside.execute(postgres._LEASE, values).fetchall() == []
    work(store, Settlement(claimed, "done", NOW))


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


# --- what a column cannot hold


def test_what_text_cannot_hold(store: PostgresStore) -> None:
    nasty = "a\0b\ud800c\U0001f44b"
    data = {
        **dict.fromkeys(("message_id", "to", "message", "device_id", "priority"), nasty),
        "metadata": {nasty: nasty},
        "error": {"code": nasty, "message": nasty},
        "failed_at": times.iso(NOW),
    }
    event = {"event": "sms.failed", "event_id": nasty, "data": data}
    other = {"event": f"sms.{nasty}", "event_id": "e2", "data": data}
    failed, unknown = incoming(event), incoming(other)
    assert ingest(store, failed, unknown) == ["accepted", "accepted"]
    assert store.body(failed.id) == failed.body
    assert failed.message_id
    row = row_of(store, failed.message_id)
    assert row == failed.says
    assert row is not None
    assert row["message"][2] == nasty
    ((found, _),) = store.history(Search(text=mirror.fold("\0B")), 0, 10)[1]
    assert found == failed.message_id
    (first,) = work(store)
    work(store, Settlement(first, "dead", NOW, error="x\0y".encode("utf-8", "replace").decode()))
    (listed,) = store.events(Selection(state="dead"))
    assert listed["deliveries"][0]["last_error"] == "x\ufffdy"
    for name in ("nothing\0", "nothing\ud800"):
        assert row_of(store, name) is None
        assert store.body(name) is None
        assert store.evidence(name, 1) is None
        assert list(store.events(Selection(ids=[name]))) == []
        assert list(store.events(Selection(message_id=name))) == []
        assert list(store.events(Selection(event_type=name))) == []
        assert list(store.quarantined(name)) == []
        assert store.history(Search(device_id=name, number=name, status=name), 0, 1) == (0, [])
        assert store.history(Search(text=mirror.fold(name)), 0, 1) == (0, [])


def test_the_longest_that_an_index_must_hold(store: PostgresStore) -> None:
    """Ids of 200 characters of four bytes each, all different, so that nothing is compressed."""
    chance = random.Random(1)

    def long() -> str:
        return "".join(chr(chance.randrange(0x10000, 0x10F000)) for _ in range(200))

    data = {"message_id": long(), "device_id": long(), "to": long()}
    item = incoming({"event": long(), "event_id": long(), "data": data})
    said = incoming({"event": "sms.sent", "event_id": long(), "data": data})
    assert list(store.ingest([item, said], lambda _: ("h" * 200,), 5)) == ["accepted"] * 2


@pytest.mark.parametrize("seed", [1, 2])
def test_what_failed_leaves_nothing_behind_on_a_connection(
    store: PostgresStore, outside: psycopg.Connection[Any], seed: int
) -> None:
    """The driver prepares a statement at its fifth use, and may believe that it has when all that
    is in the pipeline has failed."""
    chance = random.Random(seed)

    def use(patience: float) -> None:
        if chance.random() < 0.5:
            ingest(store, sent(f"m{chance.randrange(10**9)}"), patience=patience)
        else:
            store.work(NOW, settlements(), [Want("h", 3, LEASE, 3)], patience)

    def settlements() -> list[Settlement]:
        ended, claimed[:] = [Settlement(c, "done", NOW) for c in claimed], []
        return ended

    claimed: list[Claim] = []
    for _ in range(6):
        for _ in range(chance.randrange(7)):
            use(5)
            claimed += work(store)
        with outside.transaction():
            outside.execute("LOCK TABLE events, deliveries IN EXCLUSIVE MODE")
            for _ in range(chance.randrange(1, 4)):
                with suppress(StoreUnavailable):
                    use(0.25)
        for _ in range(8):
            use(5)
