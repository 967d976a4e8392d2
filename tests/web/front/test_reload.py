"""A reload (HUP) takes what is there now, all of it and for all processes; or it changes nothing,
where the service could not start with that."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, eventually
from tests.service.test_faults import stored, workers
from tests.service.test_worker_process import worker_of
from tests.web.front.test_stop import Senders

REFUSED = "nothing was reloaded"
#: Leaves a mark where it has been imported, with the settings that it finds there.
HANDLERS = """
import json, os, pathlib
from tests.handlers import register
mark = pathlib.Path(os.environ["SEEN"]) / f"imported-{os.getpid()}"
whole = mark.with_name(f"{os.getpid()}-imported")
whole.write_text(json.dumps(dict(os.environ)))
whole.rename(mark)
"""
SETTINGS = "DATABASE_URL=sqlite:///receiver.db\nRETENTION_DAYS=5"

WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a setting": (lambda folder: add(folder, "RETENTION_DAYS=soon"), "RETENTION_DAYS"),
    "a line": (lambda folder: add(folder, "this is a line"), ".env: line 4 is no NAME=value"),
    "a file of settings": (
        lambda folder: (folder / ".env").write_bytes(b"LOG_LEVEL=\xff"),
        "is not UTF-8",
    ),
    "an address": (lambda folder: add(folder, "BIND=198.51.100.1"), "set BIND"),
    "one of two addresses alone": (lambda folder: add(folder, "BIND=0.0.0.0"), "restart"),
    "another database": (
        lambda folder: add(folder, "DATABASE_URL=sqlite:///other.db"),
        "DATABASE_URL and DATABASE_SCHEMA cannot be changed by a reload: restart",
    ),
    "no process for handlers": (
        lambda folder: add(folder, "EMBEDDED_WORKER=0"),
        "EMBEDDED_WORKER cannot be changed by a reload: restart",
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


def add(folder: Path, line: str) -> None:
    write(folder, ".env", f"{SETTINGS}\n\n{line}")


def start(
    serve: Callable[..., Server], folder: Path, secret: str = SECRET, **settings: str
) -> Server:
    """With a module of handlers that can be changed, and whose process has started."""
    write(folder, "mine.py", HANDLERS)
    path = os.pathsep.join(map(str, (ROOT / "tests" / "bare", ROOT, folder)))
    server = serve(HANDLERS="mine", SEEN=str(folder), PYTHONPATH=path, **settings)
    server.secret = secret.encode()
    server.environ["DATABASE_URL"] = f"sqlite:///{folder}/receiver.db"  # wherever it was said
    assert is_handled(server)
    return server


@pytest.fixture
def server(serve: Callable[..., Server], tmp_path: Path) -> Server:
    return start(serve, tmp_path)


def imported(folder: Path) -> set[int]:
    """The processes that have imported the handlers."""
    return {int(mark.name.partition("-")[2]) for mark in folder.glob("imported-*")}


def settings(server: Server, kind: Callable[[Server], int]) -> dict[str, str]:
    """What the web process, or that of the handlers, has found."""
    mark = server.folder / f"imported-{kind(server)}"
    found: dict[str, str] = json.loads(mark.read_text()) if mark.exists() else {}
    return found


def web_of(server: Server) -> int:
    (found,) = eventually(lambda: (web := workers(server)) and len(web) == 1 and web)
    return int(found)


def hang_up(server: Server) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)


def is_handled(server: Server) -> bool:
    """Whether a new event is stored and handled."""
    event = envelope("sms.sent", sms("sent"))
    assert server.post(event).status_code == 200
    eventually(lambda: event["event_id"] in {e["id"] for e in seen(server.folder, "first")}, 20)
    return event["event_id"] in stored(server)


def test_what_could_not_start_is_not_loaded(serve: Callable[..., Server], tmp_path: Path) -> None:
    write(tmp_path, ".env", SETTINGS)
    server = start(serve, tmp_path, DATABASE_URL="")
    before = workers(server), worker_of(server)
    with Senders(server.port, threads=2) as senders:
        for number, (what, (spoil, told)) in enumerate(WRONG.items(), 1):
            spoil(server.folder)
            hang_up(server)
            eventually(lambda count=number: len(refusals(server)) == count, 20)
            assert told in refusals(server)[-1], what
            assert (workers(server), worker_of(server)) == before, what
            assert is_handled(server)
            write(server.folder, ".env", SETTINGS)
            write(server.folder, "mine.py", HANDLERS)
        hang_up(server)
        eventually(lambda: not set(before[0]) & set(workers(server)))
        assert is_handled(server)
    assert senders.unanswered == []
    assert set(senders.acknowledged) <= stored(server)


def test_what_a_file_changes_and_takes_away_holds_for_all_processes(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    """But what is set in the real environment stays, whatever the file says beside it."""

    def alike(**wanted: str | None) -> bool:
        found = [settings(server, kind) for kind in (web_of, worker_of)]
        return all({n: each.get(n) for n in wanted} == wanted for each in found)

    secrets = [f"whsec_{letter * 32}" for letter in "abc"]
    key = "ZIMSEND_WEBHOOK_SECRET="
    write(tmp_path, ".env", f"{key}{secrets[0]}\nTEAM=one\nMAX_BODY_BYTES=2000\nRETENTION_DAYS=30")
    given = {"ZIMSEND_WEBHOOK_SECRET": "", "RETENTION_DAYS": "30"}
    server = start(serve, tmp_path, secrets[0], **given)
    assert alike(TEAM="one", MAX_BODY_BYTES="2000", RETENTION_DAYS="30")

    write(tmp_path, ".env", f"{key}{secrets[1]}\nTEAM=two\nRETENTION_DAYS=5\nLOG_LEVELS=info")
    hang_up(server)
    eventually(lambda: alike(TEAM="two", MAX_BODY_BYTES=None, RETENTION_DAYS="30"))
    assert server.log.read_text().count("LOG_LEVELS: no setting has this name") == 1
    assert server.post(envelope("sms.sent", sms("sent"))).status_code == 401
    server.secret = secrets[1].encode()
    assert is_handled(server)

    # What nobody has reloaded holds for no process, also for one that is started now.
    write(tmp_path, ".env", f"{key}{secrets[2]}\nTEAM=three\nMAX_BODY_BYTES=wrong")
    before = {web_of(server), worker_of(server)}
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not before & set(server.processes()))
    eventually(lambda: alike(TEAM="two", MAX_BODY_BYTES=None, RETENTION_DAYS="30"))
    assert is_handled(server)


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


#: Starts gunicorn with a socket, as systemd does.
ACTIVATE = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_the_socket_of_systemd_stays_and_another_master_reads_the_file_anew(
    environ: dict[str, str], tmp_path: Path
) -> None:
    gunicorn = Path(sys.executable).with_name("gunicorn")  # as `-m`, it cannot do the latter
    write(tmp_path, ".env", "RETENTION_DAYS=4")
    server = Server({**environ, "EMBEDDED_WORKER": "0"}, tmp_path, SECRET)
    try:
        server.spawn(
            ["-c", ACTIVATE, str(gunicorn), "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]
        )
        eventually(server.ready)
        before = workers(server)
        write(tmp_path, ".env", "BIND=127.0.0.1")
        hang_up(server)
        eventually(lambda: refusals(server))
        assert "BIND and PORT cannot be changed" in refusals(server)[-1]
        assert workers(server) == before
        write(tmp_path, ".env", "RETENTION_DAYS=5")
        hang_up(server)
        eventually(lambda: not set(before) & set(workers(server)))
        assert server.ready()

        write(tmp_path, ".env", "RETENTION_DAYS=soon")
        assert server.process is not None
        server.process.send_signal(signal.SIGUSR2)
        eventually(lambda: "cannot start. RETENTION_DAYS" in server.log.read_text())
        assert server.ready()
    finally:
        server.close()
