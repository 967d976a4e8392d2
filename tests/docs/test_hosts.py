"""The pages of hosts: what each must have, that programs can read the files they show, and that
what they write to `.env` starts the service."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from receiver import sqlite_file
from receiver.config import Config
from receiver.store.postgres.pool import settings_of
from tests.core.settings import NAME, SECRET
from tests.docs.markdown import Page
from tests.server import ROOT, cannot_run
from tests.service.test_deploy import MANIFESTS, procfile

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


@pytest.mark.parametrize("page", ["own-server", "docker"])
def test_the_env_that_it_writes_starts_the_service(page: str, tmp_path: Path) -> None:
    """With fresh secrets each time; run as it stands, but for what root or Docker would do."""
    script = next(b.text for b in HOSTS[page].blocks if "> .env" in b.text)
    script = re.sub(r"^(chown|docker) .*\n", "", script, flags=re.MULTILINE)
    if subprocess.run(["sh", "-c", "command -v openssl"], capture_output=True).returncode:
        cannot_run("how .env is written, for openssl is not here")
    written = []
    for number in "12":
        folder = tmp_path / number
        folder.mkdir()
        mask = ["sh", "-e", "-c", f"umask 022\n{script}\numask"]
        assert subprocess.check_output(mask, cwd=folder, text=True).split() == ["0022"]
        assert not (folder / ".env").stat().st_mode & 0o027
        lines = (folder / ".env").read_text().splitlines()
        written.append(dict(line.split("=", 1) for line in lines))
    settings = {name: shlex.split(value)[0] for name, value in written[0].items()}
    settings.pop("POSTGRES_PASSWORD", None)
    config = Config.from_env(settings)
    assert config.admin_password
    assert {n for n in written[0] if written[0][n] != written[1][n]} >= {
        "ADMIN_PASSWORD", "SECRET_KEY", "METRICS_TOKEN",
    }  # fmt: skip


def test_the_environment_that_it_makes_leaves_the_settings_to_the_service() -> None:
    (made,) = re.findall(r"^make (\S+)$", HOSTS["own-server"].text, re.MULTILINE)
    steps = subprocess.check_output(["make", "-n", "-B", made], cwd=ROOT, text=True)
    assert steps.index("receiver_dotenv.pth") < steps.index("install --quiet")
    assert "-r requirements.txt" in steps
    assert f"`make {made}`" in EVERYWHERE.text


def test_postgresql_by_its_socket_needs_no_tls() -> None:
    (url,) = re.findall(r"^DATABASE_URL=(postgresql:.*)$", HOSTS["own-server"].text, re.MULTILINE)
    assert Config.from_env({NAME: SECRET, "DATABASE_URL": url}).database_url == url
    assert "sslmode" not in settings_of(url)


def test_the_page_of_scalingo_says_what_its_file_says() -> None:
    env = MANIFESTS["scalingo.json"]["env"]
    for name, variable in env.items():
        if "value" in variable and name != "EMBEDDED_WORKER":
            assert f"{name}={variable['value']}" in HOSTS["scalingo"].text
    (addon,) = MANIFESTS["scalingo.json"]["addons"]
    assert f"addons-add {addon['plan'].replace(':', ' ')}" in HOSTS["scalingo"].text
