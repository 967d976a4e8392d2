"""A reload (HUP) changes nothing where the service could not start with what is there now."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, eventually
from tests.service.test_faults import stored, workers
from tests.service.test_worker_process import worker_of
from tests.web.front.test_stop import Senders

REFUSED = "nothing was reloaded"
#: Leaves a mark where it has been imported.
HANDLERS = """
import os, pathlib
from tests.handlers import register
(pathlib.Path(os.environ["SEEN"]) / f"imported-{os.getpid()}").touch()
"""

WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a setting": (lambda folder: write(folder, ".env", "RETENTION_DAYS=soon"), "RETENTION_DAYS"),
    "a file of settings": (
        lambda folder: (folder / ".env").write_bytes(b"LOG_LEVEL=\xff"),
        "is not UTF-8",
    ),
    "an address": (lambda folder: write(folder, ".env", "BIND=198.51.100.1"), "set BIND"),
    "one of two addresses alone": (
        lambda folder: write(folder, ".env", "BIND=0.0.0.0"),
        "restart",
    ),
    "a handler": (lambda folder: write(folder, "mine.py", "def register(:"), "cannot import mine"),
    "a handler that ends the process": (
        lambda folder: write(folder, "mine.py", "import os; os._exit(3)"),
        "status 3",
    ),
    "a handler that ends it as if it had told why": (
        lambda folder: write(folder, "mine.py", "from os import _exit; _exit(1)"),
        "status 1",
    ),
}


def write(folder: Path, name: str, text: str) -> None:
    """Another length each time: what Python has compiled must not count."""
    (folder / name).write_text(f"{text}\n")


def start(serve: Callable[..., Server], folder: Path, **settings: str) -> Server:
    """With a module of handlers that can be changed, and whose process has started."""
    write(folder, "mine.py", HANDLERS)
    path = os.pathsep.join(map(str, (ROOT / "tests" / "bare", ROOT, folder)))
    server = serve(HANDLERS="mine", SEEN=str(folder), PYTHONPATH=path, **settings)
    assert is_handled(server)
    return server


@pytest.fixture
def server(serve: Callable[..., Server], tmp_path: Path) -> Server:
    return start(serve, tmp_path)


def imported(folder: Path) -> set[int]:
    """The processes that have imported the handlers."""
    return {int(mark.name.partition("-")[2]) for mark in folder.glob("imported-*")}


def hang_up(server: Server) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)


def is_handled(server: Server) -> bool:
    """Whether a new event is stored and handled."""
    event = envelope("sms.sent", sms("sent"))
    assert server.post(event).status_code == 200
    eventually(lambda: event["event_id"] in {e["id"] for e in seen(server.folder, "first")}, 20)
    return event["event_id"] in stored(server)


def test_what_could_not_start_is_not_loaded(server: Server) -> None:
    before = workers(server), worker_of(server)
    with Senders(server.port, threads=2) as senders:
        for number, (what, (spoil, told)) in enumerate(WRONG.items(), 1):
            spoil(server.folder)
            hang_up(server)
            eventually(lambda count=number: len(refusals(server)) == count, 20)
            assert told in refusals(server)[-1], what
            assert (workers(server), worker_of(server)) == before, what
            assert is_handled(server)
            write(server.folder, ".env", "")
            write(server.folder, "mine.py", HANDLERS)
        hang_up(server)
        eventually(lambda: not set(before[0]) & set(workers(server)))
        assert is_handled(server)
    assert senders.unanswered == []
    assert set(senders.acknowledged) <= stored(server)


def refusals(server: Server) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if REFUSED in line]


def test_a_trial_has_its_time(serve: Callable[..., Server], tmp_path: Path) -> None:
    """Also where a module has taken the signal that would tell it so."""
    server = start(serve, tmp_path, GUNICORN_CMD_ARGS="--timeout 3")
    deaf = "import signal, time; signal.signal(signal.SIGALRM, signal.SIG_IGN); time.sleep(60)"
    write(server.folder, "mine.py", deaf)
    hang_up(server)
    eventually(lambda: refusals(server), 20)
    assert "status -9" in refusals(server)[0]
    assert is_handled(server)


def test_a_stop_waits_for_no_trial(server: Server) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(60)"
    write(server.folder, "mine.py", f"print('it is tried', flush=True); {deaf}")
    hang_up(server)
    eventually(lambda: "it is tried" in server.log.read_text())
    assert server.terminate(within=15) == 0


def test_a_web_process_that_cannot_boot_is_started_again_and_the_others_go_on(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = start(serve, tmp_path, WEB_CONCURRENCY="2")
    other, killed = eventually(lambda: len(workers(server)) == 2 and workers(server))
    eventually(lambda: {other, killed} <= imported(tmp_path))
    write(tmp_path, "mine.py", "import os; os._exit(3)")
    with Senders(server.port, threads=2) as senders:
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: server.log.read_text().count("exited with code 3") == 2)
        assert other in workers(server)
        write(tmp_path, "mine.py", HANDLERS)
        answered = len(senders.acknowledged)
        eventually(lambda: len({*workers(server)} - {other, killed}) == 1)
        eventually(lambda: len(senders.acknowledged) > answered + 50)
    assert set(senders.acknowledged) <= stored(server)


@pytest.mark.parametrize(
    ("more", "told"), [(-9, "no web process can be started"), (0, "exited with code 255")]
)
def test_a_shortage_of_files_ends_nothing(server: Server, more: int, told: str) -> None:
    """The master, and what it starts, may have no more open than it has; or even fewer."""
    assert server.process is not None
    master = server.process.pid
    (before,) = workers(server)
    allowed = len(os.listdir(f"/proc/{master}/fd")) + more
    enough = resource.prlimit(master, resource.RLIMIT_NOFILE)
    resource.prlimit(master, resource.RLIMIT_NOFILE, (allowed, enough[1]))
    os.kill(before, signal.SIGKILL)
    eventually(lambda: told in server.log.read_text(), 10)
    hang_up(server)
    eventually(lambda: REFUSED in server.log.read_text(), 10)
    resource.prlimit(master, resource.RLIMIT_NOFILE, enough)
    eventually(server.ready)
    assert is_handled(server)


def test_a_stop_does_not_wait_for_a_module_that_hangs(server: Server) -> None:
    write(server.folder, "mine.py", "import time; print('it hangs', flush=True); time.sleep(60)")
    hang_up(server)
    eventually(lambda: "it hangs" in server.log.read_text())
    assert server.terminate(within=10) == 0
    eventually(lambda: not server.processes())
    assert REFUSED not in server.log.read_text()
