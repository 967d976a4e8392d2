"""A database in which the tables cannot be made is told of by the setting, with what to do."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg
import pytest

from receiver.errors import StoreUnavailable
from receiver.store import open_store


def foreign(url: str, engine: str) -> None:
    """Another program's table has one of our names."""
    if engine == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            db.execute("CREATE TABLE events (something)")
    else:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE events (something integer)")


@pytest.mark.each_engine
def test_another_programs_database_is_left_as_it_is(empty_database_url: str, engine: str) -> None:
    foreign(empty_database_url, engine)
    store = open_store(empty_database_url)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"^DATABASE_URL: .*events.*another program's"):
            store.migrate()
    store.close()


@pytest.mark.parametrize("engine", ["postgres"], scope="module")
@pytest.mark.parametrize(
    ("schema", "says"), [("nowhere", "create the schema"), ("pg_catalog", "GRANT CREATE")]
)
def test_a_schema_in_which_no_table_can_be_made_is_told(
    empty_database_url: str, schema: str, says: str
) -> None:
    store = open_store(f"{empty_database_url}?options=-csearch_path%3D{schema}")
    with pytest.raises(StoreUnavailable, match=f"^DATABASE_URL: .*{says}"):
        store.migrate()
    store.close()
