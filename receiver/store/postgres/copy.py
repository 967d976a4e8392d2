"""Whole tables of the PostgreSQL store, as `receiver.store.copying` moves them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from receiver import mirror
from receiver.store.contract import Table
from receiver.store.copying import Values
from receiver.store.postgres.codes import pairs_of
from receiver.store.postgres.pool import LONGEST_READ, Connection
from receiver.store.postgres.transactions import Transactions, as_unavailable

_TEXT_KEYS = {"id", "handler", "provider", "device_id", "status", "code", "digest", "name"}
#: Where the rows of a table stand, if not in one of its name; a cell is the sum of its own.
_READ_FROM = {"statistics": "counted"}
_WRITTEN_TO = {"statistics": "cells"}
_EXPRESSIONS = {
    ("statistics", "total"): "sum(total)::bigint",
    ("statistics", "live"): "sum(live)::bigint",
    # Nothing where only an older release has written it, and then it counts without one.
    ("messages", "code"): "CASE WHEN status = 'failed' THEN coalesce(code, '') ELSE '' END",
}


class Copy(Transactions):
    """See `receiver.store.contract.Copy`."""

    #: The connection of this thread's `moment`.
    _moments = threading.local()

    @contextmanager
    def moment(self) -> Iterator[None]:
        with self._reading() as connection:
            self._moments.connection = connection
            try:
                yield
            finally:
                del self._moments.connection

    @contextmanager
    def _at_the_moment(self) -> Iterator[Connection]:
        connection: Connection | None = getattr(self._moments, "connection", None)
        if connection is None:
            with self._reader() as connection:
                yield connection
        else:
            with as_unavailable():
                connection.deadline = time.monotonic() + LONGEST_READ
                yield connection

    def copy_file(self, path: str, progress: Callable[[float], None]) -> bool:
        return False

    def others(self) -> bool:
        found: tuple[int] = self._row(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = %s AND pid <> pg_backend_pid()",
            (self._pool.settings["application_name"],),
        )
        return found[0] > 0

    def rows(self, table: Table, after: Values | None, limit: int) -> list[Values]:
        columns = ", ".join(_EXPRESSIONS.get((table.name, name), name) for name in table.columns)
        # By code point, as every engine can.
        key = ", ".join(
            f'{column} COLLATE "C"' if column in _TEXT_KEYS else column
            for column in table.columns[: table.key]
        )
        where = "" if after is None else f"WHERE ({key}) > ({', '.join(['%s'] * table.key)})"
        group = (
            f"GROUP BY {', '.join(table.columns[: table.key])}"
            if table.name == "statistics"
            else ""
        )
        source = _READ_FROM.get(table.name, table.name)
        with self._at_the_moment() as connection:
            return connection.execute(
                f"SELECT {columns} FROM {source} {where} {group} ORDER BY {key} LIMIT %s",
                (*(after or ()), limit),
            ).fetchall()

    def put_rows(self, table: Table, batch: Sequence[Values]) -> None:
        columns, key = list(table.columns), list(table.columns[: table.key])
        if table.name == "statistics":
            batch = [(*row, 0) for row in batch]
            columns.append("spread")
            key.append("spread")
        changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
        update = f"UPDATE SET {changed}" if changed else "NOTHING"
        with self._transaction(LONGEST_READ) as connection, connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {_WRITTEN_TO.get(table.name, table.name)} ({', '.join(columns)})"
                f" VALUES ({', '.join(['%s'] * len(columns))})"
                f" ON CONFLICT ({', '.join(key)}) DO {update}",
                batch,
            )
            if table.name == "messages":
                registers = [(row[0], json.loads(row[-1])) for row in batch]
                texts = ((message_id, row.get("message")) for message_id, row in registers)
                cursor.executemany(
                    "INSERT INTO texts (message_id, folded) VALUES (%s, %s)"
                    " ON CONFLICT (message_id) DO UPDATE SET folded = excluded.folded",
                    [(message_id, mirror.fold(text[2])) for message_id, text in texts if text],
                )
                cursor.executemany(
                    "INSERT INTO metadata (message_id, pairs) VALUES (%s, %s)"
                    " ON CONFLICT (message_id) DO UPDATE SET pairs = excluded.pairs",
                    [
                        (message_id, pairs)
                        for message_id, row in registers
                        if (pairs := pairs_of(row))
                    ],
                )

    def settle_copy(self) -> None:
        with self._transaction() as connection:
            connection.execute(
                "SELECT setval('event_seqs', max(seq)) FROM events HAVING count(*) > 0"
            )
            # Whoever has written them has counted them.
            connection.execute(
                "UPDATE marks SET value = (SELECT coalesce(max(seq), 0) FROM events)"
                " WHERE name = 'counted'"
            )
