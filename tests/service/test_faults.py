"""Faults for real, against gunicorn: what the sender sees is 200 or an honest 5xx, and what was
acknowledged is there afterwards. Kills of all processes: `test_crash.py`; a locked database and
SIGTERM: `test_service.py`."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.store import Selection, open_store
from tests.conftest import SECRET
from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, cannot_run, eventually
from tests.service.test_crash import Senders

GUNICORN = ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py")]
#: Becomes another program.
EXECUTE = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def starting(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start gunicorn in another way than usual: `starting(arguments, SETTING=...)`."""
    servers: list[Server] = []

    def start(arguments: list[str], **settings: str) -> Server:
        server = Server({**environ, "SEEN": str(tmp_path), **settings}, tmp_path, SECRET)
        servers.append(server)
        server.spawn(arguments)
        eventually(server.ready)
        return server

    yield start
    for server in servers:
        server.close()


def sockets(pid: int) -> int:
    """How many a process has open."""
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(file).startswith("socket:")
        except FileNotFoundError:
            continue
    return found


def stored(server: Server) -> set[str]:
    store = open_store(server.environ["DATABASE_URL"])
    found = {event["event_id"] for event in store.events(Selection())}
    store.close()
    return found


def workers(server: Server) -> list[int]:
    """gunicorn's workers, which receive; the process of the handlers is none of them.

    What has just been started shows the command of its parent for a moment, or none: two looks must
    agree.
    """
    assert server.process is not None
    seen = None
    while (found := _children(server.process.pid)) != seen:
        seen = found
        time.sleep(0.01)
    return [pid for pid, command in found if command and not command.endswith(b"work\0")]


def _children(parent: int) -> list[tuple[int, bytes]]:
    found = []
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.append((int(pid), Path(f"/proc/{pid}/cmdline").read_bytes()))
    return found


@pytest.mark.each_engine
def test_kill_9_of_single_workers(serve: Callable[..., Server], tmp_path: Path) -> None:
    chance = random.Random(20_261_121)
    server = serve(WEB_CONCURRENCY="2", SEEN=str(tmp_path))
    with Senders(server.url, pause=0.02) as senders:
        for number in range(6):
            before = len(senders.acknowledged)
            eventually(lambda before=before: len(senders.acknowledged) > before + 20)  # type: ignore[misc]
            # The one that receives, for on SQLite it is mostly one; now and then any of them.
            web = workers(server)
            killed = max(web, key=sockets) if number % 3 else chance.choice(web)
            os.kill(killed, signal.SIGKILL)
            eventually(lambda killed=killed: len(set(workers(server)) - {killed}) == 2)  # type: ignore[misc]
    assert [r for r in senders.refused if not r.startswith("503")] == []
    assert set(senders.acknowledged) <= stored(server)

    def handled() -> bool:
        dispatched = {e["event_id"] for e in server.events() if not e["repeat"]} & set(
            senders.acknowledged
        )
        return dispatched <= {str(line["id"]) for line in seen(tmp_path, "first")}

    eventually(handled)


def test_the_disk_is_full(starting: Callable[..., Server]) -> None:
    """A limit for the size of a file does what a full disk does; then there is room again."""
    limited = (
        "import resource, runpy, sys; limit = 1_000_000;"
        " hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1];"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard));"
        " sys.argv = ['gunicorn', *sys.argv[1:]];"
        " runpy.run_module('gunicorn', run_name='__main__')"
    )
    server = starting(["-c", limited, "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"])
    padding = "x" * 20_000
    acknowledged, refused = set(), 0
    for _ in range(300):
        event = envelope("sms.sent", sms("sent", message=padding))
        answer = server.post(event)
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 200:
            acknowledged.add(event["event_id"])
        else:
            refused += 1
            assert answer.headers["Retry-After"]
        if refused == 10:
            break
    assert refused == 10
    assert acknowledged
    assert server.client.get("/healthz").status_code == 200
    limit_files(server, 4_096)  # now not a single page fits
    eventually(lambda: not server.ready())

    limit_files(server, None)
    event = envelope("sms.sent", sms("sent"))
    eventually(lambda: server.post(event).status_code == 200)
    assert acknowledged | {event["event_id"]} <= stored(server)


def limit_files(server: Server, size: int | None) -> None:
    """How large a file of the running workers may become; `None`: as large as it was before."""
    for pid in workers(server):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def test_the_database_is_made_read_only(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve()
    event = envelope("sms.sent", sms("sent"))
    assert server.post(event).status_code == 200
    server.kill()
    files = [*tmp_path.glob("receiver.db*"), tmp_path]
    for file in files:
        file.chmod(0o555 if file.is_dir() else 0o444)
    try:
        # Root may write to what is read-only, unless that is taken from it.
        bound = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"]
        command = [*(bound if os.geteuid() == 0 else ()), sys.executable, *GUNICORN, "wsgi:app"]
        server.spawn(["-c", EXECUTE, *command])
        assert server.process is not None
        assert server.process.wait(20) == 1  # it says why, and does not pretend
        assert "cannot be written" in server.log.read_text()
    finally:
        for file in reversed(files):
            file.chmod(0o755 if file.is_dir() else 0o644)
    server.start()
    assert event["event_id"] in stored(server)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_an_hour_off(
    starting: Callable[..., Server], tmp_path: Path, hours: int
) -> None:
    """Beside a process whose clock is right: on one database, which is where clocks meet."""
    servers = [
        starting([*GUNICORN, "tests.odd_clock:app"], CLOCK_OFF=str(3_600 * hours)),
        starting([*GUNICORN, "wsgi:app"]),
    ]
    sent = []
    for number in range(60):
        event = envelope("sms.sent", sms("sent", f"m{number % 20}_{hours}"))
        answer = servers[number % 2].post(event, tries=3)
        assert answer.json()["status"] == "accepted"
        sent.append(event["event_id"])

    def handled() -> bool:
        states = [d["state"] for e in servers[1].events() for d in e["deliveries"]]
        return set(states) == {"done"}

    assert set(sent) <= stored(servers[1])
    # What came in at the clock that is ahead may be due only when the other one gets there, unless
    # its own process takes it; both run, so nothing waits.
    eventually(handled)
    dispatched = {e["event_id"] for e in servers[1].events() if not e["repeat"]}
    assert dispatched <= {str(line["id"]) for line in seen(tmp_path, "first")}


# --- durability, from outside


def traced() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "true"], capture_output=True).returncode == 0


def unsynced_answers(trace: str) -> tuple[int, int]:
    """How many 200s left, and how many of them while the log held what was not synced."""
    begun: dict[str, str] = {}
    dirty, answers, early = False, 0, 0
    for line in trace.splitlines():
        pid, _, call = line.partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>")
            # A write counts from its beginning, a sync from its end; an answer from its beginning.
            if not call.startswith(("pwrite64", "write(")):
                continue
        elif call.startswith("<... "):
            call = begun.pop(pid, "") + call.partition(">")[2]
            if call.startswith(("pwrite64", "write(")):
                continue
        if re.match(r"pwrite64\(\d+<[^>]*-wal>", call):
            dirty = True
        elif re.match(r"(fdatasync|fsync)\(\d+<[^>]*-wal>.*= 0", call):
            dirty = False
        elif call.startswith("write(") and "HTTP/1.1 200" in call:
            answers += 1
            early += dirty
    return answers, early


@pytest.mark.parametrize(("module", "careful"), [("wsgi", True), ("tests.careless", False)])
def test_the_sync_returns_before_the_first_byte_of_the_200(
    starting: Callable[..., Server], tmp_path: Path, module: str, careful: bool
) -> None:
    """Traced at the system calls; and the test itself is tried on a store that does not sync."""
    if not traced():
        cannot_run("the durability of a 200, for strace is missing or not allowed")
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-s", "40", "-e", "trace=pwrite64,fdatasync,fsync,write"]
    command = [*strace, "-o", str(trace), sys.executable, *GUNICORN, f"{module}:app"]
    # No worker: each write to the log is then that of a webhook.
    server = starting(["-c", EXECUTE, *command], EMBEDDED_WORKER="0")
    # The tracer is a process of its own, and writes when it gets to it.
    before = eventually(lambda: unsynced_answers(trace.read_text())[0])
    for _ in range(20):
        assert server.post(envelope("sms.sent", sms("sent"))).status_code == 200
    eventually(lambda: unsynced_answers(trace.read_text())[0] >= before + 20)
    answers, early = unsynced_answers(trace.read_text())
    assert answers - before == 20
    assert (early == 0) is careful
