"""Behind a real PgBouncer that gives each transaction to whatever session of the server is free."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from flask import Flask
from psycopg.conninfo import conninfo_to_dict

from app import create_app
from receiver import ConfigError, erasing, phone, times, upkeep
from receiver.errors import StoreUnavailable
from receiver.mirror import Search
from receiver.parts import Receiver
from receiver.store import Selection, Settlement, open_store
from receiver.store.postgres import PostgresStore
from receiver.store.postgres.pool import settings_of, without_others
from receiver.store.postgres.schema import STEPS
from tests.conftest import SECRET, Clock, Provider
from tests.payloads import envelope, sms
from tests.postgres import Databases, plain
from tests.server import cannot_run, eventually, free_port
from tests.store.postgres.work import NOW, compiling_refused, ingest, sent, work

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH')}:/usr/sbin")
#: Sessions of the server for all: fewer than the connections that one store may open.
SESSIONS = 2


@pytest.fixture(scope="module")
def pooler(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The URLs of an empty database: directly, and through PgBouncer."""
    if PGBOUNCER is None:
        cannot_run("there is no pgbouncer (Debian: apt install pgbouncer)")
    direct = databases.create(empty=True)
    server = conninfo_to_dict(plain(direct))
    folder = tmp_path_factory.mktemp("pooler")
    port = free_port()
    settings = folder / "pgbouncer.ini"
    names = ("host", "port", "dbname", "user", "password")
    target = " ".join(f"{name}={server[name]}" for name in names if name in server)
    settings.write_text(
        f"[databases]\nreceiver = {target}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {SESSIONS}\n"
    )
    account: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        account = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        settings.chmod(0o644)
    with (folder / "log").open("wb") as log, settings.open("rb") as given:
        # As its input: the folders above may be closed to that account.
        process = subprocess.Popen(
            [*account, PGBOUNCER, "-q", "/dev/stdin"], stdin=given, stdout=log, stderr=log, cwd="/"
        )
    url = f"postgresql://anybody@127.0.0.1:{port}/receiver"

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        eventually(answers)
        yield direct, url
    finally:
        process.terminate()
        process.wait(10)
        databases.drop(direct)


@pytest.fixture(scope="module")
def behind(pooler: tuple[str, str]) -> Iterator[Receiver]:
    """A receiver that knows no other way to its database."""
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": f"{pooler[1]}?pgbouncer=true",
        "HANDLERS": "tests.handlers",
    }
    app = create_app(environ, Clock())
    receiver: Receiver = app.extensions["receiver"]
    assert len(receiver.store.migrate()) == len(STEPS)
    assert receiver.store.migrate() == []
    yield receiver
    receiver.store.close()


def send(receiver: Receiver, app: Flask, number: int) -> int:
    event = envelope("sms.delivered", sms("delivered", f"m{number}"), event_id=f"e{number}")
    return Provider(app.test_client()).post(event).status_code


def test_it_receives_works_reads_and_forgets(pooler: tuple[str, str], behind: Receiver) -> None:
    direct, url = pooler
    other = create_app(
        {
            "ZIMSEND_WEBHOOK_SECRET": SECRET,
            "DATABASE_URL": url,
            "HANDLERS": "tests.handlers",
        },
        behind.now,
    )
    theirs: Receiver = other.extensions["receiver"]
    # Each kind of statement far more often than after which the driver would prepare it, from
    # several threads of two stores, on fewer sessions.
    count = 60
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda n: send(theirs, other, n), range(count)))
        assert statuses == [200] * count
        states = list(threads.map(lambda n: behind.store.body(f"e{n}"), range(count)))
        assert None not in states
        list(threads.map(lambda n: list(theirs.store.events(Selection(ids=[f"e{n}"]))), range(30)))
        list(threads.map(lambda n: behind.store.claim_turn(f"t{n % 3}", 1, 2), range(30)))
    theirs.store.prove_writable()
    worker = threading.Thread(target=behind.worker.run)
    worker.start()
    try:
        owed = Selection(state="pending")
        eventually(lambda: not list(theirs.store.events(owed)))
    finally:
        behind.worker.stop()
        worker.join()
    assert len(list(behind.store.events(Selection(state="done")))) == count
    replayed = behind.store.replay(
        Selection(ids=["e1"]),
        wanting=behind.registry.wanting,
        now=behind.now(),
        dry_run=False,
        progress=lambda _: None,
    )
    assert replayed == len(behind.registry.wanting("sms.delivered"))
    expired = upkeep.expire(theirs.store, behind.now() + 10 * times.DAY)
    assert (expired.messages, expired.events) == (count - 1, count - 1)  # one is owed
    theirs.store.close()
    with psycopg.connect(direct, autocommit=True) as outside:
        _nothing_is_left(outside)


def _nothing_is_left(outside: psycopg.Connection[Any]) -> None:
    """In no session of the server: locks, or a transaction. What is set there is seen below."""
    eventually(
        lambda: (
            outside.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ).fetchone()
            == (0,)
        )
    )


@contextmanager
def temporary_tables(url: str) -> Iterator[None]:
    """In each session of the server, called like ours."""
    in_each_session(url, "CREATE TEMP TABLE events (a int); CREATE TEMP TABLE schema_steps (a int)")
    yield
    in_each_session(url, "DROP TABLE IF EXISTS pg_temp.events, pg_temp.schema_steps")


def in_each_session(url: str, statements: LiteralString) -> None:
    with ExitStack() as strangers:  # each holds one until all have theirs
        for _ in range(SESSIONS):
            stranger = strangers.enter_context(psycopg.connect(url, prepare_threshold=None))
            stranger.execute(statements)


def test_a_schema_of_its_own_is_the_transactions_and_never_the_sessions(
    pooler: tuple[str, str], behind: Receiver
) -> None:
    """On the same sessions are a receiver whose tables are in `public`, and somebody's temporary
    tables that are called like ours."""
    direct, url = pooler
    with psycopg.connect(plain(direct), autocommit=True) as outside:
        outside.execute("CREATE SCHEMA mine")
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": f"{url}?pgbouncer=true",
        "DATABASE_SCHEMA": "mine",
        "HANDLERS": "tests.handlers",
    }
    app = create_app(environ, behind.now)
    mine: Receiver = app.extensions["receiver"]
    with temporary_tables(url), closing(mine.store) as store:
        assert len(store.migrate()) == len(STEPS)
        assert store.migrate() == []
        store.prove_writable()
        with ThreadPoolExecutor(4) as threads:
            statuses = threads.map(lambda n: send(mine, app, 1_000 + n), range(20))
            assert list(statuses) == [200] * 20
            assert None not in list(threads.map(lambda n: store.body(f"e{1_000 + n}"), range(20)))
        assert store.history(Search(), 0, 5)[0] == 20
        assert store.kept()[0] == {"delivered": 20}
        number = phone.number("+33699888777", None)
        assert number is not None
        erasing.forget(store, number, lambda _: None)
        assert upkeep.expire(store, behind.now() + 200 * times.DAY).events == 0  # owed
    assert behind.store.body("e1001") is None
    assert not behind.store.forgotten()
    with psycopg.connect(plain(direct), autocommit=True) as outside:
        outside.execute("DROP SCHEMA mine CASCADE")


def test_nothing_is_compiled(pooler: tuple[str, str], behind: Receiver) -> None:
    """As in `test_connections`; here each transaction says so anew."""
    with psycopg.connect(plain(pooler[0]), autocommit=True) as outside, compiling_refused(outside):
        assert isinstance(behind.store, PostgresStore)
        assert ingest(behind.store, sent("compiled")) == ["accepted"]
        (claim,) = work(behind.store)
        work(behind.store, Settlement(claim, "done", NOW))


def test_nothing_stays_in_a_session_for_the_next_who_gets_it(
    pooler: tuple[str, str], behind: Receiver
) -> None:
    behind.store.prove_writable()
    list(behind.store.events(Selection()))
    others = [psycopg.connect(pooler[1], prepare_threshold=None) for _ in range(SESSIONS)]
    try:
        for other in others:  # each holds one of them
            row = other.execute(
                "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
                " current_setting('enable_seqscan'), (SELECT count(*) FROM pg_prepared_statements),"
                " current_setting('search_path')"
            ).fetchone()
            assert row == ("0", "0", "on", 0, '"$user", public')
    finally:
        for other in others:
            other.close()


def test_a_parameter_that_it_does_not_pass_on_is_told_in_words(pooler: tuple[str, str]) -> None:
    store = open_store(f"{pooler[1]}?options=-csearch_path%3Dmine")
    with pytest.raises(StoreUnavailable, match=r"options.*ALTER ROLE"):
        store.migrate()
    store.close()


@pytest.mark.parametrize(
    ("query", "ignored"),
    [
        ("pgbouncer=true", ["pgbouncer"]),
        ("schema=public&connection_limit=5", ["schema", "connection_limit"]),
        ("sslmode=disable&pool_timeout=10", ["pool_timeout"]),
        ("pool=5&prepared_statements=false", ["pool", "prepared_statements"]),
        ("sslmode=disable", []),
        ("options=-csearch_path%3Dmine", []),
        ("sslmode=disable&schema=mine", []),
    ],
)
def test_parameters_of_other_tools_are_named_and_ignored(query: str, ignored: list[str]) -> None:
    url = f"postgres://u:p@db.example.com:6543/d?{query}"
    kept, named = without_others(url)
    assert named == ignored
    assert all(name not in kept for name in ignored)
    assert settings_of(url)["dbname"] == "d"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("schema=Mine", "not a plain name"),
        ("schema=pg_mine", "PostgreSQL's own"),
        ("schema=mine&schema=yours", "names another one"),
        ("currentSchema=mine", "schema=NAME"),
        ("ssl=false", "sslmode=disable"),
        ("ssl=require", "sslmode=require"),
        ("sslaccept=strict", "sslmode"),
        ("sslmode=no-verify", "verify-full"),
        ("sslmodde=disable", "?sslmodde="),
        ("pgbouncer=true&foo=hunter2", "?foo="),
    ],
)
def test_one_that_means_something_is_refused_in_words(query: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(f"postgres://u:p@h/d?{query}")
    assert told in caught.value.problem
    assert "hunter2" not in str(caught.value)
    assert "encoding" not in caught.value.problem


def test_tls_that_is_asked_for_stays() -> None:
    assert settings_of("postgres://u@localhost/d?ssl=true")["sslmode"] == "require"


def test_a_question_mark_in_a_password_is_not_told() -> None:
    url = "postgres://u:pa?ss=w@h/d"
    assert without_others(url) == (url, [])
    assert without_others(f"{url}?pool=5") == (url, ["pool"])


def test_what_is_ignored_is_told_at_the_start(
    behind: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    behind.store.migrate()
    assert "ignored: pgbouncer" in caplog.text
