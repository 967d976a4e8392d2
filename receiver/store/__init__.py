"""The store: `contract` says what the service asks of it, and two engines do it."""

from __future__ import annotations

import sqlite3

from receiver.calling import install
from receiver.errors import ConfigError
from receiver.store.claiming import SILENT_ATTEMPTS, tell_given_up
from receiver.store.contract import (
    Claim,
    Evidence,
    Expired,
    Listed,
    MirrorRow,
    Missed,
    Outcome,
    Place,
    Report,
    Settlement,
    Store,
    Table,
    Want,
    stored_as,
)
from receiver.store.erasing import PARTS
from receiver.store.views import (
    MOST_COUNTED,
    DeliveryState,
    Group,
    Page,
    Position,
    Selection,
    WantedState,
)

#: Search needs the tokenizer of trigrams, which came with it.
OLDEST_SQLITE = (3, 34, 0)

__all__ = [
    "MOST_COUNTED",
    "PARTS",
    "SILENT_ATTEMPTS",
    "Claim",
    "DeliveryState",
    "Evidence",
    "Expired",
    "Group",
    "Listed",
    "MirrorRow",
    "Missed",
    "Outcome",
    "Page",
    "Place",
    "Position",
    "Report",
    "Selection",
    "Settlement",
    "Store",
    "Table",
    "Want",
    "WantedState",
    "open_store",
    "stored_as",
    "tell_given_up",
]


def open_store(url: str) -> Store:
    """The engine for a `DATABASE_URL`. Nothing is connected yet.

    :raises ConfigError: if no engine takes such a URL.
    """
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        from receiver.store.sqlite import SqliteStore

        path = url.removeprefix("sqlite:///")
        if "?" in path or path == ":memory:" or path.startswith("file:"):
            raise ConfigError("DATABASE_URL", f"{path!r} is no file; SQLite takes no options here")
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise ConfigError(
                "DATABASE_URL",
                f"this Python has SQLite {sqlite3.sqlite_version}, and "
                f"{'.'.join(map(str, OLDEST_SQLITE))} or newer is needed: use a newer Python (or "
                "system), or PostgreSQL",
            )
        return SqliteStore(path)
    if url.startswith(("postgres://", "postgresql://")):
        try:
            from receiver.store.postgres import PostgresStore
        except ImportError as error:
            raise ConfigError(
                "DATABASE_URL",
                f"PostgreSQL's library is not here ({_in_one_line(error)}): run "
                f"`{install('postgres', 'requirements.txt')}`{_on_this_machine(error)}",
            ) from error

        return PostgresStore(url)
    raise ConfigError(
        "DATABASE_URL",
        "not a database that this release stores in; use sqlite:///relative/path.db, "
        "sqlite:////absolute/path.db or postgres://user:password@host/database",
    )


def _on_this_machine(error: ImportError) -> str:
    """psycopg without its binary part, as on 32-bit ARM, needs the system's library."""
    if isinstance(error, ModuleNotFoundError):
        return ""
    return " again, after `apt install libpq5` or what does this on your system"


def _in_one_line(error: ImportError) -> str:
    """Where nothing will do, psycopg tells of each of its ways on a line."""
    return str(error).partition("\n")[0].rstrip(":")
