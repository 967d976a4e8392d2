"""A schema of the receiver's own, in a database that has another program's tables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from receiver import erasing, phone, times, upkeep
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.event import Incoming
from receiver.metrics import ACCEPTED, REFUSED
from receiver.mirror import Search
from receiver.providers import TYPES
from receiver.store import Selection, Settlement
from receiver.store.postgres import PostgresStore, schema
from receiver.store.postgres.place import CODES, MIGRATION, SCHEMA, Place
from receiver.times import DAY
from tests.conftest import row_of
from tests.payloads import envelope, sms
from tests.postgres import Databases, foreign_tables, plain
from tests.server import ROOT
from tests.store.postgres.work import NOW, incoming, ingest, sent, work

NUMBER = phone.number("+33699888777", None)
assert NUMBER is not None


@pytest.fixture(scope="module")
def host(databases: Databases) -> Iterator[str]:
    """The URL of another program's database; in `public` it has tables that are called like ours,
    and elsewhere the extension."""
    url = databases.create(empty=True)
    with psycopg.connect(plain(url)) as connection:
        foreign_tables(connection)
        connection.execute("CREATE SCHEMA extensions")
        connection.execute("CREATE EXTENSION pg_trgm SCHEMA extensions")
    yield plain(url)
    databases.drop(url)


@pytest.fixture
def outside(host: str) -> Iterator[psycopg.Connection[Any]]:
    """The other program."""
    with psycopg.connect(host, autocommit=True) as connection:
        yield connection


@pytest.fixture
def two(
    host: str, outside: psycopg.Connection[Any]
) -> Iterator[tuple[PostgresStore, PostgresStore]]:
    """Two receivers in one database."""
    stores = PostgresStore(f"{host}?schema=one"), PostgresStore(f"{host}?schema=two")
    for store in stores:
        store.migrate()
    yield stores
    for store in stores:
        store.close()
    outside.execute("DROP SCHEMA one, two CASCADE")


def not_ours(outside: psycopg.Connection[Any]) -> list[Any]:
    """All that the database has beside the schemas of receivers."""
    return [
        outside.execute(
            "SELECT relnamespace::regnamespace::text, relname, relkind FROM pg_class"
            " WHERE relnamespace::regnamespace::text NOT IN ('one', 'two', 'pg_toast')"
            " ORDER BY 1, 2"
        ).fetchall(),
        outside.execute("SELECT * FROM public.event_seqs").fetchall(),
        *(
            outside.execute(f"SELECT * FROM public.{name}").fetchall()
            for name in ("events", "messages", "marks", "notes", "deliveries", "schema_steps")
        ),
    ]


def number_of(event_id: str, number: str = "+33699888777") -> Incoming:
    return incoming(
        envelope("sms.sent", sms("sent", f"m-{event_id}", to=number), event_id=event_id)
    )


def test_nothing_of_another_program_is_read_or_changed(
    two: tuple[PostgresStore, PostgresStore], outside: psycopg.Connection[Any]
) -> None:
    before = not_ours(outside)
    store, _ = two
    store.prove_writable()
    assert ingest(store, number_of("e1"), number_of("e2", "+33611223344")) == ["accepted"] * 2
    claimed = work(store)
    assert len(claimed) == 2
    work(store, *(Settlement(claim, "done", NOW) for claim in claimed))
    assert store.history(Search(text="x"), 0, 1)[0] == 0
    assert store.kept()[1] > 0
    store.write_notes({"a": "b", "c": None})
    store.claim_turn("t", NOW, NOW + 1)
    erasing.forget(store, NUMBER, lambda _: None)
    upkeep.expire(store, NOW + 200 * DAY)
    assert list(store.events(Selection())) == []
    assert not_ours(outside) == before
    indexes = outside.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'one'")
    assert ("texts_by_trigrams",) in indexes.fetchall()


def test_two_receivers_in_one_database_know_nothing_of_each_other(
    two: tuple[PostgresStore, PostgresStore],
) -> None:
    one, other = two
    assert ingest(one, number_of("e1"), number_of("e2")) == ["accepted"] * 2
    assert not other.others()
    assert ingest(other, number_of("e1", "+33611223344")) == ["accepted"]
    for store, count in ((one, 2), (other, 1)):
        while store.count_arrivals(TYPES, 5):
            pass
        assert store.counters() == {(ACCEPTED, "zimsend", "sms.sent"): count}
        assert len(list(store.events(Selection()))) == count
    one.add_counts("token", {(REFUSED, "size"): 1}, 5)
    other.add_counts("token", {(REFUSED, "size"): 2}, 5)
    assert other.counters()[REFUSED, "size"] == 2
    assert one.claim_turn("t", NOW, NOW + DAY)
    assert other.claim_turn("t", NOW, NOW + DAY)
    erasing.forget(one, NUMBER, lambda _: None)
    assert not other.forgotten()
    row = row_of(other, "m-e1")
    assert row is not None
    assert row["to"][2] == "+33611223344"
    assert ingest(other, number_of("e3")) == ["accepted"]
    assert row_of(other, "m-e3") != row_of(one, "m-e2")
    claims = work(other)
    assert len(claims) == 2
    assert upkeep.expire(one, NOW + 200 * DAY).events == 0  # owed
    assert len(list(other.events(Selection()))) == 2


def test_two_receivers_in_one_database_do_not_wait_for_each_other(
    two: tuple[PostgresStore, PostgresStore], outside: psycopg.Connection[Any]
) -> None:
    """Somebody has all locks of one, as in a migration, and those of its ids."""
    one, other = two
    ingest(one, sent("m1", event_id="e1"))
    ingest(other, sent("m0", event_id="e0"))
    place = Place("one")
    with outside.transaction():
        for number in (MIGRATION, SCHEMA, CODES):
            outside.execute(f"SELECT pg_advisory_xact_lock({place.lock(number)})")
        for name in ("e1", "m1"):
            key = (name, place.seed)
            outside.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, %s))", key)
        with pytest.raises(StoreUnavailable):
            ingest(one, sent("m2", event_id="e2"), patience=0.5)
        assert ingest(other, sent("m1", event_id="e1"), failed("m1", "E7")) == ["accepted"] * 2
        assert not other.count_arrivals(TYPES, 0.5)
        assert other.counters()[ACCEPTED, "zimsend", "sms.sent"] == 2
        first, apart = work(other)
        (second,) = work(other, *(Settlement(claim, "done", NOW) for claim in (first, apart)))
        assert not work(other, Settlement(second, "done", NOW))
        assert other.migrate() == []
        assert upkeep.expire(other, NOW + 200 * DAY).events == 3


def failed(message_id: str, code: str) -> Incoming:
    error = {"code": code, "message": "no"}
    data = sms("failed", message_id, error=error, failed_at=times.iso(NOW))
    return incoming(envelope("sms.failed", data))


@pytest.fixture
def poor(host: str, outside: psycopg.Connection[Any]) -> Iterator[str]:
    """The URL of a user who may connect, and nothing else."""
    name = f"poor_{os.getpid()}"
    outside.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'poor'")
    head, _, rest = host.rpartition("@")
    yield f"{head.partition('://')[0]}://{name}:poor@{rest}"
    outside.execute("DROP SCHEMA IF EXISTS three CASCADE")
    outside.execute(f"DROP OWNED BY {name}")
    outside.execute(f"DROP ROLE {name}")


_OWNER = r"^DATABASE_SCHEMA: .* let its owner run "


def told_statement(store: PostgresStore) -> str:
    """What a migration says that the owner is to run."""
    with pytest.raises(StoreUnavailable, match=_OWNER) as caught:
        store.migrate()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).rpartition(" let its owner run ")[2]


def test_a_user_without_the_rights_is_told_which_statement_gives_them(
    poor: str, outside: psycopg.Connection[Any]
) -> None:
    with closing(PostgresStore(f"{poor}?schema=three")) as store:
        outside.execute(told_statement(store))
        assert store.migrate() == [step.name for step in schema.STEPS]
        store.prove_writable()
        outside.execute("DROP SCHEMA three CASCADE")
        outside.execute("CREATE SCHEMA three")
        outside.execute(told_statement(store))
        assert store.migrate() == [step.name for step in schema.STEPS]
        assert ingest(store, sent("m1")) == ["accepted"]


def test_where_all_steps_are_taken_no_right_to_make_anything_is_needed(
    poor: str, host: str, outside: psycopg.Connection[Any]
) -> None:
    user = poor.partition("://")[2].partition(":")[0]
    with closing(PostgresStore(f"{host}?schema=three")) as owner:
        owner.migrate()
    for what in ("SCHEMA", "ALL TABLES IN SCHEMA", "ALL SEQUENCES IN SCHEMA"):
        right = "USAGE" if what == "SCHEMA" else "ALL"
        outside.execute(f"GRANT {right} ON {what} three TO {user}")
    with closing(PostgresStore(f"{poor}?schema=three")) as store:
        assert store.migrate() == []
        assert ingest(store, sent("m1")) == ["accepted"]


def test_the_steps_of_an_earlier_release_are_completed(
    host: str, outside: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [step.name for step in schema.STEPS]
    with closing(PostgresStore(f"{host}?schema=one")) as store:
        monkeypatch.setattr(schema, "STEPS", schema.STEPS[:4])
        assert store.migrate() == names[:4]
        monkeypatch.undo()
        with pytest.raises(SchemaMismatch, match="flask migrate"):
            store.prove_writable()
        assert store.migrate() == names[4:]
        store.prove_writable()
        assert ingest(store, sent("m1")) == ["accepted"]
    outside.execute("DROP SCHEMA one CASCADE")


@pytest.mark.parametrize(
    "theirs",
    ["TABLE six.events (x int)", "TYPE six.events AS ENUM ('x')", "TABLE six.schema_steps ()"],
)
def test_whoever_meets_another_programs_names_is_told_of_the_setting(
    host: str, outside: psycopg.Connection[Any], theirs: str
) -> None:
    outside.execute("CREATE SCHEMA six")
    outside.execute(f"CREATE {theirs}")
    with (
        closing(PostgresStore(f"{host}?options=-csearch_path%3Dsix")) as store,
        pytest.raises(StoreUnavailable, match=r"another program's, .*DATABASE_SCHEMA=zimsend"),
    ):
        store.migrate()
    outside.execute("DROP SCHEMA six CASCADE")


@pytest.mark.parametrize("path", ["five", ""])
def test_what_other_programs_use_goes_not_with_our_schema(databases: Databases, path: str) -> None:
    """Where the user's search_path names our schema first, or none that is there."""
    made = databases.create(empty=True)
    url = plain(made)
    with (
        closing(PostgresStore(f"{url}?options=-csearch_path%3D{path}&schema=five")) as store,
        psycopg.connect(url, autocommit=True) as outside,
    ):
        outside.execute("CREATE SCHEMA five")
        store.migrate()
        where = outside.execute("SELECT extnamespace::regnamespace::text FROM pg_extension")
        assert ("public",) in where.fetchall()
        assert outside.execute("SELECT to_regclass('five.texts_by_trigrams')").fetchone() != (None,)
    databases.drop(made)


@pytest.fixture
def old(databases: Databases) -> Iterator[str]:
    """The URL of a database that a receiver without a schema of its own has to itself."""
    url = databases.create(empty=True)
    with closing(PostgresStore(plain(url))) as store:
        store.migrate()
        ingest(store, sent("m1"))
        yield plain(url)
    databases.drop(url)


def test_tables_that_are_there_already_are_not_left_behind_without_a_word(old: str) -> None:
    with closing(PostgresStore(f"{old}?schema=zimsend")) as store:
        with pytest.raises(StoreUnavailable, match=r"tables are in schema public.* move them"):
            store.migrate()
        with psycopg.connect(old, autocommit=True) as outside:
            outside.execute("CREATE SCHEMA zimsend")  # as it says, for another one beside it
        store.migrate()
        assert not list(store.events(Selection()))
    with closing(PostgresStore(old)) as store:
        store.prove_writable()
        assert len(list(store.events(Selection()))) == 1


def test_they_are_moved_as_the_documents_say(old: str) -> None:
    (told,) = re.findall(
        r"```sql\n(.*?)```",
        (ROOT / "docs" / "how-to" / "shared-database.md").read_text(),
        re.DOTALL,
    )
    with psycopg.connect(old, autocommit=True) as outside:
        outside.execute(told)
        left = outside.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
        assert left == (0,)
    with closing(PostgresStore(f"{old}?schema=zimsend")) as store:
        with pytest.raises(SchemaMismatch, match="run `flask migrate`"):
            ingest(store, sent("m2"))
        assert store.migrate() == []
        assert ingest(store, sent("m2")) == ["accepted"]
        assert len(list(store.events(Selection()))) == 2
        assert len(work(store)) == 2


def test_who_finds_the_tables_by_its_search_path_is_refused_before_it_writes(
    old: str,
) -> None:
    """It takes other locks: so does the release before, which a breaking step stops."""
    by_path = f"{old}?options=-csearch_path%3Dfour"
    with psycopg.connect(old, autocommit=True) as outside:
        outside.execute("CREATE SCHEMA four")
    with closing(PostgresStore(by_path)) as before, ThreadPoolExecutor(1) as executor:
        before.migrate()
        assert ingest(before, sent("m1")) == ["accepted"]
        with (
            closing(PostgresStore(f"{old}?schema=four")) as store,
            psycopg.connect(by_path, autocommit=True) as outside,
        ):
            with outside.transaction():  # it is writing
                outside.execute(f"SELECT pg_advisory_xact_lock_shared({Place().lock(SCHEMA)})")
                migrating = executor.submit(store.migrate)
                with pytest.raises(TimeoutError):
                    migrating.result(0.3)
            assert migrating.result(10) == []
            assert ingest(store, sent("m2")) == ["accepted"]
            calls: tuple[Callable[[], Any], ...] = (
                before.prove_writable,
                before.migrate,
                lambda: ingest(before, sent("m3")),
            )
            for call in calls:
                with pytest.raises(SchemaMismatch, match="set it here as well"):
                    call()
            taken = outside.execute("SELECT max(number), bool_or(breaking) FROM schema_steps")
            assert taken.fetchone() == (schema.OWN_LOCKS, True)
            assert len(list(store.events(Selection()))) == 2
