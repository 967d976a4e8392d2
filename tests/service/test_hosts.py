"""Pages of hosts: what they write to `.env` starts the service."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from receiver.config import Config
from receiver.store.postgres.pool import settings_of
from tests.core.settings import NAME, SECRET
from tests.docs.markdown import Page
from tests.server import ROOT, cannot_run
from tests.service.test_deploy import MANIFESTS

FOLDER = ROOT / "docs" / "how-to" / "hosts"


def page_of(host: str) -> Page:
    return Page(ROOT, FOLDER / f"{host}.md")


@pytest.mark.parametrize("page", ["own-server", "docker"])
def test_the_env_that_it_writes_starts_the_service(page: str, tmp_path: Path) -> None:
    """With fresh secrets each time; run as it stands, but for what root or Docker would do."""
    script = next(b.text for b in page_of(page).blocks if "> .env" in b.text)
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
    (url,) = re.findall(r"^DATABASE_URL=(postgresql:.*)$", page_of("own-server").text, re.MULTILINE)
    assert Config.from_env({NAME: SECRET, "DATABASE_URL": url}).database_url == url
    assert "sslmode" not in settings_of(url)


def test_the_page_of_scalingo_says_what_its_file_says() -> None:
    env = MANIFESTS["scalingo.json"]["env"]
    for name, variable in env.items():
        if "value" in variable and name != "EMBEDDED_WORKER":
            assert f"{name}={variable['value']}" in page_of("scalingo").text
    (addon,) = MANIFESTS["scalingo.json"]["addons"]
    assert f"addons-add {addon['plan'].replace(':', ' ')}" in page_of("scalingo").text
