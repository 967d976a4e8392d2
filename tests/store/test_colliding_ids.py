"""The id of one event on another: both are kept, and each is known again by its own id."""

from __future__ import annotations

import hashlib
import importlib
import threading
from typing import Any

import pytest

from receiver import status, times
from receiver.event import Incoming
from receiver.providers.zimsend.webhook import parse
from receiver.store import Selection, Settlement, Store, Want, open_store, stored_as
from receiver.times import DAY, SECOND
from tests.conftest import row_of
from tests.payloads import body_of

NOW = times.now()


def event(kind: str, message_id: str | None, event_id: str = "unknown", **more: Any) -> Incoming:
    data = {} if message_id is None else {"message_id": message_id}
    body = body_of(kind, data, **({"event_id": event_id} | more))
    return parse(body, received_at=NOW, retention=90 * DAY)


def ingest(store: Store, *items: Incoming) -> list[tuple[str, str]]:
    outcomes = store.ingest(items, lambda _: ("h",), 5)
    ends = [stored_as(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]
    return [(outcome, item.id) for item, outcome in ends]


def own(item: Incoming) -> str:
    return "sha256:" + hashlib.sha256(item.body).hexdigest()


FIRST = event("sms.sent", "m1")
OTHERS = {
    "another message": event("sms.sent", "m2"),
    "another type": event("sms.delivered", "m1"),
    "no message": event("sms.sent", None),
    "a type that leaves the mirror alone": event("otp.sent", "m1"),
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_both_are_kept_and_known_again(store: Store, other: Incoming, together: bool) -> None:
    groups = [(FIRST, other)] if together else [(FIRST,), (other,)]
    answers = [answer for group in groups for answer in ingest(store, *group)]
    assert answers == [("accepted", "unknown"), ("accepted", own(other))]
    # Once more, in any order and in one group or several.
    again = [("duplicate", own(other)), ("duplicate", "unknown")]
    assert ingest(store, other, FIRST) == again
    assert ingest(store, other) + ingest(store, FIRST) == again
    stored = {e["event_id"]: e for e in store.events(Selection())}
    assert {name: e["receipts"] for name, e in stored.items()} == {"unknown": 3, own(other): 3}
    assert all(len(e["deliveries"]) == 1 for e in stored.values())
    assert store.body(own(other)) == other.body


@pytest.mark.parametrize("kind", ["sms.sent", "sent"])
def test_the_same_type_and_message_are_the_same_event(store: Store, kind: str) -> None:
    ingest(store, FIRST)
    changed = event(kind, "m1", timestamp=times.iso(NOW))
    assert ingest(store, changed) == [("duplicate", "unknown")]
    nothing = event("device.connected", None, "none")
    assert ingest(store, nothing, nothing) == [("accepted", "none"), ("duplicate", "none")]


def test_many_with_one_id_make_the_mirror_that_their_own_ids_would(store: Store) -> None:
    kinds = ("sms.queued", "sms.sent", "sms.failed", "sms.delivered")
    items = [event(kind, f"m{number}") for number in range(10) for kind in kinds]
    answers = ingest(store, *items)
    assert [answer for answer, _ in answers] == ["accepted"] * len(items)
    assert len({event_id for _, event_id in answers}) == len(items)
    row = row_of(store, "m7")
    assert row is not None
    assert status.status(row) == "delivered"
    # A register remembers who wrote it, by the id under which that is stored.
    assert {register[1] for register in row.values()} <= {own(item) for item in items}


def test_an_id_that_is_the_digest_already_is_not_set_apart_twice(store: Store) -> None:
    other = OTHERS["another type"]
    planted = event("sms.failed", "m9", own(other))
    assert ingest(store, FIRST, planted) == [("accepted", "unknown"), ("accepted", own(other))]
    assert ingest(store, other) == [("duplicate", own(other))]


def test_what_may_be_forgotten_takes_no_id(store: Store) -> None:
    ingest(store, event("sms.sent", "m0", "old", timestamp=times.iso(NOW - 80 * DAY)))
    store.work(NOW, [], [], 5)
    claims = store.work(NOW, [], [Want("h", 10, 60 * SECOND, max_attempts=3)], 5)
    store.work(NOW, [Settlement(claim, "done", NOW) for claim in claims], [], 5)
    assert store.expire(NOW + DAY, 5).events == 1
    older = event("sms.sent", "m1", timestamp=times.iso(NOW - 81 * DAY))
    other = event("sms.delivered", "m1")
    assert ingest(store, older, other) == [("quarantined", "unknown"), ("accepted", "unknown")]


@pytest.mark.parametrize("meanwhile", [1, 0, None])
def test_what_another_process_stores_while_ids_are_looked_up_is_known(
    store: Store,
    engine: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    meanwhile: int | None,
) -> None:
    """Of two in one group the first has the id; and then, from elsewhere, the second or a third."""
    pair = event("sms.sent", "m1"), event("sms.sent", "m2")
    theirs = event("sms.sent", "m3") if meanwhile is None else pair[meanwhile]
    module = f"receiver.store.{engine}.group"
    # What begins each look; a transaction on PostgreSQL, which must not hold up the other process.
    name = "_known" if engine == "sqlite" else "_ids_of"
    looked = getattr(importlib.import_module(module), name)
    looks = []
    second = open_store(database_url)

    def look(*arguments: Any) -> Any:
        looks.append(arguments)
        if len(looks) == 2:
            assert ingest(second, theirs) == [("accepted", "unknown")]
        return looked(*arguments)

    monkeypatch.setattr(f"{module}.{name}", look)
    answers = ingest(store, *pair)
    monkeypatch.undo()
    second.close()
    assert answers == [
        ("duplicate", "unknown") if place == meanwhile else ("accepted", own(one))
        for place, one in enumerate(pair)
    ]
    stored = {e["event_id"]: e["receipts"] for e in store.events(Selection())}
    assert len(stored) == len({theirs.body, *(one.body for one in pair)})
    assert sum(stored.values()) == 3


def test_at_the_same_moment_on_two_processes(store: Store, database_url: str) -> None:
    """Each with a store of its own; whoever comes second is set apart, and nobody twice."""
    second = open_store(database_url)
    rounds = 15
    pairs = [
        (event("sms.sent", f"m{number}", f"e{number}"), event("otp.sent", "x", f"e{number}"))
        for number in range(rounds)
    ]
    start = threading.Barrier(2)
    answers: list[list[tuple[str, str]]] = [[], []]

    def send(place: int, through: Store) -> None:
        for one, other in pairs:
            start.wait(10)
            for item in (one, other) if place else (other, one):
                answers[place] += ingest(through, item)

    thread = threading.Thread(target=send, args=(1, second))
    thread.start()
    try:
        send(0, store)
    finally:
        thread.join()
        second.close()
    stored = {e["event_id"]: e["receipts"] for e in store.events(Selection())}
    told = [event_id for told in answers for _, event_id in told]
    accepted = [event_id for told in answers for answer, event_id in told if answer == "accepted"]
    assert sorted(accepted) == sorted(stored)
    # Where both of a pair meet, the second's digest depends on which one that was.
    assert {event_id: told.count(event_id) for event_id in stored} == stored
    assert len(stored) == 2 * rounds
    assert {f"e{number}" for number in range(rounds)} <= stored.keys()
