"""Dockerfile, .dockerignore and compose.yaml hold to the code; what the image would run, runs."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from receiver.config import SETTINGS, Config
from receiver.web.ops import blueprint
from tests.conftest import SECRET
from tests.server import ROOT, Server, cannot_run, eventually
from tests.service.test_deploy import procfile

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("receiver", "simulator")
NAMES = {setting.name for setting in SETTINGS}


def instructions() -> Iterator[tuple[str, str]]:
    """Of the Dockerfile: name and the rest, with lines that go on put together."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, rest.strip()


DOCKERFILE = list(instructions())
ENV = dict(shlex.split(rest)[n].split("=", 1) for name, rest in DOCKERFILE if name == "ENV"
           for n in range(len(shlex.split(rest))))  # fmt: skip
COPIED = [source.rstrip("/") for name, rest in DOCKERFILE if name == "COPY"
          for source in rest.split()[:-1]]  # fmt: skip


def only(name: str) -> str:
    (rest,) = (rest for each, rest in DOCKERFILE if each == name)
    return rest


def healthcheck() -> list[str]:
    command: list[str] = json.loads(only("HEALTHCHECK").partition("CMD ")[2])
    return command


# --- Dockerfile, .dockerignore


def test_it_runs_the_web_process_of_the_procfile_on_the_hosts_python() -> None:
    assert json.loads(only("CMD")) == procfile()["web"]
    python = (ROOT / ".python-version").read_text().strip()
    assert only("FROM") == f"python:{python}-slim"


def test_it_copies_all_that_the_program_needs_and_nothing_else() -> None:
    assert set(COPIED) == {
        *("app.py", "wsgi.py", "gunicorn.conf.py", "handlers", "receiver"),
        *("requirements", "requirements.txt", "requirements-alerts.txt"),
    }
    assert all((ROOT / source).exists() for source in COPIED)
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == set(COPIED)
    secret = (ROOT / ".gitignore").read_text().partition("# What `flask export`")[0].splitlines()
    assert {f"**/{line}" for line in secret if line[-1:] != "/" and line[:1] != "#"} <= set(lines)


def test_git_takes_nothing_that_holds_numbers_or_secrets(tmp_path: Path) -> None:
    database = ("receiver.db", "receiver.db.before-restore", "receiver.db.before-restore-2")
    partial = (".receiver.db.restoring", ".before.db.partial", ".hers.csv.partial")
    written = [
        *("..env.0a1b2c3d", ".env", "hers.csv", "hers.csv.sha256", "all.ndjson"),
        *(f"{name}{end}" for name in (*database, *partial) for end in ("", "-wal", "-journal")),
    ]
    own = ["handlers/prices.csv", "my_handlers.py", "requirements.txt"]
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    asked = subprocess.run(
        ["git", "check-ignore", *written, *own], cwd=tmp_path, capture_output=True, text=True
    )
    assert asked.stdout.splitlines() == written


def test_lists_that_a_list_names_are_copied_before_they_are_installed() -> None:
    order = [rest for name, rest in DOCKERFILE if name in ("COPY", "RUN")]
    install = next(n for n, rest in enumerate(order) if "pip install" in rest)
    copied = {source.rstrip("/") for rest in order[:install] for source in rest.split()[:-1]}
    lists = ["requirements.txt", "requirements-alerts.txt"]
    for name in lists:
        lists += re.findall(r"^-r (\S+)", (ROOT / name).read_text(), re.MULTILINE)
        assert {name, name.split("/")[0]} & copied, name
    assert len(lists) > 2


def test_it_has_one_volume_for_its_user_and_no_secret() -> None:
    assert "RUN_AS=10001:10001" in [rest for name, rest in DOCKERFILE if name == "ARG"]
    assert only("USER") == "$RUN_AS"
    assert only("VOLUME") == "/data"
    assert ENV["DATABASE_URL"] == "sqlite:////data/receiver.db"
    assert only("EXPOSE") == ENV["PORT"] == next(s.default for s in SETTINGS if s.name == "PORT")
    assert only("STOPSIGNAL") == "SIGTERM"
    assert ENV.keys() <= {s.name for s in SETTINGS if not s.secret}
    assert "curl" not in only("HEALTHCHECK")
    assert "/healthz" in {rule.rule for rule in routes()}


def routes() -> Any:
    from flask import Flask

    app = Flask("only its paths")
    app.register_blueprint(blueprint)
    return app.url_map.iter_rules()


def test_the_order_that_caches_hold_to() -> None:
    """What is installed changes seldom, so it comes before what is copied."""
    names = [name if name != "COPY" else rest.split()[0] for name, rest in DOCKERFILE]
    assert names.index("requirements.txt") < names.index("receiver/")
    ast.parse(healthcheck()[2])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The tree as the image has it: copied, and writable by nobody."""
    app = tmp_path / "app"
    app.mkdir()
    for source in COPIED:
        if (ROOT / source).is_dir():
            ignore = shutil.ignore_patterns("*.db", ".env")
            shutil.copytree(ROOT / source, app / source, ignore=ignore)
        else:
            shutil.copy(ROOT / source, app / source)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(app)], check=True)
    subprocess.run(["chmod", "-R", "a-w", str(app)], check=True)
    return app


def unprivileged() -> list[str]:
    """For root: what takes its rights over others' files. A user space of its own, as no one."""
    if os.geteuid():
        return []
    if subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode:
        cannot_run("the image's tree without the rights of root: there are no user namespaces")
    return ["unshare", "--user"]


def test_the_tree_runs_without_rights_is_checked_and_stops(image: Path, tmp_path: Path) -> None:
    """Nothing but /data (and /tmp) is written; SIGTERM reaches gunicorn, and it ends with 0."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    environ = {"DATABASE_URL": f"sqlite:///{data / 'receiver.db'}", "HANDLERS": "handlers"}
    server = Server({**environ, "ZIMSEND_WEBHOOK_SECRET": SECRET}, image, SECRET)
    server.log = tmp_path / "log"
    server.environ["PYTHONPATH"] = ""
    before = files(image)
    check = [sys.executable, *healthcheck()[1:]]
    try:
        assert subprocess.run(check, env=server.environ, capture_output=True).returncode
        with server.log.open("ab") as log:
            server.process = subprocess.Popen(
                [*unprivileged(), sys.executable, "-m", *json.loads(only("CMD"))],
                cwd=image,
                env=server.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(server.ready)
        odd = {"http_proxy": "http://127.0.0.1:1", "PORT": f'"{server.port}"'}
        checked = subprocess.run(check, env=server.environ | odd, capture_output=True)
        assert checked.returncode == 0, checked.stderr
        event = {"event": "sms.sent", "event_id": "e1", "data": {"message_id": "m1"}}
        assert server.post(event).status_code == 200
        assert server.terminate() == 0, server.log.read_text()
    finally:
        server.close()
        subprocess.run(["chmod", "-R", "u+w", str(image)], check=True)
    assert files(image) == before
    assert (data / "receiver.db").exists()


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# --- compose.yaml


def test_its_variables_are_settings_and_its_secrets_come_from_env() -> None:
    for name in OURS:
        assert SERVICES[name]["environment"].keys() <= NAMES
        assert SERVICES[name]["env_file"] == ".env"
        for variable, value in SERVICES[name]["environment"].items():
            if "password" in value or next(s for s in SETTINGS if s.name == variable).secret:
                assert re.search(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{variable} has a default"
    password = SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    assert re.fullmatch(r"\$\{POSTGRES_PASSWORD:\?.+\}", password)


def test_its_database_is_one_that_the_service_reads() -> None:
    own = SERVICES["receiver"]["environment"]
    url = re.sub(r"\$\{.*?\}", "a1b2", own["DATABASE_URL"])
    environ = {**own, "DATABASE_URL": url, "ZIMSEND_WEBHOOK_SECRET": SECRET}
    config = Config.from_env(environ)
    assert config.bind is None
    database = SERVICES["postgres"]["environment"]
    user, name = database["POSTGRES_USER"], database["POSTGRES_DB"]
    assert url == f"postgresql://{user}:a1b2@postgres:5432/{name}?sslmode=disable"
    assert SERVICES["receiver"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert {"-U", user, "-d", name} < set(SERVICES["postgres"]["healthcheck"]["test"])
    (volume,) = SERVICES["postgres"]["volumes"]
    assert volume.partition(":")[0] in COMPOSE["volumes"]


def test_its_ports_ends_and_restarts() -> None:
    receiver = SERVICES["receiver"]
    assert receiver["ports"] == [f"127.0.0.1:3000:{receiver['environment']['PORT']}"]
    assert SERVICES["simulator"]["restart"] == "no"
    assert SERVICES["simulator"]["profiles"] == ["simulator"]
    for name in OURS:
        assert SERVICES[name]["stop_grace_period"] == "30s"
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert "/tmp" in SERVICES[name]["tmpfs"]
    for name in ("receiver", "postgres"):
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_its_simulator_is_a_command_and_an_address_that_can_be_set(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """It is in the receiver's network, so each is the other's own machine."""
    simulator = SERVICES["simulator"]
    assert simulator["network_mode"] == "service:receiver"
    program, *arguments = simulator["command"]
    assert program == "flask"
    server = Server(environ, tmp_path, SECRET)
    told = server.command(*arguments, "--help")
    server.close()
    assert told.exit_code == 0, told.output
    (url,) = re.findall(r"ZIMSEND_API_URL=(\S+)", (ROOT / "compose.yaml").read_text())
    assert Config.from_env({**environ, "ZIMSEND_API_URL": url}).api_url == url
