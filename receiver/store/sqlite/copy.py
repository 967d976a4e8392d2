"""Whole tables of the SQLite store, as `receiver.store.copying` moves them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from receiver.errors import CopyRefused, StoreUnavailable
from receiver.store.contract import Table
from receiver.store.copying import BOOLEANS, Values
from receiver.store.sqlite import queues
from receiver.store.sqlite.connections import Connections, as_unavailable, placeholders

#: Copied at a time, between two words on how far it has come.
_PAGES = 1_000


class Copy(Connections):
    """See `receiver.store.contract.Copy`."""

    @contextmanager
    def moment(self) -> Iterator[None]:
        with self._reading():
            yield

    def copy_file(self, path: str, progress: Callable[[float], None]) -> bool:
        def told(_status: int, left: int, pages: int) -> None:
            progress(1 - left / max(pages, 1))

        target = sqlite3.connect(path, isolation_level=None)
        try:
            # Within a transaction of ours, what others write meanwhile does not begin it anew.
            with self._reading() as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                connection.backup(target, pages=_PAGES, progress=told)
            if target.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise CopyRefused(f"{self.path} is damaged: its copy is no sound database")
        finally:
            target.close()
        return True

    def others(self) -> bool:
        self.close()
        try:
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"DATABASE_URL: {self.path}: {error}") from error
        try:
            # Who leaves the log must be alone. The log is written into the file, and removed: none
            # may lie beside another file.
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.DatabaseError as error:
            # What is damaged, or no database, nobody has open as one.
            return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        finally:
            connection.close()
        return False

    def rows(self, table: Table, after: Values | None, limit: int) -> list[Values]:
        columns, key = ", ".join(table.columns), ", ".join(table.columns[: table.key])
        where = "" if after is None else f"WHERE ({key}) > ({placeholders(after)})"
        with as_unavailable():
            found = self._reader.execute(
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
        update = f"UPDATE SET {changed}" if changed else "NOTHING"
        with self._transaction() as connection:
            connection.executemany(
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(values)})"
                f" ON CONFLICT ({', '.join(table.columns[: table.key])}) DO {update}",
                batch,
            )

    def settle_copy(self) -> None:
        with self._transaction() as connection:
            queues.number_anew(connection)
            connection.execute(
                "UPDATE marks SET value = max(value, (SELECT coalesce(max(seq), 0) FROM events))"
                " WHERE name = 'seq'"
            )
            # Whoever has written them has counted them.
            connection.execute(
                "UPDATE marks SET value = (SELECT coalesce(max(seq), 0) FROM events)"
                " WHERE name = 'counted'"
            )
