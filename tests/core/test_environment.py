"""`.env`: found, read as it stands, and weaker than what is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from receiver import ConfigError, environment
from receiver.environment import Environment
from tests.server import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and a process with nothing in its environment."""
    environment.take_over(Environment(environment.without_file()))  # of another test's `.env`
    for name in list(os.environ):
        if name != "PYTEST_CURRENT_TEST":
            monkeypatch.delenv(name)
    # What a test's `.env` has put there goes with the test.
    for name in ("A", "B", "C", "D", "E"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def load(text: str | bytes, folder: Path) -> Environment:
    data = text.encode() if isinstance(text, str) else text
    (folder / ".env").write_bytes(data)
    return environment.load(None)


def test_it_is_read_into_the_environment_where_handlers_look(folder: Path) -> None:
    read = load("A=1\nexport B='two words'\n# C=3\nD=\nE", folder)
    assert read.filed == {"A", "B"}
    assert (os.environ["A"], os.environ["B"]) == ("1", "two words")
    assert "D" not in os.environ
    assert read.file == folder / ".env"


def test_what_is_set_wins_but_what_is_empty_is_not_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A", "set")
    for name, empty in {"B": "", "C": " \r\n", "D": "''"}.items():
        monkeypatch.setenv(name, empty)
    read = load("A=1\nB=2\nC=3\nD=4\n", folder)
    assert [os.environ[name] for name in "ABCD"] == ["set", "2", "3", "4"]
    assert read.filed == {"B", "C", "D"}


def test_what_a_file_says_no_more_is_taken_back_and_what_was_set_comes_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"C": "'set'", "D": "", "E": "set"}.items():
        monkeypatch.setenv(name, value)
    load("A=1\nB=2\nC=set\nD=4\nE=5", folder)
    read = load("B=3\nC=other\nE=6", folder)
    assert (os.environ["B"], read["C"], os.environ["E"]) == ("3", "'set'", "set")
    assert "A" not in os.environ
    assert os.environ["D"] == ""
    os.environ["B"] = "by somebody else"
    assert load("B=4", folder)["B"] == "by somebody else"


def test_a_reading_without_effect(folder: Path) -> None:
    load("A=1", folder)
    (folder / ".env").write_text("A=2")
    assert environment.read_anew(None)["A"] == "2"
    assert os.environ["A"] == "1"


def test_a_child_of_gunicorns_master_has_what_the_master_has_read(folder: Path) -> None:
    read = load("A=1", folder)
    os.environ.update(environment.handed_on(read))
    told = load("A=2\nthis is a line", folder)
    assert (told["A"], told.folder, told.file, told.filed) == (
        "1", read.folder, read.file, read.filed,
    )  # fmt: skip
    with pytest.raises(ConfigError):  # and what the child starts reads for itself
        load("this is a line", folder)


@pytest.mark.parametrize(
    "line",
    ["hunter2 is a line", "A 5000", 'A="hunter2', "A:5000", "=1", '"A"=1', "'A=B'=1", "export A B"],
)
def test_a_line_that_is_not_understood_stops_the_start(folder: Path, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"B='two\nlines'\r\n\n  \n {line}\nC=3", folder)
    assert str(caught.value) == f"{folder}/.env: line 5 is no NAME=value, or has an open quote"
    assert "B" not in os.environ


def test_what_is_no_setting_and_does_no_harm(folder: Path) -> None:
    text = "# a comment\n\n \nA=1 # one\nexport A\nB\nC = 'two\nlines'\nD=#\nexport E=a b"
    load(text, folder)
    assert [os.environ.get(name) for name in "ABCDE"] == ["1", None, "two\nlines", "#", "a b"]


def test_nothing_is_put_in_for_dollars(folder: Path) -> None:
    load("A=x\nB=pa${A}ss\nC=\"${HOME}\"\nD='$A'\nE=$2b$12$abc", folder)
    assert [os.environ[name] for name in "BCDE"] == ["pa${A}ss", "${HOME}", "$A", "$2b$12$abc"]


def test_nor_where_the_flask_command_has_done_so_before_us(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_RUN_FROM_CLI", "true")
    monkeypatch.setenv("A", "x")
    monkeypatch.setenv("B", "paxss")  # as it has read it
    monkeypatch.setenv("C", "set")
    read = load("A=x\nB=pa${A}ss\nC=pa${A}ss\n", folder)
    assert (os.environ["B"], os.environ["C"]) == ("pa${A}ss", "set")
    assert read.filed == {"A", "B"}


def test_a_mark_of_utf_8_and_windows_line_ends_are_fine(folder: Path) -> None:
    load("A=é\r\nB='2'\r\n".encode("utf-8-sig"), folder)
    assert (os.environ["A"], os.environ["B"]) == ("é", "2")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_stops_the_start(folder: Path, encoding: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("# secret\nA=hunter2é\n".encode(encoding), folder)
    told = str(caught.value)
    assert str(folder / ".env") in told
    assert "UTF-8" in told
    assert len(told.splitlines()) == 1
    assert "hunter2" not in told


def test_a_file_that_cannot_be_read_stops_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (folder / ".env").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match="cannot be read"):
        environment.load(None)


def test_known_names_are_cleaned_where_handlers_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A", "'quoted'\r\n")
    monkeypatch.setenv("B", "'quoted'")
    environment.load(None, ["A", "C"])
    assert (os.environ["A"], os.environ["B"]) == ("quoted", "'quoted'")


# --- which file, and what relative paths count from


def test_it_is_looked_for_from_the_current_folder_upwards_then_beside_wsgi(folder: Path) -> None:
    beside = folder.parent / "beside"
    beside.mkdir()
    assert environment.load(None).folder == folder
    assert environment.load(beside).folder == beside  # without any file
    (beside / ".env").touch()
    assert environment.load(beside).file == beside / ".env"
    (folder / ".env").mkdir()  # no file
    assert environment.load(beside).file == beside / ".env"
    (folder.parent / ".env").touch()
    read = environment.load(beside)
    assert (read.file, read.folder) == (folder.parent / ".env", folder.parent)


def test_a_folder_that_was_removed(folder: Path) -> None:
    beside = folder.parent
    folder.rmdir()
    assert environment.load(beside).folder == beside


# --- as it is started


def run(folder: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A command from another folder, with nothing in its environment but what is given."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_from_another_folder_there_is_one_database(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for path in (home, elsewhere):
        path.mkdir()
    wsgi = home / "wsgi.py"
    wsgi.write_text((ROOT / "wsgi.py").read_text())
    (home / ".env").write_text(
        "ZIMSEND_WEBHOOK_SECRET='whsec_0123456789abcdef'\nLOG_LEVELS=${HOME}\nSTORE_TEXT=\"none\"\n"
    )
    command = ("-m", "flask", "--app", str(wsgi), "migrate")
    done = run(elsewhere, *command, STORE_TEXT="", RETENTION_DAYS="'30'\n")
    assert done.returncode == 0, done.stderr
    assert "migrated" in done.stdout
    assert "LOG_LEVELS: no setting has this name; is LOG_LEVEL meant?" in done.stderr
    assert (home / "receiver.db").exists()
    assert not list(elsewhere.iterdir())

    (elsewhere / "receiver.db").touch()
    refused = run(elsewhere, *command)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("zimsend-receiver cannot start. DATABASE_URL: ")


@pytest.mark.parametrize(
    "command",
    [
        ("gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"),
        ("flask", "--app", str(ROOT / "wsgi.py"), "migrate"),  # as in make's environment
        ("receiver.welcome",),
    ],
)
def test_each_door_stops_with_one_line_at_another_encoding(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / ".env").write_bytes("ZIMSEND_WEBHOOK_SECRET=whsec_é_0123456789".encode("latin-1"))
    stopped = run(tmp_path, "-m", *command, FLASK_SKIP_DOTENV="1")
    assert stopped.returncode == 1
    (line,) = stopped.stderr.splitlines()
    assert line.startswith(f"zimsend-receiver cannot start. {tmp_path}/.env: is not UTF-8")
