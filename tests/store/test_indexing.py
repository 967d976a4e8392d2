"""What SQLite's indexes are told later: texts, metadata, numbers.

They are told what was read before the lock was taken: what has changed meanwhile is never told as
it was. What they do not know yet is found without them.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlite_utils import Database

from receiver import erasing
from receiver.mirror import Search
from receiver.providers.zimsend.webhook import parse
from receiver.store import Selection, Store, open_store
from receiver.store.sqlite import listing, mirror, records
from receiver.store.sqlite.schema import migrations
from receiver.times import DAY, SECOND
from tests.payloads import body_of
from tests.store.test_forgetting import NUMBER, silent

NOW = 1_800_000_000 * SECOND
#: Whom the messages here are to.
TO = "33699888777"
STEP = "numbers_are_indexed_later"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{path}")
    store.migrate()
    yield store
    store.close()


def take(store: Store, state: str, text: str, at: int = NOW, message_id: str = "m1") -> None:
    data = {
        "message_id": message_id, "message": text, "to": "+33699888777",
        "metadata": {"order": text},
    }  # fmt: skip
    item = parse(body_of(f"sms.{state}", data), received_at=at, retention=90 * DAY)
    assert store.ingest([item], lambda _: (), 5) == ["accepted"]


@contextmanager
def indexing(path: Path) -> Iterator[None]:
    """What happens inside, happens after the texts were read and before they are indexed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        read = mirror.unindexed_texts(connection)
        yield
        connection.execute("BEGIN IMMEDIATE")
        mirror.index_texts(connection, read)
        connection.execute("COMMIT")


def finds(store: Store, text: str) -> list[str]:
    by_text, by_metadata = Search(text=text), Search(metadata=(("order", text),))
    found = [
        [name for name, _ in store.history(asked, 0, 9)[1]] for asked in (by_text, by_metadata)
    ]
    assert found[0] == found[1]
    return found[0]


def test_nothing_changes(store: Store, path: Path) -> None:
    take(store, "sent", "first")
    with indexing(path):
        pass
    assert not store.index_texts(5)
    assert finds(store, "first") == ["m1"]


def test_another_text_comes(store: Store, path: Path) -> None:
    take(store, "sent", "first")
    take(store, "sent", "other", message_id="m2")
    with indexing(path):
        take(store, "delivered", "second", NOW + SECOND)
    for _ in range(2):
        assert (finds(store, "first"), finds(store, "second")) == ([], ["m1"])
        assert finds(store, "other") == ["m2"]
        assert not store.index_texts(5)


def test_the_message_expires(store: Store, path: Path) -> None:
    take(store, "sent", "first")
    with indexing(path):
        assert store.expire(NOW + DAY, 5).messages == 1
    assert in_indexes(path) == (0, 0)


def test_the_message_is_forgotten(store: Store, path: Path) -> None:
    take(store, "sent", "call +33699888777")
    with indexing(path):
        erasing.forget(store, NUMBER, silent)
    assert by_number(store, TO) == []
    while store.index_texts(5):
        pass
    assert by_number(store, TO) == []
    assert finds(store, "call +33699888777") == []
    assert store.history(Search(text="call"), 0, 9)[0] == 1
    assert in_indexes(path) == (1, 1)


def in_indexes(path: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(path)) as connection:
        texts, pairs = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("search", "metadata")
        )
    return texts, pairs


# --- numbers


def put(store: Store, message_id: str, at: int = NOW, **data: str) -> None:
    body = body_of("sms.sent", {"message_id": message_id, **data})
    store.ingest([parse(body, received_at=at, retention=90 * DAY)], lambda _: (), 5)


def by_number(store: Store, *numbers: str) -> list[str]:
    """The messages in the order of history; each way to them tells the same."""
    asked = Search(numbers=numbers)
    total, page = store.history(asked, 0, 999)
    found = [name for name, _ in page]
    assert total == len(found)
    assert [place[1] for place, _ in store.listed(asked, None, 999)] == found
    told = {event["message_id"] for event in store.events(Selection(numbers=numbers))}
    assert told == set(found)
    return found


def unindexed(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT id FROM messages WHERE indexed = 0 ORDER BY key")
        return [name for (name,) in found]


def test_only_what_is_new_is_told_later(store: Store, path: Path) -> None:
    put(store, "without")
    put(store, "m1", to="+331")
    assert unindexed(path) == ["m1"]
    assert not store.index_texts(5)
    put(store, "m1", to="+331")
    put(store, "m1")
    assert unindexed(path) == []
    put(store, "m1", at=NOW + SECOND, to="+332")
    assert unindexed(path) == ["m1"]
    put(store, "m1", at=NOW + SECOND)
    assert unindexed(path) == ["m1"]


def test_the_number_changes_while_it_is_told(store: Store, path: Path) -> None:
    put(store, "m1", to="+331")
    with indexing(path):
        put(store, "m1", at=NOW + SECOND, to="+332")
        put(store, "m2", to="+332")
    for _ in range(2):
        assert (by_number(store, "331"), by_number(store, "332")) == ([], ["m1", "m2"])
        assert not store.index_texts(5)


def test_a_number_is_forgotten_whether_it_was_told_or_not(store: Store) -> None:
    put(store, "m1", to=TO)
    put(store, "m2", to="+331")
    assert not store.index_texts(5)
    put(store, "m3", to=TO)
    assert by_number(store, TO) == ["m1", "m3"]
    assert by_number(store, TO, "331") == ["m1", "m2", "m3"]
    erasing.forget(store, NUMBER, silent)
    assert by_number(store, TO) == []
    assert by_number(store, TO, "331") == ["m2"]


def test_a_file_of_the_release_before_answers_the_same(path: Path) -> None:
    draw = random.Random(7)
    old = Database(str(path))
    migrations.apply(old, stop_before=STEP)
    for key in range(200):
        number, state = draw.choice(("1", "2", "3", "")), draw.choice(("sent", "failed"))
        old.execute(
            "INSERT INTO messages (id, status, at, device_id, number, first_received_at,"
            " touched_at, indexed, registers) VALUES (?, ?, ?, '', ?, 0, 0, ?, '{}')",
            (f"m{key}", state, NOW + draw.randrange(40), number, draw.random() < 0.8),
        )
    old.conn.commit()
    searches = [
        Search(numbers=numbers, status=state, since=since)
        for numbers in (("1",), ("2", "3"), ("", "1", "4"), ("4",))
        for state in (None, "failed")
        for since in (None, NOW + 20)
    ]
    before = [asked_plainly(old.conn, search) for search in searches]
    old.close()
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert store.migrate() == [STEP]
        for _ in range(2):
            for search, found in zip(searches, before, strict=True):
                total, page = store.history(search, 3, 50)
                assert (total, [name for name, _ in page]) == (len(found), found[3:53])
                listed = store.listed(search, None, 999)
                assert [place[1] for place, _ in listed] == found
            while store.index_texts(5):
                pass


def asked_plainly(connection: sqlite3.Connection, search: Search) -> list[str]:
    where, values = mirror.conditions(search)
    query = f"SELECT m.id FROM messages AS m WHERE {where} {mirror.NEWEST_FIRST}"
    return [name for (name,) in connection.execute(query, values)]


# --- how it is found


def plans(path: Path, ask: Callable[[sqlite3.Connection], object]) -> list[list[str]]:
    """How SQLite goes about each statement of a question."""
    asked: list[str] = []
    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(asked.append)
        ask(connection)
        connection.set_trace_callback(None)
        return [
            [
                # Later versions of SQLite have other words for the same.
                step.replace("COVERING ", "").replace("LAST TERM", "RIGHT PART")
                for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {query}")
            ]
            for query in asked
        ]


BY_NUMBER = "SEARCH m USING INDEX messages_by_number (number=?)"
UNINDEXED = "SCAN m USING INDEX messages_unindexed"
#: A page of one number: what its index has, in that order, merged with what it does not know yet.
PAGE = [
    *("MERGE (UNION ALL)", "LEFT", BY_NUMBER),
    "USE TEMP B-TREE FOR RIGHT PART OF ORDER BY",  # those of the same time, by their ids
    *("RIGHT", UNINDEXED, "USE TEMP B-TREE FOR ORDER BY"),
]


def test_a_page_of_a_number_comes_from_its_index_in_order(store: Store, path: Path) -> None:
    asked = Search(numbers=("331",))
    put(store, "m1", to="+331")
    known, fresh, page, _ = plans(path, lambda connection: mirror.page(connection, asked, 0, 5))
    assert (known, fresh, page) == ([BY_NUMBER], [UNINDEXED], PAGE)
    (first,) = plans(path, lambda connection: listing._found(connection, asked, None, 5))
    assert first == PAGE
    after = (NOW + SECOND, "m0")
    (later,) = plans(path, lambda connection: listing._found(connection, asked, after, 5))
    assert [step.replace(" AND at<?", "") for step in later] == PAGE
    where, values = records.conditions(Selection(numbers=("331",)))
    query = f"SELECT 1 FROM events AS e WHERE {where}"
    (events,) = plans(path, lambda connection: connection.execute(query, values))
    assert {BY_NUMBER, UNINDEXED} <= set(events)


def test_no_arrival_writes_the_index_of_numbers(store: Store, path: Path) -> None:
    """It leaves out what is unindexed, so it cannot answer for all."""
    query = "SELECT 1 FROM messages INDEXED BY messages_by_number WHERE number = '331'"
    with closing(sqlite3.connect(path)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no query solution"):
            connection.execute(query)
        connection.execute(f"{query} AND indexed = 1")


def test_upkeep_reads_what_is_unindexed_in_order(store: Store, path: Path) -> None:
    (has,) = plans(path, mirror.has_unindexed)
    assert "SCAN messages USING INDEX messages_unindexed" in has
    _, some = plans(path, mirror.unindexed_texts)
    assert "SEARCH messages USING INDEX messages_unindexed (key>?)" in some
    assert some.count("USE TEMP B-TREE FOR ORDER BY") <= 1  # of these few, for their lengths
