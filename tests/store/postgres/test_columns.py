"""What a column of PostgreSQL cannot hold, and what a failure leaves behind."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from receiver import mirror, times
from receiver.errors import StoreUnavailable
from receiver.mirror import Search
from receiver.store import Claim, Selection, Settlement, Want
from receiver.store.postgres import PostgresStore
from tests.conftest import row_of
from tests.payloads import envelope, sms
from tests.store.postgres.work import LEASE, NOW, incoming, ingest, sent, work


def test_what_text_cannot_hold(store: PostgresStore) -> None:
    nasty = "a\0b\ud800c\U0001f44b"
    data = {
        **dict.fromkeys(("message_id", "to", "message", "device_id", "priority"), nasty),
        "metadata": {nasty: nasty},
        "error": {"code": nasty, "message": nasty},
        "failed_at": times.iso(NOW),
    }
    event = {"event": "sms.failed", "event_id": nasty, "data": data}
    other = {"event": f"sms.{nasty}", "event_id": "e2", "data": data}
    failed, unknown = incoming(event), incoming(other)
    assert ingest(store, failed, unknown) == ["accepted", "accepted"]
    assert store.body(failed.id) == failed.body
    assert failed.message_id
    row = row_of(store, failed.message_id)
    assert row == failed.says
    assert row is not None
    assert row["message"][2] == nasty
    ((found, _),) = store.history(Search(text=mirror.fold("\0B")), 0, 10)[1]
    assert found == failed.message_id
    (first,) = work(store)
    work(store, Settlement(first, "dead", NOW, error="x\0y".encode("utf-8", "replace").decode()))
    (listed,) = store.events(Selection(state="dead"))
    assert listed["deliveries"][0]["last_error"] == "x\ufffdy"
    for name in ("nothing\0", "nothing\ud800"):
        assert row_of(store, name) is None
        assert store.body(name) is None
        assert store.evidence(name, 1) is None
        assert list(store.events(Selection(ids=[name]))) == []
        assert list(store.events(Selection(message_id=name))) == []
        assert list(store.events(Selection(event_type=name))) == []
        assert list(store.quarantined(name)) == []
        assert store.history(Search(device_id=name, numbers=(name,), status=name), 0, 1) == (0, [])
        assert store.history(Search(text=mirror.fold(name)), 0, 1) == (0, [])


def test_the_longest_that_an_index_must_hold(store: PostgresStore) -> None:
    """Ids of 200 characters of four bytes each, all different, so that nothing is compressed."""
    chance = random.Random(1)

    def long() -> str:
        return "".join(chr(chance.randrange(0x10000, 0x10F000)) for _ in range(200))

    data = {"message_id": long(), "device_id": long(), "to": long()}
    item = incoming({"event": long(), "event_id": long(), "data": data})
    said = incoming({"event": "sms.sent", "event_id": long(), "data": data})
    assert list(store.ingest([item, said], lambda _: ("h" * 200,), 5)) == ["accepted"] * 2


@pytest.mark.parametrize("seed", [1, 2])
def test_what_failed_leaves_nothing_behind_on_a_connection(
    store: PostgresStore, outside: psycopg.Connection[Any], seed: int
) -> None:
    """The driver prepares a statement at its fifth use, and may believe that it has when all that
    is in the pipeline has failed."""
    chance = random.Random(seed)

    def use(patience: float) -> None:
        if chance.random() < 0.5:
            ingest(store, sent(f"m{chance.randrange(10**9)}"), patience=patience)
        else:
            store.work(NOW, settlements(), [Want("h", 3, LEASE, 3)], patience)

    def settlements() -> list[Settlement]:
        ended, claimed[:] = [Settlement(c, "done", NOW) for c in claimed], []
        return ended

    claimed: list[Claim] = []
    for _ in range(6):
        for _ in range(chance.randrange(7)):
            use(5)
            claimed += work(store)
        with outside.transaction():
            outside.execute("LOCK TABLE events, deliveries IN EXCLUSIVE MODE")
            for _ in range(chance.randrange(1, 4)):
                with suppress(StoreUnavailable):
                    use(0.25)
        for _ in range(8):
            use(5)


def test_texts_are_written_again_only_where_they_change(
    store: PostgresStore, outside: psycopg.Connection[Any]
) -> None:
    def written() -> list[Any]:
        """By which transactions."""
        texts = "SELECT xmin::text FROM texts UNION ALL SELECT xmin::text FROM metadata"
        return outside.execute(texts).fetchall()

    def put(state: str, **changes: Any) -> None:
        data = sms(state, "m1", sent_at=times.iso(NOW)) | changes
        ingest(store, incoming(envelope(f"sms.{state}", data)))

    put("sent", to="+33612345678")
    before = written()
    put("delivered", to="+33698765432")
    assert store.history(Search(numbers=("33698765432",)), 0, 1)[0] == 1
    assert written() == before
    put("delivered", message="other")
    assert len(set(written()) - set(before)) == 1
