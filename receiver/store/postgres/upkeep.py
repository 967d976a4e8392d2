"""What the PostgreSQL store needs from time to time: forgetting. The server does the rest."""

from __future__ import annotations

from receiver.store.contract import Expired
from receiver.store.group import NOT_YET, UNDATED
from receiver.store.postgres import expiry
from receiver.store.postgres.transactions import SHORT_PATIENCE, Transactions

_LATEST = """
SELECT max(coalesce(timestamp, received_at))
FROM (SELECT timestamp, received_at FROM events ORDER BY seq DESC LIMIT 200) AS latest
"""


class Upkeep(Transactions):
    """See `receiver.store.contract.Upkeep`."""

    def index_texts(self, patience: float) -> bool:
        return False  # ingest has done it

    def tidy(self) -> None:
        """The server's autovacuum does it."""

    def expire(self, before: int, patience: float) -> Expired:
        with self._transaction(patience) as connection:
            return expiry.expire_batch(connection, before, self._spread)

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

    def shrink(self, patience: float) -> bool:
        return False  # the server's autovacuum makes room for what comes next
