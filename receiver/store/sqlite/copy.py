"""Whole tables of the SQLite store, as `receiver.store.copying` moves them."""

from __future__ import annotations

from collections.abc import Sequence

from receiver.store.contract import Table
from receiver.store.copying import BOOLEANS, Values
from receiver.store.sqlite.connections import Connections, placeholders


class Copy(Connections):
    """See `receiver.store.contract.Copy`."""

    def rows(self, table: Table, after: Values | None, limit: int) -> list[Values]:
        columns, key = ", ".join(table.columns), ", ".join(table.columns[: table.key])
        where = "" if after is None else f"WHERE ({key}) > ({placeholders(after)})"
        with self._reading() as connection:
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

    def put_rows(self, table: Table, batch: Sequence[Values]) -> None:
        columns, values = list(table.columns), ["?"] * len(table.columns)
        if table.name == "messages":
            columns.append("indexed")
            values.append("0")
        if table.name == "events":
            columns.append("message_key")
            mark = {column: f"?{number}" for number, column in enumerate(table.columns, 1)}
            key = f"(SELECT key FROM messages WHERE id = {mark['message_id']})"
            values = [*mark.values(), f"CASE {mark['loose']} WHEN 0 THEN {key} END"]
        changed = ", ".join(f"{column} = excluded.{column}" for column in columns[table.key :])
        with self._transaction() as connection:
            connection.executemany(
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(values)})"
                f" ON CONFLICT ({', '.join(table.columns[: table.key])}) DO UPDATE SET {changed}",
                batch,
            )

    def settle_copy(self) -> None:
        with self._transaction() as connection:
            connection.execute(
                "UPDATE marks SET value = max(value, (SELECT coalesce(max(seq), 0) FROM events))"
                " WHERE name = 'seq'"
            )
