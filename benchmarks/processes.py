"""Starting what is measured, and ending it: only what was started here, by its process group."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.postgres import PostgresServer

ROOT = Path(__file__).parent.parent
_START_WITHIN = 20.0

#: Whether Node, in the current folder, has any SQLite that `apps/fastify/server.js` can use; and
#: whether it is Node's own. Exit status 0 says yes.
_HAS_SQLITE = 'process.getBuiltinModule?.("node:sqlite") || require("better-sqlite3")'
_HAS_ITS_OWN = 'process.exit(process.getBuiltinModule?.("node:sqlite") ? 0 : 1)'
#: Where Node has no SQLite of its own, one may have to be compiled.
_INSTALL_WITHIN = 600


@contextmanager
def running(
    command: Sequence[str], folder: Path, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, killed with all its children at the end."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean(environ),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def gunicorn(
    app: str, folder: Path, environ: Mapping[str, str], options: Sequence[str] = ()
) -> Iterator[str]:
    """An application under the receiver's own `gunicorn.conf.py`; gives its URL.

    :param options: further ones of gunicorn's.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = ["-c", str(ROOT / "gunicorn.conf.py"), "--bind", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", "gunicorn", *settings, *options, app]
    with running(command, folder, {"PORT": str(port), **environ}) as process:
        wait_for(lambda: answers(url), process, folder)
        yield url


def install_fastify(folder: Path) -> str | None:
    """Copy the Fastify application into a new folder, with what it needs beside it.

    :returns: what is missing on this machine, if anything is.
    """
    missing = [program for program in ("node", "npm") if not shutil.which(program)]
    if missing:
        return f"there is no {' and no '.join(missing)} here"
    shutil.copytree(ROOT / "benchmarks" / "apps" / "fastify", folder)
    options = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel", "error"]
    if subprocess.run(["node", "--eval", _HAS_ITS_OWN], cwd=folder).returncode == 0:
        options += ["--omit", "optional"]
    installing = ["npm", "install", *options]
    with (folder / "log").open("ab") as log:
        try:
            installed = subprocess.run(
                installing, cwd=folder, stdout=log, stderr=log, timeout=_INSTALL_WITHIN
            )
        except subprocess.TimeoutExpired:
            return f"npm install took more than {_INSTALL_WITHIN} seconds"
        if installed.returncode:
            return "npm cannot install it: " + (folder / "log").read_text(errors="replace")[-500:]
        has_sqlite = subprocess.run(
            ["node", "--eval", _HAS_SQLITE], cwd=folder, stdout=log, stderr=log
        )
    return "there is no SQLite for this Node" if has_sqlite.returncode else None


@contextmanager
def node(script: Path, folder: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """A server in JavaScript; gives its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {"NODE_ENV": "production", "PORT": str(port), **environ}
    with running(["node", str(script)], folder, environ) as process:
        wait_for(lambda: answers(url), process, folder)
        yield url


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis that syncs its log once a second; gives its URL."""
    port = free_port()
    settings = {
        "--bind": "127.0.0.1",
        "--port": str(port),
        "--dir": str(folder),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
    }
    command = ["redis-server", *(word for setting in settings.items() for word in setting)]
    with running(command, folder, {}) as process:
        wait_for(lambda: connects(port), process, folder)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL as it comes, with an empty database; gives its URL."""
    server = PostgresServer(durable=True)
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


@contextmanager
def celery_worker(app: str, folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """A worker with two processes that take tasks."""
    celery = [sys.executable, "-m", "celery", "--app", app]
    options = ["--concurrency", "2", "--loglevel", "WARNING", "--hostname", "benchmark"]
    with running([*celery, "worker", *options], folder, environ) as process:
        ping = [*celery, "inspect", "ping", "--timeout", "1"]

        def responds() -> bool:
            answer = subprocess.run(ping, cwd=folder, env=clean(environ), capture_output=True)
            return answer.returncode == 0

        wait_for(responds, process, folder)
        yield


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment without the settings of the person who measures."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**inherited, "PYTHONPATH": str(ROOT), **environ}


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_WITHIN
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            log = (folder / "log").read_text(errors="replace")
            raise SystemExit(f"{process.args!r} does not start:\n{log[-2_000:]}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    try:
        return bool(httpx.get(f"{url}/healthz", timeout=2).status_code)
    except httpx.HTTPError:
        return False
