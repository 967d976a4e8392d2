"""Two groups at once, where the store writes two: each ticket is told once, and soon."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from receiver.errors import StoreUnavailable
from receiver.event import Incoming
from receiver.ingest import Ingest, Ticket
from receiver.store import open_store
from tests.core.committing import Scripted, all_of, item, later, no_handlers, submit, tickets
from tests.payloads import sms
from tests.postgres import Databases, plain
from tests.server import eventually


@pytest.fixture
def two() -> Scripted:
    return Scripted(2)


def test_another_takes_what_is_worth_a_transaction(two: Scripted) -> None:
    ingest = Ingest(two, no_handlers)  # type: ignore[arg-type]
    told: list[list[Ticket]] = []
    ingest.LONG = 60.0
    two.held = {"first0", "second0"}
    ingest.put(*tickets(1, told.append, "first"))
    eventually(lambda: len(two.groups) == 1)
    more = tickets(ingest.WORTH_ANOTHER, told.append, "second")
    for ticket in more[:-1]:
        ingest.put(ticket)
    assert ingest.waiting == len(more) - 1
    ingest.put(more[-1])
    eventually(lambda: len(two.groups) == 2)
    assert [len(group) for group in two.groups] == [1, len(more)]
    # Its own are told although the other one stands still, and too little has queued for it.
    ingest.put(*tickets(3, told.append, "third"))
    two.held = {"first0"}
    eventually(lambda: all_of(told) == more)
    assert ingest.waiting == 3
    two.held = set()
    eventually(lambda: len(all_of(told)) == 1 + len(more) + 3)
    assert [len(group) for group in two.groups] == [1, len(more), 3]


def test_another_begins_at_once_where_commits_take_long(two: Scripted) -> None:
    ingest = Ingest(two, no_handlers)  # type: ignore[arg-type]
    two.takes = 10 * ingest.LONG
    assert submit(ingest) == ["accepted"]
    two.takes = 0.0
    told: list[list[Ticket]] = []
    two.held = {"first0"}
    ingest.put(*tickets(1, told.append, "first"))
    eventually(lambda: len(two.groups) == 2)
    ingest.put(*tickets(1, told.append, "second"))
    eventually(lambda: len(all_of(told)) == 1)
    two.held = set()
    eventually(lambda: len(all_of(told)) == 2)


def test_another_takes_all_from_one_that_takes_long(two: Scripted) -> None:
    """Also what came before it took long, and although nothing comes after."""
    ingest = Ingest(two, no_handlers)  # type: ignore[arg-type]
    told: list[list[Ticket]] = []
    two.held = {"first0"}
    ingest.put(*tickets(1, told.append, "first"))
    eventually(lambda: two.groups)
    ingest.put(*tickets(1, told.append, "second"))
    eventually(lambda: len(all_of(told)) == 1, within=20)
    two.held = set()
    eventually(lambda: len(all_of(told)) == 2)


def test_a_burst_is_for_both(two: Scripted) -> None:
    ingest = Ingest(two, no_handlers)  # type: ignore[arg-type]
    two.gate.clear()
    told: list[list[Ticket]] = []
    ingest.put(*tickets(300, told.append, "e"))
    eventually(lambda: [len(group) for group in two.groups] == [128, 128])
    two.gate.set()
    eventually(lambda: len(all_of(told)) == 300)


def test_the_trouble_of_one_group_is_not_the_stores(two: Scripted) -> None:
    """As where somebody holds a message of it for too long."""
    ingest = Ingest(two, no_handlers)  # type: ignore[arg-type]
    told: list[list[Ticket]] = []
    two.held, two.refused = {"first0"}, {"first0"}
    ingest.put(*tickets(1, told.append, "first"))
    eventually(lambda: two.groups)
    assert submit(ingest) == ["accepted"]
    two.held = set()
    (ticket,) = eventually(lambda: all_of(told))
    with pytest.raises(StoreUnavailable):
        ticket.result()
    assert ingest.problem is None


def test_while_one_hangs_the_other_finds_out_that_the_store_works(two: Scripted) -> None:
    ingest = Ingest(two, no_handlers)  # type: ignore[arg-type]
    told: list[list[Ticket]] = []
    two.held, two.refused = {"first0"}, {"second0"}
    ingest.put(*tickets(1, told.append, "first"))
    eventually(lambda: two.groups)
    ingest.put(*tickets(1, told.append, "second"))
    eventually(lambda: told)
    assert ingest.problem is not None
    assert submit(ingest) == ["accepted"]
    assert ingest.problem is None
    two.held = set()
    eventually(lambda: len(all_of(told)) == 2)


def test_after_the_end_there_are_no_more_committers_than_before(two: Scripted) -> None:
    ingest = Ingest(two, no_handlers)  # type: ignore[arg-type]
    ingest.STOP_WITHIN = 0.1
    two.gate.clear()
    told: list[list[Ticket]] = []
    before = threading.active_count()
    ingest.put(*tickets(1, told.append, "e"))
    ingest.stop()
    for number in range(5):
        ingest.put(*tickets(1, told.append, f"later{number}"))
    assert threading.active_count() <= before + 2
    two.gate.set()
    eventually(lambda: len(all_of(told)) == 6)
    eventually(lambda: threading.active_count() == before)


def test_a_death_is_not_forgotten_at_the_end(two: Scripted) -> None:
    ingest = Ingest(two, no_handlers)  # type: ignore[arg-type]
    two.error = SystemExit("as a defect in C might end it")
    with pytest.raises(StoreUnavailable):
        submit(ingest)
    two.error = None
    ingest.stop()
    with pytest.raises(StoreUnavailable, match="died"):
        submit(ingest)
    assert "died" in (ingest.problem or "")


def test_what_waits_for_a_locked_message_holds_nobody_else(databases: Databases) -> None:
    url = databases.create()
    store = open_store(url)
    ingest = Ingest(store, no_handlers)
    with (
        psycopg.connect(plain(url)) as outside,
        psycopg.connect(plain(url), autocommit=True) as looking,
        ThreadPoolExecutor(40) as pool,
    ):
        assert submit(ingest, of_message("locked", 0)) == ["accepted"]
        outside.execute("UPDATE messages SET status = status WHERE id = 'locked'")
        locked = pool.submit(submit, ingest, of_message("locked", 1), seconds=60)
        eventually(lambda: looking.execute(_WAITING).fetchone() == (1,))
        others = [pool.submit(submit, ingest, of_message(f"m{n}", 0)) for n in range(32)]
        assert [other.result(20) for other in others] == [["accepted"]] * 32
        assert not locked.done()
        outside.rollback()
        assert locked.result(20) == ["accepted"]
    ingest.stop()
    store.close()
    databases.drop(url)


_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def of_message(message_id: str, number: int) -> Incoming:
    changes = {"event_id": f"{message_id}-{number}", "data": sms("sent", message_id)}
    return item(**changes)


@pytest.mark.parametrize("committers", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_each_ticket_is_told_once_whatever_happens(committers: int, seed: int) -> None:
    chance = random.Random(seed)
    scripted = Hectic(committers, chance)
    ingest = Ingest(scripted, no_handlers)  # type: ignore[arg-type]
    ingest.LONG, ingest.WORTH_ANOTHER, ingest.LARGEST_GROUP = 0.001, 3, 8
    told: list[list[Ticket]] = []
    came: list[Ticket] = []
    one = item()
    for _ in range(400):
        tickets = [
            Ticket([one], later(), told.append) for _ in range(chance.choice((1, 1, 1, 5, 40)))
        ]
        with suppress(StoreUnavailable):
            ingest.put(*tickets)
            came += tickets
        time.sleep(chance.choice((0, 0, 0.0005, 0.002)))
    eventually(lambda: len(all_of(told)) >= len(came), within=30)
    ingest.stop()
    assert Counter(map(id, all_of(told))) == Counter(map(id, came))
    assert all(ticket.ended for ticket in came)
    assert ingest.waiting == 0


class Hectic(Scripted):
    """Takes as long as it likes, and fails now and then."""

    def __init__(self, committers: int, chance: random.Random) -> None:
        super().__init__(committers)
        self.chance = chance

    def ingest(
        self, items: Any, wanting: Any, patience: float, reading_done: Any = lambda: None
    ) -> list[str]:
        reading_done()
        time.sleep(self.chance.choice((0, 0.0005, 0.001, 0.003)))
        error = self.chance.choice((None,) * 18 + (StoreUnavailable("locked"), OverflowError()))
        if error is not None:
            raise error
        return ["accepted"] * len(items)
