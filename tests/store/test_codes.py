"""Statistics by error code and without tests; metadata: on both engines, and after a migration."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlite_utils import Database

from receiver import mirror, status, upkeep
from receiver.event import Incoming
from receiver.mirror import MOST_CODES, Search
from receiver.providers.zimsend.webhook import parse
from receiver.store import Store, open_store
from receiver.store.postgres import PostgresStore
from receiver.store.postgres import schema as postgres_schema
from receiver.store.sqlite.schema import migrations
from receiver.times import DAY, MINUTE, SECOND, iso
from tests.payloads import body_of
from tests.postgres import Databases

NOW = 20_780 * DAY + 8 * 3600 * SECOND


def event(
    state: str, message_id: str, at: int = NOW, code: str | None = None, **more: Any
) -> Incoming:
    """:param more: of the envelope."""
    data: dict[str, Any] = {"message_id": message_id, f"{state}_at": iso(at)}
    if code is not None:
        data["error"] = {"code": code, "message": "no"}
    data |= more.pop("data", {})
    body = body_of(f"sms.{state}", data, timestamp=iso(at), **more)
    return parse(body, received_at=at, retention=90 * DAY)


def put(store: Store, *items: Incoming) -> None:
    assert set(store.ingest(items, lambda _: (), 5)) == {"accepted"}


def by_code(store: Store) -> dict[str, int]:
    counted = store.statistics(None, None, None, by=("code",))
    return {code: n for code, state, n in counted if state == "failed" and n}


def totals(store: Store) -> dict[tuple[int, str], int]:
    return {(day, state): n for day, state, n in store.statistics(None, None, None) if n}


def found(store: Store, **search: Any) -> list[str]:
    total, rows = store.history(Search(**search), 0, 100)
    assert total == len(rows)
    return sorted(name for name, _ in rows)


def test_a_failure_counts_by_its_code_while_it_is_one(store: Store) -> None:
    put(store, event("failed", "m1", code="NO_CREDIT"), event("failed", "m2", code="BLOCKED"))
    put(store, event("failed", "m3"))
    assert by_code(store) == {"NO_CREDIT": 1, "BLOCKED": 1, "": 1}
    assert found(store, code="NO_CREDIT") == ["m1"]
    put(store, event("failed", "m3", NOW + 1, code="BLOCKED"))  # now somebody says why
    put(store, event("delivered", "m1", NOW + MINUTE))
    assert by_code(store) == {"BLOCKED": 2}
    assert found(store, code="NO_CREDIT") == []
    assert found(store, code="BLOCKED", status="failed") == ["m2", "m3"]


def test_a_day_has_so_many_codes_and_the_rest_is_other(store: Store) -> None:
    """A provider that puts an id into each code must not make a cell for each message."""
    codes = [f"E{number}" for number in range(MOST_CODES + 50)]
    for start in range(0, len(codes), 50):
        put(store, *(event("failed", code, code=code) for code in codes[start : start + 50]))
    counted = by_code(store)
    assert len(counted) == MOST_CODES + 1
    assert counted.pop("OTHER") == 50
    assert set(counted.values()) == {1}
    assert found(store, code=codes[-1]) == [codes[-1]]  # what is asked for is the code itself
    # Another day has its own; and what counts as another leaves that cell again.
    put(store, event("failed", "next", NOW + DAY, code=codes[-1]))
    assert by_code(store)[codes[-1]] == 1
    put(store, event("delivered", codes[-1], NOW + MINUTE))
    put(store, event("delivered", codes[0], NOW + MINUTE))
    assert by_code(store)["OTHER"] == 49
    assert codes[0] not in by_code(store)

    before = by_code(store), totals(store)
    upkeep.expire(store, NOW + 3 * DAY)
    assert (by_code(store), totals(store)) == before
    assert found(store) == []
    put(store, event("failed", "again", NOW + 4 * DAY, code="E0"))
    assert found(store) == ["again"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_message_counts_once_something_else_than_tests_tells_of_it(
    store: Store, order: tuple[int, ...]
) -> None:
    items = [
        event("sent", "m1", test=True),
        event("failed", "m1", NOW + SECOND, "BLOCKED", event_id="evt_test_1"),
        event("queued", "m1", NOW - SECOND),
    ]
    alone = 2 in order[:1]
    for place in order:
        put(store, items[place])
        alone = alone or place == 2
        assert sum(totals(store).values()) == alone
    assert by_code(store) == {"BLOCKED": 1}
    total, [(_, row)] = store.history(Search(), 0, 10)
    assert total == 1
    assert not status.is_test(row)


def test_tests_are_kept_and_shown_and_counted_in_no_statistics(store: Store) -> None:
    put(
        store,
        event("sent", "msg_test_1"),
        event("failed", "m2", code="NO_CREDIT", test=True),
        event("sent", "m3", test="true"),  # not what the provider writes
    )
    assert totals(store) == {(NOW // DAY, "sent"): 1}
    total, rows = store.history(Search(), 0, 10)
    assert (total, {name: status.describe(row)["test"] for name, row in rows}) == (
        3,
        {"msg_test_1": True, "m2": True, "m3": False},
    )
    upkeep.expire(store, NOW + DAY)
    assert totals(store) == {(NOW // DAY, "sent"): 1}
    assert found(store) == []
    put(store, event("sent", "m9", NOW + 2 * DAY))
    assert found(store) == ["m9"]


def test_a_message_is_found_by_its_metadata_as_it_is_now(store: Store) -> None:
    def order(number: str, at: int = NOW, **more: Any) -> Incoming:
        return event("sent", "m1", at, data={"metadata": {"order": number, **more}})

    put(store, order("CMD-1", shop=7), event("sent", "m2", data={"metadata": {"shop": 7}}))
    for _ in range(2):  # before the index knows, and after
        assert found(store, metadata=(("order", "CMD-1"),)) == ["m1"]
        assert found(store, metadata=(("shop", "7"),)) == ["m1", "m2"]
        assert found(store, metadata=(("shop", "7"), ("order", "CMD-1"))) == ["m1"]
        assert found(store, metadata=(("order", "CMD-1"),), status="delivered") == []
        store.index_texts(5)
    put(store, order("CMD-2", NOW + SECOND))
    for _ in range(2):
        assert found(store, metadata=(("order", "CMD-1"),)) == []
        assert found(store, metadata=(("order", "CMD-2"),)) == ["m1"]
        assert found(store, metadata=(("shop", "7"),)) == ["m2"]
        store.index_texts(5)
    upkeep.expire(store, NOW + DAY)
    assert found(store, metadata=(("shop", "7"),)) == []


def test_what_of_metadata_is_indexed() -> None:
    def indexed(metadata: Any) -> dict[str, str]:
        return mirror.metadata({"metadata": [1, "e", metadata]})

    assert indexed({"a": "x", "b": 7, "c": 1.5, "d": True, "e": None, "f": [1], "g": {}}) == {
        "a": "x",
        "b": "7",
        "c": "1.5",
    }
    assert len(indexed({str(n): n for n in range(12)})) == 10
    assert indexed({"k" * 64: "v" * 255, "l" * 65: "x", "m": "v" * 256}) == {"k" * 64: "v" * 255}
    assert mirror.metadata({}) == {}


# --- what a release without codes has written


def old_rows(path: Path, count: int) -> Database:
    """A database of the release before, with failures, tests and metadata."""
    db = Database(str(path))
    migrations.apply(db, stop_before="failures_are_counted_by_code")
    cells: Counter[tuple[int, str, str]] = Counter()
    db.execute("BEGIN")
    for number in range(count):
        name = f"msg_test_{number}" if number % 10 == 9 else f"m{number}"
        code = f"E{number % 300}" if number % 2 else None
        item = event(
            "failed" if code else "sent",
            name,
            NOW + number % 3 * DAY,
            code,
            event_id=f"evt_test_{number}" if number % 10 == 8 else f"e{number}",
            data={"metadata": {"n": number}},
        )
        assert item.says
        row = {key: register for key, register in item.says.items() if key != "test"}
        summary = mirror.summarize(row, item.received_at)
        db.execute(
            "INSERT INTO messages (id, status, at, device_id, number, first_received_at,"
            " touched_at, indexed, registers) VALUES (?, ?, ?, '', '', 0, ?, 1, ?)",
            (name, summary.status, summary.at, summary.at, json.dumps(row)),
        )
        db.execute(
            "INSERT INTO events (id, type, message_id, message_key, occurred_at, received_at,"
            " has_error, source, late, repeat, redacted, body) VALUES (?, ?, ?, ?, 0, 0, 0,"
            " 'webhook', 0, 0, 0, '')",
            (item.id, item.type, name, number + 1),
        )
        cells[summary.cell.day, "", summary.status] += 1
    cells[NOW // DAY, "", "failed"] += 7  # which have expired
    db.conn.executemany(
        "INSERT INTO statistics VALUES (?, ?, ?, ?, ?)",
        [(*cell, n, n - 7 * (cell == (NOW // DAY, "", "failed"))) for cell, n in cells.items()],
    )
    db.conn.commit()
    return db


def recount(store: Store) -> tuple[Counter[Any], Counter[Any]]:
    _, rows = store.history(Search(), 0, 10_000)
    real = [mirror.summarize(row, 0) for _, row in rows if not status.is_test(row)]
    return (
        Counter((s.cell.day, s.status) for s in real),
        Counter(s.code for s in real if s.status == "failed"),
    )


def test_sqlite_counts_what_it_has_by_code_at_the_start(tmp_path: Path) -> None:
    old_rows(tmp_path / "r.db", 1_000).close()
    store = open_store(f"sqlite:///{tmp_path / 'r.db'}")
    assert store.migrate()[0] == "failures_are_counted_by_code"
    days, codes = recount(store)
    days[NOW // DAY, "failed"] += 7
    assert totals(store) == days
    assert codes.total() == 400  # a tenth of all by the message's id, and those are failures
    codes[""] = 7
    assert by_code(store) == codes  # fewer than 200 a day
    assert found(store, metadata=(("n", "901"),)) == ["m901"]
    assert found(store, code="E1") == ["m1", "m301", "m601", "m901"]
    total, _ = store.history(Search(), 0, 1)
    assert total == 1_000
    before = totals(store), by_code(store)
    upkeep.expire(store, NOW + 10 * DAY)
    assert (totals(store), by_code(store)) == before
    store.close()


def test_sqlite_needs_no_more_memory_for_more_messages(tmp_path: Path) -> None:
    needed = []
    for count in (600, 2_000):
        path = tmp_path / f"{count}.db"
        old_rows(path, count).close()
        store = open_store(f"sqlite:///{path}")
        tracemalloc.start()
        store.migrate()
        needed.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        store.close()
    assert needed[1] < needed[0] + 100_000


def test_postgres_goes_on_beside_the_release_before(databases: Databases) -> None:
    """It writes neither codes nor cells; the sums are right at once, the codes after a look."""
    url = databases.create()
    store = PostgresStore(url)
    with closing(psycopg.connect(url, autocommit=True)) as outside:

        def old_release(name: str, state: str, before: str | None, item: Incoming) -> None:
            """What the release before writes for a message's first or second event."""
            outside.execute(
                "INSERT INTO messages (id, status, at, device_id, number, first_received_at,"
                " touched_at, registers) VALUES (%s, %s, %s, '', '', 0, 0, %s)"
                " ON CONFLICT (id) DO UPDATE SET status = excluded.status,"
                " registers = excluded.registers",
                (name, state, NOW, json.dumps(item.says)),
            )
            for place, change in ((state, 1), (before, -1)):
                if place is not None:
                    outside.execute(
                        "INSERT INTO statistics AS s (day, device_id, status, spread, total, live)"
                        " VALUES (%s, '', %s, 3, %s, %s)"
                        " ON CONFLICT (day, device_id, status, spread) DO UPDATE SET"
                        " total = s.total + excluded.total, live = s.live + excluded.live",
                        (NOW // DAY, place, change, change),
                    )

        put(store, event("failed", "m1", code="NO_CREDIT"), event("sent", "m2"))
        old_release("m3", "failed", None, event("failed", "m3", code="BLOCKED"))
        old_release("msg_test_1", "sent", None, event("sent", "m4"))
        old_release("m2", "failed", "sent", event("failed", "m2", code="NO_CREDIT"))
        assert totals(store) == {(NOW // DAY, "failed"): 3, (NOW // DAY, "sent"): 1}
        assert by_code(store) == {"NO_CREDIT": 1, "": 2}
        while store.index_texts(5):
            pass
        assert totals(store) == {(NOW // DAY, "failed"): 3}
        assert by_code(store) == {"NO_CREDIT": 1, "BLOCKED": 1, "": 1}
        put(store, event("delivered", "m2", NOW + SECOND), event("delivered", "m3", NOW + SECOND))
        assert totals(store) == {(NOW // DAY, "failed"): 1, (NOW // DAY, "delivered"): 2}
        assert by_code(store) == {"NO_CREDIT": 1}
        upkeep.expire(store, NOW + DAY)
        assert totals(store) == {(NOW // DAY, "failed"): 1, (NOW // DAY, "delivered"): 2}
        live = outside.execute("SELECT sum(live) FROM counted").fetchone()
        assert live == (0,)
    assert [step.breaking for step in postgres_schema.STEPS if "code" in step.name] == [False]
    store.close()
    databases.drop(url)


def test_postgres_counts_what_it_has_by_code(databases: Databases) -> None:
    """After the step no message has a code: all are looked at, some at a time."""
    url = databases.create()
    store = PostgresStore(url)
    for number in range(0, 300, 50):
        put(
            store,
            *(
                event("failed", f"m{n}", code=f"E{n % 7}", data={"metadata": {"n": n}})
                for n in range(number, number + 50)
            ),
        )
    expected = by_code(store)
    with closing(psycopg.connect(url, autocommit=True)) as outside:
        outside.execute("UPDATE messages SET code = NULL")
        outside.execute("TRUNCATE cells, codes, metadata")
        outside.execute(
            "INSERT INTO statistics VALUES (%s, '', 'failed', 1, 300, 300)", (NOW // DAY,)
        )
    store.close()
    store = PostgresStore(url)
    assert by_code(store) == {"": 300}
    assert store.index_texts(5)  # not all at once
    assert 0 < by_code(store)[""] < 300
    while store.index_texts(5):
        pass
    assert by_code(store) == expected
    assert found(store, metadata=(("n", "77"),)) == ["m77"]
    store.close()
    databases.drop(url)
