"""A process in which something has broken is followed by another, and the log says why."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, eventually
from tests.service.test_faults import GUNICORN, workers
from tests.service.test_worker_process import event, handled, worker_of
from tests.web.front.test_stop import connect

FOLLOWED = "this process can store nothing any more: another one follows"


@pytest.fixture
def spawn(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start gunicorn with further arguments, and do not wait: `spawn("tests.fatal:app")`."""
    servers: list[Server] = []

    def start(*arguments: str, **settings: str) -> Server:
        path = os.pathsep.join(map(str, (ROOT / "tests" / "bare", ROOT, tmp_path)))
        environment = {**environ, "SEEN": str(tmp_path), "PYTHONPATH": path, **settings}
        servers.append(Server(environment, tmp_path, SECRET))
        servers[0].spawn([*GUNICORN, *arguments])
        return servers[0]

    yield start
    for server in servers:
        server.close()


def follows(server: Server, before: int) -> bool:
    return before not in workers(server) and server.ready()


# --- the committer


@pytest.mark.parametrize("kind", ["LoopWorker", "ThreadsWorker"])
def test_a_web_process_whose_committer_has_died_is_followed(
    spawn: Callable[..., Server], kind: str
) -> None:
    module = "loop_worker" if kind == "LoopWorker" else "without_loop"
    worker_class = f"receiver.web.front.{module}.{kind}"
    server = spawn("--worker-class", worker_class, "--threads", "4", "tests.fatal:app")
    eventually(server.ready)
    (before,) = workers(server)
    assert server.client.get("/fatal/committer").text == "it ends"
    eventually(lambda: follows(server, before), 20)
    assert server.log.read_text().count(FOLLOWED) == 1
    assert server.post(envelope("sms.sent", sms("sent")), tries=3).status_code == 200


def test_its_doors_are_closed_for_a_moment_and_not_until_its_pages_are_made(
    spawn: Callable[..., Server],
) -> None:
    server = spawn("tests.fatal:app")
    eventually(server.ready)
    (before,) = workers(server)
    with ExitStack() as stack:
        connect(stack, server.port, b"GET /fatal/hang HTTP/1.1\r\nHost: here\r\n\r\n")
        eventually(lambda: "it hangs" in server.log.read_text())
        began = time.monotonic()
        assert server.client.get("/fatal/committer").text == "it ends"
        eventually(lambda: follows(server, before), 20)
        assert time.monotonic() - began < 12  # 20 s, if it waited for the page


def test_the_handlers_process_whose_committer_has_died_is_followed(
    spawn: Callable[..., Server], tmp_path: Path
) -> None:
    server = spawn("tests.fatal:app", HANDLERS="tests.hostile")
    eventually(server.ready)
    before = worker_of(server)
    assert server.post(event(harm="committer")).status_code == 200
    eventually(lambda: worker_of(server) != before, 20)
    after = event()
    assert server.post(after).status_code == 200
    eventually(lambda: after["event_id"] in handled(tmp_path, "good"), 20)


def test_flask_work_ends_so_that_its_host_starts_it_again(spawn: Callable[..., Server]) -> None:
    server = spawn("tests.fatal:app", HANDLERS="tests.hostile", EMBEDDED_WORKER="0")
    eventually(server.ready)
    assert server.post(event(harm="committer")).status_code == 200
    work = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "tests.fatal", "work"],
        cwd=server.folder,
        env={**server.environ, "FLASK_SKIP_DOTENV": "1"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert work.returncode == 1
    assert "this process can store nothing any more: start it again" in work.stderr


# --- a connection, a boot, a reload


def test_a_connection_that_cannot_be_opened_is_told_and_closed(
    spawn: Callable[..., Server],
) -> None:
    server = spawn("tests.fatal:app")
    eventually(server.ready)
    assert server.client.get("/fatal/connection").text == "one"
    with ExitStack() as stack:
        refused = connect(stack, server.port, b"")
        refused.settimeout(5)
        assert refused.recv(1) == b""
    eventually(lambda: "a connection could not be opened: MemoryError" in server.log.read_text())
    assert server.ready()


def test_what_a_wrapper_raises_at_its_import_ends_the_start(
    spawn: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("import os\nfrom wsgi import app\nos.environ['MY_TOKEN']\n")
    server = spawn("mine:app")
    assert server.process is not None
    assert server.process.wait(20) == 1
    assert "KeyError: 'MY_TOKEN'" in server.log.read_text()


def test_who_cannot_boot_nor_say_so_becomes_no_second_master(
    spawn: Callable[..., Server], tmp_path: Path
) -> None:
    """As where the disk with the log is full."""
    wrapper = tmp_path / "mine.py"
    wrapper.write_text("from wsgi import app\n")
    server = spawn("mine:app", EMBEDDED_WORKER="0")
    eventually(lambda: begun(server) and server.ready())
    assert server.process is not None
    master = server.process.pid
    (before,) = workers(server)
    wrapper.write_text("raise RuntimeError('not now')\n")
    unlimited = resource.prlimit(master, resource.RLIMIT_FSIZE)
    resource.prlimit(master, resource.RLIMIT_FSIZE, (0, unlimited[1]))
    os.kill(before, signal.SIGKILL)
    failed: set[int] = set()
    eventually(lambda: len(failed.update(workers(server)) or failed - {before}) >= 2, 20)
    assert set(server.processes()) <= {master, *workers(server), *failed}
    wrapper.write_text("from wsgi import app\n")
    resource.prlimit(master, resource.RLIMIT_FSIZE, unlimited)
    eventually(lambda: server.client.get("/healthz").status_code == 200)
    assert len(server.processes()) == 2


def test_what_fails_after_the_trial_of_a_reload_ends_nothing(
    spawn: Callable[..., Server], tmp_path: Path
) -> None:
    file = tmp_path / "gunicorn.pid"
    server = spawn("--pid", str(file), "wsgi:app")
    eventually(server.ready)
    assert server.process is not None
    before = workers(server)
    file.write_text(f"{os.getpid()}\n")  # another program's, which lives
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: "the reload is not whole" in server.log.read_text(), 10)
    assert server.ready()
    file.unlink()
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: not set(before) & set(workers(server)) and server.ready(), 20)
    assert file.read_text().strip() == str(server.process.pid)


def begun(server: Server) -> bool:
    return "Booting worker" in server.log.read_text()
