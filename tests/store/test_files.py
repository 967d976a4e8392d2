"""SQLite's files under a running service: whose they are, and what if they are taken away."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from receiver import times
from receiver.errors import ConfigError, FileReplaced, SchemaMismatch, StoreUnavailable
from receiver.event import Incoming
from receiver.parts import Receiver
from receiver.providers.zimsend.webhook import parse
from receiver.store import Want, open_store
from receiver.store.sqlite import SqliteStore, files
from tests.conftest import Provider, row_of
from tests.forks import in_a_fork
from tests.payloads import envelope, sms


def the_file(receiver: Receiver) -> Path:
    return Path(receiver.config.database_url.removeprefix("sqlite:///"))


def remove_all(file: Path) -> None:
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()


def replace(file: Path) -> None:
    """By a whole copy, as one restores a backup."""
    copy = file.with_name("copy.db")
    with sqlite3.connect(file) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()
    copy.replace(file)


def rename_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("elsewhere"))


def remove_log(file: Path) -> None:
    Path(f"{file}-wal").unlink()


def event() -> Incoming:
    body = json.dumps(envelope("sms.sent", sms("sent"), event_id=secrets.token_hex(4))).encode()
    return parse(body, received_at=times.now(), retention=90 * times.DAY)


@pytest.fixture
def environ(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    (tmp_path / "data").mkdir()
    return environ | {"DATABASE_URL": f"sqlite:///{tmp_path / 'data' / 'receiver.db'}"}


@pytest.mark.parametrize("harm", [remove_all, remove_log])
def test_a_link_to_a_file_that_is_not_there_yet_is_followed(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """As where the program's folder has a link into a volume."""
    (tmp_path / "volume").mkdir()
    file, link = tmp_path / "volume" / "receiver.db", tmp_path / "receiver.db"
    link.symlink_to(file)
    store = open_store(f"sqlite:///{link}")
    store.migrate()
    assert store.ingest([event()], lambda _: (), 5) == ["accepted"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    harm(file)
    with pytest.raises(FileReplaced):
        store.ingest([event()], lambda _: (), 5)
    store.close()


@pytest.mark.parametrize("harm", [remove_all, replace, rename_folder, remove_log, Path.unlink])
def test_nothing_is_acknowledged_that_no_file_holds(
    receiver: Receiver,
    provider: Provider,
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Path], None],
) -> None:
    file = the_file(receiver)
    assert provider.post(envelope("sms.sent", sms("sent", "m1"))).status_code == 200
    assert client.get("/readyz").json["failing"].keys() <= {"worker"}
    harm(file)
    for _ in range(2):
        answer = provider.post(envelope("sms.sent", sms("sent", "m2")))
        assert answer.status_code == 503
        assert "Retry-After" in answer.headers
    told = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert len(told) == 1
    assert "restart" in told[0].message
    assert (f"{file}-wal was" in told[0].message) == (harm is remove_log)
    # Nor does anybody work with it, or read it: a page would show what is in no file.
    with pytest.raises(FileReplaced):
        receiver.store.work(times.now(), [], [Want("h", 1, 1, 1)], 1)
    with pytest.raises(FileReplaced):
        row_of(receiver.store, "m1")
    receiver.store.close()  # and it does not come back with other connections
    with pytest.raises(FileReplaced):
        receiver.store.prove_writable()


def test_readyz_tells_of_it(receiver: Receiver, provider: Provider, client: FlaskClient) -> None:
    assert provider.post(envelope("sms.sent", sms("sent"))).status_code == 200
    remove_all(the_file(receiver))
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "removed or replaced" in answer.json["failing"]["store"]
    assert str(the_file(receiver).parent) not in answer.text


def test_a_place_that_cannot_be_looked_at_for_a_moment_is_not_lost(
    receiver: Receiver, provider: Provider, tmp_path: Path
) -> None:
    folder = the_file(receiver).parent
    assert provider.post(envelope("sms.sent", sms("sent", "m1"))).status_code == 200
    away = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(folder)  # a look ends in an error that does not say that nothing is there
    try:
        assert provider.post(envelope("sms.sent", sms("sent", "m2"))).status_code == 503
        with pytest.raises(StoreUnavailable) as caught:
            row_of(receiver.store, "m1")
        assert not isinstance(caught.value, FileReplaced)
        with pytest.raises(StoreUnavailable):  # and nobody is told that the database is new
            open_store(receiver.config.database_url).outlook()
    finally:
        folder.unlink()
        away.rename(folder)
    assert provider.post(envelope("sms.sent", sms("sent", "m3"))).status_code == 200
    assert row_of(receiver.store, "m1") is not None


def test_a_removal_between_the_commit_and_the_answer_is_seen(
    receiver: Receiver, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    from receiver.store.sqlite.group import Group

    write = Group.write

    def write_and_remove(group: Group, connection: sqlite3.Connection) -> None:
        write(group, connection)
        monkeypatch.undo()
        remove_all(the_file(receiver))

    monkeypatch.setattr(Group, "write", write_and_remove)
    assert provider.post(envelope("sms.sent", sms("sent"))).status_code == 503


def test_a_file_that_is_gone_before_the_first_event_is_not_made_anew(
    receiver: Receiver, provider: Provider
) -> None:
    """Only `flask migrate`, or a start, makes one."""
    receiver.store.close()
    remove_all(the_file(receiver))
    store = open_store(receiver.config.database_url)
    with pytest.raises(SchemaMismatch, match="flask migrate"):
        store.prove_writable()
    assert not the_file(receiver).exists()
    assert provider.post(envelope("sms.sent", sms("sent"))).status_code == 503
    assert not the_file(receiver).exists()


def test_a_file_that_is_replaced_before_the_first_event_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    SqliteStore(str(path)).migrate()
    replace(path)
    store = SqliteStore(str(path))
    store.prove_writable()
    store.close()


def test_other_connections_that_end_raise_no_alarm(receiver: Receiver, provider: Provider) -> None:
    """SQLite empties the log at its checkpoints, and removes it when the last connection ends."""
    file = the_file(receiver)
    for number in range(3):
        assert provider.post(envelope("sms.sent", sms("sent"))).status_code == 200
        other = SqliteStore(str(file))
        other.prove_writable()
        other.tidy()
        other.close()
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()
        if number == 1:
            # All of this process, so the log goes; and they come again.
            receiver.ingest.submit_all([])
            receiver.store.close()


# --- whose they are


def test_files_are_for_their_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteStore(str(tmp_path / "r.db"))
        store.migrate()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"r.db": 0o600, "r.db-wal": 0o600, "r.db-shm": 0o600}
    store.close()


@pytest.mark.parametrize(("mode", "becomes"), [(0o644, 0o600), (0o666, 0o600), (0o640, 0o640)])
def test_a_file_that_everybody_may_read_is_tightened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, becomes: int
) -> None:
    path = tmp_path / "r.db"
    SqliteStore(str(path)).migrate()
    path.chmod(mode)
    store = SqliteStore(str(path))
    store.migrate()
    assert stat.S_IMODE(path.stat().st_mode) == becomes
    assert ("it is 0600 now" in caplog.text) is (mode != becomes)
    store.close()


def test_a_sqlite_that_is_too_old_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 33, 0))
    with pytest.raises(ConfigError, match=r"3\.34\.0 or newer is needed"):
        open_store("sqlite:///receiver.db")


def test_a_fork_makes_a_file_whoever_makes_one_at_the_fork(tmp_path: Path) -> None:
    with files._making:
        assert in_a_fork(
            lambda: files.prepare(str(tmp_path / "receiver.db"), create=True) is not None
        )
