"""Who does what README and the tutorial say, sees what they say."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.config import Config
from tests.docs.known import Known
from tests.docs.markdown import Page
from tests.docs.tutorial import PAGES, Reader, Team, reading
from tests.server import ROOT, eventually

HOST = Page(ROOT, ROOT / "docs/start/host.md")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, Team]]:
    """README and the first part of the tutorial, read to their ends."""
    with reading(tmp_path_factory.mktemp("tutorial")) as (reader, team):
        for page in PAGES:
            reader.read(Page(ROOT, ROOT / page))
        eventually(lambda: len(team.keys) >= 2)
        yield reader, team


def test_the_team_was_told_after_the_mistake_was_mended_and_again_by_replay(
    done: tuple[Reader, Team],
) -> None:
    reader, team = done
    assert team.keys == ["evt_test_first"] * 2
    told = "".join(reader.told)
    assert "Connection refused" in told
    assert "1 work items are given to handlers again" in told


def test_the_screen_shows_what_readme_shows(done: tuple[Reader, Team]) -> None:
    """The blocks of text, but for ids and times."""
    reader, _ = done
    seen = [plain(line) for text in (*reader.told, reader.seen()) for line in text.splitlines()]
    shown = [b.text for b in Page(ROOT, ROOT / "README.md").blocks if b.language == "text"]
    assert len(shown) == 4
    for line in "".join(shown).splitlines():
        assert plain(line) in seen, line


def plain(line: str) -> str:
    """A line without what is another one each time."""
    line = re.sub(r"(evt|msg)_test_[0-9a-f]{12}", r"\1", line)
    line = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.,]+Z?", "time", line)
    return " ".join(line.split())


def test_the_host_is_asked_for_what_the_project_has(
    done: tuple[Reader, Team], names: Known
) -> None:
    """Heroku's own commands go to a stand-in; what they name must be there."""
    reader, _ = done
    for command in ("init -q", "config user.name me", "config user.email me@example.com"):
        subprocess.run(["git", *command.split()], cwd=reader.folder, check=True)
    reader.read(HOST)
    asked = reader.asked_of_heroku()
    assert asked[-1] == ["heroku", "ps:scale", "web=1", "worker=1"]
    assert ["git", "push", "heroku", "main"] in asked
    settings = {
        word.partition("=")[0]: word.partition("=")[2]
        for _, command, *words in asked
        if command == "config:set"
        for word in words
    }
    assert all(names.is_variable(name) for name in settings)
    # With these the service starts; the add-on sets the last one.
    config = Config.from_env(settings | {"DATABASE_URL": "postgres://me@host/name"})
    assert config.admin_password is not None
    assert config.handlers == ("handlers", "my_handlers")
    log = subprocess.check_output(
        ["git", "log", "--name-only", "--format="], cwd=reader.folder, text=True
    )
    assert log.split() == ["my_handlers.py"]


def test_a_changed_command_is_told(done: tuple[Reader, Team], tmp_path: Path) -> None:
    reader, _ = done
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```sh\n.venv/bin/flask triggers sms.sent\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:3 .*triggers"):
        reader.read(Page(tmp_path, page))
