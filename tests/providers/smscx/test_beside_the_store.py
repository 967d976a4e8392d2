"""What a store keeps of SMS.CX's callbacks, on both engines."""

from __future__ import annotations

import json
from typing import Any

from receiver import ids, status, times
from receiver.event import Incoming
from receiver.providers.simulating.world import Weather
from receiver.providers.smscx import reports
from receiver.providers.smscx.api import answers
from receiver.providers.smscx.simulator.world import World
from receiver.providers.smscx.webhook import parse
from receiver.providers.zimsend import webhook as zimsend
from receiver.store import Store
from tests.conftest import row_of
from tests.providers.callers import NOW, RETENTION
from tests.providers.smscx.simulator.mirror import play, rows
from tests.providers.smscx.test_webhook import ITEM

PATIENCE = 5.0


def body(*items: Any) -> bytes:
    return json.dumps({"event": "dlr_update", "data": items}).encode()


def ingest(store: Store, callback: bytes, now: int = NOW) -> list[str]:
    items = parse(callback, received_at=now, retention=RETENTION)
    return list(store.ingest(items, lambda _: (), PATIENCE))


def test_200_items_and_one_of_them_broken(store: Store) -> None:
    items: list[Any] = [ITEM | {"msgId": f"m{n}"} for n in range(199)]
    items.insert(100, "broken")
    outcomes = ingest(store, body(*items))
    assert outcomes.count("accepted") == 199
    assert outcomes[100] == "quarantined"
    (kept,) = store.quarantined()
    assert parse(kept["body"], received_at=NOW, retention=RETENTION)
    # The same items in other batches: nothing new.
    assert ingest(store, body(*items[:30])) == ["duplicate"] * 30
    assert ingest(store, body(items[150], items[7], items[7])) == ["duplicate"] * 3
    row = row_of(store, ids.key("smscx", "m7"))
    assert row is not None
    assert status.status(row) == "delivered"


def test_the_same_item_twice_in_one_batch_is_one_event(store: Store) -> None:
    assert ingest(store, body(ITEM, ITEM)) == ["accepted", "duplicate"]


def test_the_same_id_at_another_provider_is_another_message(store: Store) -> None:
    ingest(store, body(ITEM | {"msgId": "same"}))
    theirs = json.dumps({"event": "sms.failed", "data": {"message_id": "same"}}).encode()
    event = zimsend.parse(theirs, received_at=NOW, retention=RETENTION)
    assert list(store.ingest([event], lambda _: (), PATIENCE)) == ["accepted"]
    ours, other = row_of(store, ids.key("smscx", "same")), row_of(store, "same")
    assert ours is not None
    assert other is not None
    assert (status.status(ours), status.status(other)) == ("delivered", "failed")


def test_reports_bring_back_what_was_lost(store: Store) -> None:
    """A fifth of the callbacks never arrives; state and error code come back."""
    world = World(
        began=NOW, seed=3, weather=Weather(failed=0.3, drop=0.2), callback_url="http://x/"
    )
    world.campaign(60, rate=2)

    def answer(post: Any, now: int) -> str:
        ingest(store, post.event.body, now)
        return "200"

    play(world, answer)
    later = world.now + times.HOUR
    learnt: list[Incoming] = []
    for row in rows(world):
        message = answers.report({"data": row})
        key = ids.key("smscx", message.msg_id)
        known = store.reports([key]).get(key, [])
        learnt += reports.facts(message, now=later, retention=RETENTION, known=known)
    assert learnt
    assert set(store.ingest(learnt, lambda _: (), PATIENCE)) == {"accepted"}
    for sms in world.messages.values():
        row = row_of(store, ids.key("smscx", sms.id))
        assert row is not None
        shown = status.describe(row)
        assert shown["status"] == ("delivered" if sms.status == "DELIVERED" else "failed")
        code = None if sms.error_code is None else str(sms.error_code)
        assert (shown["error"] and shown["error"]["code"]) == code
