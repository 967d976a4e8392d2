"""SQLite's indexes of texts and metadata are told what was read before the lock was taken: what has
changed meanwhile is never told as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from receiver import erasing
from receiver.mirror import Search
from receiver.providers.zimsend.webhook import parse
from receiver.store import Store, open_store
from receiver.store.sqlite import mirror
from receiver.times import DAY, SECOND
from tests.payloads import body_of
from tests.store.test_forgetting import NUMBER, silent

NOW = 1_800_000_000 * SECOND


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
    while store.index_texts(5):
        pass
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
