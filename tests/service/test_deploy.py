"""What a host reads: Procfile and app.json; and how a start there may end."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from receiver import Event, Registry, config, readiness
from receiver.config import Config
from receiver.parts import Receiver
from receiver.readiness import Readiness
from receiver.times import HOUR, MINUTE, SECOND
from receiver.worker import Worker
from tests.conftest import SECRET, Clock, Provider
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, cannot_run, eventually
from tests.store.test_store import ingest, sent

MANIFESTS = {name: json.loads((ROOT / name).read_text()) for name in ("app.json", "scalingo.json")}

GUNICORN = ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
MIGRATE = ["-m", "flask", "--app", str(ROOT / "wsgi.py"), "migrate"]
WORK = ["-m", "flask", "--app", str(ROOT / "wsgi.py"), "work"]


# --- starts that are refused, as real processes


def ended(server: Server, arguments: list[str]) -> tuple[int, list[str]]:
    """The exit status of a program that ends by itself, and the lines it printed."""
    try:
        server.spawn(arguments)
        assert server.process is not None
        status = server.process.wait(20)
    finally:
        server.close()
    return status, server.log.read_text().strip().splitlines()


@pytest.mark.parametrize("arguments", [GUNICORN, MIGRATE, WORK], ids=["web", "release", "worker"])
def test_sqlite_on_a_disk_that_is_emptied_does_not_start(
    without_database: dict[str, str], tmp_path: Path, arguments: list[str]
) -> None:
    """One line, exit status 1, and no file that would look like a database."""
    on_heroku = {"DYNO": "web.1", "ALLOW_EPHEMERAL_SQLITE": "0", "FLASK_SKIP_DOTENV": "1"}
    status, lines = ended(Server({**without_database, **on_heroku}, tmp_path, SECRET), arguments)
    assert status == 1
    (line,) = lines
    for told in ("DATABASE_URL", "DYNO", "ALLOW_EPHEMERAL_SQLITE=1"):
        assert told in line
    assert not list(tmp_path.glob("*.db"))


def test_on_a_real_volume_it_starts(environ: dict[str, str], tmp_path: Path) -> None:
    """In a mount namespace of its own, which needs no root where the kernel allows it."""
    volume = tmp_path / "volume"
    volume.mkdir()
    mounted = 'mount -t tmpfs none "$0" && exec "$@"'
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, str(volume)]
    if (
        not shutil.which("unshare")
        or subprocess.run([*alone, "true"], capture_output=True).returncode
    ):
        cannot_run("what a mount means, for this machine lets nobody mount anything")
    settings = {
        **Server(environ, tmp_path, SECRET).environ,
        "DYNO": "web.1",
        "ALLOW_EPHEMERAL_SQLITE": "0",
        "FLASK_SKIP_DOTENV": "1",
    }
    for folder, status in ((volume, 0), (tmp_path, 1)):
        settings["DATABASE_URL"] = f"sqlite:///{folder / 'receiver.db'}"
        migrated = subprocess.run(
            [*alone, sys.executable, *MIGRATE], env=settings, capture_output=True, timeout=30
        )
        assert migrated.returncode == status, migrated.stderr


def test_the_worker_says_that_the_schema_is_missing(
    without_database: dict[str, str], tmp_path: Path
) -> None:
    """Hosts skip the release command now and then, and may start the worker before the web."""
    settings = {**without_database, "FLASK_SKIP_DOTENV": "1"}
    status, lines = ended(Server(settings, tmp_path, SECRET), WORK)
    assert status == 1
    assert "flask migrate" in lines[-1]
    assert "Traceback" not in "\n".join(lines)


def test_readyz_says_that_the_schema_is_missing(without_database: dict[str, str]) -> None:
    app = create_app({**without_database, "EMBEDDED_WORKER": "0"})
    client: FlaskClient = app.test_client()
    answer = client.get("/readyz")
    app.extensions["receiver"].store.close()
    assert answer.status_code == 503
    assert "flask migrate" in answer.get_json()["failing"]["store"]
    assert client.get("/healthz").status_code == 200


def test_readyz_says_that_nobody_works(
    environ: dict[str, str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readiness, "KEPT", 0.0)
    app = create_app({**environ, "EMBEDDED_WORKER": "0"}, clock)
    receiver = app.extensions["receiver"]
    receiver.store.migrate()
    client: FlaskClient = app.test_client()
    provider = Provider(client)
    assert provider.post(envelope("sms.sent", sms("sent"))).status_code == 200
    clock.time += 15 * MINUTE
    assert client.get("/readyz").status_code == 200
    clock.time += MINUTE
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()["failing"].keys() == {"backlog"}
    assert answer.get_json()["backlog"] == {"waiting": 2, "oldest_seconds": 960.0}
    receiver.store.close()


def test_readyz_says_that_nothing_runs_the_handlers(
    client: FlaskClient, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is seen to change, and not by what another machine's clock says."""
    passed = 0.0
    began = time.monotonic()
    monkeypatch.setattr(readiness, "time", SimpleNamespace(monotonic=lambda: began + passed))

    def failing() -> dict[str, str]:
        told: dict[str, str] = client.get("/readyz").get_json()["failing"]
        return told

    assert failing() == {}  # a service that has just started
    for wrong in (0, -1, 1):  # hours
        passed += readiness.SILENT / SECOND + 5
        assert "flask work" in failing()["worker"]
        Worker(receiver.store, Registry()).step(clock.time + wrong * HOUR)
        passed += 5
        assert failing() == {}


def test_readyz_names_a_handler_that_is_stuck_in_another_process(
    environ: dict[str, str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Readiness, "KEPT", 0.0)
    app = create_app({**environ, "EMBEDDED_WORKER": "0"}, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    registry, go_on = Registry(), threading.Event()

    @registry.on("*", name="slow", timeout=0.01, concurrency=1)
    def slow(event: Event) -> None:
        go_on.wait(30)

    def failing() -> Any:
        return app.test_client().get("/readyz").get_json()["failing"]

    ingest(receiver.store, sent(), wanting=registry.wanting)
    worker = Worker(receiver.store, registry, clock)
    eventually(lambda: (worker.step(clock.time), worker.stuck)[1])
    assert failing() == {"handlers": "stuck: slow"}
    clock.time += 30 * SECOND
    worker.step(clock.time)
    clock.time += 40 * SECOND
    assert failing() == {"handlers": "stuck: slow"}
    clock.time += 30 * SECOND  # it has died, and does not say so again
    assert failing() == {}
    worker.step(clock.time)
    assert failing() != {}
    go_on.set()
    eventually(lambda: (worker.step(clock.time), not worker.stuck)[1])
    assert failing() == {}
    receiver.store.close()


def test_readyz_holds_no_thread_while_another_looks(app: Flask) -> None:
    receiver: Receiver = app.extensions["receiver"]
    look = receiver.readiness
    assert look.look().problem is None
    assert look._looking.acquire()
    assert "ask again" in str(look.look().problem)
    look._looking.release()
    assert look.look().problem is None


# --- Procfile


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: shlex.split(command) for name, command in (line.split(": ", 1) for line in lines)}


def test_procfile(app: Flask) -> None:
    processes = procfile()
    assert processes["web"] == ["gunicorn", "wsgi:app"]
    assert (processes["release"], processes["worker"]) == (["flask", "migrate"], ["flask", "work"])
    assert processes.keys() == {"release", "web", "worker"}
    for _, name in (processes["release"], processes["worker"]):
        assert name in app.cli.commands


def test_the_release_command_finds_the_application(
    without_database: dict[str, str], tmp_path: Path
) -> None:
    """In the folder of the program, without --app and FLASK_APP."""
    server = Server(without_database, tmp_path, SECRET)
    _, *arguments = procfile()["release"]
    released = server.flask(*arguments)
    server.close()
    assert released.returncode == 0, released.stderr
    assert list(tmp_path.glob("*.db"))


# --- app.json, scalingo.json, .python-version


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_manifests_name_only_settings_that_exist(manifest: dict[str, Any]) -> None:
    readers = {setting.name: setting.read for setting in config.SETTINGS}
    assert manifest["env"].keys() <= readers.keys()
    for name, variable in manifest["env"].items():
        assert variable["description"]
        assert ("value" in variable) != ("generator" in variable)
        if "value" in variable:
            readers[name](variable["value"])


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_manifests_give_all_that_a_start_needs(manifest: dict[str, Any]) -> None:
    """PostgreSQL sets DATABASE_URL; every secret is made, and none is written there."""
    assert "DATABASE_URL" not in manifest["env"]
    required = {config.OF_PROVIDERS[0]}  # any one provider is enough, and this is the first
    dashboard = {"ADMIN_PASSWORD", "SECRET_KEY", "METRICS_TOKEN"}
    made = {n for n, v in manifest["env"].items() if v.get("generator") == "secret"}
    assert made == required | dashboard
    assert {s.name for s in config.SETTINGS if s.secret} & manifest["env"].keys() == made
    # As Heroku makes them: 64 hexadecimal digits.
    generated = dict.fromkeys(made, "0123456789abcdef" * 4)
    values = {n: v["value"] for n, v in manifest["env"].items() if "value" in v}
    read = Config.from_env({**generated, **values, "DATABASE_URL": "postgres://u:p@h/d"})
    assert read.embedded_worker
    assert read.trusted_proxies == 1
    assert manifest["formation"].keys() == {"web"} < procfile().keys()


def test_each_host_has_its_own_database() -> None:
    """Scalingo would read Heroku's file if it had none of its own."""
    (heroku,) = MANIFESTS["app.json"]["addons"]
    (scalingo,) = MANIFESTS["scalingo.json"]["addons"]
    assert heroku == {"plan": "heroku-postgresql:essential-0"}
    assert scalingo["plan"].startswith("postgresql:")
    assert MANIFESTS["app.json"]["buildpacks"] == [{"url": "heroku/python"}]


def test_the_hosts_python_is_one_that_we_check() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert (ROOT / ".python-version").read_text().strip() == tools["mypy"]["python_version"]


def test_gunicorn_without_its_settings_is_told_of(environ: dict[str, str], tmp_path: Path) -> None:
    """Started in another folder it does not find them, and runs without handlers."""
    server = Server({**environ, "HANDLERS": "handlers.log"}, tmp_path, SECRET)
    server.spawn(["-m", "gunicorn", "--bind", f"127.0.0.1:{server.port}", "wsgi:app"])
    try:
        eventually(lambda: "gunicorn runs without the settings" in server.log.read_text())
        assert f"-c {ROOT / 'gunicorn.conf.py'}" in server.log.read_text()
    finally:
        server.close()
    server = Server({**environ, "DATABASE_URL": "sqlite:////proc/receiver.db"}, tmp_path, SECRET)
    server.spawn(["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"])
    try:
        assert server.process is not None
        assert server.process.wait(30) == 1
        assert "DATABASE_URL: /proc/receiver.db" in server.log.read_text()
        assert "folder" in server.log.read_text()
    finally:
        server.close()
