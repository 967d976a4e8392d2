"""The process that writes for the one that runs handlers: the same ends, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver import times
from receiver.errors import FileReplaced, SchemaMismatch, StoreUnavailable
from receiver.providers.zimsend.webhook import parse
from receiver.store import SILENT_ATTEMPTS, Settlement, Want
from receiver.store.sqlite import SqliteStore, writer_process
from receiver.times import DAY, SECOND
from tests.server import ROOT, eventually

NOW = times.now()
WANT = Want("h", 8, 30 * SECOND, 3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(str(tmp_path / "r.db"))
    store.migrate()
    store.write_apart()
    yield store
    store.close()


def owe(store: SqliteStore, number: int) -> None:
    bodies = [
        json.dumps({"event": "otp.sent", "event_id": f"e{n}"}).encode() for n in range(number)
    ]
    items = [parse(body, received_at=NOW, retention=90 * DAY) for body in bodies]
    store.ingest(items, lambda _: ["h"], 5)


def writers(parent: int) -> list[int]:
    """The processes that write for a process."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            of = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if b"sqlite.serve" in command and int(of) == parent:
            found.append(int(entry.name))
    return found


def only_writer(parent: int) -> int:
    """The one process that writes for a process; a moment after its start it shows no command."""
    eventually(lambda: len(writers(parent)) == 1)
    (child,) = writers(parent)
    return child


def test_work_is_claimed_settled_and_given_up(store: SqliteStore) -> None:
    owe(store, 2)
    first, second = store.work(NOW, [], [WANT], 5)
    assert (first.event_id, first.attempt) == ("e0", 1)
    assert store.work(NOW, [Settlement(first, "done", NOW)], [WANT], 5) == []
    told: list[tuple[str, list[int]]] = []
    now = NOW
    for _ in range(WANT.max_attempts + SILENT_ATTEMPTS):
        now += 31 * SECOND
        store.work(now, [], [WANT], 5, lambda name, items: told.append((name, list(items))))
    assert [each for each in told if each[1]] == [("h", [second.event_seq])]


def test_what_others_write_is_waited_for_and_told(store: SqliteStore) -> None:
    owe(store, 1)
    with sqlite3.connect(store.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            store.work(NOW, [], [WANT], 0.05)
        other.execute("ROLLBACK")
    other.close()
    assert store.work(NOW, [], [WANT], 5)


def test_errors_keep_their_kind(tmp_path: Path) -> None:
    empty = SqliteStore(str(tmp_path / "none.db"))
    empty.write_apart()
    with pytest.raises(SchemaMismatch, match="flask migrate"):
        empty.work(NOW, [], [WANT], 1)
    with pytest.raises(TypeError):
        empty.renew()  # type: ignore[call-arg]
    empty.close()


def test_a_file_that_is_replaced_is_noticed_there(store: SqliteStore) -> None:
    owe(store, 1)
    assert store.work(NOW, [], [WANT], 5)
    os.rename(store.path, f"{store.path}.old")
    with pytest.raises(FileReplaced):
        store.write_note("a", "b")


def test_a_new_one_does_not_write_into_the_file_that_is_there_now(store: SqliteStore) -> None:
    """It was not there when the old one was replaced; what it is told is about the old one."""
    owe(store, 1)
    assert store.work(NOW, [], [WANT], 5)
    child = only_writer(os.getpid())
    os.kill(child, signal.SIGKILL)
    eventually(lambda: not writers(os.getpid()))
    os.rename(store.path, f"{store.path}.old")
    other = SqliteStore(store.path)
    other.migrate()
    owe(other, 1)
    with pytest.raises(StoreUnavailable, match="has ended"):
        store.write_note("a", "b")
    for call in (lambda: store.write_note("a", "b"), lambda: store.work(NOW, [], [WANT], 5)):
        with pytest.raises(FileReplaced):
            call()
    assert other.note("a") is None
    assert other.next_due("h", -1) == NOW  # nobody has leased it
    other.close()


def test_its_end_is_told_and_the_next_call_starts_another(store: SqliteStore) -> None:
    owe(store, 1)
    child = only_writer(os.getpid())
    os.kill(child, signal.SIGKILL)
    eventually(lambda: not writers(os.getpid()))
    with pytest.raises(StoreUnavailable, match="has ended"):
        store.work(NOW, [], [WANT], 5)
    assert store.work(NOW, [], [WANT], 5)
    other = only_writer(os.getpid())
    assert other != child


def test_a_signal_to_the_group_does_not_end_it(store: SqliteStore) -> None:
    owe(store, 1)
    assert len(store.work(NOW, [], [WANT], 5)) == 1
    child = only_writer(os.getpid())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(child, number)
    store.write_note("a", "b")
    assert store.note("a") == "b"
    assert writers(os.getpid()) == [child]


def test_several_threads_each_get_their_own_answers(store: SqliteStore) -> None:
    wrong: list[object] = []

    def take(name: str) -> None:
        for number in range(50):
            if store.claim_turn(f"{name}{number}", NOW, NOW + SECOND) is not True:
                wrong.append((name, number))
            if store.claim_turn(f"{name}{number}", NOW, NOW + SECOND) is not False:
                wrong.append((name, number))

    threads = [threading.Thread(target=take, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


LIVES = """
import os, sys, time
from receiver.store.sqlite import SqliteStore, writer_process
store = SqliteStore(sys.argv[1])
store.write_apart()
store.write_note("a", "b")
if os.fork() == 0:  # as a handler may, which then outlives us
    try:
        store.write_note("a", "c")
    finally:
        time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_process_also_where_that_was_forked(store: SqliteStore) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LIVES, store.path],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        child = only_writer(process.pid)
        process.kill()
        process.wait()
        eventually(lambda: not Path(f"/proc/{child}").exists())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


BESIDE = """
import sys
sys.path.append(sys.argv[1])
from receiver.store.sqlite import SqliteStore
store = SqliteStore(f"{sys.argv[1]}/r.db")
store.migrate()
store.write_apart()
store.write_note("a", "b")
store.close()
"""


def test_no_file_beside_the_package_stands_in_for_a_library(tmp_path: Path) -> None:
    """As in a clone, where a user's own modules may have any names."""
    (tmp_path / "receiver").symlink_to(ROOT / "receiver")
    for name in ("calendar", "click", "csv", "select"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not meant')\n")
    subprocess.run([sys.executable, "-P", "-c", BESIDE, tmp_path], cwd=tmp_path, check=True)


def test_one_that_stands_still_is_ended_and_replaced(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe(store, 1)
    store.close()
    with monkeypatch.context() as patch:
        patch.setattr(writer_process, "LONGEST", 0.1)
        store.write_apart()
    child = only_writer(os.getpid())
    os.kill(child, signal.SIGSTOP)
    with pytest.raises(StoreUnavailable, match="stands still"):
        store.work(NOW, [], [WANT], 5)
    assert store.work(NOW, [], [WANT], 5)


def test_a_slow_disk_holds_up_no_claim(store: SqliteStore) -> None:
    """What is copied from the log takes as long as the disk; the one that writes has other work,
    and is ended where it takes long. Nothing is written by it for this."""
    owe(store, 1)
    log = Path(f"{store.path}-wal")
    assert log.stat().st_size > 0
    child = only_writer(os.getpid())
    os.kill(child, signal.SIGSTOP)
    began = time.monotonic()
    store.tidy()
    assert time.monotonic() - began < 5
    with sqlite3.connect(f"file:{store.path}?immutable=1", uri=True) as without_log:
        assert without_log.execute("SELECT id FROM events").fetchall() == [("e0",)]
    without_log.close()
    os.kill(child, signal.SIGCONT)


def test_one_that_stands_still_holds_up_no_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_process, "CLOSING", 0.1)
    store = SqliteStore(str(tmp_path / "r.db"))
    store.migrate()
    store.write_apart()
    store.write_note("a", "b")
    child = only_writer(os.getpid())
    os.kill(child, signal.SIGSTOP)
    problems: list[Exception] = []
    begun = threading.Event()

    class Text:
        def __reduce__(self) -> tuple[type[str], tuple[str]]:
            begun.set()  # it is being sent
            return str, ("c" * 10_000_000,)  # more than a socket takes

    def call() -> None:
        try:
            store.write_note("a", Text())  # type: ignore[arg-type]
        except StoreUnavailable as error:
            problems.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(30)
    store.close()
    thread.join(30)
    assert not thread.is_alive()
    assert len(problems) == 1
    assert not writers(os.getpid())
