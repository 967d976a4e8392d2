"""What the SQLite store needs from time to time: indexing, forgetting, and a smaller file."""

from __future__ import annotations

import os
from contextlib import suppress

from receiver.store.contract import Expired
from receiver.store.group import NOT_YET, UNDATED
from receiver.store.sqlite import expiry, mirror
from receiver.store.sqlite.connections import SHORT_PATIENCE, Connections, as_unavailable

#: Pages given back to the disk in one go, and those that are kept for what comes next. Few: where
#: very many are free, SQLite takes half a millisecond to find the place for each.
_FREED_AT_ONCE = 16
_FREE_PAGES_KEPT = 256

#: Bytes of the write-ahead log from which on one is told of it.
LONG_LOG = 256 * 1024 * 1024

_NEWEST_QUARANTINED = "SELECT max(last_received_at) FROM quarantine"
# Of the first provider alone, which is answered 400 for all that is in it. Others' requests hold
# several items, and are answered 200 although one of them is here: that is kept as promised.
_QUARANTINED_BYTES = """
SELECT coalesce(sum(coalesce(length(body), 0) + 512), 0) FROM quarantine
WHERE instr(digest, char(31)) = 0
"""
# The oldest, until so many bytes are free; few in one transaction.
_DELETE_OLDEST = """
DELETE FROM quarantine WHERE digest IN (
    SELECT digest FROM (
        SELECT digest, sum(size) OVER (ORDER BY last_received_at, digest) - size AS before
        FROM (SELECT digest, last_received_at, coalesce(length(body), 0) + 512 AS size
              FROM quarantine WHERE instr(digest, char(31)) = 0
              ORDER BY last_received_at, digest LIMIT 256))
    WHERE before < ?)
"""

_LATEST = """
SELECT max(coalesce(timestamp, received_at))
FROM (SELECT timestamp, received_at FROM events ORDER BY seq DESC LIMIT 200)
"""


class Upkeep(Connections):
    """See `receiver.store.contract.Upkeep`."""

    #: The last receipt in quarantine when its size was within its bound.
    _bounded_at: int | None = None

    def index_texts(self, patience: float) -> bool:
        with self._reading() as connection:
            if not mirror.has_unindexed(connection):
                return False
            texts = mirror.unindexed_texts(connection)
        with self._transaction(patience) as connection:
            return mirror.index_texts(connection, texts)

    def tidy(self) -> None:
        # From the log into the file. Each page that is copied here, beside the writers, is none
        # that a commit must copy while a request waits for it.
        with as_unavailable():
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def expire(self, before: int, patience: float) -> Expired:
        with self._transaction(patience) as connection:
            return expiry.expire_batch(connection, before)

    def expirable(self, before: int) -> Expired:
        with self._reading() as connection:
            return expiry.expirable(connection, before)

    def latest(self) -> int | None:
        with self._reading() as connection:
            found: tuple[int | None] = connection.execute(_LATEST).fetchone()
        return found[0]

    def date_undated(self, now: int) -> None:
        with self._transaction(SHORT_PATIENCE) as connection:
            connection.execute(
                "UPDATE marks SET value = ? WHERE value = ? AND substr(name, 1, ?) = ?",
                (now, NOT_YET, len(UNDATED), UNDATED),
            )

    def bound_quarantine(self, most: int, patience: float) -> int:
        with self._reading() as connection:
            newest = connection.execute(_NEWEST_QUARANTINED).fetchone()[0]
            if newest == self._bounded_at:
                return 0
            (size,) = connection.execute(_QUARANTINED_BYTES).fetchone()
            if size <= most:
                self._bounded_at = newest
                return 0
        with self._transaction(patience) as connection:
            return connection.execute(_DELETE_OLDEST, (size - most,)).rowcount

    def room(self) -> float | None:
        try:
            disk = os.statvfs(os.path.dirname(os.path.abspath(self.path)))
        except OSError:
            return None
        return disk.f_bavail / disk.f_blocks if disk.f_blocks else None

    def warning(self) -> str | None:
        with suppress(OSError):
            size = os.stat(self._log).st_size
            if size > LONG_LOG:
                return (
                    f"SQLite's -wal has {size >> 20} MB, for somebody reads for long in one "
                    "transaction, which keeps it from being emptied: end that program"
                )
        return None

    def shrink(self, patience: float) -> bool:
        free = self._free_pages()
        if free <= _FREE_PAGES_KEPT:
            return False
        with self._transaction(patience):
            pass  # waits for its turn, and connects
        with self._writing, as_unavailable():
            if self._writer is not None:
                # `execute` frees one page; a script frees them all, in a transaction of its own.
                self._writer.conn.executescript(f"PRAGMA incremental_vacuum({_FREED_AT_ONCE})")
        # A file that was not made by us may be of a kind that gives nothing back.
        return _FREE_PAGES_KEPT < self._free_pages() < free

    def _free_pages(self) -> int:
        with as_unavailable():
            count: int = self._reader.execute("PRAGMA freelist_count").fetchone()[0]
        return count
