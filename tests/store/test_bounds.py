"""What a sender or a reader could let grow without end has a bound, or is told of."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from app import create_app
from receiver import event, times
from receiver.errors import StoreUnavailable
from receiver.event import Incoming
from receiver.mirror import Search
from receiver.parts import Receiver
from receiver.providers.zimsend.webhook import parse
from receiver.store import Store
from receiver.store.sqlite import SqliteStore
from receiver.times import DAY, SECOND, iso
from receiver.upkeep import Upkeep
from tests.conftest import Provider
from tests.payloads import body_of, envelope, sms
from tests.reconciliation.life import HEADERS, KEYS

NOW = times.RELEASED + 10 * DAY


def reject(store: Store, number: int, size: int = 100_000) -> str:
    item = event.reject(
        b"%9d" % number + b"x" * size, "nonsense", received_at=NOW + number * SECOND
    )
    assert store.ingest([item], lambda _: (), 5) == ["quarantined"]
    return item.digest


def test_quarantine_is_bounded_in_bytes_and_the_oldest_go_first(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Upkeep, "QUARANTINE_BYTES", 1 << 20)
    keeper = Upkeep(store, 90 * DAY)
    digests = [reject(store, number) for number in range(8)]
    kept = parse(body_of("sms.sent", {"message_id": "m"}), received_at=NOW, retention=DAY)
    store.ingest([kept], lambda _: (), 5)
    keeper.step(NOW)
    assert [row["digest"] for row in store.quarantined()] == digests
    digests += [reject(store, number) for number in range(8, 24)]
    keeper.step(NOW)
    assert [row["digest"] for row in store.quarantined()] == digests[-10:]
    digests.append(reject(store, 24))
    keeper.step(NOW)
    assert [row["digest"] for row in store.quarantined()] == digests[-10:]
    assert caplog.text.count("quarantine is full") == 1
    assert store.body(kept.id) is not None


def test_a_sender_of_very_many_small_bodies_finds_the_bound(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row has its price, also without a body (STORE_TEXT)."""
    monkeypatch.setattr(Upkeep, "QUARANTINE_BYTES", 100_000)
    items = [
        event.reject(b"%d" % n, "nonsense", received_at=NOW + n, text_mode="none")
        for n in range(1_000)
    ]
    store.ingest(items, lambda _: (), 5)
    Upkeep(store, 90 * DAY).step(NOW)
    assert len(list(store.quarantined())) == 100_000 // 512


def test_what_reads_all_there_is_needs_no_more_memory_for_more(
    engine: str, environ: dict[str, str], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"receiver.store.{engine}.records.NAMED_AT_ONCE", 100, raising=False)
    client = create_app(environ | KEYS).test_client()

    def reconciliation() -> None:
        told = client.get("/v1/reconciliation", headers=HEADERS).get_json()
        assert told["missed"]["reports"] == stored

    def quarantine() -> None:
        assert sum(1 for _ in store.quarantined()) == stored

    def search() -> None:
        assert store.history(Search(text="no index has it yet %"), 0, 10) == (0, [])

    def metadata() -> None:
        assert store.history(Search(metadata=(("n", "none"),)), 0, 10) == (0, [])

    readers = (reconciliation, quarantine, search, metadata)
    items: list[Incoming | event.Rejected] = []
    stored = 0
    needed: list[list[int]] = []
    for more in (500, 2_000):
        for start in range(stored, stored + more, 500):
            for number in range(start, start + 500):
                items += [
                    missed(number),
                    event.reject(b"%d" % number, "", received_at=NOW + number),
                ]
            store.ingest(items, lambda _: (), 5)
            items.clear()
        stored += more
        needed.append([peak_of(read) for read in readers])
    for reader, few, many in zip(readers, *needed, strict=True):
        assert many < few + 100_000, reader.__name__


def missed(number: int) -> Incoming:
    """A report that came from reconciliation, each of a message of its own, all in one gap."""
    at = NOW + number * SECOND
    body = body_of(
        "sms.sent",
        sms("sent", f"m{number}", sent_at=iso(at), message="x" * 100),
        timestamp=iso(at),
    )
    return parse(body, received_at=at, retention=90 * DAY, source="reconciliation")


def peak_of(read: Callable[[], None]) -> int:
    """Bytes that it needs at once, the second time."""
    read()
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_reader_that_holds_its_snapshot_is_told_of(
    receiver: Receiver,
    provider: Provider,
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("receiver.store.sqlite.upkeep.LONG_LOG", 500_000)
    store = receiver.store
    assert isinstance(store, SqliteStore)
    file = Path(store.path)
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    keeper = Upkeep(store, 90 * DAY)
    keeper.step(NOW)
    assert client.get("/readyz").json["warnings"] == {}
    for _ in range(60):
        provider.post(envelope("sms.sent", sms("sent")))
    for _ in range(3):
        keeper.step(NOW)
    assert caplog.text.count("-wal has") == 1
    assert "end that program" in client.get("/readyz").json["warnings"]["store"]
    reader.close()


def test_a_read_of_ours_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as it lasts, the log cannot be emptied."""
    store = SqliteStore(str(tmp_path / "r.db"))
    store.migrate()

    def long(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        ).fetchone()

    with monkeypatch.context() as patched:
        patched.setattr("receiver.store.sqlite.connections.READER_PATIENCE", 0.05)
        patched.setattr("receiver.store.sqlite.mirror.page", long)
        with pytest.raises(StoreUnavailable, match="interrupted"):
            store.history(Search(), 0, 10)
    assert store.history(Search(), 0, 10) == (0, [])
    store.close()
