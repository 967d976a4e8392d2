"""Events are counted by their numbers, which are not taken in the order of the commits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from receiver.metrics import ACCEPTED
from receiver.providers import TYPES
from receiver.store.postgres import PostgresStore
from tests.server import eventually
from tests.store.postgres.work import ingest, sent

SENT = (ACCEPTED, "zimsend", "sms.sent")


def test_an_event_that_is_committed_after_a_later_one_is_counted(
    store: PostgresStore, other: PostgresStore, outside: psycopg.Connection[Any], postgres_url: str
) -> None:
    """Who counts waits for those who have taken a number."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with psycopg.connect(postgres_url) as holding, ThreadPoolExecutor(1) as threads:
        holding.execute("LOCK TABLE cells IN EXCLUSIVE MODE")  # written last
        early = threads.submit(ingest, other, sent("m1"))
        eventually(lambda: outside.execute(waiting).fetchone() == (1,))
        # Another commits meanwhile, with a greater number.
        outside.execute(
            "INSERT INTO events SELECT nextval('event_seqs'), 'later', 'sms.sent', null, 0, 0, 0,"
            " null, null, false, 'webhook', false, false, false, true, 1, ''"
        )
        assert not store.count_arrivals(TYPES, 0)
        assert SENT not in store.counters()
        holding.rollback()
        assert early.result() == ["accepted"]
    while store.count_arrivals(TYPES, 5):
        pass
    assert store.counters()[SENT] == 2
