"""Reports that did not come by webhook, and what keeps the asking for them within bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import bucket, times
from receiver.event import Incoming
from receiver.providers.zimsend.webhook import parse
from receiver.reconciliation import losses
from receiver.reconciliation.losses import KINDS
from receiver.store import Missed, Report, Selection, Store, Want
from receiver.times import DAY, MINUTE, SECOND, iso
from tests.payloads import body_of

NOW = times.now() // SECOND * SECOND


def report(
    state: str, event_id: str, seconds: float, source: str = "webhook", **data: Any
) -> Incoming:
    """A report of message `m`, so many seconds after the beginning."""
    at = NOW + int(seconds * SECOND)
    # The API gives no time for a failure: what is learnt of one has that of what came before.
    own = {} if source != "webhook" and state == "failed" else {f"{state}_at": iso(at)}
    body = body_of(
        f"sms.{state}", {"message_id": "m", **own, **data}, timestamp=iso(at), event_id=event_id
    )
    return parse(body, received_at=NOW + DAY // 2, retention=90 * DAY, source=source)


def learnt(state: str, event_id: str, seconds: float, **data: Any) -> Incoming:
    return report(state, event_id, seconds, "reconciliation", **data)


ERROR = {"error": {"code": "NO_CREDIT", "message": "Plus de crédit"}}

#: What comes in, in this order; and the ids of what reaches the handlers.
CASES = {
    "learnt after the webhook": (
        [report("sent", "w", 0), learnt("sent", "r", 7)],
        ["w"],
    ),
    "learnt before the webhook": (
        [learnt("sent", "r", 7), report("sent", "w", 0)],
        ["r"],
    ),
    "learnt again, by another time": (
        [learnt("sent", "r1", 0), learnt("sent", "r2", 7)],
        ["r1"],
    ),
    "two webhooks are told apart by two seconds": (
        [report("sent", "w1", 0), report("sent", "w2", 7)],
        ["w1", "w2"],
    ),
    "a failure's reason comes after all, once": (
        [
            report("sent", "s", 0),
            learnt("failed", "r", 0),
            report("failed", "w1", 5, **ERROR),
            report("failed", "w2", 5.5, **ERROR),
        ],
        ["s", "r", "w1"],
    ),
    "a failure that is known is learnt": (
        [report("sent", "s", 0), report("failed", "w", 5, **ERROR), learnt("failed", "r", 0)],
        ["s", "w"],
    ),
    "sent again after it failed": (
        [
            report("sent", "s1", 0),
            report("failed", "f1", 5, **ERROR),
            learnt("sent", "s2", 600),
            learnt("failed", "f2", 600),
        ],
        ["s1", "f1", "s2", "f2"],
    ),
    "sent again through the gateway": (
        [
            learnt("sent", "s1", 0),
            learnt("failed", "f1", 0),
            report("queued", "q", 60, "gateway"),
            learnt("sent", "s2", 70),
            learnt("failed", "f2", 70),
        ],
        ["s1", "f1", "q", "s2", "f2"],
    ),
    "the first round's report comes late": (
        [
            report("failed", "f1", 5, **ERROR),
            learnt("sent", "s2", 600),
            report("sent", "s1", 0),
        ],
        ["f1", "s2", "s1"],
    ),
    "delivered once": (
        [learnt("delivered", "r", 0), report("delivered", "w", 30)],
        ["r"],
    ),
    "another type is another report": (
        [learnt("sent", "r1", 0), learnt("delivered", "r2", 0)],
        ["r1", "r2"],
    ),
}


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "one group"])
@pytest.mark.parametrize(("arrivals", "dispatched"), CASES.values(), ids=CASES.keys())
def test_what_is_learnt_joins_what_is_reported(
    store: Store, arrivals: list[Incoming], dispatched: list[str], together: bool
) -> None:
    groups = [arrivals] if together else [[arrival] for arrival in arrivals]
    for group in groups:
        assert store.ingest(group, lambda _: ("h",), 5) == ["accepted"] * len(group)
    reached = [e["event_id"] for e in store.events(Selection()) if e["deliveries"]]
    assert reached == dispatched
    assert len(store.work(NOW + DAY, [], [Want("h", 10, DAY, 3)], 5)) == 1  # one message, one call


def test_the_store_counts_gaps_as_a_pass_does(store: Store) -> None:
    chance = random.Random(7)
    items: list[Incoming] = []
    for number in range(150):
        state = chance.choice(("queued", *KINDS))
        # On the minute, so that some happen at the same time; in the end there are few gaps.
        seconds = 60 * chance.randrange(2_000)
        message_id = f"m{chance.randrange(40)}"
        items.append(learnt(state, f"e{number}", seconds, message_id=message_id))
        if number % 10:
            continue
        store.ingest(items[-10:], lambda _: (), 5)
        repeats = {e["event_id"] for e in store.events(Selection()) if e["repeat"]}
        known = [
            (item.message_id or "", Report(item.type, item.reported_at, False, item.source))
            for item in sorted(items, key=lambda item: item.reported_at or 0)
            if item.id not in repeats
        ]
        gaps = losses.gaps(known)
        whole = losses.total(gaps)
        told = [as_missed(gap) for gap in reversed(gaps)]
        assert store.missed([f"sms.{kind}" for kind in KINDS], losses.TOGETHER, 3) == (
            whole and as_missed(whole),
            len(gaps),
            told[:3],
        )
    assert len(gaps) > 3
    assert len({gap.messages for gap in gaps}) > 1


def as_missed(loss: losses.Loss) -> Missed:
    return Missed(loss.first, loss.last, loss.messages, tuple(loss.counts.values()))


def test_the_store_lists_what_was_learnt_and_was_not_known(store: Store) -> None:
    arrivals = [report("sent", "w", 0), learnt("sent", "r1", 7), learnt("delivered", "r2", 30)]
    store.ingest(arrivals, lambda _: (), 5)
    known = Report("sms.delivered", NOW + 30 * SECOND, False, "reconciliation")
    missed = Missed(NOW + 30 * SECOND, NOW + 30 * SECOND, 1, (0, 1))
    assert store.missed(["sms.sent", "sms.delivered"], MINUTE, 9) == (missed, 1, [missed])
    assert store.missed(["sms.sent"], MINUTE, 9) == (None, 0, [])
    found = store.reports(["m", "nobody"])
    assert found.keys() == {"m"}
    assert sorted(found["m"], key=str) == sorted(
        [
            Report("sms.sent", NOW, False, "webhook"),
            Report("sms.sent", NOW + 7 * SECOND, False, "reconciliation"),
            known,
        ],
        key=str,
    )


def test_what_is_learnt_of_expired_times_is_no_body_to_keep(store: Store) -> None:
    store.ingest([report("sent", "w", 0)], lambda _: (), 5)
    assert store.expire(NOW + DAY, 5).events == 1
    old = [learnt("delivered", "r", -5), report("delivered", "w2", -5)]
    assert store.ingest(old, lambda _: (), 5) == ["quarantined", "quarantined"]
    assert len(list(store.quarantined())) == 1
    assert list(store.events(Selection())) == []


def test_a_turn_is_kept_only_by_who_has_it(store: Store) -> None:
    assert store.claim_turn("new", NOW, NOW + MINUTE)
    assert not store.claim_turn("new", NOW + 1, NOW + MINUTE)
    assert store.keep_turn("new", NOW + MINUTE, NOW + 2 * MINUTE)
    assert not store.keep_turn("new", NOW + MINUTE, NOW + 3 * MINUTE)
    assert not store.claim_turn("new", NOW + MINUTE + 1, NOW + 3 * MINUTE)
    assert store.claim_turn("new", NOW + 2 * MINUTE, NOW + 3 * MINUTE)


def test_a_note_is_the_last_that_was_written(store: Store) -> None:
    assert store.note("a") is None
    store.write_note("a", "one")
    store.write_note("b", "é\u2028")
    store.write_note("a", "two")
    assert (store.note("a"), store.note("b")) == ("two", "é\u2028")


def test_notes_are_listed_written_and_taken_away_together(store: Store) -> None:
    store.write_notes({"send:b": "2", "send:a": "é\u2028", "send": "no", "Send:c": "no"})
    assert store.notes("send:") == {"send:a": "é\u2028", "send:b": "2"}
    store.write_notes({"send:a": "3", "send:b": None, "send:none": None})
    assert store.notes("send:") == {"send:a": "3"}
    assert (store.note("send:a"), store.note("send:b")) == ("3", None)
    store.write_notes({})
    store.write_note("%_", "x")
    assert store.notes("%") == {"%_": "x"}


# --- the bucket


def test_tokens_are_shared_through_the_store(store: Store) -> None:
    assert [store.take("calls", NOW, SECOND, 2 * SECOND) for _ in range(3)] == [0, 0, SECOND]
    assert store.take("calls", NOW + SECOND // 2, SECOND, 2 * SECOND) == SECOND // 2
    assert store.take("calls", NOW, SECOND, None) == 0  # not held up, and counted
    assert store.take("calls", NOW + SECOND, SECOND, 2 * SECOND) == SECOND
    assert store.take("others", NOW, SECOND, 2 * SECOND) == 0


@given(
    st.lists(st.integers(0, 3 * MINUTE), min_size=1, max_size=300),
    st.integers(SECOND // 10, 5 * SECOND),
    st.integers(1, 20),
)
def test_no_minute_has_more_than_the_bucket_gives(
    moments: list[int], interval: int, most_at_once: int
) -> None:
    full_at, taken = None, []
    for now in sorted(moments):
        full_at, wait = bucket.take(full_at, now, interval, most_at_once * interval)
        if wait:
            later, none = bucket.take(full_at, now + wait, interval, most_at_once * interval)
            assert none == 0  # it says truly how long to wait
            assert later > full_at
            assert bucket.take(full_at, now + wait - 1, interval, most_at_once * interval)[1] == 1
        else:
            taken.append(now)
    for first in taken:
        assert (
            sum(first <= at < first + MINUTE for at in taken)
            <= most_at_once + MINUTE // interval + 1
        )


@given(st.integers(0, 10**17), st.integers(0, 10**16))
def test_a_clock_that_was_wrong_stops_nobody_for_long(now: int, wrong: int) -> None:
    _, wait = bucket.take(now + wrong, now, SECOND, 2 * SECOND)
    assert wait <= 2 * MINUTE
    assert bucket.take(now - wrong, now, SECOND, 2 * SECOND)[1] == 0
