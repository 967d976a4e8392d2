"""The pages of hosts: what each must have, and that programs can read the files they show."""

from __future__ import annotations

import json
import re
import shlex
import tomllib

import pytest

from receiver import sqlite_file
from tests.docs.markdown import Page
from tests.server import ROOT

FOLDER = ROOT / "docs" / "how-to" / "hosts"
EVERYWHERE = Page(ROOT, FOLDER / "README.md")
#: Heroku's page is a part of the tutorial; a computer at home is a host as well.
HOSTS = {
    "heroku": Page(ROOT, ROOT / "docs/start/host.md"),
    "home": Page(ROOT, ROOT / "docs/how-to/at-home.md"),
    **{path.stem: Page(ROOT, path) for path in FOLDER.glob("*.md") if path.stem != "README"},
}


def blocks(host: str, language: str) -> list[str]:
    return [block.text for block in HOSTS[host].blocks if block.language == language]


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    parts = (line.partition(": ") for line in lines)
    return {name: shlex.split(command) for name, _, command in parts}


@pytest.mark.parametrize("host", HOSTS)
def test_each_page_has_what_one_must_know(host: str) -> None:
    """Commands or files, the disk, the stop signal with its grace, a check, and the secret."""
    text = HOSTS[host].text
    assert HOSTS[host].blocks
    assert "SIGTERM" in text
    assert re.search(r"\b\d+ seconds\b|kill_timeout|found no promise", text)
    assert re.search(r"\b[Dd]isk\b", text)
    assert re.search(r"/healthz|/readyz", text)
    assert "ZIMSEND_WEBHOOK_SECRET" in text


def test_marks_of_hosts_are_all_told() -> None:
    rows = EVERYWHERE.table("The disk")
    assert {name.strip("`"): host for name, host in rows} == sqlite_file.EPHEMERAL_HOSTS


def test_railways_file_can_be_read() -> None:
    (whole,) = (json.loads(block) for block in blocks("railway", "json"))
    # It would take the Dockerfile else, and refuse its VOLUME.
    assert whole["build"] == {"builder": "RAILPACK"}
    railway = whole["deploy"]
    assert shlex.split(railway["startCommand"]) == procfile()["web"]
    assert [shlex.split(c) for c in railway["preDeployCommand"]] == [procfile()["release"]]
    assert "RAILWAY_DEPLOYMENT_DRAINING_SECONDS=30" in HOSTS["railway"].text


def test_flys_files_can_be_read() -> None:
    (fly,) = (tomllib.loads(block) for block in blocks("fly", "toml"))
    assert (fly["kill_signal"], fly["kill_timeout"]) == ("SIGTERM", 30)
    assert shlex.split(fly["deploy"]["release_command"]) == procfile()["release"]
    assert fly["env"]["PORT"] == str(fly["http_service"]["internal_port"])
    assert fly["http_service"]["auto_stop_machines"] == "off"
    (argument,) = re.findall(r"args = \{ (\w+) = ", HOSTS["fly"].text)
    assert f"ARG {argument}=" in (ROOT / "Dockerfile").read_text()
