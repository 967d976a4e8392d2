"""A receiver that does not wait for the disk, for tests: what the durability test must notice."""

from typing import Any

from sqlite_utils import Database

from receiver.store.sqlite import SqliteStore

_connect = SqliteStore._connect


def _careless(self: SqliteStore, *arguments: Any) -> Database:
    db = _connect(self, *arguments)
    db.execute("PRAGMA synchronous = NORMAL")
    return db


SqliteStore._connect = _careless  # type: ignore[method-assign]

from wsgi import app  # noqa: E402

__all__ = ["app"]
