"""What the PostgreSQL store needs from time to time: forgetting, and a look at what only an older
release has written. The server does the rest."""

from __future__ import annotations

from receiver.store.contract import Expired
from receiver.store.group import NOT_YET, UNDATED
from receiver.store.postgres import codes, expiry
from receiver.store.postgres.transactions import SHORT_PATIENCE, Transactions

_NEWEST_QUARANTINED = "SELECT max(last_received_at) FROM quarantine"
# Of the first provider alone, which is answered 400 for all that is in it. Others' requests hold
# several items, and are answered 200 although one of them is here: that is kept as promised.
_QUARANTINED_BYTES = """
SELECT coalesce(sum(coalesce(octet_length(body), 0) + 512), 0)::bigint FROM quarantine
WHERE strpos(digest, chr(31)) = 0
"""
# The oldest, until so many bytes are free; few in one transaction.
_DELETE_OLDEST = """
DELETE FROM quarantine WHERE digest IN (
    SELECT digest FROM (
        SELECT digest, sum(size) OVER (ORDER BY last_received_at, digest) - size AS before
        FROM (SELECT digest, last_received_at, coalesce(octet_length(body), 0) + 512 AS size
              FROM quarantine WHERE strpos(digest, chr(31)) = 0
              ORDER BY last_received_at, digest LIMIT 256) AS oldest) AS summed
    WHERE before < %s)
"""

_LATEST = """
SELECT max(coalesce(timestamp, received_at))
FROM (SELECT timestamp, received_at FROM events ORDER BY seq DESC LIMIT 200) AS latest
"""

#: Messages in one transaction: webhooks about them wait for it.
_SEEN_AT_ONCE = 200


class Upkeep(Transactions):
    """See `receiver.store.contract.Upkeep`."""

    #: The last receipt in quarantine when its size was within its bound.
    _bounded_at: int | None = None

    def index_texts(self, patience: float) -> bool:
        """Ingest indexes what it writes. What is left is what an older release has written."""
        with self._reader() as connection:
            ids = codes.unseen(connection, _SEEN_AT_ONCE)
        if ids:
            with self._transaction(patience, ids=ids) as connection:
                codes.see(connection, ids, self._spread, self._codes)
        return bool(ids)

    def tidy(self) -> None:
        """The server's autovacuum does it."""

    def expire(self, before: int, patience: float) -> Expired:
        with self._transaction(patience) as connection:
            return expiry.expire_batch(connection, before, self._spread, self._codes)

    def expirable(self, before: int) -> Expired:
        with self._reading() as connection:
            return expiry.expirable(connection, before)

    def latest(self) -> int | None:
        found: tuple[int | None] = self._read(_LATEST, ())
        return found[0]

    def date_undated(self, now: int) -> None:
        with self._transaction(SHORT_PATIENCE) as connection:
            connection.execute(
                "UPDATE marks SET value = %s WHERE value = %s AND starts_with(name, %s)",
                (now, NOT_YET, UNDATED),
            )

    def bound_quarantine(self, most: int, patience: float) -> int:
        (newest,) = self._read(_NEWEST_QUARANTINED, ())
        if newest == self._bounded_at:
            return 0
        (size,) = self._read(_QUARANTINED_BYTES, ())
        if size <= most:
            self._bounded_at = newest
            return 0
        with self._transaction(patience) as connection:
            return connection.execute(_DELETE_OLDEST, (size - most,)).rowcount

    def room(self) -> float | None:
        """The server's operator looks after its disk."""
        return None

    def warning(self) -> str | None:
        return None

    def shrink(self, patience: float) -> bool:
        return False  # the server's autovacuum makes room for what comes next
