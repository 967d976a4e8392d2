"""docs/hosts/: what its pages name exists, and what they write is read."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from flask import Flask

from receiver import sqlite_file
from receiver.config import Config
from receiver.store.postgres.pool import settings_of
from tests.core.settings import NAME, SECRET
from tests.server import ROOT, cannot_run
from tests.service.test_deploy import MANIFESTS, SETTINGS
from tests.test_docs import anchors, commands_of

FOLDER = ROOT / "docs" / "hosts"
PAGES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.md"))}
#: Names in capitals that belong to hosts and to compose.yaml.
THEIRS = {
    "POSTGRES_PASSWORD", "SCALINGO_POSTGRESQL_URL", "POSTGRESQL_ADDON_URI", "CC_RUN_COMMAND",
    "CC_HEALTH_CHECK_PATH", "CC_PYTHON_MODULE", "CC_WORKER_COMMAND", *sqlite_file.EPHEMERAL_HOSTS,
}  # fmt: skip


def blocks(text: str, language: str = "[a-z]*") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def code(text: str) -> str:
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks(text), *re.findall(r"`([^`\n]+)`", prose)])


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says(page: str) -> None:
    """The disk, the stop signal, a check, and what was not tried; no code over two lines."""
    text = PAGES[page]
    for word in ("ZIMSEND_WEBHOOK_SECRET", "| Disk |", "SIGTERM", "/readyz", "## What was tried"):
        assert word in text
    for line in re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL).splitlines():
        assert line.count("`") % 2 == 0, line


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_commands_that_it_names_exist(page: str, app: Flask) -> None:
    text = code(PAGES[page])
    named = set(re.findall(r"(?<![$\w-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text))
    assert named <= SETTINGS | THEIRS
    commands = {path.split()[0] for path, _ in commands_of(app.cli)}
    assert set(re.findall(r"\bflask ([a-z]+)", text)) <= commands


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = FOLDER / file
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text()), target


@pytest.mark.parametrize("page", ["own-server", "docker"])
def test_the_env_that_it_writes_starts_the_service(page: str, tmp_path: Path) -> None:
    """With fresh secrets each time; run as it stands, but for what root or Docker would do."""
    (script, *_) = blocks(PAGES[page], "sh")
    script = re.sub(r"^(chown|docker) .*\n", "", script, flags=re.MULTILINE)
    if subprocess.run(["sh", "-c", "command -v openssl"], capture_output=True).returncode:
        cannot_run("how .env is written, for openssl is not here")
    written = []
    for number in "12":
        folder = tmp_path / number
        folder.mkdir()
        subprocess.run(["sh", "-e", "-c", script], cwd=folder, check=True)
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


def test_postgresql_by_its_socket_needs_no_tls() -> None:
    (url,) = re.findall(r"^DATABASE_URL=(postgresql:.*)$", PAGES["own-server"], re.MULTILINE)
    assert Config.from_env({NAME: SECRET, "DATABASE_URL": url}).database_url == url
    assert "sslmode" not in settings_of(url)


def test_the_page_of_scalingo_says_what_its_file_says() -> None:
    env = MANIFESTS["scalingo.json"]["env"]
    for name, variable in env.items():
        if "value" in variable and name != "EMBEDDED_WORKER":
            assert f"{name}={variable['value']}" in PAGES["scalingo"]
    (addon,) = MANIFESTS["scalingo.json"]["addons"]
    assert f"addons-add {addon['plan'].replace(':', ' ')}" in PAGES["scalingo"]
