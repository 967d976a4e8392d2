"""`zimsend-receiver`, as somebody uses it who has installed the wheel and has no clone."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from dotenv import dotenv_values

import receiver
from receiver import first_steps
from receiver.__main__ import program
from receiver.commands import commands
from receiver.errors import ConfigError
from tests.package.conftest import Shop
from tests.server import eventually
from tests.web.dashboard.conftest import SAME_ORIGIN, field_of


@pytest.fixture(scope="module")
def shop(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """After `init`, while it serves."""
    shop = Shop(installed, tmp_path_factory.mktemp("shop"))
    begun = shop.run("init")
    assert begun.returncode == 0, begun.stderr
    # Of the user's, and none of Python's: neither gunicorn nor the worker may take it for that.
    for name in ("email", "queue", "select", "types"):
        (shop.folder / f"{name}.py").write_text("raise SystemExit('not meant')\n")
    shop.spawn(["serve"])
    try:
        eventually(shop.ready)
        yield shop
    finally:
        shop.close()


def test_init_writes_two_files_and_says_what_comes_next(installed: Path, tmp_path: Path) -> None:
    shop = Shop(installed, tmp_path)
    told = shop.run("init", "new shop")
    assert told.returncode == 0, told.stderr
    folder = tmp_path / "new shop"
    assert {file.name for file in folder.iterdir()} == {".env", "my_handlers.py"}
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    for step in ("cd 'new shop'", "zimsend-receiver serve", "zimsend-receiver trigger"):
        assert step in told.stdout
    assert all(
        value is None or value not in told.stdout
        for name, value in dotenv_values(folder / ".env").items()
        if name != "HANDLERS"
    )


def test_where_no_shell_finds_it_its_path_is_told(installed: Path, tmp_path: Path) -> None:
    shop = Shop(installed, tmp_path)
    shop.environ["PATH"] = os.defpath
    assert f"  {shop.program} serve\n" in shop.run("init").stdout
    told = shop.run("events", "list")
    assert told.stderr.endswith(f"run `{shop.program} migrate`\n")


@pytest.mark.parametrize("there", [[".env"], [".env", "my_handlers.py"]])
def test_init_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in there:
        (tmp_path / name).write_text("mine")
    told = CliRunner().invoke(program, ["init"])
    assert told.exit_code == 1
    assert told.output == "Error: .env: is there already, and nothing was written\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == there
    assert {file.read_text() for file in tmp_path.iterdir()} == {"mine"}


def test_init_leaves_handlers_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_handlers.py").write_text("mine")
    told = CliRunner().invoke(program, ["init"])
    assert told.exit_code == 0
    assert told.output.startswith(
        "my_handlers.py was there already, and is left as it is\nwrote .env\n"
    )
    assert (tmp_path / "my_handlers.py").read_text() == "mine"
    assert dotenv_values(".env")["HANDLERS"] == "handlers,my_handlers"


#: Ends as if killed before the nth thing that it does to files of a folder.
KILLED = """
import os, sys
from pathlib import Path
from receiver.first_steps import begin
folder, steps = Path(sys.argv[1]), int(sys.argv[2])
def watch(event, arguments):
    global steps
    if event in ("open", "os.mkdir", "os.link", "os.remove", "os.rename") and counting:
        steps -= 1
        if steps < 0:
            os._exit(9)
counting = False
sys.addaudithook(watch)
counting = True
begin(folder)
counting = False
"""


def test_init_that_was_killed_is_completed_by_the_next_one(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    first_steps.begin(whole)
    ends = set()
    for steps in range(99):
        folder = tmp_path / str(steps)
        killed = subprocess.run([sys.executable, "-c", KILLED, folder, str(steps)])
        ends.add(files := frozenset(file.name for file in folder.glob("*")))
        again = CliRunner().invoke(program, ["init", str(folder)])
        if ".env" in files:
            assert "is there already" in again.output
        else:
            assert again.exit_code == 0, again.output
        if "my_handlers.py" in files and ".env" not in files:
            assert f"{folder}/my_handlers.py was there already" in again.output
        assert (folder / "my_handlers.py").read_bytes() == (whole / "my_handlers.py").read_bytes()
        assert dotenv_values(folder / ".env").keys() == dotenv_values(whole / ".env").keys()
        assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
        if killed.returncode == 0:
            break
        assert killed.returncode == 9
    assert {
        frozenset(),
        frozenset({"my_handlers.py"}),
        frozenset({".env", "my_handlers.py"}),
    } <= ends


def test_init_where_files_have_one_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a stick with FAT."""
    monkeypatch.setattr(os, "link", Mock(side_effect=PermissionError(errno.EPERM, "no links")))
    first_steps.begin(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".env", "my_handlers.py"]
    with pytest.raises(ConfigError, match="is there already"):
        first_steps.begin(tmp_path)


def test_make_run_writes_the_same_settings(tmp_path: Path) -> None:
    first_steps.write_settings(tmp_path / ".env")
    first_steps.begin(tmp_path / "by init")
    by_make, by_init = (dotenv_values(f / ".env") for f in (tmp_path, tmp_path / "by init"))
    assert set(by_init) == {*by_make, "HANDLERS"}
    assert not set(by_make.values()) & set(by_init.values())


def test_the_first_event_reaches_the_users_handler(shop: Shop) -> None:
    told = shop.run("trigger", "sms.delivered", "--message-id", "msg_1")
    assert told.returncode == 0, told.stderr
    assert '"accepted"' in told.stdout
    eventually(lambda: "my_handlers: SMS msg_1 is delivered" in shop.log.read_text())
    listed = eventually(
        lambda: "note_end done" in (told := shop.run("events", "list").stdout) and told
    )
    assert "log done" in listed


def test_the_dashboard_lets_one_in(shop: Shop) -> None:
    password = dotenv_values(shop.folder / ".env")["ADMIN_PASSWORD"]
    form = field_of(shop.client.get("/sign-in").text, "form")
    answer = shop.client.post(
        "/sign-in", data={"form": form, "password": password}, headers=SAME_ORIGIN
    )
    assert answer.status_code == 303
    page = shop.client.get("/settings").text
    assets = re.findall(r'(?:href|src)="(/assets/[^"]+)"', page)
    assert len(set(assets)) == 3
    assert all(shop.client.get(asset).status_code == 200 for asset in assets)


def test_a_command_finds_the_settings_from_below(shop: Shop) -> None:
    below = shop.folder / "notes" / "2026"
    below.mkdir(parents=True)
    told = shop.run("config", cwd=below)
    assert told.returncode == 0, told.stderr
    assert f"relative paths count from {shop.folder}" in told.stdout
    assert not list(below.iterdir())


def test_an_error_names_the_command_as_it_is_called(shop: Shop) -> None:
    told = shop.run("events", "show", "nothing")
    assert told.returncode == 1
    assert told.stderr.endswith("see `zimsend-receiver events list`\n")


def test_python_m_receiver_is_the_same(shop: Shop) -> None:
    version = f"zimsend-receiver {receiver.__version__}\n"
    assert shop.run("--version").stdout == version
    by_python = [shop.program.with_name("python"), "-Pm", "receiver", "--version"]
    assert subprocess.check_output(by_python, cwd=shop.folder, text=True) == version
    helped = CliRunner().invoke(program, ["--help"]).output
    for command in ("init", "serve", *(c.name or "" for c in commands())):
        assert f"\n  {command} " in helped


@pytest.mark.parametrize("command", [("serve",), ("migrate",)])
def test_without_settings_it_says_so_in_one_line(
    installed: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    told = Shop(installed, tmp_path).run(*command)
    assert told.returncode == 1
    (line,) = told.stderr.splitlines()
    assert line.startswith("zimsend-receiver cannot start. ZIMSEND_WEBHOOK_SECRET: ")
    assert line.endswith(f". There is no .env in {tmp_path} or above it")
    assert not [file for file in tmp_path.iterdir() if file.suffix == ".db"]


# --- which handlers are meant


MINE = """
def register(registry):
    registry.on("*", name="mine")(print)
"""
#: What HANDLERS says, which files the user has, and what is registered or said then.
MEANT = (
    ("handlers", {}, "log"),
    ("handlers.log,my_handlers", {"my_handlers.py": MINE}, "log mine"),
    ("handlers,my_handlers", {"my_handlers.py": MINE}, "log mine"),
    ("receiver.handlers", {"handlers.py": MINE}, "log"),
    ("handlers", {"handlers.py": MINE}, "mine"),
    ("handlers.log", {"handlers/__init__.py": "", "handlers/log.py": MINE}, "mine"),
    ("handlers.log", {"handlers/__init__.py": ""}, "log"),
    ("handlers.log", {"handlers/log.py": "import nothing"}, "No module named 'nothing' ("),
    ("handlers.nothing", {}, "cannot import handlers.nothing: ModuleNotFoundError"),
    ("my_handlers.py", {"my_handlers.py": MINE}, "my_handlers.py; write it without .py: "),
    ("handlers", {"handlers/__init__.py": ""}, "the built-in list is also called receiver.handl"),
)
PROGRAM = """
import os, sys
from receiver.errors import ConfigError
from receiver.registry import Registry
from receiver.service import register_handlers
for folder, modules in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    if os.fork() == 0:
        sys.path.insert(0, folder)
        registry = Registry()
        try:
            register_handlers(registry, modules.split(","))
            print(*(handler.name for handler in registry), flush=True)
        except ConfigError as error:
            print(error, flush=True)
        os._exit(0)
    os.wait()
"""


def test_a_users_own_handlers_win(installed: Path, tmp_path: Path) -> None:
    asked = []
    for number, (modules, files, _) in enumerate(MEANT):
        folder = tmp_path / str(number)
        folder.mkdir()
        asked += [str(folder), modules]
        for file, text in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text)
    told = subprocess.check_output(
        [installed / "python", "-c", PROGRAM, *asked], cwd=tmp_path, text=True
    )
    for line, (modules, files, expected) in zip(told.splitlines(), MEANT, strict=True):
        assert line == expected or (line.startswith("HANDLERS: ") and expected in line), (
            modules,
            files,
            line,
        )
        assert "<frozen" not in line
