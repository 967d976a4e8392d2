"""A receiver that does not wait for the disk, for tests: what the durability test must notice."""

from typing import Any

from receiver.store.sqlite import SqliteStore
from receiver.store.sqlite.connections import Opened

_connect = SqliteStore._connect


def _careless(self: SqliteStore, *arguments: Any, **options: Any) -> Opened:
    db = _connect(self, *arguments, **options)
    db.execute("PRAGMA synchronous = NORMAL")
    return db


SqliteStore._connect = _careless  # type: ignore[method-assign]

from wsgi import app  # noqa: E402

__all__ = ["app"]
