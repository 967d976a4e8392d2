"""The store's contract: the same tests for each engine. Time is an argument everywhere."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest

from receiver import event, status, times
from receiver.event import Incoming, Rejected
from receiver.providers.zimsend.webhook import parse
from receiver.store import (
    SILENT_ATTEMPTS,
    Claim,
    Selection,
    Settlement,
    Store,
    Want,
)
from receiver.times import DAY, HOUR, MINUTE, SECOND
from tests.conftest import row_of
from tests.payloads import envelope, sms

NOW = times.now()
PATIENCE = 5.0
LEASE = 30 * SECOND


def incoming(payload: dict[str, Any], received_at: int = NOW) -> Incoming:
    return parse(json.dumps(payload).encode(), received_at=received_at, retention=90 * DAY)


def sent(message_id: str = "m1", received_at: int = NOW, **changes: Any) -> Incoming:
    return incoming(envelope("sms.sent", sms("sent", message_id)) | changes, received_at)


def one_handler(event_type: str) -> tuple[str, ...]:
    return ("h",)


def ingest(store: Store, *items: Incoming | Rejected, wanting: Any = one_handler) -> list[str]:
    return list(store.ingest(items, wanting, PATIENCE))


def claim(store: Store, now: int = NOW, limit: int = 10, handler: str = "h") -> list[Claim]:
    return store.work(now, [], [Want(handler, limit, LEASE, max_attempts=3)], PATIENCE)


def settle(store: Store, claim: Claim, state: Any, due_at: int = NOW, **more: Any) -> None:
    store.work(NOW, [Settlement(claim, state, due_at, **more)], [], PATIENCE)


def deliveries(store: Store, event_id: str) -> list[dict[str, Any]]:
    (found,) = store.events(Selection(ids=[event_id]))
    listed: list[dict[str, Any]] = found["deliveries"]
    return listed


# --- ingest


def test_one_id_is_one_event_also_within_a_group(store: Store) -> None:
    first = sent(event_id="e1")
    assert ingest(store, first, first, sent(event_id="e2")) == [
        "accepted",
        "duplicate",
        "accepted",
    ]
    assert ingest(store, first) == ["duplicate"]
    listed = {e["event_id"]: e["receipts"] for e in store.events(Selection())}
    assert listed == {"e1": 3, "e2": 1}
    assert len(claim(store)) == 1  # e2 is a repeat of e1: kept, not dispatched


def test_a_group_is_stored_whole_or_not_at_all(store: Store) -> None:
    def broken(event_type: str) -> tuple[str, ...]:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError):
        ingest(store, sent("m1"), sent("m2"), wanting=broken)
    assert list(store.events(Selection())) == []
    assert row_of(store, "m1") is None
    assert ingest(store, sent("m1")) == ["accepted"]


def test_what_the_database_refuses_is_told_without_its_values(store: Store) -> None:
    """The traceback goes into the log."""
    refused = sent("msg_refused")._replace(has_error=None)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="has_error") as caught:
        ingest(store, refused)
    told = "".join(traceback.format_exception(caught.value))
    data = json.loads(refused.body)["data"]
    for kept in ("msg_refused", data["to"], data["message"], refused.body[:8].hex()):
        assert kept not in told


def test_quarantine_keeps_each_body_once(store: Store) -> None:
    item = event.reject(b"nonsense", "not JSON", received_at=NOW)
    assert ingest(store, item, item) == ["quarantined", "quarantined"]
    (entry,) = store.quarantined()
    assert (entry["receipts"], entry["body"], entry["reason"]) == (2, b"nonsense", "not JSON")
    assert [e["digest"] for e in store.quarantined(item.digest[:8])] == [item.digest]
    assert list(store.quarantined("none")) == []
    store.release(item.digest)
    assert list(store.quarantined()) == []


def test_the_mirror_is_the_join_whatever_the_groups(store: Store) -> None:
    events = [
        incoming(envelope(f"sms.{s}", sms(s, "m1"), timestamp=times.iso(NOW - i * 10 * SECOND)))
        for i, s in enumerate(("delivered", "sent", "failed", "sent", "queued"))
    ]
    ingest(store, *events[:2])
    for item in events[2:]:
        ingest(store, item)
    expected: status.Row = {}
    for item in reversed(events):
        assert item.says is not None
        expected = status.merge(expected, item.says)
    assert row_of(store, "m1") == expected
    assert status.status(expected) == "delivered"


def test_late_is_fixed_when_the_event_is_stored(store: Store) -> None:
    delivered = incoming(envelope("sms.delivered", sms("delivered", "m1"), event_id="d"))
    late = incoming(envelope("sms.sent", sms("sent", "m1"), event_id="s"))
    no_message = incoming(envelope("device.connected", {}, event_id="c"))
    ingest(store, delivered)
    ingest(store, late, no_message)
    flags = {e["event_id"]: e["late"] for e in store.events(Selection())}
    assert flags == {"d": False, "s": True, "c": False}
    assert {c.event_id: bool(c.late) for c in claim(store)} == {"s": True, "c": False}


@pytest.mark.parametrize(
    ("apart", "repeated"), [(0, True), (1.999, True), (-1.999, True), (2, False), (-2, False)]
)
def test_a_report_under_a_second_id_is_kept_and_not_dispatched(
    store: Store, apart: float, repeated: bool
) -> None:
    times_of_it = (NOW - MINUTE, NOW - MINUTE + int(apart * SECOND))
    for number, at in enumerate(times_of_it):
        data = sms("sent", "m1", sent_at=times.iso(at))
        assert ingest(store, incoming(envelope("sms.sent", data, event_id=f"e{number}"))) == [
            "accepted"
        ]
    listed = [(e["repeat"], len(e["deliveries"])) for e in store.events(Selection())]
    assert listed == [(False, 1), (repeated, 0 if repeated else 1)]


def test_repeats_need_the_same_type_and_message_and_a_time(store: Store) -> None:
    at = times.iso(NOW - MINUTE)
    untimed = {"message_id": "m1"}
    ingest(
        store,
        incoming(envelope("sms.sent", sms("sent", "m1", sent_at=at))),
        incoming(envelope("sms.sent", sms("sent", "m2", sent_at=at))),
        incoming(envelope("sms.delivered", sms("delivered", "m1", delivered_at=at))),
        incoming(envelope("sms.queued", untimed, timestamp=None)),
        incoming(envelope("sms.queued", untimed, timestamp=None)),
        # The envelope's time stands in for the missing own time; other types count as well.
        incoming(envelope("otp.sent", untimed, timestamp=at)),
        incoming(envelope("otp.sent", untimed, timestamp=at)),
    )
    flags = [(e["type"], e["repeat"]) for e in store.events(Selection())]
    assert [kind for kind, repeated in flags if repeated] == ["otp.sent"]


def test_the_first_repeat_that_says_why_is_dispatched(store: Store) -> None:
    at = times.iso(NOW - MINUTE)
    mute = {"message_id": "m1", "failed_at": at}
    why = {**mute, "error": {"code": "NO_CREDIT"}}
    for event_id, data in (("mute", mute), ("why", why), ("again", why), ("still mute", mute)):
        ingest(store, incoming(envelope("sms.failed", data, event_id=event_id)))
    listed = {e["event_id"]: (e["repeat"], len(e["deliveries"])) for e in store.events(Selection())}
    assert listed == {
        "mute": (False, 1),
        "why": (True, 1),
        "again": (True, 0),
        "still mute": (True, 0),
    }


# --- work


def test_claimed_work_is_leased_and_comes_back_when_the_lease_runs_out(store: Store) -> None:
    ingest(store, sent(event_id="e1"))
    (first,) = claim(store)
    assert (first.event_id, first.attempt, first.body) == ("e1", 1, store.body("e1"))
    assert claim(store, NOW + LEASE - 1) == []
    (second,) = claim(store, NOW + LEASE)
    assert (second.attempt, second.fence) == (2, first.fence + 1)


def test_only_the_last_claimants_result_counts(store: Store) -> None:
    ingest(store, sent(event_id="e1"))
    (first,) = claim(store)
    (second,) = claim(store, NOW + LEASE)
    settle(store, first, "dead", error="too late")
    assert deliveries(store, "e1")[0]["state"] == "pending"
    settle(store, second, "done")
    settle(store, first, "dead", error="too late")
    assert deliveries(store, "e1") == [
        {
            "handler": "h",
            "state": "done",
            "attempts": 2,
            "last_error": None,
            "next_attempt_at": None,
        }
    ]
    assert claim(store, NOW + DAY) == []


def test_retry_dead_and_given_back(store: Store) -> None:
    ingest(store, sent("m1", event_id="e1"), sent("m2", event_id="e2"), sent("m3", event_id="e3"))
    retry, dead, back = claim(store)
    settle(store, retry, "pending", NOW + HOUR, error="later")
    settle(store, dead, "dead", error="never")
    settle(store, back, "pending", NOW, given_back=True)
    assert [c.event_id for c in claim(store)] == ["e3"]
    assert store.next_due("h", NOW + LEASE) == NOW + HOUR
    assert deliveries(store, "e1")[0] == {
        "handler": "h", "state": "pending", "attempts": 1, "last_error": "later",
        "next_attempt_at": times.iso(NOW + HOUR),
    }  # fmt: skip
    assert deliveries(store, "e2")[0]["state"] == "dead"
    assert deliveries(store, "e3")[0]["attempts"] == 1
    assert [c.event_id for c in claim(store, NOW + HOUR)] == ["e3", "e1"]


def test_work_that_always_ends_without_a_word_is_given_up(store: Store) -> None:
    ingest(store, sent(event_id="e1"))
    now = NOW
    for attempt in range(1, 3 + SILENT_ATTEMPTS + 1):
        (claimed,) = claim(store, now)
        assert claimed.attempt == attempt
        now += LEASE
    assert claim(store, now) == []
    assert deliveries(store, "e1")[0]["state"] == "dead"


def test_one_event_of_a_message_at_a_time_the_earliest_first(store: Store) -> None:
    for number, minutes in enumerate((1, 3, 2)):
        at = times.iso(NOW - minutes * MINUTE)
        ingest(
            store,
            incoming(
                envelope("sms.sent", sms("sent", "m1", sent_at=at), event_id=f"{minutes}"),
                NOW - 10 * SECOND + number,
            ),
        )
    ingest(store, sent("other", event_id="other"))
    (first, other) = claim(store)
    assert (first.event_id, other.event_id) == ("3", "other")
    assert claim(store) == []
    # Another handler has its own order, and its own leases.
    settle(store, first, "pending", NOW + HOUR, error="later")
    # One that waits for its retry does not hold back the next.
    (second,) = claim(store)
    assert second.event_id == "2"
    settle(store, second, "done")
    (third,) = claim(store)
    assert third.event_id == "1"
    # The retry is due, but the last one still runs.
    store.work(NOW + HOUR, [], [], PATIENCE)
    assert claim(store, NOW + LEASE - 1) == []
    settle(store, third, "done")
    assert [c.event_id for c in claim(store, NOW + HOUR) if c.message_id == "m1"] == ["3"]


def test_handlers_do_not_see_each_others_work(store: Store) -> None:
    ingest(store, sent(event_id="e1"), wanting=lambda kind: ("a", "b"))
    (a,) = claim(store, handler="a")
    (b,) = claim(store, handler="b")
    settle(store, a, "dead", error="x")
    settle(store, b, "done")
    assert [(d["handler"], d["state"]) for d in deliveries(store, "e1")] == [
        ("a", "dead"),
        ("b", "done"),
    ]


def test_work_of_unknown_handlers_waits_and_is_then_dead(store: Store) -> None:
    ingest(store, sent(event_id="e1"), wanting=lambda kind: ("gone", "known"))
    assert store.bury(NOW + 7 * DAY - 1, ["known"], 7 * DAY) == 0
    assert store.bury(NOW + 7 * DAY, ["known"], 7 * DAY) == 1
    states = {d["handler"]: d["state"] for d in deliveries(store, "e1")}
    assert states == {"gone": "dead", "known": "pending"}


def test_backlog_counts_what_is_due_and_not_leased(store: Store) -> None:
    assert store.backlog(NOW, ["h"]) == (0, 0)
    ingest(store, sent("m1"), sent("m2"))
    assert store.backlog(NOW + MINUTE, ["other", "h"]) == (2, MINUTE)
    assert store.backlog(NOW + MINUTE, ["other"]) == store.backlog(NOW, []) == (0, 0)
    claim(store, limit=1)
    assert store.backlog(NOW + 1, ["h"])[0] == 1
    # Whoever had leased it has died.
    assert store.backlog(NOW + HOUR, ["h"]) == (2, HOUR)


# --- reading


def test_selections(store: Store) -> None:
    ingest(store, sent("m1", NOW - HOUR, event_id="old"))
    failed = envelope("sms.failed", sms("failed", "m2"), event_id="failed")
    ingest(store, incoming(failed), incoming(envelope("device.connected", {}, event_id="device")))
    (old, *_) = claim(store, limit=1)
    settle(store, old, "dead", error="x")

    def ids(**conditions: Any) -> list[str]:
        return [e["event_id"] for e in store.events(Selection(**conditions))]

    assert ids() == ["old", "failed", "device"]
    assert ids(event_type="sms.failed") == ["failed"]
    assert ids(event_type="sms.*") == ["old", "failed"]
    assert ids(message_id="m1") == ["old"]
    assert ids(since=NOW) == ["failed", "device"]
    assert ids(until=NOW - 1) == ["old"]
    assert ids(state="dead") == ["old"]
    assert ids(state="dead", handler="other") == []
    assert ids(ids=["device", "old", "none"]) == ["old", "device"]
    assert ids(event_type="sms.*", state="pending") == ["failed"]


def test_more_events_than_a_page(store: Store) -> None:
    ingest(store, *(sent(f"m{n}", event_id=f"e{n}") for n in range(450)))
    assert [e["event_id"] for e in store.events(Selection())] == [f"e{n}" for n in range(450)]


# --- replay


def replay(store: Store, wanting: Any = one_handler, **conditions: Any) -> int:
    dry_run = conditions.pop("dry_run", False)
    return store.replay(
        Selection(**conditions),
        wanting=wanting,
        now=NOW + HOUR,
        dry_run=dry_run,
        progress=lambda count: None,
    )


def test_replay_makes_ended_work_due_again_and_leaves_leased_work_alone(store: Store) -> None:
    for n in range(4):
        ingest(store, sent(f"m{n}", event_id=f"e{n}"))
    done, dead, leased = claim(store, limit=3)
    settle(store, done, "done")
    settle(store, dead, "dead", error="x")
    store.work(NOW + HOUR, [], [], PATIENCE)
    assert replay(store, state="dead", dry_run=True) == 1
    assert deliveries(store, "e1")[0]["state"] == "dead"
    assert replay(store, state="dead") == 1
    assert deliveries(store, "e1")[0] == {
        "handler": "h", "state": "pending", "attempts": 0, "last_error": None,
        "next_attempt_at": times.iso(NOW + HOUR),
    }  # fmt: skip
    # A replay within the lease: whoever has it keeps it.
    count = store.replay(
        Selection(event_type="sms.*"),
        wanting=one_handler,
        now=NOW + 1,
        dry_run=False,
        progress=lambda count: None,
    )
    assert count == 3
    settle(store, leased, "done")
    assert deliveries(store, leased.event_id)[0]["state"] == "done"
    # The result of a call from before the replay no longer counts.
    settle(store, dead, "dead", error="x")
    assert deliveries(store, "e1")[0]["state"] == "pending"


def test_replay_reaches_handlers_that_came_later_but_not_repeats(store: Store) -> None:
    at = times.iso(NOW - MINUTE)
    data = sms("sent", "m1", sent_at=at)
    ingest(store, incoming(envelope("sms.sent", data, event_id="e1")))
    ingest(store, incoming(envelope("sms.sent", data, event_id="repeat")))
    both = lambda kind: ("h", "new")  # noqa: E731
    assert replay(store, both, handler="new", event_type="sms.sent") == 1
    assert [d["handler"] for d in deliveries(store, "e1")] == ["h", "new"]
    assert deliveries(store, "repeat") == []
    assert replay(store, both, ids=["repeat"]) == 2
