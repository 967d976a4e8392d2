"""A copy of everything while the service runs, and the way back from it, on both engines."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import backups
from receiver.errors import CopyRefused
from receiver.parts import Receiver
from receiver.store import Selection, Store, Want, open_store
from receiver.times import DAY, SECOND
from receiver.worker import is_held
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms
from tests.server import ROOT


def ids(store: Store) -> set[str]:
    return {event["event_id"] for event in store.events(Selection())}


def everything(store: Store) -> list[Any]:
    return [
        list(store.events(Selection())),
        sorted(c for c in store.statistics(None, None, None) if c[2]),
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


@pytest.fixture
def other(
    environ: dict[str, str], empty_database_url: str, tmp_path: Path, engine: str, clock: Clock
) -> Iterator[Receiver]:
    """A service with an empty database, where the backup goes to."""
    url = f"sqlite:///{tmp_path / 'new.db'}" if engine == "sqlite" else empty_database_url
    receiver: Receiver = create_app({**environ, "DATABASE_URL": url}, clock).extensions["receiver"]
    yield receiver
    receiver.store.close()


def settings(url: str) -> dict[str, str]:
    return {
        "ZIMSEND_WEBHOOK_SECRET": "whsec_0123456789abcdef0123456789abcdef",
        "DATABASE_URL": url,
        "HANDLERS": "tests.handlers",
    }


def command(receiver: Receiver, *arguments: str) -> tuple[int, str]:
    app = create_app(settings(receiver.config.database_url), receiver.now)
    told = FlaskCliRunner(app).invoke(args=arguments)
    app.extensions["receiver"].store.close()
    return told.exit_code, told.output


def fill(provider: Provider, count: int = 5) -> None:
    for number in range(count):
        for state in ("sent", "delivered"):
            assert provider.post(envelope(f"sms.{state}", sms(state, f"m{number}"))).status_code


@pytest.mark.each_engine
def test_what_was_backed_up_comes_back(
    receiver: Receiver, provider: Provider, other: Receiver, file: Path, clock: Clock
) -> None:
    fill(provider)
    before = everything(receiver.store)
    assert command(receiver, "backup", str(file))[0] == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.glob("*backup*")] == ["backup.db"]
    with sqlite3.connect(file) as copied:
        assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copied.close()

    status, told = command(other, "restore", str(file))
    assert status == 0, told
    assert [path.name for path in file.parent.glob("backup.db*")] == ["backup.db"]
    assert "restored 10 events of 5 messages" in told
    assert "--run-work" in told
    assert everything(other.store) == before
    # Handlers wait for a person's word, also for what comes from now on.
    names = [handler.name for handler in other.registry]
    other.worker.step(clock.time)
    assert all(
        d["state"] == "pending" for e in other.store.events(Selection()) for d in e["deliveries"]
    )
    assert other.store.work(clock.time, [], [Want(n, 9, SECOND, 9) for n in names], 5)
    assert is_held(other.store)
    assert command(other, "restore", "--run-work")[0] == 0
    assert not is_held(other.store)
    other.store.close()


@pytest.mark.each_engine
def test_a_backup_is_of_one_moment_while_events_come(
    receiver: Receiver, provider: Provider, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(provider)
    before = everything(receiver.store)
    posted = []

    def meanwhile(told: str) -> None:
        posted.append(provider.post(envelope("sms.sent", sms("sent"))).status_code)

    monkeypatch.setattr("receiver.store.sqlite.copy._PAGES", 5)
    backups.back_up(receiver.store, file, meanwhile)
    assert set(posted) == {200}
    with closing(open_store(f"sqlite:///{file}")) as copied:
        assert everything(copied) == before


@pytest.mark.each_engine
def test_nothing_has_the_name_unless_it_is_complete(
    receiver: Receiver, provider: Provider, file: Path
) -> None:
    fill(provider)
    file.write_bytes(b"the one before")

    def fail(told: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backups.back_up(receiver.store, file, fail)
    assert file.read_bytes() == b"the one before"
    assert [path.name for path in file.parent.glob("*backup*")] == ["backup.db"]
    backups.back_up(receiver.store, file, lambda told: None)


@pytest.mark.each_engine
def test_restore_refuses_while_somebody_is_connected(
    receiver: Receiver, provider: Provider, other: Receiver, file: Path, engine: str
) -> None:
    fill(provider, 1)
    assert command(receiver, "backup", str(file))[0] == 0
    program = (
        "import sys; from receiver.store import open_store; kept = [*map(open_store, sys.argv[1:])]"
        "\nfor s in kept: s.migrate(); s.prove_writable(); s.note('x')\n"
        "print('here', flush=True); sys.stdin.read()"
    )
    service = subprocess.Popen(
        [sys.executable, "-c", program, other.config.database_url, receiver.config.database_url],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert service.stdout is not None
    service.stdout.readline()
    status, told = command(other, "restore", str(file))
    both = command(receiver, "restore", str(file))[1]
    service.communicate("")
    assert status == 1
    assert "stop the service" in told
    assert "--replace" not in told
    assert "stop the service" in both
    assert "holds events" in both or engine == "postgres"  # what is to do is said at once
    assert command(other, "restore", str(file))[0] == 0


@pytest.mark.each_engine
def test_restore_refuses_a_store_that_holds_events(
    receiver: Receiver, provider: Provider, file: Path, engine: str
) -> None:
    fill(provider, 1)
    assert command(receiver, "backup", str(file))[0] == 0
    provider.post(envelope("sms.sent", sms("sent"), event_id="later"))
    receiver.store.close()
    status, told = command(receiver, "restore", str(file))
    assert status == 1
    assert "holds events" in told if engine == "sqlite" else "not empty" in told
    assert "stop the service" not in told


def test_a_replaced_file_is_kept_and_its_log_is_not_taken_for_the_new_ones(
    receiver: Receiver, provider: Provider, file: Path
) -> None:
    fill(provider, 1)
    before = ids(receiver.store)
    assert command(receiver, "backup", str(file))[0] == 0
    provider.post(envelope("sms.sent", sms("sent"), event_id="later"))
    path = Path(receiver.config.database_url.removeprefix("sqlite:///"))
    # As after a crash: the last events are in the log alone.
    log = Path(f"{path}-wal").read_bytes()
    database = path.read_bytes()
    receiver.store.close()
    path.write_bytes(database)
    Path(f"{path}-wal").write_bytes(log)
    status, told = command(receiver, "restore", str(file), "--replace")
    assert status == 0, told
    assert not Path(f"{path}-wal").exists()
    with closing(open_store(receiver.config.database_url)) as store:
        store.migrate()
        assert ids(store) == before
    with closing(open_store(f"sqlite:///{path}.before-restore")) as kept:
        assert ids(kept) == before | {"later"}


def test_links_stay_links(receiver: Receiver, provider: Provider, tmp_path: Path) -> None:
    fill(provider, 1)
    volume = tmp_path / "volume"
    volume.mkdir()
    file, place = tmp_path / "b.db", tmp_path / "new.db"
    for link in (file, place):
        link.symlink_to(volume / link.name)
    assert command(receiver, "backup", str(file))[0] == 0
    other = create_app(settings(f"sqlite:///{place}")).extensions["receiver"]
    for arguments in ([], ["--replace"]):
        assert command(other, "restore", str(file), *arguments)[0] == 0
    other.store.close()
    assert file.is_symlink()
    assert place.is_symlink()
    assert (volume / "new.db.before-restore").exists()
    with closing(open_store(f"sqlite:///{volume / 'new.db'}")) as restored:
        assert ids(restored) == ids(receiver.store)


def test_what_an_earlier_restore_has_kept_is_kept(
    receiver: Receiver, provider: Provider, file: Path
) -> None:
    fill(provider, 1)
    assert command(receiver, "backup", str(file))[0] == 0
    provider.post(envelope("sms.sent", sms("sent"), event_id="later"))
    receiver.store.close()
    for _ in range(3):
        assert command(receiver, "restore", str(file), "--replace")[0] == 0
    path = receiver.config.database_url.removeprefix("sqlite:///")
    with closing(open_store(f"sqlite:///{path}.before-restore")) as kept:
        assert "later" in ids(kept)
    assert Path(f"{path}.before-restore-3").exists()


def test_a_backup_in_the_place_of_an_older_one_has_nothing_of_its_log(
    receiver: Receiver, provider: Provider, other: Receiver, file: Path
) -> None:
    fill(provider, 1)
    assert command(receiver, "backup", str(file))[0] == 0
    # Somebody looked into it, and was killed before the log was in the file.
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE events SET receipts = 99")
        connection.commit()
        log = Path(f"{file}-wal").read_bytes()
    Path(f"{file}-wal").write_bytes(log)
    before = everything(receiver.store)
    assert command(receiver, "backup", str(file))[0] == 0
    assert command(other, "restore", str(file))[0] == 0
    assert everything(other.store) == before


@pytest.mark.parametrize("ending", ["", "-wal", "-shm"])
def test_a_backup_replaces_nothing_of_the_database_itself(
    receiver: Receiver, provider: Provider, ending: str
) -> None:
    fill(provider, 1)
    path = receiver.config.database_url.removeprefix("sqlite:///")
    status, told = command(receiver, "backup", path + ending)
    assert status == 2
    assert "the database itself" in told
    assert len(ids(receiver.store)) == 2


def test_a_backup_that_cannot_be_written_is_one_line(receiver: Receiver, tmp_path: Path) -> None:
    status, told = command(receiver, "backup", str(tmp_path / "nowhere" / "backup.db"))
    assert status == 1
    assert "nowhere/backup.db cannot be written: No such file or directory" in told


@pytest.mark.parametrize("broken", ["not a database", "cut", "another", "none"])
def test_only_a_sound_backup_is_restored(
    receiver: Receiver, provider: Provider, other: Receiver, file: Path, broken: str
) -> None:
    fill(provider, 40)
    backups.back_up(receiver.store, file, lambda told: None)
    if broken == "not a database":
        file.write_bytes(b"no" * 5_000)
    elif broken == "cut":
        file.write_bytes(file.read_bytes()[:40_000])
    elif broken == "another":
        file.unlink()
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE somebody (else_)")
        connection.close()
    else:
        file.unlink()
    status, told = command(other, "restore", str(file))
    assert status == 1
    assert str(file) in told
    assert not list(file.parent.glob(".*"))


@pytest.mark.each_engine
def test_reconciliation_goes_on_from_the_backup(
    receiver: Receiver, provider: Provider, other: Receiver, file: Path, clock: Clock
) -> None:
    since = clock.time - 20 * DAY
    state = {"first": since - DAY, "since": since, "next_at": clock.time + DAY}
    names = "reconciliation", "reconciliation:smscx"
    for name in names:
        receiver.store.write_note(name, json.dumps(state))
    fill(provider, 1)
    assert command(receiver, "backup", str(file))[0] == 0
    assert command(other, "restore", str(file))[0] == 0
    for name in names:
        noted = json.loads(other.store.note(name) or "{}")
        assert noted == state | {"next_at": 0}


@pytest.mark.each_engine
@pytest.mark.parametrize("step", ["copy_checked", "hold", "_make_way", "_into_server", "_put"])
def test_a_restore_that_ends_at_any_step_is_begun_again(
    receiver: Receiver,
    provider: Provider,
    other: Receiver,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """Before and after the step, without a chance to tidy up."""
    fill(provider, 2)
    before = everything(receiver.store)
    backups.back_up(receiver.store, file, lambda told: None)
    url = other.config.database_url
    taken = getattr(backups, step)
    for first in (False, True):
        with monkeypatch.context() as patched:

            def end(*arguments: Any, first: bool = first, **options: Any) -> None:
                if not first:
                    taken(*arguments, **options)
                raise SystemExit

            patched.setattr(backups, step, end)
            with suppress(SystemExit, CopyRefused):
                backups.restore(file, url, replace=True, progress=lambda told: None)
    backups.restore(file, url, replace=True, progress=lambda told: None)
    assert everything(other.store) == before
    assert is_held(other.store)
