"""What the PostgreSQL store needs from time to time: forgetting. The server does the rest."""

from __future__ import annotations

from receiver.store.contract import Expired
from receiver.store.postgres import expiry
from receiver.store.postgres.transactions import Transactions


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

    def shrink(self, patience: float) -> bool:
        return False  # the server's autovacuum makes room for what comes next
