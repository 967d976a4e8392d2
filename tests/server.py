"""A receiver as its users run it: gunicorn in processes of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import httpx
import pytest
from click.testing import Result
from flask.testing import FlaskCliRunner
from packaging.requirements import Requirement

from receiver.parts import parts
from receiver.providers.zimsend.webhook import sign
from receiver.service import close, create_app
from receiver.store import Selection, open_store

ROOT = Path(__file__).parent.parent


def eventually(condition: Callable[[], Any], within: float = 60.0) -> Any:
    """Poll until the condition is true, and return it; fail after the deadline (seconds)."""
    deadline = time.monotonic() + within
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {within} s")
        time.sleep(0.05)
    return result


def quick(look: Callable[[], float], bound: float, looks: int = 3) -> bool:
    """Whether something takes less than so many seconds, at the best of three looks: the machine
    has others to serve, too."""
    for number in range(looks):
        if number:
            time.sleep(1)  # what was in the way may have gone
        if look() < bound:
            return True
    return False


def requirements(file: Path = ROOT / "requirements.txt") -> Iterator[Requirement]:
    """What pip installs for this file, with the files that it names."""
    for line in file.read_text().splitlines():
        if line.startswith("-r "):
            yield from requirements(file.parent / line.removeprefix("-r "))
        elif not line.startswith("#"):
            yield Requirement(line)


def cannot_run(why: str) -> NoReturn:
    """Skip a test that cannot run on this machine, loudly; where CI is, it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"NOT TESTED: {why}")
    pytest.skip(f"NOT TESTED HERE: {why}")


#: Below those that the system hands out by itself. Twenty test processes of one run have their own;
#: another run on the same machine most likely begins elsewhere.
_FIRST = 12_000 + 1_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 20)
_steps = itertools.count(37 * os.getpid())


def free_port() -> int:
    """One that nobody else takes before it is used, nor while a server on it starts again."""
    for step in itertools.islice(_steps, 1_000):
        port = _FIRST + step % 1_000
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("0.0.0.0", port))
            return port
    raise AssertionError("all ports are taken")


class Server:
    """One `gunicorn wsgi:app` with all its processes, and a sender of signed events."""

    def __init__(self, environ: dict[str, str], folder: Path, secret: str) -> None:
        self.folder = folder
        self.secret = secret.encode()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"gunicorn-{self.port}.log"
        self.environ = {
            # No settings of the person who runs the tests.
            **{k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR")},
            "PYTHONPATH": f"{ROOT / 'tests' / 'bare'}{os.pathsep}{ROOT}",
            "PORT": str(self.port),
            # Never ZimSend itself: nothing answers there, unless a test says who does.
            "ZIMSEND_API_URL": "http://127.0.0.1:9/v1",
            **environ,
        }
        self.client = httpx.Client(base_url=self.url, timeout=10)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it is ready."""
        self.spawn(["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"])
        eventually(self.ready)

    def spawn(self, arguments: list[str]) -> None:
        # The nearest one counts, and the person who runs the tests may have another.
        (self.folder / ".env").touch()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"it ended: {self.log.read_text()}")
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def post(
        self, event: dict[str, Any] | bytes, *, tries: int = 1, **headers: str
    ) -> httpx.Response:
        """Send one signed event; with several `tries`, after a 503 again, as ZimSend does."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers = {"X-Webhook-Signature": sign(self.secret, body), **headers}
        answer = self.client.post("/webhooks/zimsend", content=body, headers=headers)
        if answer.status_code == 503 and tries > 1:
            time.sleep(1)  # a paused machine is no broken store
            return self.post(event, tries=tries - 1, **headers)
        return answer

    def flask(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a `flask` command with the same settings, in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=ROOT,
            env={**self.environ, "FLASK_SKIP_DOTENV": "1", **settings},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def command(self, *arguments: str, **settings: str) -> Result:
        """The same in this process, which takes a tenth of the time."""
        app = create_app({**self.environ, **settings})
        try:
            return FlaskCliRunner(app).invoke(args=arguments)
        finally:
            zimsend = parts(app).zimsend
            if zimsend is not None:
                zimsend.close()
            close(app)

    def events(self) -> list[dict[str, Any]]:
        """All that is stored, as `flask events list` tells it."""
        store = open_store(self.environ["DATABASE_URL"])
        found = list(store.events(Selection()))
        store.close()
        return found

    def close(self) -> None:
        """The end of a test: no process and no connection is left."""
        self.kill()
        self.client.close()

    def kill(self) -> None:
        """kill -9 of all its processes, as a crash or a power cut would end them."""
        if self.process is None:
            return
        found = [self.process.pid, *self.processes()]
        while found:  # again: who was just being started may not have shown its settings yet
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(30)
            time.sleep(0.01)
            found = self.processes()

    def processes(self) -> list[int]:
        """All that runs with the settings of this server, but for a simulator beside it."""
        mark = f"PORT={self.port}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    simulates = b"simulate" in (entry / "cmdline").read_bytes().split(b"\0")
                    found += [] if state == "Z" or simulates else [int(entry.name)]
        return found

    def terminate(self, within: float = 25.0) -> int:
        """SIGTERM to the master, as a host does it; returns the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within)


@contextlib.contextmanager
def simulating(server: Server, *options: str, port: int | None = None) -> Iterator[SimpleNamespace]:
    """`flask simulate` in a process of its own, listening; afterwards its `status` and `output`."""
    port = port or free_port()
    ran = SimpleNamespace(url=f"http://127.0.0.1:{port}")
    process = subprocess.Popen(
        [sys.executable, "-m", "flask", "simulate", "--port", str(port), *options],
        cwd=ROOT,
        env={**server.environ, "FLASK_SKIP_DOTENV": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def listening() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return process.poll() is not None  # it may have come to its end

    try:
        eventually(listening)
        yield ran
        process.send_signal(signal.SIGTERM)
        ran.output, _ = process.communicate(timeout=60)
        ran.status = process.returncode
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
