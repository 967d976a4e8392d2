"""Both engines make the same rows of the same history, and tell repeats by one rule."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from receiver import times
from receiver.event import Incoming
from receiver.providers.zimsend.webhook import parse
from receiver.status import STATE_OF_TYPE
from receiver.store import Report, Selection, Store, open_store
from receiver.store.copying import TABLES
from receiver.store.group import Look, looks_for, told_already
from receiver.times import DAY, SECOND, iso
from tests.payloads import body_of
from tests.postgres import Databases

NOW = times.now() // SECOND * SECOND
COMPARED = [t for t in TABLES if t.name in ("messages", "events", "deliveries", "statistics")]
#: The last two leave the mirror alone.
TYPES = (*STATE_OF_TYPE, "sms.other", "otp.sent")
#: Seconds. Reports lie at one place, at the limit of two seconds, and minutes apart.
PLACES = (0, 0.5, 1.999999, 2, 2.5, 4, 60, 61.9, 600, 601)
HISTORIES = 60

Stores = tuple[Store, Store]


@pytest.fixture(scope="module")
def stores(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """A SQLite store and a PostgreSQL store, which all histories come into."""
    path: Path = tmp_path_factory.mktemp("sqlite") / "r.db"
    url = databases.lend()
    with ExitStack() as stack:
        sqlite = stack.enter_context(closing(open_store(f"sqlite:///{path}")))
        postgres = stack.enter_context(closing(open_store(url)))
        sqlite.migrate()
        yield sqlite, postgres
    databases.take_back(url)


def wanting(event_type: str) -> tuple[str, ...]:
    """Handlers of which each wants other types."""
    return "all", "sms" if event_type.startswith("sms.") else "rest"


def history(seed: int) -> list[list[Incoming]]:
    """Groups of events of a few messages that no other history has."""
    chance = random.Random(seed)
    # Some histories are of one type, so that repeats are many; some know webhooks only.
    types = TYPES if seed % 3 else [*chance.sample(TYPES, 2), "sms.queued"]
    sources = ["webhook"] * 6
    if seed % 4:
        sources += ["reconciliation", "reconciliation", "gateway"]
    messages = [f"m{seed}.{number}" for number in range(chance.choice([1, 1, 3]))]
    groups: list[list[Incoming]] = []
    stored: list[Incoming] = []
    for _ in range(chance.randint(5, 14)):
        group = []
        for _ in range(chance.choice([1, 1, 2, 3, 8])):
            if stored and chance.random() < 0.1:
                group.append(chance.choice(stored))  # once more
                continue
            number = len(stored)
            if stored and chance.random() < 0.1:  # an id that another event has, perhaps
                number = chance.randrange(number)
            item = event(chance, seed, f"e{seed}.{number}", messages, types, sources)
            group.append(item)
            stored.append(item)
        groups.append(group)
    return groups


def event(
    chance: random.Random,
    seed: int,
    event_id: str,
    messages: Sequence[str],
    types: Sequence[str],
    sources: Sequence[str],
) -> Incoming:
    kind = chance.choice(types)
    data: dict[str, Any] = {"device_id": f"d{seed}"}
    if chance.random() < 0.95:
        data["message_id"] = chance.choice(messages)
    at = NOW - DAY + int(chance.choice(PLACES) * SECOND)
    if chance.random() < 0.6:
        data[f"{STATE_OF_TYPE.get(kind, 'other')}_at"] = iso(at)
    if chance.random() < 0.3:
        data["error"] = {"code": "NO_CREDIT", "message": event_id}
    envelope = {"timestamp": iso(at + chance.choice([0, 0, SECOND]))}
    if chance.random() < 0.1:
        envelope = {}
    return parse(
        body_of(kind, data, event_id=event_id, **envelope),
        received_at=NOW + chance.randrange(60) * SECOND,
        retention=90 * DAY,
        source=chance.choice(sources),
    )


def seqs(store: Store) -> dict[int, int]:
    """The place of each event in the order of arrival."""
    (table,) = (table for table in COMPARED if table.name == "events")
    return {row[0]: place for place, row in enumerate(store.rows(table, None, 1_000_000))}


def rows(store: Store) -> dict[str, list[dict[str, Any]]]:
    """All rows, with the place of an event in the place of its number."""
    places = seqs(store)
    found: dict[str, list[dict[str, Any]]] = {}
    for table in COMPARED:
        found[table.name] = [
            {
                name: places[value] if name in ("seq", "event_seq") else value
                for name, value in zip(table.columns, row, strict=True)
            }
            for row in store.rows(table, None, 1_000_000)
            if table.name != "statistics" or any(row[5:])  # an empty cell is none
        ]
    return found


# --- the rule, as slowly as can be


def is_same(
    one: Incoming | Report, other: Incoming | Report, events: Sequence[Incoming | Report]
) -> bool:
    if one.type != other.type or one.reported_at is None or other.reported_at is None:
        return False
    earlier, later = sorted((one.reported_at, other.reported_at))
    if later - earlier < 2 * SECOND:
        return True
    if one.source == other.source == "webhook":
        return False
    for event in events:
        at, state = event.reported_at, STATE_OF_TYPE.get(event.type)
        if at is None:
            continue
        if STATE_OF_TYPE.get(one.type) == "failed":
            # A failure that was learnt has the time of what came before it.
            if state in ("queued", "processing", "sent") and earlier + 2 * SECOND <= at <= later:
                return False
        elif state in ("queued", "failed") and earlier < at < later:
            return False
    return True


def expected(groups: Sequence[Sequence[Incoming]]) -> dict[str, tuple[bool, bool]]:
    """For each event: whether it is a repeat, and whether it is dispatched."""
    stored: dict[str, Incoming] = {}
    answers = {}
    for came in (item for group in groups for item in group):
        item, other = came, stored.get(came.id)
        if other is not None and (item.type, item.message_id) != (other.type, other.message_id):
            item = item._replace(id="sha256:" + hashlib.sha256(item.body).hexdigest())
        if item.id in stored:
            continue
        of_message = [e for e in stored.values() if e.message_id == item.message_id is not None]
        same = [other for other in of_message if is_same(item, other, of_message)]
        says_why = item.has_error and not any(other.has_error for other in same)
        answers[item.id] = (bool(same), not same or says_why)
        stored[item.id] = item
    return answers


def report(chance: random.Random) -> Report:
    place = chance.choice([*PLACES, None])
    return Report(
        chance.choice(["sms.sent", "sms.failed", "sms.queued", "sms.other"]),
        None if place is None else int(place * SECOND),
        chance.random() < 0.3,
        chance.choice(["webhook", "webhook", "reconciliation", "gateway"]),
    )


def answer(look: Look, reports: Sequence[Report]) -> list[Report]:
    """What a store has to answer."""
    answers = []
    for has_error in (False, True):
        fitting = [
            report
            for report in reports
            if (report.type, report.has_error) == (look.type, has_error)
            and report.reported_at is not None
            and look.since <= report.reported_at <= look.until
            and not (look.learnt and report.source == "webhook")
        ]
        choose = max if look.latest else min
        if fitting:
            answers.append(choose(fitting, key=lambda report: report.reported_at or 0))
    return answers


def test_what_is_looked_up_is_enough() -> None:
    """Together with what has arrived in the same group."""
    chance = random.Random(1)
    for _ in range(10_000):
        new, *stored = (report(chance) for _ in range(chance.randint(2, 8)))
        arrived = [stored.pop() for _ in stored[:2] if chance.random() < 0.2]
        everything = [*stored, *arrived]
        same = told_already(new, everything)
        assert same == [other for other in everything if is_same(new, other, everything)], new

        learnt = any(one.source != "webhook" for one in [new, *everything])
        looks = looks_for("m", new, learnt=learnt)
        found = [one for look in looks for one in answer(look, stored)]
        told = told_already(new, [*found, *arrived])
        assert bool(told) == bool(same), (new, everything)
        assert any(one.has_error for one in told) == any(one.has_error for one in same), new


# --- both engines


def test_random_histories_make_the_same_rows(stores: Stores) -> None:
    for seed in range(HISTORIES):
        groups = history(seed)
        for group in groups:
            sqlite, postgres = (store.ingest(group, wanting, 5) for store in stores)
            assert sqlite == postgres
        message_ids = {item.message_id for group in groups for item in group}
        told = [
            {
                e["event_id"]: (e["repeat"], bool(e["deliveries"]))
                for message_id in message_ids
                if message_id is not None
                for e in store.events(Selection(message_id=message_id))
            }
            for store in stores
        ]
        model = {name: answer for name, answer in expected(groups).items() if name in told[0]}
        assert told == [model, model], f"history {seed}"
    sqlite_rows, postgres_rows = (rows(store) for store in stores)
    for table in COMPARED:
        assert len(sqlite_rows[table.name]) > HISTORIES
        assert sqlite_rows[table.name] == postgres_rows[table.name]


def test_of_many_events_few_are_looked_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def incoming(kind: str, number: int, source: str = "webhook", **data: Any) -> Incoming:
        body = body_of(
            f"sms.{kind}",
            {"message_id": "m", **data},
            event_id=f"{kind}{number}{source}",
            timestamp=iso(NOW - 3 * number * SECOND),
        )
        return parse(body, received_at=NOW, retention=90 * DAY, source=source)

    many = [
        incoming(kind, number, source, **data)
        for number in range(0, 300, 2)
        for source in ("webhook", "gateway")
        for kind, data in (("queued", {}), ("sent", {}), ("failed", {"error": "NO_CREDIT"}))
    ]
    store.ingest(many, wanting, 5)
    looked_up: list[int] = []

    def told(report: Report, others: Any) -> list[Report]:
        looked_up.append(len(others))
        return told_already(report, others)

    monkeypatch.setattr("receiver.store.group.told_already", told)
    for source in ("webhook", "reconciliation"):
        for kind in ("queued", "sent", "failed", "other"):
            assert store.ingest([incoming(kind, 151, source)], wanting, 5) == ["accepted"]
    assert len(looked_up) == 8
    assert max(looked_up) <= 18
