"""What messages are found and counted by: pure rules, and the store's answers against a recount."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import mirror, status, times
from receiver.mirror import Search
from receiver.providers.zimsend.webhook import parse
from receiver.store import Place, Selection, Store
from receiver.times import DAY, HOUR, SECOND
from tests.payloads import body_of

NOW = 20_000 * DAY + 9 * HOUR
RETENTION = 90 * DAY


# --- texts and numbers


@given(st.text(), st.text(), st.text())
def test_a_part_is_found_in_the_whole(before: str, part: str, after: str) -> None:
    assert mirror.fold(part) in mirror.fold(before + part + after)


@given(st.text())
def test_a_database_can_hold_what_is_searched(text: str) -> None:
    folded = mirror.fold(text)
    assert "\0" not in folded
    folded.encode()
    assert mirror.fold(folded) == folded


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("ETE", "L'été"),
        ("été", "L'ETE"),
        ("e\u0301te\u0301", "été"),
        ("Lodz", "Łódź"),
        ("coeur", "Cœur"),
        ("l'heure", "L’heure"),
        ("strasse", "STRAẞE"),
        ("ΣΟΦΟΣ", "σοφός"),
        ("МОСКВА", "москва"),
        ("مرحبا", "مَرْحَبًا"),
        ("שלום", "שָׁלוֹם"),
        ("ａｂｃ", "abc"),
        ("สวัส", "สวัสดี"),
        ("日本", "日本語"),
        ("👋", "Bonjour 👋"),
        ("istanbul", "İSTANBUL"),
    ],
)
def test_letter_case_accents_and_scripts(typed: str, text: str) -> None:
    assert mirror.fold(typed) in mirror.fold(text)


@pytest.mark.parametrize(("typed", "text"), [("ปู", "ปี"), ("क", "ख"), ("é", "a"), ("1", "２3")])
def test_other_letters_stay_other_letters(typed: str, text: str) -> None:
    assert mirror.fold(typed) not in mirror.fold(text)


@pytest.mark.parametrize(
    "text", ["+33612345678", "0033 6 12 34 56 78", " 33 6.12.34.56.78", "(+33) 612-345-678"]
)
def test_a_number_is_its_digits(text: str) -> None:
    assert mirror.number(text) == "33612345678"


def test_a_number_without_digits_is_a_name() -> None:
    assert mirror.number(" ZimSend ") == mirror.number("zimsend") == "zimsend"
    assert len(mirror.number("x" * 1000)) < 100


# --- a message's time


def row(**times_of: int) -> status.Row:
    return {name.replace("_or_receipt", "~"): [t, "e", t] for name, t in times_of.items()}


@pytest.mark.parametrize(
    ("times_of", "at"),
    [
        ({"sent": 5, "delivered": 9, "failed": 7, "queued": 1}, 5),
        ({"delivered": 9, "failed": 7, "queued": 1}, 9),
        ({"failed": 7, "queued": 1, "cancelled": 8}, 7),
        ({"queued": 1, "cancelled": 8, "processing": 2}, 1),
        ({"cancelled": 8, "processing": 2}, 3),
        ({"sent_or_receipt": 6, "delivered": 9}, 6),
    ],
)
def test_the_time_that_counts(times_of: dict[str, int], at: int) -> None:
    assert mirror.summarize(row(**times_of), first_received_at=3).at == at


def test_statistics_add_up_as_in_the_providers_sample() -> None:
    stats = mirror.statistics(
        [
            *((20_000, "delivered", 1198), (20_000, "failed", 50), (20_001, "failed", 2)),
            *((20_002, "sent", 10), (20_002, "queued", 5), (20_003, "cancelled", 4)),
        ]
    )
    assert stats == {
        "total_sent": 1250,
        "delivered": 1198,
        "failed": 52,
        "pending": 15,
        "delivery_rate": 95.84,
        "by_day": [
            {"date": "2024-10-04", "sent": 1248, "delivered": 1198, "failed": 50},
            {"date": "2024-10-05", "sent": 2, "delivered": 0, "failed": 2},
        ],
    }
    assert mirror.statistics([])["delivery_rate"] == 0


def test_a_provider_that_reports_no_delivery_spoils_no_rate() -> None:
    silent = [(20_000, "sent", 7), (20_001, "queued", 2), (20_001, "failed", 1)]
    ours = [(20_000, "delivered", 3), (20_000, "failed", 1), (20_000, "sent", 1)]
    stats = mirror.statistics(ours, silent)
    by_day = stats.pop("by_day")
    assert [(day["sent"], day["failed"]) for day in by_day] == [(4, 1), (1, 1)]
    assert stats == {
        "total_sent": 5,
        "delivered": 3,
        "failed": 2,
        "pending": 1,
        "delivery_rate": 75.0,
    }
    alone = mirror.statistics([], silent)
    assert (alone["delivery_rate"], alone["pending"]) == (None, 0)


# --- the store, against a recount


class World:
    """Random events about few messages, and what a store must answer, counted anew each time."""

    STATES = ("queued", "processing", "sent", "delivered", "failed", "cancelled")
    TEXTS = ("Été à Łódź", "l'ete", "code 4821", "Code 48213", "مَرحبا", "x", "", "a\0b\ud800c")
    CODES = ("NO_CREDIT", "BLOCKED", "b\0", "c" * 300, None, "OTHER")
    METADATA = (
        {"order": "CMD-1042"},
        {"order": "CMD-1042", "n": 7},
        {"n": 7, "deep": {"a": 1}, "é": "à\0\ud800", "k" * 65: "x", "long": "v" * 256},
        {},
    )
    PAIRS = (
        (("order", "CMD-1042"),),
        (("order", "CMD-1042"), ("n", "7")),
        (("é", "à\ufffd?"),),
        (("n", "8"),),
        (("long", "v" * 256),),
    )
    NUMBERS = ("+33612345678", "0033 612 345 678", "+49151000", "ZimSend")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rows: dict[str, status.Row] = {}
        self.first: dict[str, int] = {}
        self.events: list[tuple[str, str]] = []  # their messages, and their own ids
        self.now = NOW

    def event(self) -> tuple[bytes, int]:
        choose = self.random.choice
        state = choose(self.STATES)
        moment = self.now - self.random.randrange(3 * DAY)
        data: dict[str, Any] = {"message_id": f"m{self.random.randrange(12)}"}
        if self.random.random() < 0.8:
            data[f"{state}_at"] = times.iso(moment // SECOND * SECOND)
        for name, values in (("message", self.TEXTS), ("to", self.NUMBERS)):
            if self.random.random() < 0.7:
                data[name] = choose(values)
        if self.random.random() < 0.7:
            data["device_id"] = choose(("dev_1", "dev_2", "d\0", "d" * 300))
        if self.random.random() < 0.5:
            data["metadata"] = choose(self.METADATA)
        if state == "failed":
            data["error"] = {"code": choose(self.CODES), "message": "no"}
        told = {"test": True} if self.random.random() < 0.6 else {}
        self.now += self.random.randrange(HOUR)
        timestamp = choose((None, times.iso(moment + SECOND)))
        return body_of(f"sms.{state}", data, timestamp=timestamp, **told), self.now

    def take(self, body: bytes, received_at: int) -> Any:
        item = parse(body, received_at=received_at, retention=RETENTION)
        assert item.message_id
        assert item.says
        name = item.message_id
        self.rows[name] = status.merge(self.rows.get(name, {}), item.says)
        self.first.setdefault(name, received_at)
        self.events.append((name, item.id))
        return item

    def summaries(self) -> dict[str, mirror.Summary]:
        return {n: mirror.summarize(row, self.first[n]) for n, row in self.rows.items()}

    def found(self, search: Search) -> list[str]:
        """Every message that the search means, in the order of history."""

        def means(name: str, summary: mirror.Summary) -> bool:
            text = self.rows[name].get("message", (0, 0, ""))[2]
            return (
                search.status in (None, summary.status)
                and search.device_id in (None, summary.device_id)
                and (not search.numbers or summary.number in search.numbers)
                and (search.since is None or search.since <= summary.at)
                and (search.until is None or summary.at <= search.until)
                and search.text != ""
                and (not search.text or search.text in mirror.fold(text))
                and search.code in (None, summary.code or None)
                and search.provider in (None, "zimsend")
                and set(search.metadata) <= mirror.metadata(self.rows[name]).items()
            )

        found = [(s.at, name) for name, s in self.summaries().items() if means(name, s)]
        return [name for _, name in sorted(found, key=lambda f: (-f[0], f[1]))]

    def events_of(self, numbers: Sequence[str]) -> list[str]:
        messages = self.found(Search(numbers=tuple(numbers)))
        return [event_id for message_id, event_id in self.events if message_id in messages]

    def search(self) -> Search:
        maybe = lambda value: value if self.random.random() < 0.3 else None  # noqa: E731
        summary, other = self.random.choices(list(self.summaries().values()), k=2)
        number, at = summary.number or "33612345678", summary.at
        several = self.random.choice(((number,), (number, "nobody"), (number, other.number)))
        bounds = (at, at - at % DAY, at - at % DAY + DAY - 1, at - DAY, at + 1)
        since, until = maybe(self.random.choice(bounds)), maybe(self.random.choice(bounds))
        text = maybe(self.random.choice(("ete", "e", "code 482", "48213", "lodz", "zzz", "", "\0")))
        return Search(
            status=maybe(summary.status),
            device_id=maybe(summary.device_id or "dev_1"),
            numbers=maybe(several) or (),
            since=since,
            until=until,
            text=None if text is None else mirror.fold(text),
            code=maybe(summary.code or "NO_CREDIT"),
            provider=maybe(self.random.choice(("zimsend", "zimsend", "smscx"))),
            metadata=maybe(self.random.choice(self.PAIRS)) or (),
        )


@pytest.mark.parametrize("seed", range(12))
def test_history_and_statistics_equal_a_recount(store: Store, seed: int) -> None:
    world = World(seed)
    for _ in range(25):
        events = [world.event() for _ in range(world.random.choice((1, 1, 2, 7)))]
        store.ingest([world.take(*event) for event in events], lambda _: (), 5)
        if world.random.random() < 0.3:
            store.index_texts(5)

        real = [s for n, s in world.summaries().items() if not status.is_test(world.rows[n])]
        cells = Counter((s.cell.day, s.status) for s in real)
        counted = {(day, state): n for day, state, n in store.statistics(None, None, None) if n}
        assert counted == cells
        by_code = store.statistics(None, None, None, by=("device_id", "code"))
        assert {tuple(cell): n for *cell, n in by_code if n} == Counter(
            (s.device_id, s.code, s.status) for s in real
        )

        for _ in range(6):
            search = world.search()
            expected = world.found(search)
            assert history(store, search) == expected, search
            offset, limit = world.random.randrange(6), world.random.randrange(1, 6)
            total, page = store.history(search, offset, limit)
            assert total == len(expected), search
            assert [name for name, _ in page] == expected[offset : offset + limit]
            assert list(page_by_page(store, search, limit)) == expected, search
            if search.numbers:
                assert events_by_number(store, search.numbers) == world.events_of(search.numbers)
    rows = dict(store.history(Search(), 0, 100)[1])
    assert rows == world.rows


def page_by_page(store: Store, search: Search, limit: int) -> Iterator[str]:
    """What a reader meets who goes from page to page."""
    after: Place | None = None
    while page := store.listed(search, after, limit):
        assert len(page) <= limit
        yield from (name for (_, name), _ in page)
        after, _ = page[-1]


def history(store: Store, search: Search) -> list[str]:
    return [name for name, _ in store.history(search, 0, 1000)[1]]


def events_by_number(store: Store, numbers: Sequence[str]) -> list[str]:
    return [event["event_id"] for event in store.events(Selection(numbers=tuple(numbers)))]


def test_search_when_nearly_all_match(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the page is found by walking through history; the answer is the same."""
    monkeypatch.setattr("receiver.store.sqlite.mirror._MANY", 2)
    monkeypatch.setattr("receiver.store.sqlite.listing._MANY", 2)
    monkeypatch.setattr("receiver.store.postgres.mirror._MANY", 2)
    test_history_and_statistics_equal_a_recount(store, 99)


def test_a_changed_text_is_found_by_its_new_form_only(store: Store) -> None:
    def take(state: str, text: str, second: int) -> None:
        data = {"message_id": "m1", "message": text}
        timestamp = times.iso(NOW + second * SECOND)
        body = body_of(f"sms.{state}", data, timestamp=timestamp)
        item = parse(body, received_at=NOW + second * SECOND, retention=RETENTION)
        store.ingest([item], lambda _: (), 5)

    def finds(text: str) -> bool:
        return history(store, Search(text=text)) == ["m1"]

    take("sent", "first words", 1)
    assert not store.index_texts(5)
    assert finds("first")
    take("delivered", "other words", 2)
    assert finds("other")
    assert not finds("first")
    store.index_texts(5)
    assert finds("other")
    assert finds("words")
    assert not finds("first")


def test_the_same_text_again_is_not_indexed_again(store: Store) -> None:
    for state in ("sent", "delivered"):
        data = {"message_id": "m1", "message": "bonjour"}
        item = parse(body_of(f"sms.{state}", data), received_at=NOW, retention=RETENTION)
        store.ingest([item], lambda _: (), 5)
        store.index_texts(5)
        assert not store.index_texts(5)
    assert history(store, Search(text="bonjour")) == ["m1"]


# --- numbers, which SQLite's index is told later


def report(message_id: str, to: str, second: int = 0, **data: Any) -> Any:
    """A message's event; each later one has more to say."""
    data = {"message_id": message_id, "to": to, "sent_at": times.iso(NOW), **data}
    body = body_of("sms.sent", data, timestamp=times.iso(NOW + second * SECOND))
    return parse(body, received_at=NOW + second * SECOND, retention=RETENTION)


def put(store: Store, *items: Any) -> None:
    store.ingest(items, lambda _: (), 5)


def index(store: Store) -> None:
    while store.index_texts(5):
        pass


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_changed_number_is_found_by_its_new_form_only(
    store: Store, before: bool, after: bool
) -> None:
    first, second = report("m1", "+331"), report("m1", "+332", 1)
    put(store, first)
    if before:
        index(store)
    put(store, second)
    if after:
        index(store)
    assert history(store, Search(numbers=("332",))) == ["m1"]
    assert list(page_by_page(store, Search(numbers=("332",)), 1)) == ["m1"]
    assert events_by_number(store, ("332",)) == [first.id, second.id]
    assert history(store, Search(numbers=("331",))) == []
    assert list(page_by_page(store, Search(numbers=("331",)), 1)) == []
    assert events_by_number(store, ("331",)) == []
    assert history(store, Search(numbers=("331", "332"))) == ["m1"]


def test_pages_go_on_where_what_is_indexed_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are indexed: those that are not lie among them in history."""
    monkeypatch.setattr("receiver.store.sqlite.mirror._INDEXED_AT_ONCE", 3)
    for hour in (5, 2, 7, 0, 3, 6, 1, 4, 8, 9):
        at = NOW - hour // 2 * HOUR  # two of each time
        to = ("+331", "+332", "+331", "+33399")[hour % 4]
        data = {"sent_at": times.iso(at), "device_id": f"d{hour % 3}"}
        if hour in (1, 2, 5, 6):
            data["delivered_at"] = times.iso(at + SECOND)
        put(store, report(f"m{hour}", to, **data))

    def numbered(*rests: int) -> list[str]:
        return [f"m{hour}" for hour in range(10) if hour % 4 in rests]

    expected = {
        Search(numbers=("331",)): numbered(0, 2),
        Search(numbers=("331", "332", "none")): numbered(0, 1, 2),
        Search(numbers=("331", "33399"), since=NOW - 3 * HOUR, until=NOW - HOUR): [
            *("m2", "m3", "m4", "m6", "m7")
        ],
        Search(numbers=("331",), status="sent"): ["m0", "m4", "m8"],
        Search(numbers=("332", "33399"), status="delivered"): ["m1", "m5"],
        Search(numbers=("331",), device_id="d0"): ["m0", "m6"],
        Search(numbers=("331",), provider="zimsend"): numbered(0, 2),
        Search(numbers=("331",), provider="smscx"): [],
        Search(numbers=("none",)): [],
    }
    for _ in range(5):
        for search, names in expected.items():
            for limit in (1, 2, 3, 10):
                assert list(page_by_page(store, search, limit)) == names, search
                for offset in range(len(names) + 1):
                    total, page = store.history(search, offset, limit)
                    assert total == len(names)
                    assert [name for name, _ in page] == names[offset : offset + limit], search
        more = store.index_texts(5)
    assert not more
