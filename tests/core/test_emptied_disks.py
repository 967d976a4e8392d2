"""SQLite on a disk that the host empties is refused, and on one that it keeps is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from receiver import ConfigError
from receiver.config import Config
from receiver.sqlite_file import EPHEMERAL_HOSTS
from tests.core.settings import NAME, SECRET, mounts, read
from tests.server import ROOT

PROGRAM = str(ROOT)


def on_a_host(
    database_url: str, ismount: Callable[[Path], bool], mark: str = "DYNO", **environ: str
) -> Config:
    environ = {NAME: SECRET, mark: "web.1", "DATABASE_URL": database_url, **environ}
    return Config.from_env(environ, ismount)


@pytest.mark.parametrize("mark", EPHEMERAL_HOSTS)
def test_sqlite_on_a_disk_that_the_host_empties_is_refused(mark: str) -> None:
    """The line says why, names the mark, and says the three things that one can do."""
    for database_url in ("", "sqlite:///receiver.db", "sqlite:////app/data/receiver.db"):
        with pytest.raises(ConfigError) as caught:
            on_a_host(database_url, mounts(), mark)
        assert caught.value.name == "DATABASE_URL"
        line = str(caught.value)
        assert len(line.splitlines()) == 1
        for told in (EPHEMERAL_HOSTS[mark], mark, "PostgreSQL", "volume", "ALLOW_EPHEMERAL_SQLITE"):
            assert told in line


@pytest.mark.parametrize(
    ("database_url", "folders"),
    [
        ("sqlite:////tmp/receiver.db", ("/tmp",)),
        ("sqlite:////var/tmp/receiver.db", ("/var/tmp",)),
        ("sqlite:////dev/shm/receiver.db", ("/dev/shm",)),
        # What the program lies on came with the release, and goes with it.
        ("sqlite:///receiver.db", (PROGRAM,)),
        (f"sqlite:///{PROGRAM}/data/receiver.db", (PROGRAM,)),
        # A volume beside the database does not help.
        ("sqlite:////app/receiver.db", ("/data",)),
        ("sqlite:////data/../app/receiver.db", ("/data",)),
        ("sqlite:////database/receiver.db", ("/data",)),
        ("sqlite:////data", ("/data",)),
    ],
)
def test_not_every_mount_is_a_volume(database_url: str, folders: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        on_a_host(database_url, mounts(*folders))


@pytest.mark.parametrize("mark", EPHEMERAL_HOSTS)
@pytest.mark.parametrize(
    ("database_url", "folders"),
    [
        ("sqlite:////data/receiver.db", ("/data",)),
        ("sqlite:////data/deep/er/receiver.db", ("/data",)),
        ("sqlite:////tmp/volume/receiver.db", ("/tmp", "/tmp/volume")),
        # A volume inside the program's folder.
        (f"sqlite:///{PROGRAM}/data/receiver.db", (f"{PROGRAM}/data",)),
        (f"sqlite:///{PROGRAM}/data/receiver.db", (PROGRAM, f"{PROGRAM}/data")),
    ],
)
def test_sqlite_on_a_volume_is_allowed(
    mark: str, database_url: str, folders: tuple[str, ...]
) -> None:
    assert on_a_host(database_url, mounts(*folders), mark).database_url == database_url


def test_a_link_to_a_volume_is_followed(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "volume")
    url = f"sqlite:///{tmp_path / 'link' / 'receiver.db'}"
    volume = str((tmp_path / "volume").resolve())
    assert on_a_host(url, mounts(volume)).database_url == url


@pytest.mark.parametrize("mark", EPHEMERAL_HOSTS)
def test_it_can_be_allowed(mark: str) -> None:
    config = on_a_host("sqlite:///receiver.db", mounts(), mark, ALLOW_EPHEMERAL_SQLITE="1")
    assert config.allow_ephemeral_sqlite


@pytest.mark.parametrize("url", ["postgres://u:p@h/d", "postgresql://h/d"])
def test_other_engines_may_run_anywhere(url: str) -> None:
    def never(folder: Path) -> bool:
        raise AssertionError("nobody needs to know")

    assert on_a_host(url, never).database_url == url
    # Nor does SQLite on a machine of one's own; and an empty mark is none.
    assert Config.from_env({NAME: SECRET}, never) == read()
    assert Config.from_env({NAME: SECRET, "DYNO": ""}, never) == read()
