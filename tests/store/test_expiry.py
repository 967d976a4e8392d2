"""What goes after the retention, what stays, and that it can be killed at any point."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import times, upkeep
from receiver.mirror import Search
from receiver.parts import Receiver
from receiver.providers.zimsend.samples import sample
from receiver.providers.zimsend.webhook import parse
from receiver.store import Expired, Selection, Settlement, Store, Want, open_store
from receiver.store.copying import TABLES
from receiver.times import DAY, HOUR, SECOND, iso
from receiver.upkeep import Upkeep
from tests.conftest import Clock, Provider
from tests.outside import Outside
from tests.payloads import body_of
from tests.server import ROOT, Server, eventually

KILLS = 20 if os.environ.get("TORTURE") else 5
RETENTION = 90 * DAY
T0 = 20_000 * DAY + HOUR


def put(store: Store, body: bytes, received_at: int, handlers: tuple[str, ...] = ()) -> list[str]:
    """Let a body in by the store's door, as if it had been received then."""
    item = parse(body, received_at=received_at, retention=RETENTION)
    return list(store.ingest([item], lambda _: handlers, 5))


def report(state: str, message_id: str | None, at: int, event_id: str | None = None) -> bytes:
    data = {} if message_id is None else {"message_id": message_id, f"{state}_at": iso(at)}
    fields = {} if event_id is None else {"event_id": event_id}
    return body_of(f"sms.{state}", data, timestamp=iso(at), **fields)


def ids(store: Store) -> set[str]:
    return {event["event_id"] for event in store.events(Selection())}


def messages(store: Store) -> set[str]:
    return {name for name, _ in store.history(Search(), 0, 10_000)[1]}


def all_statistics(store: Store) -> list[tuple[int, str, int]]:
    return sorted(row for row in store.statistics(None, None, None) if row[2])


# --- what goes, and when


def test_a_message_goes_after_its_last_receipt_with_all_its_events(store: Store) -> None:
    put(store, report("sent", "m1", T0, "e1"), T0)
    put(store, report("delivered", "m1", T0, "e2"), T0 + 5 * DAY)
    put(store, report("sent", "m2", T0, "e3"), T0)
    put(store, body_of("otp.sent", {"message_id": "m1"}, event_id="e4"), T0 + 6 * DAY)
    before = all_statistics(store)

    assert upkeep.expire(store, T0) == Expired(0, 0, 0)
    assert store.expirable(T0 + DAY) == Expired(1, 1, 0)
    assert upkeep.expire(store, T0 + DAY) == Expired(1, 1, 0)
    assert ids(store) == {"e1", "e2", "e4"}
    assert messages(store) == {"m1"}
    assert upkeep.expire(store, T0 + 6 * DAY) == Expired(0, 0, 0)
    assert upkeep.expire(store, T0 + 6 * DAY + 1) == Expired(1, 3, 0)
    assert not ids(store)
    assert not messages(store)
    assert all_statistics(store) == before


def test_a_duplicate_is_a_receipt(store: Store) -> None:
    body = report("sent", "m1", T0)
    put(store, body, T0)
    device = body_of("device.connected", {}, event_id="device")
    put(store, device, T0)
    put(store, body, T0 + DAY)
    put(store, device, T0 + DAY)
    assert upkeep.expire(store, T0 + DAY) == Expired(0, 0, 0)
    assert upkeep.expire(store, T0 + DAY + 1) == Expired(1, 2, 0)


def test_an_event_that_came_before_its_message_counts_too(store: Store) -> None:
    otp = body_of("otp.sent", {"message_id": "m1"}, timestamp=iso(T0 + 20 * HOUR))
    put(store, otp, T0)
    put(store, report("sent", "m1", T0), T0)
    assert upkeep.expire(store, T0 + 19 * HOUR) == Expired(0, 0, 0)
    assert upkeep.expire(store, T0 + 20 * HOUR + 1) == Expired(1, 2, 0)


def test_the_rows_own_times_count_too(store: Store) -> None:
    put(store, report("delivered", "m1", T0 + 12 * HOUR), T0)
    assert upkeep.expire(store, T0 + HOUR) == Expired(0, 0, 0)
    assert upkeep.expire(store, T0 + 13 * HOUR) == Expired(1, 1, 0)


def test_events_without_a_message_go_by_themselves(store: Store) -> None:
    put(store, body_of("device.connected", {}, event_id="old"), T0)
    put(store, body_of("device.connected", {}, event_id="young"), T0 + DAY)
    put(store, body_of("device.connected", {}, event_id="future", timestamp=iso(T0 + HOUR)), T0)
    put(store, body_of("otp.sent", {"message_id": "unknown"}, event_id="otp"), T0)
    assert upkeep.expire(store, T0 + 1) == Expired(0, 2, 0)
    assert ids(store) == {"young", "future"}


def test_a_message_with_very_many_events_goes_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.store.sqlite.expiry._MOST_EVENTS", 10)
    items = [
        parse(report("sent", f"m{n % 2}", T0 + n * SECOND), received_at=T0, retention=RETENTION)
        for n in range(55)
    ]
    store.ingest(items, lambda _: (), 5)
    assert upkeep.expire(store, T0 + DAY) == Expired(2, 55, 0)
    assert not ids(store)


def test_work_that_is_owed_stays_and_dead_work_goes(store: Store) -> None:
    put(store, report("sent", "owed", T0, "e1"), T0, ("handler",))
    put(store, report("delivered", "owed", T0, "e2"), T0)
    put(store, body_of("device.connected", {}, event_id="e3"), T0, ("handler",))
    put(store, report("sent", "dead", T0, "e4"), T0, ("other",))
    (claim,) = store.work(T0, [], [Want("other", 10, SECOND, 1)], 5)
    store.work(T0, [Settlement(claim, "dead", T0)], [], 5)

    assert store.expirable(T0 + DAY) == Expired(1, 1, 0)
    assert upkeep.expire(store, T0 + DAY) == Expired(1, 1, 0)
    assert ids(store) == {"e1", "e2", "e3"}
    claims = store.work(T0, [], [Want("handler", 10, SECOND, 1)], 5)
    store.work(T0, [Settlement(claim, "done", T0) for claim in claims], [], 5)
    assert upkeep.expire(store, T0 + DAY) == Expired(1, 3, 0)


def test_a_claim_never_meets_another_event_than_its_own(store: Store) -> None:
    """The newest event expires; the next one must not get its number."""
    put(store, report("sent", "m1", T0, "e1"), T0, ("handler",))
    (claim,) = store.work(T0, [], [Want("handler", 1, SECOND, 1)], 5)
    store.work(T0, [Settlement(claim, "done", T0)], [], 5)
    upkeep.expire(store, T0 + DAY)
    put(store, report("sent", "m2", T0 + DAY, "e2"), T0 + DAY, ("handler",))
    (other,) = store.work(T0 + DAY, [], [Want("handler", 1, SECOND, 1)], 5)
    assert other.event_seq > claim.event_seq


def test_a_text_that_has_expired_is_not_found(store: Store) -> None:
    put(store, body_of("sms.sent", {"message_id": "m1", "message": "bonjour"}), T0)
    store.index_texts(5)
    assert store.history(Search(text="bonjour"), 0, 10)[0] == 1
    upkeep.expire(store, T0 + DAY)
    put(store, body_of("sms.sent", {"message_id": "m2", "message": "autre"}), T0)
    assert store.history(Search(text="bonjour"), 0, 10) == (0, [])


# --- the whole service, day by day


@pytest.fixture
def configured(environ: dict[str, str]) -> dict[str, str]:
    environ.update(
        ZIMSEND_API_KEY="zs_test_key",
        ZIMSEND_CLIENT_ID="client_1",
        ZIMSEND_API_URL="http://127.0.0.1:9/v1",  # nobody is there
    )
    return environ


def settle_all(receiver: Receiver, now: int) -> None:
    for handler in receiver.registry:
        while claims := receiver.store.work(now, [], [Want(handler.name, 100, SECOND, 9)], 5):
            receiver.store.work(now, [Settlement(c, "done", now) for c in claims], [], 5)


@pytest.mark.usefixtures("configured")
@pytest.mark.each_engine
def test_day_89_90_and_91(receiver: Receiver, provider: Provider, clock: Clock) -> None:
    headers = {"X-API-Key": "zs_test_key", "X-Client-ID": "client_1"}
    began = clock.time
    body = sample("sms.delivered", event_id="e1", message_id="m1", to="+33600000000", now=began)

    def get(call: str) -> Any:
        return provider.client.get(f"/v1/sms/{call}", headers=headers)

    def pass_of_expiry() -> None:
        upkeep.expire(receiver.store, clock.time - receiver.config.retention)

    assert provider.post(body).json == {"status": "accepted", "event_id": "e1"}
    provider.post(b"signed, but no JSON")
    settle_all(receiver, clock.time)
    statistics = get("stats").json
    assert statistics["stats"]["delivered"] == 1

    clock.time = began + 89 * DAY
    pass_of_expiry()
    assert get("status/m1").status_code == 200
    assert provider.post(body).json == {"status": "duplicate", "event_id": "e1"}

    # That was a receipt, so the days count from it.
    clock.time = began + (89 + 90) * DAY
    pass_of_expiry()
    assert get("status/m1").json["status"] == "delivered"
    assert not list(receiver.store.quarantined())

    clock.time += DAY
    pass_of_expiry()
    assert get("status/m1").json["error"]["code"] == "MESSAGE_NOT_FOUND"
    assert get("history").json["pagination"]["total_items"] == 0
    assert get("stats").json == statistics
    assert ids(receiver.store) == set()

    answer = provider.post(body)
    assert answer.status_code == 400
    assert "older than 90 days" in answer.json["detail"]
    assert ids(receiver.store) == set()

    # A new report for it starts a new row.
    provider.post(report("failed", "m1", clock.time))
    assert get("status/m1").json["status"] == "failed"
    assert get("stats").json["stats"]["total_sent"] == 2


@pytest.mark.each_engine
def test_a_replay_is_refused_after_the_retention_was_lowered_and_raised_again(
    environ: dict[str, str], clock: Clock
) -> None:
    def service(days: int) -> tuple[Receiver, Provider]:
        app = create_app({**environ, "RETENTION_DAYS": str(days)}, clock)
        receiver: Receiver = app.extensions["receiver"]
        receiver.store.migrate()
        return receiver, Provider(app.test_client())

    body = report("sent", "m1", clock.time, "e1")
    later = report("sent", "m2", clock.time + 1 * SECOND, "e2")
    receiver, provider = service(90)
    assert provider.post(body).status_code == 200
    settle_all(receiver, clock.time)
    receiver.store.close()

    clock.time += 31 * DAY
    receiver, provider = service(30)
    upkeep.expire(receiver.store, clock.time - receiver.config.retention)
    assert ids(receiver.store) == set()
    receiver.store.close()

    receiver, provider = service(90)
    answer = provider.post(body)
    assert answer.status_code == 400
    assert "expired" in answer.json["detail"]
    assert ids(receiver.store) == set()
    assert messages(receiver.store) == set()
    (kept,) = receiver.store.quarantined()
    assert kept["body"] == body
    # What is later than all that was forgotten cannot be a replay of it.
    assert provider.post(later).json["status"] == "accepted"
    assert "still not usable" in retry(receiver, provider)
    assert len(list(receiver.store.quarantined())) == 1
    receiver.store.close()


@pytest.mark.each_engine
def test_a_refused_event_is_kept_by_the_digest_of_what_came(
    environ: dict[str, str], clock: Clock
) -> None:
    app = create_app({**environ, "STORE_TEXT": "none"}, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    put(receiver.store, report("sent", "m1", clock.time), clock.time)
    upkeep.expire(receiver.store, clock.time + DAY)
    late = sample("sms.sent", event_id="e", message_id="m2", to="+336", now=clock.time - SECOND)
    assert Provider(app.test_client()).post(late).status_code == 400
    (kept,) = receiver.store.quarantined()
    assert kept["digest"] == hashlib.sha256(late).hexdigest()
    assert (kept["length"], kept["body"]) == (len(late), None)
    receiver.store.close()


def retry(receiver: Receiver, provider: Provider) -> str:
    runner = FlaskCliRunner(provider.client.application)
    return runner.invoke(args=["quarantine", "retry"]).output


def test_one_process_at_a_time(store: Store) -> None:
    assert store.claim_turn("expiry", T0, T0 + HOUR)
    assert not store.claim_turn("expiry", T0 + 1, T0 + HOUR)
    assert store.claim_turn("expiry", T0 + HOUR, T0 + 2 * HOUR)
    # The clock that wrote it was a year ahead.
    assert store.claim_turn("expiry", T0 + 400 * DAY, T0 + 401 * DAY)
    assert store.claim_turn("expiry", T0 + 3 * HOUR, T0 + 4 * HOUR)


def test_upkeep_goes_on_after_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = times.now()
    put(store, body_of("sms.sent", {"message_id": "m1", "message": "bonjour"}), now - 91 * DAY)
    put(store, body_of("device.connected", {}), now)  # the clock is right
    keeper = Upkeep(store, RETENTION, lambda: now)
    monkeypatch.setattr(keeper, "LOOK", 0.01)
    claim_turn = store.claim_turn
    failures = iter([RuntimeError("a defect"), RuntimeError("another")])

    def failing(*arguments: Any) -> bool:
        for failure in failures:
            raise failure
        return claim_turn(*arguments)

    monkeypatch.setattr(store, "claim_turn", failing)
    keeper.start()
    eventually(lambda: not messages(store))
    keeper.stop()
    assert "upkeep failed and goes on: a defect" in caplog.text


# --- the command


def fill(store: Store, count: int, received_at: int) -> None:
    """Messages with two events each, in groups."""
    bodies = [
        body_of(
            f"sms.{state}",
            {"message_id": f"old{n}", "message": f"Bonjour, commande CMD-{n:06}"},
            timestamp=iso(received_at),
        )
        for n in range(count)
        for state in ("sent", "delivered" if n % 3 else "failed")
    ]
    for start in range(0, len(bodies), 500):
        some = bodies[start : start + 500]
        items = [parse(b, received_at=received_at, retention=RETENTION) for b in some]
        store.ingest(items, lambda _: (), 5)
    while store.index_texts(5):
        pass


@pytest.mark.each_engine
def test_expire_says_what_it_does(receiver: Receiver, runner: FlaskCliRunner, clock: Clock) -> None:
    fill(receiver.store, 3, clock.time)
    clock.time += 91 * DAY
    put(receiver.store, report("sent", "young", clock.time), clock.time)
    told = "3 messages, 6 events, 0 bodies in quarantine\n"
    assert runner.invoke(args=["expire", "--dry-run"]).output == f"would delete {told}"
    assert len(messages(receiver.store)) == 4
    assert runner.invoke(args=["expire"]).output == f"deleted {told}"
    assert messages(receiver.store) == {"young"}


@pytest.mark.each_engine
def test_killed_at_any_point_it_ends_the_same(environ: dict[str, str]) -> None:
    """kill -9 in the middle of `flask expire`, again and again; then once to the end."""
    chance = random.Random(20_261_121)
    store = open_store(environ["DATABASE_URL"])
    store.migrate()
    now = times.now()
    fill(store, 300 * KILLS, now - 91 * DAY)
    put(store, report("sent", "young", now), now)
    before = all_statistics(store)
    outside = Outside(environ["DATABASE_URL"])
    pages = page_count(outside)

    for _ in range(KILLS):
        left = len(messages_of(outside))
        process = expire_process(environ)
        while len(messages_of(outside)) == left and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait()
        if outside.is_sqlite:
            assert outside.execute("PRAGMA integrity_check") == [("ok",)]
        # A message and its events went together, or are there together.
        assert set(messages_of(outside).values()) <= {1, 2}
        assert sum(n == 1 for n in messages_of(outside).values()) == 1  # the young one
        assert all_statistics(store) == before

    process = expire_process(environ)
    assert process.wait(60) == 0
    assert messages(store) == {"young"}
    assert all_statistics(store) == before
    cells = "statistics" if outside.is_sqlite else "counted"
    live = outside.execute(
        f"SELECT day, status, sum(live) FROM {cells} GROUP BY day, status HAVING sum(live) <> 0"
    )
    assert live == [(now // DAY, "sent", 1)]
    table = "search" if outside.is_sqlite else "texts"
    assert outside.execute(f"SELECT count(*) FROM {table}") == [(0,)]
    store.close()
    # Some free pages are kept for what comes next; PostgreSQL keeps all, and uses them again.
    assert page_count(outside) <= (min(pages, 340) if outside.is_sqlite else 0)
    outside.close()


@pytest.mark.each_engine
def test_the_service_forgets_by_itself(
    serve: Callable[..., Server], environ: dict[str, str]
) -> None:
    store = open_store(environ["DATABASE_URL"])
    store.migrate()
    now = times.now()
    fill(store, 200, now - 91 * DAY)
    put(store, body_of("sms.sent", {"message_id": "young", "message": "Bonjour"}), now)
    before = all_statistics(store)
    serve(WEB_CONCURRENCY="2")
    eventually(lambda: messages(store) == {"young"})
    eventually(lambda: not store.index_texts(5) and store.history(Search(text="jour"), 0, 1)[0])
    assert all_statistics(store) == before
    store.close()


def expire_process(environ: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", str(ROOT / "wsgi.py"), "expire"],
        env={**os.environ, "FLASK_SKIP_DOTENV": "1", "PYTHONPATH": str(ROOT), **environ},
        stdout=subprocess.DEVNULL,
    )


def page_count(outside: Outside) -> int:
    """The size of a file of SQLite."""
    count: int = outside.execute("PRAGMA page_count")[0][0] if outside.is_sqlite else 0
    return count


def messages_of(outside: Outside) -> dict[str, int]:
    """The number of each message's events, with those of messages that are not there."""
    with outside.moment():
        events: dict[str, int] = dict(
            outside.execute("SELECT message_id, count(*) FROM events GROUP BY message_id")
        )
        present = {name for (name,) in outside.execute("SELECT id FROM messages")}
    assert events.keys() == present
    return events


def test_what_was_asked_long_ago_is_forgotten(store: Store) -> None:
    for name, until in (("asked:old", T0), ("asked:new", T0 + HOUR), ("other", T0)):
        assert store.claim_turn(name, T0 - HOUR, until)
    assert store.expire(T0 + 1, 5) == (0, 0, 0)
    (marks,) = (table for table in TABLES if table.name == "marks")
    names = {name for name, _ in store.rows(marks, None, 100)}
    assert {"asked:new", "other"} <= names
    assert "asked:old" not in names


# --- an older database


def test_a_database_of_the_first_schema_is_brought_along(tmp_path: Path) -> None:
    from sqlite_utils import Database

    from receiver.store.sqlite.schema import migrations

    path = tmp_path / "old.db"
    store = open_store(f"sqlite:///{path}")
    store.migrate()
    put(store, report("sent", "m1", T0, "e1"), T0)
    text = {"message_id": "m2", "message": "bonjour", "to": "+33612", "device_id": "dev_1"}
    text |= {"metadata": {"order": "CMD-1042"}, "error": {"code": "NO_CREDIT", "message": "no"}}
    put(store, body_of("sms.failed", text, event_id="e2"), T0 + SECOND)
    put(store, body_of("device.connected", {}, event_id="e3"), T0)
    expected = store.history(Search(), 0, 10), all_statistics(store)
    tables = {
        table: Database(str(path)).query(f"SELECT * FROM {table}")
        for table in ("events", "messages")
    }
    rows = {table: [dict(row) for row in found] for table, found in tables.items()}
    store.close()

    old_path = tmp_path / "first.db"
    old = Database(str(old_path))
    (first, *_) = migrations.pending(old)
    migrations.apply(old, stop_before=migrations.pending(old)[1].name)
    assert first.name == "create_tables"
    for table, columns in (
        (
            "events",
            "seq id type message_id occurred_at received_at reported_at has_error source"
            " late repeat redacted receipts body",
        ),
        ("messages", "id status received_at registers"),
    ):
        for row in rows[table]:
            row["received_at"] = row.get("received_at") or row["first_received_at"]
            old[table].insert({name: row[name] for name in columns.split()})
    old.close()

    store = open_store(f"sqlite:///{old_path}")
    assert store.migrate() == [
        "mirror_is_searched_counted_and_expires",
        "events_arrive_by_one_statement",
        "reports_may_be_learnt",
        "items_behind_others_are_parked",
        "leases_have_owners",
        "errors_have_tracebacks",
        "failures_are_counted_by_code",
        "dead_work_is_found_by_its_cause",
        "what_is_rare_is_found",
        "numbers_only_grow",
        "numbers_are_forgotten",
        "leases_have_no_index",
        "queues_are_numbered",
        "numbers_are_indexed_later",
    ]
    assert (store.history(Search(), 0, 10), all_statistics(store)) == expected
    assert store.history(Search(text="bonjour"), 0, 10)[0] == 1
    assert store.history(Search(metadata=(("order", "CMD-1042"),)), 0, 10)[0] == 1
    assert store.history(Search(code="NO_CREDIT"), 0, 10)[0] == 1
    by_code = store.statistics(None, None, None, by=("code",))
    assert [cell for cell in by_code if cell[2]] == [("", "sent", 1), ("NO_CREDIT", "failed", 1)]
    assert put(store, report("sent", "m1", T0, "e1"), T0) == ["duplicate"]
    assert upkeep.expire(store, T0 + DAY) == Expired(2, 3, 0)
    assert put(store, report("sent", "m1", T0, "e1"), T0) == ["quarantined"]
    store.close()
