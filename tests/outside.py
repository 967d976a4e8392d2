"""A database as somebody else sees it who knows its tables: the same SQL for each engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg


class Outside:
    """A connection beside the store's. Values are marked by `?`."""

    def __init__(self, url: str) -> None:
        self.is_sqlite = url.startswith("sqlite:///")
        self._connection: Any = (
            sqlite3.connect(
                url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
            )
            if self.is_sqlite
            else psycopg.connect(url, autocommit=True)
        )

    def execute(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows, if there are any."""
        if not self.is_sqlite:
            query = query.replace("?", "%s")
        cursor = self._connection.execute(query, values)
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def moment(self) -> Iterator[None]:
        """All that is read here is of one moment."""
        self.execute("BEGIN" if self.is_sqlite else "BEGIN ISOLATION LEVEL REPEATABLE READ")
        yield
        self.execute("COMMIT")

    @contextmanager
    def no_writes(self) -> Iterator[None]:
        """Meanwhile nobody else can write."""
        self.execute("BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN")
        if not self.is_sqlite:
            self.execute("LOCK TABLE events, deliveries IN EXCLUSIVE MODE")
        yield
        self.execute("ROLLBACK")

    def version(self) -> object:
        """Something else whenever others have committed."""
        query = "PRAGMA data_version" if self.is_sqlite else "SELECT pg_current_wal_insert_lsn()"
        return self.execute(query)[0][0]

    def close(self) -> None:
        self._connection.close()
