"""What pages show of events and of their work: groups of dead work, pages of events, arrivals."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import causes
from receiver.event import Incoming
from receiver.store import Group, Position, Selection, Settlement, Store, Want, open_store
from receiver.store.claiming import NEVER
from receiver.store.contract import MOST_TOLD
from receiver.store.views import MAY_STILL_COME
from receiver.times import DAY, HOUR, MINUTE, SECOND
from tests.outside import Outside
from tests.store.test_store import NOW, PATIENCE, claim, incoming, ingest, sent, settle

TRACE = 'Traceback (most recent call last):\n  File "{}", line {}, in page\n    x()\nKeyError'
HANDLERS = ("h", "other")


def dies(
    store: Store, item: Incoming, now: int, error: str, trace: str | None, handler: str = "h"
) -> None:
    """An event whose work for one handler is dead at a time."""
    ingest(store, item, wanting=lambda _: (handler,))
    (found,) = claim(store, NOW, handler=handler)
    store.work(now, [Settlement(found, "dead", now, error, traceback=trace)], [], PATIENCE)


def event_ids(store: Store, selection: Selection, limit: int = 10) -> list[list[str]]:
    """The pages of a selection, each with the ids of its events."""
    pages: list[list[str]] = []
    before: int | None = None
    while True:
        page = store.page(selection, before, limit)
        pages.append([event["event_id"] for _, event in page.events])
        before = page.before
        if before is None:
            return pages


# --- causes


@pytest.mark.parametrize(
    ("error", "trace", "cause"),
    [
        ("KeyError: 'CMD-1042'", TRACE.format("/app/a.py", 7), "KeyError at /app/a.py:7"),
        ("KeyError: 'CMD-1042'", None, "KeyError"),
        ("KeyError: ", None, "KeyError"),
        (
            "Panne: a:b",
            TRACE.format("/x/site-packages/a.py", 7),
            "Panne at /x/site-packages/a.py:7",
        ),
        ("given up: 15 attempts, the last ones ended without a word", None, causes.GIVEN_UP),
        ("no handler of this name is registered", None, causes.NO_HANDLER),
        ("Votre code est 482913", None, ""),
        ("<b>482913</b>: x", TRACE.format("/app/a.py", 7), ""),
        (None, None, ""),
        ("KeyError: x", 'File "/a.py", line 7, in x', "KeyError"),
        ("K" * 300 + ": x", None, "K" * 100),
    ],
)
def test_a_cause_is_a_kind_and_a_place(error: str | None, trace: str | None, cause: str) -> None:
    assert causes.cause_of(error, trace) == cause


def test_a_cause_is_placed_in_the_file_of_the_users() -> None:
    trace = (
        TRACE.format("/app/handlers/sheet.py", 12).removesuffix("KeyError")
        + f'  File "{causes.__file__}", line 3, in y\n    z()\n'
        + '  File "/x/lib/site-packages/requests/api.py", line 9, in get\n    get()\nKeyError'
    )
    assert causes.cause_of("KeyError: 1", trace) == "KeyError at /app/handlers/sheet.py:12"


# --- groups of dead work


def test_dead_work_is_told_in_groups(store: Store) -> None:
    first, second = TRACE.format("/app/a.py", 7), TRACE.format("/app/a.py", 8)
    dies(store, sent("m1", event_id="e1"), NOW + 1, "KeyError: 'Anna'", first)
    dies(store, sent("m2", event_id="e2"), NOW + 5, "KeyError: 'Zoé'", first)
    dies(store, sent("m3", event_id="e3"), NOW + 9, "KeyError: 'Anna'", second)
    dies(store, sent("m4", event_id="e4"), NOW + 3, "KeyError: 'Anna'", first, "other")
    ingest(store, sent("m5", event_id="alive"))
    assert store.groups() == [
        Group("h", "KeyError at /app/a.py:8", NOW + 9, NOW + 9, 1),
        Group("h", "KeyError at /app/a.py:7", NOW + 1, NOW + 5, 2),
        Group("other", "KeyError at /app/a.py:7", NOW + 3, NOW + 3, 1),
    ]
    assert "Anna" not in str(store.groups())


def test_all_ways_to_die_have_a_cause_and_a_time(store: Store) -> None:
    ingest(store, sent("m1"), wanting=lambda _: ("gone",))
    ingest(store, sent("m2", event_id="first"), sent("m2", event_id="second"))
    now = NOW
    for _ in range(7):
        claim(store, now)
        now += HOUR
    assert store.bury(now, ["h"], 0) == 1
    found = {group.handler: group for group in store.groups()}
    assert found["gone"] == Group("gone", causes.NO_HANDLER, now, now, 1)
    assert found["h"][:2] == ("h", causes.GIVEN_UP)
    assert NOW < (found["h"].first or 0) < now


def test_what_is_buried_while_it_is_parked_says_when_it_died(store: Store) -> None:
    ingest(store, sent("m1", event_id="a", timestamp="2026-11-20T08:00:00Z"))
    more = incoming({"event": "otp.sent", "event_id": "b", "data": {"message_id": "m1"}})
    ingest(store, more)
    assert len(claim(store)) == 1
    claim(store, NOW + 1)  # parks the other one
    assert store.bury(NOW + HOUR, [], 0) == 2
    assert store.groups() == [Group("h", causes.NO_HANDLER, NOW + HOUR, NOW + HOUR, 2)]


def test_a_group_is_replayed_up_to_its_preview(store: Store) -> None:
    trace = TRACE.format("/app/a.py", 7)
    for number in range(4):
        dies(store, sent(f"m{number}"), NOW + number, f"KeyError: {number}", trace)
    dies(store, sent("m4", event_id="elsewhere"), NOW, "ValueError: x", trace)
    dies(store, sent("m5", event_id="other"), NOW, "KeyError: x", trace, "other")
    (group,) = (g for g in store.groups() if g[:2] == ("h", "KeyError at /app/a.py:7"))
    number, until = store.dead(group.handler, group.cause)
    assert (number, until) == (4, NOW + 3)
    meant = Selection(state="dead", handler=group.handler, cause=group.cause, died_until=until)
    # Work that dies since then is another matter, also where its event came first.
    dies(store, sent("m6", event_id="later"), NOW + 99, "KeyError: 6", trace)
    assert replay(store, meant, dry_run=True) == 4
    assert replay(store, meant) == 4
    assert replay(store, meant) == 0
    assert {g[:2]: g.number for g in store.groups()} == {
        ("h", "KeyError at /app/a.py:7"): 1,
        ("h", "ValueError at /app/a.py:7"): 1,
        ("other", "KeyError at /app/a.py:7"): 1,
    }


def replay(store: Store, selection: Selection, **options: Any) -> int:
    return store.replay(
        selection,
        wanting=lambda _: HANDLERS,
        now=NOW,
        progress=lambda _: None,
        **{"dry_run": False, **options},
    )


def test_a_replay_begins_no_batch_after_enough(store: Store) -> None:
    ingest(store, *(sent(f"m{number}") for number in range(450)))
    claims = claim(store, limit=450)
    store.work(NOW, [Settlement(c, "dead", NOW, "KeyError: 1") for c in claims], [], PATIENCE)
    assert store.dead("h", "KeyError") == (450, NOW)
    assert store.dead("h", "ValueError") == (0, 0)
    assert replay(store, Selection(state="dead"), most=300) == 400
    assert replay(store, Selection(state="dead"), most=300) == 50


@pytest.mark.spoils_the_schema
@pytest.mark.each_engine
def test_what_died_before_is_in_groups_from_the_start(empty_database_url: str) -> None:
    store = open_store(empty_database_url)
    store.migrate()
    trace = TRACE.format("/app/a.py", 7)
    dies(store, sent("m1"), NOW, "KeyError: 1", trace)
    dies(store, sent("m2"), NOW + 1, "KeyError: 2", None)
    ingest(store, sent("m3", event_id="parked"), sent("m4", event_id="alive"))
    before = store.groups()
    with closing(Outside(empty_database_url)) as outside:
        # As the release before leaves it.
        outside.execute("DROP INDEX deliveries_by_cause")
        outside.execute("ALTER TABLE deliveries DROP COLUMN cause")
        if outside.is_sqlite:
            outside.execute("DELETE FROM _sqlite_migrations WHERE name = ?", (STEP[0],))
        else:
            outside.execute("DELETE FROM schema_steps WHERE name = ?", (STEP[1],))
        outside.execute(
            "UPDATE deliveries SET state = 'dead', last_error = ?, due_at = ?, due_since = ?"
            " WHERE event_seq = (SELECT seq FROM events WHERE id = 'parked')",
            (causes.NO_HANDLER, NEVER, NOW + 2),
        )
        store.close()
        store = open_store(empty_database_url)
        assert store.migrate() == [STEP[0] if outside.is_sqlite else STEP[1]]
        buried = Group("h", causes.NO_HANDLER, NOW + 2, NOW + 2, 1)
        assert store.groups() == [buried, *before]
        # It goes on beside this one, and writes no cause.
        outside.execute(
            "UPDATE deliveries SET state = 'dead', last_error = 'KeyError: 1', due_at = ?"
            " WHERE event_seq = (SELECT seq FROM events WHERE id = 'alive')",
            (NEVER,),
        )
        assert store.groups() == [Group("h", "", None, None, 1), buried, *before]
        assert store.dead("h", "") == (1, NEVER)
        meant = Selection(state="dead", handler="h", cause="", died_until=NEVER)
        assert replay(store, meant) == 1
        assert store.groups() == [buried, *before]
    store.close()


STEP = "dead_work_is_found_by_its_cause", "find_dead_work_by_its_cause"


# --- pages of events


@pytest.fixture
def five(store: Store) -> Store:
    """Events e0 to e4, an hour after each other: work that is fresh, retrying, done, dead, none."""
    for number in range(4):
        ingest(store, sent(f"m{number}", NOW + number * HOUR, event_id=f"e{number}"))
    claims = {c.event_id: c for c in claim(store, NOW + 4 * HOUR)}
    settle(store, claims["e0"], "pending", NOW, given_back=True)
    settle(store, claims["e1"], "pending", NOW + DAY, error="OSError: no")
    settle(store, claims["e2"], "done")
    settle(store, claims["e3"], "dead", error="OSError: no")
    device = incoming({"event": "device.connected", "event_id": "e4", "data": {}}, NOW + 4 * HOUR)
    ingest(store, device, wanting=lambda _: ())
    return store


@pytest.mark.parametrize(
    ("selection", "found"),
    [
        (Selection(), "e4 e3 e2 e1 e0"),
        (Selection(state="pending"), "e1 e0"),
        (Selection(state="retrying"), "e1"),
        (Selection(state="done"), "e2"),
        (Selection(state="dead"), "e3"),
        (Selection(state="any"), "e3 e2 e1 e0"),
        (Selection(state="any", handler="h"), "e3 e2 e1 e0"),
        (Selection(state="any", handler="other"), ""),
        (Selection(state="dead", handler="other"), ""),
        (Selection(event_type="device.connected"), "e4"),
        (Selection(event_type="sms.*"), "e3 e2 e1 e0"),
        (Selection(event_type="device.*", state="dead"), ""),
        (Selection(since=NOW + HOUR), "e4 e3 e2 e1"),
        (Selection(until=NOW + HOUR), "e1 e0"),
        (Selection(since=NOW + 1, until=NOW + 3 * HOUR, state="pending"), "e1"),
        (Selection(until=NOW - 1), ""),
        (Selection(since=NOW + DAY), ""),
    ],
)
def test_pages_of_events(five: Store, selection: Selection, found: str) -> None:
    (all_at_once,) = event_ids(five, selection)
    assert all_at_once == found.split()
    one_by_one = event_ids(five, selection, 1)
    assert [event_id for page in one_by_one for event_id in page] == found.split()
    assert all(len(page) <= 1 for page in one_by_one)
    # `flask events list` tells of the same.
    assert [event["event_id"] for event in five.events(selection)] == found.split()[::-1]


def test_a_page_says_where_it_has_stopped_looking(store: Store) -> None:
    """With a rare filter it holds less than it might, and costs no more."""
    rare = incoming({"event": "device.connected", "event_id": "rare", "data": {}}, NOW)
    often = (sent(f"m{n}", NOW + n * MINUTE, event_id=f"e{n:03}") for n in range(200))
    ingest(store, rare, *often)
    selection = Selection(event_type="device.*")
    pages, before = [], None
    while True:
        page = store.page(selection, before, 10, farthest=80)
        pages.append(([event["event_id"] for _, event in page.events], page.whole))
        before = page.before
        if before is None:
            break
    assert pages == [([], False), ([], False), (["rare"], True)]
    # What is older than asked for is not looked for.
    late = Selection(event_type="device.*", since=NOW + 190 * MINUTE)
    assert store.page(late, None, 10, farthest=80) == ([], None, True)
    page = store.page(Selection(until=NOW + 100 * MINUTE), None, 10, farthest=80)
    assert [event["event_id"] for _, event in page.events] == [
        f"e{n:03}" for n in range(100, 90, -1)
    ]


def test_the_first_page_until_a_time_is_found_by_halving(store: Store) -> None:
    """Whatever there is before and after: what is received more than an hour later is not read."""
    for number in range(12):
        item = sent(f"m{number}", NOW + number * DAY, event_id=f"e{number}")
        ingest(store, item)
    for number in range(12):
        page = store.page(Selection(until=NOW + number * DAY), None, 1)
        assert [event["event_id"] for _, event in page.events] == [f"e{number}"]
    assert store.page(Selection(until=NOW - DAY), None, 1) == ([], None, True)


# --- what arrives


def test_arrivals_are_told_once_and_in_order(store: Store) -> None:
    ingest(store, *(sent(f"m{n}", event_id=f"e{n}") for n in range(5)))
    position = store.position(3)
    found, position = store.arrivals(position, NOW, 2)
    assert [event["event_id"] for _, event in found] == ["e2", "e3"]
    found, position = store.arrivals(position, NOW, 2)
    assert [event["event_id"] for _, event in found] == ["e4"]
    ingest(store, sent("m5", event_id="e5"), sent("m0", event_id="e0"))
    found, position = store.arrivals(position, NOW, 2)
    assert [(event["event_id"], seq) for seq, event in found] == [("e5", position.seq)]
    assert store.arrivals(position, NOW, 2)[0] == []
    everything, _ = store.arrivals(store.position(100), NOW, 100)
    assert len(everything) == 6


def test_where_arrivals_begin_in_an_empty_store(store: Store) -> None:
    assert store.position(10) == Position(0)
    assert store.arrivals(Position(0), NOW, 10) == ([], Position(0))


@given(st.permutations(range(1, 13)), st.lists(st.integers(1, 12), max_size=4), st.integers(1, 12))
def test_whatever_order_numbers_come_in_each_is_read_once(
    order: Sequence[int], never: list[int], limit: int
) -> None:
    """As numbers of transactions that commit in any order, or fail, are met by a reader."""
    stored: set[int] = set()
    read: list[int] = []
    position = Position(0)

    def look() -> None:
        nonlocal position
        missing = {n for first, last, _ in position.missing for n in range(first, last + 1)}
        found = sorted(n for n in stored if n > position.seq or n in missing)[:limit]
        read.extend(found)
        position = position.after(found, NOW)

    for number in order:
        if number not in never:
            stored.add(number)
        look()
    for _ in stored:
        look()
    assert sorted(read) == sorted(stored)
    after = position.after([position.seq + 2], NOW + MAY_STILL_COME)
    assert [missing[:2] for missing in after.missing] == [(position.seq + 1, position.seq + 1)]


def test_a_position_stays_small() -> None:
    position = Position(0).after(range(0, 10_000, 2), NOW)
    assert position.seq == 9_998
    assert len(position.missing) < 500
    assert position.missing[-1][:2] == (9_997, 9_997)


# --- what waits


def test_each_handlers_dead_work_is_told_however_much_another_has(store: Store) -> None:
    many = [sent(f"m{number}") for number in range(MOST_TOLD)]
    ingest(store, *many, wanting=lambda _: ("h",))
    ingest(store, sent("last"), wanting=lambda _: ("other",))
    ends = [
        Settlement(c, "dead", NOW, "KeyError: 1")
        for handler in HANDLERS
        for c in claim(store, limit=MOST_TOLD, handler=handler)
    ]
    store.work(NOW, ends, [], PATIENCE)
    assert store.troubles(NOW, HANDLERS) == [("h", MOST_TOLD, 0), ("other", 1, 0)]
    assert store.work_counts() == [("h", 0, MOST_TOLD), ("other", 0, 1)]


def test_since_when_work_waits_by_handler(store: Store) -> None:
    assert store.oldest_due(NOW) == {}
    ingest(store, sent("m1", NOW - HOUR), wanting=lambda _: HANDLERS)
    ingest(store, sent("m2", NOW - MINUTE), wanting=lambda _: HANDLERS)
    assert store.oldest_due(NOW) == dict.fromkeys(HANDLERS, NOW - HOUR)
    (first,) = store.work(NOW, [], [Want("h", 1, HOUR, 3)], PATIENCE)
    assert store.oldest_due(NOW) == {"h": NOW - MINUTE, "other": NOW - HOUR}
    settle(store, first, "done")
    claim(store)
    assert store.oldest_due(NOW + SECOND) == {"other": NOW - HOUR}


def test_what_is_parked_waits_too(store: Store) -> None:
    ingest(store, sent("m1", NOW - HOUR, event_id="a"))
    more = {"event": "otp.sent", "event_id": "b", "data": {"message_id": "m1"}}
    ingest(store, incoming(more, NOW - MINUTE))
    (leased,) = claim(store)
    claim(store, NOW + 1)
    waits = {"a": NOW - MINUTE, "b": NOW - HOUR}[leased.event_id]
    assert store.oldest_due(NOW + 1) == {"h": waits}
