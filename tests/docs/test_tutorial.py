"""Who does what README and the tutorial say, sees what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from receiver.config import Config
from tests.docs.known import Known
from tests.docs.markdown import Page
from tests.docs.tutorial import PAGES, Reader, Team, reading
from tests.server import ROOT, eventually

README = Page(ROOT, ROOT / "README.md")
HOST = Page(ROOT, ROOT / "docs/start/host.md")


def test_the_tutorial(tmp_path: Path, names: Known) -> None:
    """One test, for all that a reader does one after the other."""
    with reading(tmp_path) as (reader, team):
        for page in PAGES:
            reader.read(Page(ROOT, ROOT / page))
        the_team_was_told_again_by_replay(reader, team)
        the_screen_shows_what_readme_shows(reader)
        the_host_is_asked_for_what_there_is(reader, names)
        a_changed_command_is_told(reader)


def the_team_was_told_again_by_replay(reader: Reader, team: Team) -> None:
    eventually(lambda: len(team.keys) >= 2)
    assert team.keys == ["evt_test_first"] * 2
    told = "".join(reader.told)
    assert "Connection refused" in told
    assert "1 work item is given to handlers again" in told


def the_screen_shows_what_readme_shows(reader: Reader) -> None:
    """The blocks of text, but for ids and times."""
    seen = [plain(line) for text in (*reader.told, reader.seen()) for line in text.splitlines()]
    shown = [block.text for block in README.blocks if block.language == "text"]
    assert len(shown) == 4
    for line in "".join(shown).splitlines():
        assert plain(line) in seen, line


def plain(line: str) -> str:
    """A line without what is another one each time."""
    line = re.sub(r"(evt|msg)_test_[0-9a-f]{12}", r"\1", line)
    line = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.,]+Z?", "time", line)
    return " ".join(line.split())


def the_host_is_asked_for_what_there_is(reader: Reader, names: Known) -> None:
    """Heroku's own commands go to a stand-in; settings, processes and files must be there."""
    for command in ("init -q", "config user.name me", "config user.email me@example.com"):
        subprocess.run(["git", *command.split()], cwd=reader.folder, check=True)
    reader.read(HOST)
    asked = reader.asked_of_heroku()
    assert ["git", "push", "heroku", "main"] in asked
    assert ["heroku", "ps:scale", "web=1", "worker=1"] in asked
    settings = dict(
        word.split("=", 1)
        for _, command, *words in asked
        if command == "config:set"
        for word in words
    )
    assert all(names.is_variable(name) for name in settings)
    # With these the service starts; the add-on sets the last one.
    config = Config.from_env(settings | {"DATABASE_URL": "postgres://me@host/name"})
    assert config.admin_password is not None
    assert config.handlers == ("handlers", "my_handlers")
    committed = subprocess.check_output(
        ["git", "log", "--name-only", "--format="], cwd=reader.folder, text=True
    )
    assert committed.split() == ["my_handlers.py"]


def a_changed_command_is_told(reader: Reader) -> None:
    page = reader.folder / "page.md"
    page.write_text("# Page\n\n```sh\n.venv/bin/flask triggers sms.sent\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:3 .*triggers"):
        reader.read(Page(reader.folder, page))
