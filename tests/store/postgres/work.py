"""What the tests of PostgreSQL put into its store, and take out of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from receiver import times
from receiver.errors import StoreUnavailable
from receiver.event import Incoming
from receiver.providers.zimsend.webhook import parse
from receiver.store import Claim, Settlement, Want
from receiver.store.postgres import PostgresStore
from receiver.times import DAY, MINUTE, SECOND
from tests.payloads import envelope, sms

NOW = times.now()
LEASE = 30 * SECOND


def incoming(payload: dict[str, Any], received_at: int = NOW) -> Incoming:
    return parse(json.dumps(payload).encode(), received_at=received_at, retention=90 * DAY)


def sent(message_id: str, minutes_ago: int = 1, **changes: Any) -> Incoming:
    data = sms("sent", message_id, sent_at=times.iso(NOW - minutes_ago * MINUTE))
    return incoming(envelope("sms.sent", data, **changes))


def one_handler(event_type: str) -> tuple[str, ...]:
    return ("h",)


def ingest(store: PostgresStore, *items: Incoming, patience: float = 5) -> list[str]:
    return list(store.ingest(items, one_handler, patience))


def work(store: PostgresStore, *settlements: Settlement, patience: float = 5) -> list[Claim]:
    return store.work(NOW, settlements, [Want("h", 10, LEASE, 3)], patience)


@contextmanager
def compiling_refused(outside: psycopg.Connection[Any]) -> Iterator[None]:
    """Where PostgreSQL might compile what a transaction asks of it (JIT), the transaction fails."""
    outside.execute("""
        CREATE FUNCTION refuse_to_compile() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            ASSERT current_setting('jit') = 'off', 'this might be compiled';
            RETURN NULL;
        END $$
    """)
    for table in ("events", "deliveries"):
        outside.execute(
            f"CREATE TRIGGER refuse_to_compile AFTER INSERT OR UPDATE OR DELETE ON {table}"
            " EXECUTE FUNCTION refuse_to_compile()"
        )
    yield
    outside.execute("DROP FUNCTION refuse_to_compile CASCADE")


def ids(claims: list[Claim]) -> list[str]:
    return [claim.event_id for claim in claims]


def refused_within(seconds: float, call: Callable[[], Any]) -> str:
    """That a call ends in `StoreUnavailable` in time, at the third go at the latest: a machine
    that stands still is no slow store. Returns what it says."""
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            call()
        took = time.monotonic() - began
        assert took < seconds + 5
        if took < seconds:
            return str(caught.value)
    raise AssertionError(f"it took {took:.1f} s, three times in a row")
