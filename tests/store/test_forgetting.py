"""A number that was forgotten is nowhere, and nothing brings it back; all else is as it was."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import backups, erasing, phone
from receiver.event import Incoming, reject
from receiver.forgetting import Forgotten, entries
from receiver.mirror import Search
from receiver.parts import Receiver
from receiver.providers.sipgate.intents import Book, intent
from receiver.providers.zimsend.webhook import parse
from receiver.store import Selection, Settlement, Store, Want, copying, open_store
from receiver.store.sqlite import scrubbing
from receiver.times import DAY, SECOND, iso
from tests.conftest import Provider

NUMBER = phone.number("+33699888777", None)
assert NUMBER is not None
OTHER = "+33611223344"
#: As people and programs write it.
SPELLINGS = (
    "+33699888777",
    "33699888777",
    "0033699888777",
    "+33 6 99 88 87 77",
    "+33 (0)6.99.88.87.77",
    "0699888777",
    "06-99-88-87-77",
    "06\u00a099\u202f88 87/77",
)
#: Digits that must be in no file.
DIGITS = (b"33699888777", b"0699888777", b"699888777")
T0 = 20_400 * DAY


def silent(_told: str) -> None: ...


def body(
    event_id: str, message_id: str | None, state: str = "delivered", at: int = T0, **data: Any
) -> bytes:
    said = {f"{state}_at": iso(at), **data}
    if message_id is not None:
        said["message_id"] = message_id
    return json.dumps({"event": f"sms.{state}", "event_id": event_id, "data": said}).encode()


def put(store: Store, raw: bytes, at: int = T0, handlers: tuple[str, ...] = ()) -> str:
    item = parse(raw, received_at=at, retention=90 * DAY)
    return store.ingest([item], lambda _: handlers, 5)[0]


def fill(store: Store) -> None:
    """The number wherever it can be, and others beside it."""
    for number, spelling in enumerate(SPELLINGS):
        raw = body(f"e{number}", f"m{number}", to=spelling, message=f"call {spelling} or {OTHER}")
        assert put(store, raw) == "accepted"
    texts = {
        "to": OTHER,
        "message": "he is at 06 99 88 87 77 today",
        "device_id": "phone-33699888777",
    }
    put(store, body("evt-33699888777-1", "msg-33699888777-1", **texts), handlers=("h",))
    put(store, body("evt-33699888777-2", None, to="33699888777"))
    put(store, body("f1", "m1", "failed", to=int("33699888777"), error={
        "code": "C33699888777", "message": "06 99 88 87 77 is off"}))  # fmt: skip
    metadata = {"client": "0699888777", "33699888777": 1, "in": '{"n": 33699888777}'}
    put(store, body("f2", "m2", "queued", metadata=metadata), handlers=("h",))
    put(store, body("other", "mo", to=OTHER, message="nobody's"))
    store.ingest([reject(b"no json +33 699 888 777", "odd", received_at=T0)], lambda _: (), 5)
    (claim, *_) = store.work(T0, [], [Want("h", 1, SECOND, 9)], 5)
    failed = Settlement(claim, "dead", T0, "KeyError: '+33699888777'", traceback="f.py")
    store.work(T0, [failed], [], 5)
    asked = intent("own-1", sms_id="s0", to="+33699888777", text="hi", now=T0)
    Book(store).keep([asked])
    store.claim_turn("asked:msg-33699888777-1", T0, T0 + DAY)
    while store.index_texts(5):
        pass


def forget(store: Store) -> Mapping[str, int]:
    return erasing.forget(store, NUMBER, silent)


def rows(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table.name: [tuple(row) for batch in copying.batches(store, table) for row in batch]
        for table in copying.TABLES
    }


def holds(found: object) -> bool:
    text = repr(found).encode()
    return any(digits in text for digits in DIGITS)


def assert_not_in_files(url: str) -> None:
    """Byte for byte, where the store is files."""
    for ending in ("", "-wal", "-shm") if url.startswith("sqlite") else ():
        path = Path(url.removeprefix("sqlite:///") + ending)
        content = path.read_bytes() if path.exists() else b""
        assert not any(digits in content for digits in DIGITS), path


@pytest.fixture(autouse=True)
def no_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.upkeep._YIELD", 0)
    monkeypatch.setattr("receiver.upkeep._SHORTEST_REST", 0)


def test_nothing_holds_it_and_all_else_is_as_it_was(store: Store, database_url: str) -> None:
    fill(store)
    before = rows(store)
    assert holds(before)
    counted = erasing.count(store, NUMBER, silent)
    assert rows(store) == before, "a dry run changes nothing"
    found = forget(store)
    after = rows(store)
    assert {part: n for part, n in found.items() if n} == {p: n for p, n in counted.items() if n}
    assert not holds({name: kept for name, kept in after.items() if name != "forgotten"})
    assert [row[0] for row in after["events"]] == [row[0] for row in before["events"]]
    fixed = slice(4, 13)  # times, error, source, late, repeat
    assert [row[fixed] for row in after["events"]] == [row[fixed] for row in before["events"]]
    states = [(row[1], row[2]) for row in before["messages"]]
    assert sorted((row[1], row[2]) for row in after["messages"]) == sorted(states)
    assert OTHER in repr(after), "others stay"
    sums = [sum(row[-2] for row in kept["statistics"]) for kept in (before, after)]
    assert sums[0] == sums[1]
    assert_not_in_files(database_url)
    assert store.history(Search(text="call"), 0, 50)[0] == len(SPELLINGS)
    assert store.history(Search(text="99 88"), 0, 50)[0] == 0
    assert store.history(Search(numbers=("33699888777",)), 0, 50)[0] == 0


def test_statistics_stay_in_their_cells(store: Store) -> None:
    fill(store)
    by = ("day", "code", "device_id", "provider")
    before = store.statistics(None, None, None, by=by)
    forget(store)
    after = store.statistics(None, None, None, by=by)
    assert sorted(n for *_, n in before if n) == sorted(n for *_, n in after if n)
    assert not holds(after)
    # An event that moves a message out of such a cell finds it.
    put(store, body("late", "m1", "delivered", T0 + 2))
    put(store, body("late-2", "msg-33699888777-1", "failed", T0 + 2, device_id="phone-33699888777"))
    total = store.history(Search(), 0, 1)[0]
    assert sum(n for *_, n in store.statistics(None, None, None, by=by)) == total
    assert all(n >= 0 for *_, n in store.statistics(None, None, None, by=by))


def test_what_comes_again_is_known_and_what_comes_later_is_redacted(
    store: Store, database_url: str
) -> None:
    fill(store)
    with closing(open_store(database_url)) as other:  # a process that knows nobody yet
        put(other, body("before", "mb", to=OTHER))
        forget(store)
        again = body("evt-33699888777-1", "msg-33699888777-1", to=OTHER)
        assert put(other, again) == "duplicate"
        assert put(other, body("e0", "m0", to=SPELLINGS[0])) == "duplicate"
        nameless = json.dumps({"event": "sms.sent", "data": {"to": SPELLINGS[3]}}).encode()
        assert put(other, nameless) == "accepted"
        assert put(store, nameless) == "duplicate", "its id is that of what came"
        assert put(other, body("new", "msg-33699888777-1", "failed", to=SPELLINGS[2])) == "accepted"
        other.ingest([reject(b"x 0699888777", "odd", received_at=T0)], lambda _: (), 5)
        other.claim_turn("asked:33699888777", T0, T0 + DAY)
        other.write_note("any", "+33 699 888 777")
        put(other, body("work", "mw", to=OTHER), handlers=("late",))
        (claim,) = other.work(T0, [], [Want("late", 1, SECOND, 9)], 5)
        other.work(T0, [Settlement(claim, "dead", T0, "no +33699888777")], [], 5)
    kept = rows(store)
    assert not holds({name: found for name, found in kept.items() if name != "forgotten"})
    (renamed,) = {row[3] for row in kept["events"] if row[1] == "new"}
    assert sum(row[3] == renamed for row in kept["events"]) == 2, "one message has both"
    assert store.note("any") == "[forgotten]"
    # Whoever knows the message by its own id finds it: reconciliation, and a program that asks.
    assert len(store.reports({"msg-33699888777-1"})["msg-33699888777-1"]) == 2
    assert store.evidence("msg-33699888777-1", 5) == store.evidence(renamed, 5)
    assert store.evidence(renamed, 5) is not None
    # What is given to handlers again goes by the id that the message has now.
    everything = Selection()
    assert store.replay(
        everything, wanting=lambda _: ("h",), now=T0, dry_run=False, progress=lambda _: None
    )
    assert not holds(rows(store)["deliveries"])
    (event,) = store.events(Selection(ids=["new"]))
    assert event["to"] == "[forgotten]"


def test_who_forgets_between_reading_and_writing(store: Store, database_url: str) -> None:
    """A group that was read by the older list is not written by it."""
    with closing(open_store(database_url)) as other:
        once: list[None] = []

        def meanwhile() -> None:
            if not once:
                once.append(None)
                forget(other)

        raw = body("raced", "mr", to=SPELLINGS[0], message="06 99 88 87 77")
        item = parse(raw, received_at=T0, retention=90 * DAY)
        assert store.ingest([item], lambda _: (), 5, meanwhile) == ["accepted"]
    assert not holds(rows(store)["events"])
    assert not holds(rows(store)["messages"])


def test_a_message_that_changes_while_it_is_swept(store: Store, database_url: str) -> None:
    """What was read before the sweep is not written after it."""
    put(store, body("first", "mr", "sent", to=SPELLINGS[0]))
    with closing(open_store(database_url)) as other:
        once: list[None] = []

        def meanwhile() -> None:
            if not once:
                once.append(None)
                forget(other)

        item = parse(body("second", "mr", at=T0 + 5), received_at=T0, retention=90 * DAY)
        assert store.ingest([item], lambda _: (), 5, meanwhile) == ["accepted"]
    kept = rows(store)["messages"]
    assert not holds(kept)
    assert [row[1] for row in kept] == ["delivered"]


def test_who_is_in_the_middle_of_writing(store: Store, database_url: str) -> None:
    """What began before is committed before, and found; or it is written by the new list."""
    with closing(open_store(database_url)) as other:
        thread = threading.Thread(target=forget, args=[other])

        def meanwhile(_kind: str) -> tuple[str, ...]:
            if not thread.ident:
                thread.start()
                thread.join(0.1)
            return ()

        item = parse(body("raced", "mr", to=SPELLINGS[0]), received_at=T0, retention=90 * DAY)
        assert store.ingest([item], meanwhile, 5) == ["accepted"]
        thread.join()
    assert not holds(rows(store)["events"])
    assert not holds(rows(store)["messages"])


class Killed(BaseException):
    """Nothing of a process goes on after it."""


def test_killed_anywhere_the_next_run_does_the_rest(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.store.sqlite.forgetting.CHANGED", 3)
    monkeypatch.setattr("receiver.store.postgres.forgetting.CHANGED", 3)
    fill(store)
    states = sorted(row[1:3] for row in rows(store)["messages"])
    draw = random.Random(18)
    for _ in range(10):
        left = draw.randrange(1, 24)

        def dies(batch: Callable[[], Any]) -> Any:
            nonlocal left
            left -= 1
            if not left:
                raise Killed
            return batch()

        monkeypatch.setattr(erasing, "patiently", dies)
        with closing(open_store(database_url)) as doomed, suppress(Killed):
            forget(doomed)
        # The door is shut from the first moment on.
        for name, message_id in (("evt-33699888777-1", "msg-33699888777-1"), ("e0", "m0")):
            assert put(store, body(name, message_id, to=SPELLINGS[0])) == "duplicate"
    monkeypatch.setattr(erasing, "patiently", lambda batch: batch())
    forget(store)
    assert not holds({name: kept for name, kept in rows(store).items() if name != "forgotten"})
    assert sorted(row[1:3] for row in rows(store)["messages"]) == states
    assert_not_in_files(database_url)


@pytest.mark.each_engine
def test_a_backup_from_before_does_not_bring_it_back(
    receiver: Receiver, runner: FlaskCliRunner, tmp_path: Path, engine: str, empty_database_url: str
) -> None:
    """On PostgreSQL the list is in the database that the backup is put into."""
    store = receiver.store
    fill(store)
    file = tmp_path / "backup.db"
    backups.back_up(store, file, silent)
    url = receiver.config.database_url
    if engine == "postgres":
        url = empty_database_url
    with closing(open_store(url)) as target:
        target.migrate()
        forget(target)
    store.close()
    backups.restore(file, url, replace=True, progress=silent)
    with closing(open_store(url)) as restored:
        kept = rows(restored)
        assert len(kept["events"]) > len(SPELLINGS)
        assert not holds({name: found for name, found in kept.items() if name != "forgotten"})
        put(restored, body("later", "ml", to=SPELLINGS[1]))
        assert not holds(rows(restored)["events"])
    assert_not_in_files(url)


def test_a_file_of_an_earlier_release(environ: dict[str, str], tmp_path: Path) -> None:
    """What it has deleted is still in it, until it is written anew."""
    path = tmp_path / "receiver.db"
    url = environ["DATABASE_URL"]
    with closing(open_store(url)) as store:
        store.migrate()
        fill(store)
    with closing(sqlite3.connect(path)) as old:
        old.execute("PRAGMA secure_delete = OFF")
        old.execute("UPDATE marks SET value = 0 WHERE name = 'wiped'")
        old.execute("CREATE TABLE gone AS SELECT * FROM events")
        old.execute("DROP TABLE gone")
        old.commit()
    app = create_app(environ)
    runner = app.test_cli_runner()
    with closing(open_store(url)) as service:
        service.note("any")
        told = runner.invoke(args=["forget", "+33699888777", "--yes"])
        assert told.exit_code == 1
        assert "stop the service" in told.output
    told = runner.invoke(args=["forget", "+33699888777", "--yes"])
    assert told.exit_code == 0, told.output
    assert "no digits of it" in told.output
    app.extensions["receiver"].store.close()
    assert_not_in_files(url)
    with closing(open_store(url)) as store:
        assert not store.leaves_traces()


@pytest.mark.each_engine
def test_who_was_forgotten_while_a_group_comes_in(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread of the process has read the new list, by the time the group asks for it."""
    url = environ["DATABASE_URL"]
    incoming = Forgotten.incoming
    with closing(open_store(url)) as store, closing(open_store(url)) as other:
        store.migrate()
        one, two = (phone.number(number, None) for number in (OTHER, "+33699888777"))
        assert one is not None
        assert two is not None
        store.forget(entries(one, "00" * 32), 5)
        put(store, body("e0", "m0", to="+33600000000"))

        def slowly(whom: Forgotten, item: Incoming) -> Incoming:
            monkeypatch.undo()
            found = incoming(whom, item)
            other.forget(entries(two, "00" * 32), 5)
            thread = threading.Thread(target=store.evidence, args=("m0", 1))
            thread.start()
            thread.join()
            return found

        monkeypatch.setattr(Forgotten, "incoming", slowly)
        assert put(store, body("e1", "m1", to="+33699888777")) == "accepted"
        assert not holds([*rows(store)["events"], *rows(store)["messages"]])


# --- the command


@pytest.mark.each_engine
def test_the_command_asks_and_counts(receiver: Receiver, runner: FlaskCliRunner) -> None:
    fill(receiver.store)
    before = rows(receiver.store)
    told = runner.invoke(args=["forget", "0033 6 99 88 87 77", "--dry-run"])
    assert told.exit_code == 0
    assert "9 messages, 12 events" in told.output
    assert "1 body in quarantine" in told.output
    assert rows(receiver.store) == before
    told = runner.invoke(args=["forget", "+33699888777"], input="n\n")
    assert told.exit_code == 1
    assert rows(receiver.store) == before
    for wrong in ("0699888777", "hello", "12"):
        told = runner.invoke(args=["forget", wrong, "--yes"])
        assert told.exit_code == 2, wrong
        assert "+33612345678" in told.output
    told = runner.invoke(args=["forget", "+33699888777"], input="y\n")
    assert told.exit_code == 0, told.output
    assert "9 messages, 12 events" in told.output
    told = runner.invoke(args=["forget", "+33699888777", "--dry-run"])
    assert "0 messages, 0 events, 0 bodies in quarantine, 0 work items and 0 notes" in told.output


def test_the_webhook_answers_as_ever(
    receiver: Receiver, provider: Provider, runner: FlaskCliRunner
) -> None:
    now = receiver.now()
    raw = body("evt-33699888777", "m", at=now, to="+33699888777")
    assert provider.post(raw).json == {"status": "accepted", "event_id": "evt-33699888777"}
    assert runner.invoke(args=["forget", "+33699888777", "--yes"]).exit_code == 0
    assert provider.post(raw).json == {"status": "duplicate", "event_id": "evt-33699888777"}
    assert provider.post(b"+33699888777").status_code == 400
    assert not holds([rows(receiver.store)[name] for name in ("events", "quarantine")])


def test_the_index_of_texts_forgets_too(environ: dict[str, str]) -> None:
    """FTS5 keeps the trigrams of a text that was deleted, until its segments are merged."""
    arabic = "٠٦٩٩٨٨٨٧٧٧"  # trigrams that no other text has
    url = environ["DATABASE_URL"]
    with closing(open_store(url)) as store:
        store.migrate()
        for number in range(200):
            put(store, body(f"e{number}", f"m{number}", message=f"text {number} {number * 977}"))
            if number % 50 == 0:
                put(store, body(f"f{number}", f"n{number}", message=f"call {arabic} {number}"))
                while store.index_texts(5):
                    pass
        while store.index_texts(5):
            pass

        def blocks() -> int:
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as reader:
                found = reader.execute("SELECT block FROM search_data").fetchall()
            return sum(arabic[1:3].encode() in block for (block,) in found)

        assert blocks()
        forget(store)
        assert not blocks()
        assert store.history(Search(text="call"), 0, 50)[0] == 4


def test_what_sqlite_leaves_between_the_cells_of_a_page(environ: dict[str, str]) -> None:
    """Where it moves entries from page to page, `secure_delete` does not overwrite."""
    url = environ["DATABASE_URL"]
    path = Path(url.removeprefix("sqlite:///"))
    with closing(open_store(url)) as store:
        store.migrate()
        fill(store)
    content = bytearray(path.read_bytes())
    left = 0
    for start in range(0, len(content), 4096):
        page = bytes(content[start : start + 4096])
        room = scrubbing.unused(page, 4096, first=start == 0)
        if room is not None and start != 4096 and room[1] - room[0] > 100:
            content[start + room[0] + 30 : start + room[0] + 42] = b"+33699888777"
            left += 1
    assert left > 10
    path.write_bytes(content)
    with closing(open_store(url)) as service:
        assert put(service, body("mine", "mm", to=OTHER)) == "accepted"
        app = create_app(environ)
        told = app.test_cli_runner().invoke(args=["forget", "+33699888777", "--yes"])
        assert told.exit_code == 0, told.output
        assert put(service, body("mine", "mm", to=OTHER)) == "duplicate"
        assert put(service, body("more", "mm", "failed", to=OTHER)) == "accepted"
        app.extensions["receiver"].store.close()
    assert_not_in_files(url)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_which_pages_are_maps_of_the_others() -> None:
    """One that would lie where SQLite has its locks lies behind it (`ptrmapPageno` in SQLite)."""
    assert [n for n in range(1, 1700) if scrubbing.is_map(n, 4096, 4096)] == [2, 822, 1642]
    locked = 2**30 // 1024 + 1
    assert (locked - 2) % 205 == 0
    assert [n for n in range(locked - 3, locked + 4) if scrubbing.is_map(n, 1024, 1024)] == [
        locked + 1
    ]


def test_what_is_no_page_of_a_tree_is_left_alone(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file of very many pages, one that goes on where another ends may look like one."""
    url = environ["DATABASE_URL"]
    path = Path(url.removeprefix("sqlite:///"))
    with closing(open_store(url)) as store:
        store.migrate()
        fill(store)
    monkeypatch.setattr(scrubbing, "_TOO_MANY", path.stat().st_size // 4096)
    before = path.read_bytes()
    scrubbing.scrub(str(path), f"{path}-wal", lambda page: True)
    assert path.read_bytes() == before


def test_no_page_is_written_back_as_it_was(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who overwrites has read a page itself, and writes it with what else is to be written."""
    url = environ["DATABASE_URL"]
    path = Path(url.removeprefix("sqlite:///"))
    with closing(open_store(url)) as store:
        store.migrate()
        fill(store)
    content = bytearray(path.read_bytes())
    for start in range(4096, len(content), 4096):
        room = scrubbing.unused(bytes(content[start : start + 4096]), 4096, first=False)
        if room is not None and start != 4096 and room[1] - room[0] > 100:
            content[start + room[0] + 30 : start + room[0] + 42] = b"+33699888777"
    path.write_bytes(content)
    held = b"+33699888777"
    monkeypatch.setattr(scrubbing, "_AT_ONCE", 1)
    scrubbing.scrub(str(path), f"{path}-wal", lambda page: held in page)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    left = path.read_bytes()
    for start in range(0, len(left), 4096):
        page = left[start : start + 4096]
        room = scrubbing.unused(page, 4096, first=start == 0)
        assert room is None or held not in page[room[0] : room[1]], start
