"""`flask upgrade-check`: it tells what a start would change, and changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from click.testing import Result
from sqlite_utils import Database

from app import create_app
from receiver.parts import parts
from receiver.store import Store, open_store
from receiver.store.postgres import schema as postgres_schema
from receiver.store.sqlite.schema import migrations


@pytest.fixture
def environ(empty_database_url: str, environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "DATABASE_URL": empty_database_url}


@pytest.fixture
def store(empty_database_url: str) -> Iterator[Store]:
    store = open_store(empty_database_url)
    yield store
    store.close()


def checked(environ: dict[str, str]) -> Result:
    app = create_app(environ)
    result = app.test_cli_runner().invoke(args=["upgrade-check"])
    parts(app).store.close()
    return result


def files(url: str) -> dict[str, bytes]:
    """All that lies in the folder of a database of SQLite's; nothing for PostgreSQL's."""
    if not url.startswith("sqlite"):
        return {}
    return {f.name: f.read_bytes() for f in Path(url.removeprefix("sqlite:///")).parent.iterdir()}


def take_all_but_the_last(url: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the release before has made; returns the name of the step that it did not know."""
    if engine == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as db:
            names = [migration.name for migration in migrations.pending(Database(db))]
            migrations.apply(Database(db), stop_before=names[-1])
        return names[-1]
    *steps, last = postgres_schema.STEPS
    with monkeypatch.context() as patched, closing(open_store(url)) as store:
        patched.setattr(postgres_schema, "STEPS", tuple(steps))
        store.migrate()
    return last.name


@pytest.mark.each_engine
def test_an_empty_database_is_made(environ: dict[str, str], store: Store) -> None:
    before = files(environ["DATABASE_URL"])
    result = checked(environ)
    assert result.exit_code == 1, result.output
    assert "it has 0 events and 0.0 MB" in result.output
    steps = [line for line in result.output.splitlines() if line.startswith("step to take: ")]
    last = result.output.splitlines()[-1]
    assert last == f"the next start, or `flask migrate`, takes {len(steps)} steps"
    assert files(environ["DATABASE_URL"]) == before
    assert store.migrate() == [line.removeprefix("step to take: ") for line in steps]


@pytest.mark.each_engine
def test_what_this_release_has_made_is_not_changed(environ: dict[str, str], store: Store) -> None:
    store.migrate()
    assert store.outlook().size == pytest.approx(store.kept()[1], rel=0.5)
    result = checked(environ)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "the next start changes nothing"


@pytest.mark.each_engine
def test_of_an_older_one_with_events_it_advises_a_backup(
    environ: dict[str, str], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = environ["DATABASE_URL"]
    step = take_all_but_the_last(url, engine, monkeypatch)
    add_an_event(url, engine)
    before = files(url)
    result = checked(environ)
    assert result.exit_code == 1, result.output
    assert f"\nstep to take: {step}\n" in result.output
    assert "it has 1 events" in result.output
    last = result.output.splitlines()[-1]
    assert "takes 1 step;" in last
    assert last.endswith("back up first, with the release before: `flask backup FILE`")
    assert ("cannot work with the database afterwards" in last) is (engine == "sqlite")
    assert files(url) == before


def add_an_event(url: str, engine: str) -> None:
    columns = (
        "INSERT INTO events (seq, id, type, occurred_at, received_at, last_received_at, has_error,"
        " source, late, repeat, redacted, loose, body)"
        " VALUES (1, 'e', 't', 0, 0, 0, {0}, 'webhook', {0}, {0}, {0}, {0}, '{{}}')"
    )
    if engine == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db, db:
            db.execute(columns.format("0"))
    else:
        with psycopg.connect(url) as connection:
            connection.execute(columns.format("false"))


@pytest.mark.each_engine
def test_of_a_newer_one_it_says_so(
    environ: dict[str, str], engine: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.migrate()
    if engine == "sqlite":
        path = environ["DATABASE_URL"].removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(
                "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
                " VALUES ('receiver', 'of_tomorrow', '')"
            )
    else:
        with psycopg.connect(environ["DATABASE_URL"]) as connection:
            connection.execute(
                "INSERT INTO schema_steps (number, name, breaking) VALUES (999, 'x', true)"
            )
    result = checked(environ)
    assert result.exit_code == 1
    assert "newer than this release" in result.output.splitlines()[-1]


def test_a_setting_that_nobody_knows_is_something_to_do(
    environ: dict[str, str], store: Store
) -> None:
    store.migrate()
    result = checked({**environ, "LOG_LEVELS": "debug"})
    assert result.exit_code == 1
    assert "setting: LOG_LEVELS: no setting has this name" in result.output
    assert result.output.splitlines()[-1] == "correct or remove the settings above"


def test_it_reads_beside_a_service_that_writes(environ: dict[str, str], store: Store) -> None:
    store.migrate()
    store.prove_writable()  # and has the file open, with its log
    result = checked(environ)
    assert result.exit_code == 0, result.output
