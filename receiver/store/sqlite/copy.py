"""Whole tables of the SQLite store, as `receiver.store.copying` moves them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from receiver.store.contract import Table
from receiver.store.copying import BOOLEANS, Row


def rows(connection: sqlite3.Connection, table: Table, after: Row | None, limit: int) -> list[Row]:
    """See `receiver.store.Store.rows`."""
    columns, key = ", ".join(table.columns), ", ".join(table.columns[: table.key])
    where = "" if after is None else f"WHERE ({key}) > ({_marks(after)})"
    found = connection.execute(
        f"SELECT {columns} FROM {table.name} {where} ORDER BY {key} LIMIT ?",
        (*(after or ()), limit),
    ).fetchall()
    flags = [number for number, column in enumerate(table.columns) if column in BOOLEANS]
    if not flags:
        return found
    return [
        tuple(bool(value) if number in flags else value for number, value in enumerate(row))
        for row in found
    ]


def put_rows(connection: sqlite3.Connection, table: Table, batch: Sequence[Row]) -> None:
    """See `receiver.store.Store.put_rows`. Needs the write lock."""
    columns, values = list(table.columns), ["?"] * len(table.columns)
    if table.name == "messages":
        columns.append("indexed")
        values.append("0")
    if table.name == "events":
        columns.append("message_key")
        mark = {column: f"?{number}" for number, column in enumerate(table.columns, 1)}
        values = [*mark.values(), f"CASE {mark['loose']} WHEN 0 THEN (SELECT key FROM messages"
                  f" WHERE id = {mark['message_id']}) END"]  # fmt: skip
    changed = ", ".join(f"{column} = excluded.{column}" for column in columns[table.key :])
    connection.executemany(
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(values)})"
        f" ON CONFLICT ({', '.join(table.columns[: table.key])}) DO UPDATE SET {changed}",
        batch,
    )


def settle(connection: sqlite3.Connection) -> None:
    """See `receiver.store.Store.settle_copy`. Needs the write lock."""
    connection.execute(
        "UPDATE marks SET value = max(value, (SELECT coalesce(max(seq), 0) FROM events))"
        " WHERE name = 'seq'"
    )


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
