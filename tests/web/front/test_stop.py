"""The end of a process, wanted or not: what is in hand is answered, and it is quick."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from receiver.providers.zimsend.webhook import sign
from tests.conftest import SECRET
from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, eventually, quick
from tests.service.test_faults import stored, workers
from tests.strangers import strangers

GUNICORN = ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"]


class Senders:
    """Threads that send whole requests and write down those that got no answer."""

    def __init__(self, port: int, threads: int = 8) -> None:
        self._port = port
        self.acknowledged: list[str] = []
        #: When the last byte of a request had gone that has no answer, by `time.monotonic`.
        self.unanswered: list[float] = []
        self._stopping = threading.Event()
        # Half of them keep their connection, the others open one for each request.
        self._threads = [
            threading.Thread(target=self._send, args=(number % 2 == 0,))
            for number in range(threads)
        ]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(40)

    def _send(self, keeps: bool) -> None:
        connection: socket.socket | None = None
        while not self._stopping.wait(0.002):
            if connection is None:
                try:
                    connection = socket.create_connection(("127.0.0.1", self._port), timeout=30)
                except OSError:
                    self._stopping.wait(0.05)
                    continue
            event = envelope("sms.sent", sms("sent"))
            sent = answer = None
            with suppress(OSError):
                connection.sendall(post(event, keeps=keeps))
                sent = time.monotonic()
                answer = connection.recv(65_536)
            if answer:
                assert answer.startswith(b"HTTP/1.1 200"), answer
                self.acknowledged.append(event["event_id"])
            elif sent is not None:
                self.unanswered.append(sent)
            if not answer or b"\r\nConnection: close" in answer:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()


def post(event: dict[str, object], *, keeps: bool = True) -> bytes:
    body = json.dumps(event).encode()
    return b"\r\n".join(
        [
            b"POST /webhooks/zimsend HTTP/1.1",
            b"Host: here",
            b"Connection: " + (b"keep-alive" if keeps else b"close"),
            b"X-Webhook-Signature: " + sign(SECRET.encode(), body).encode(),
            b"Content-Length: %d" % len(body),
            b"",
            body,
        ]
    )


def connect(stack: ExitStack, port: int, data: bytes = b"") -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
    connection.sendall(data)
    return connection


def is_gone(pid: int) -> bool:
    """Whether a process has ended, also if nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def left_in_session(leader: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with suppress(ProcessLookupError):
            if os.getsid(pid) == leader and not is_gone(pid):
                found.append(pid)
    return found


@pytest.fixture
def spawn(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start gunicorn with further arguments, and do not wait: `spawn("--preload")`."""
    servers: list[Server] = []

    def start(*arguments: str, **settings: str) -> Server:
        server = Server({**environ, "SEEN": str(tmp_path), **settings}, tmp_path, SECRET)
        servers.append(server)
        server.spawn([*GUNICORN, *arguments])
        return server

    yield start
    for server in servers:
        server.close()


# --- with something in hand


def test_sigterm_under_load_answers_all_that_is_whole(serve: Callable[..., Server]) -> None:
    server = serve()
    slow = {"silent": 50, "half a head": 50, "half a body": 50, "never read": 5}
    with Senders(server.port) as senders, strangers(server.port, slow):
        eventually(lambda: len(senders.acknowledged) > 300)
        began = time.monotonic()
        assert server.terminate(within=29) == 0  # hosts leave 30
    # What is sent after the signal may meet a door that is being closed.
    assert [sent for sent in senders.unanswered if sent < began] == []
    assert set(senders.acknowledged) <= stored(server)


def test_sigterm_answers_who_waits_at_the_door(serve: Callable[..., Server]) -> None:
    """As where the process had no time to let them in before it was told to stop."""
    server = serve()
    assert server.process is not None
    (web,) = workers(server)
    events = [envelope("sms.sent", sms("sent")) for _ in range(200)]
    with ExitStack() as stack:
        os.kill(web, signal.SIGSTOP)
        waiting = [connect(stack, server.port, post(event)) for event in events]
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: is_told_to_stop(web))
        os.kill(web, signal.SIGCONT)
        for connection in waiting:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    assert server.process.wait(29) == 0
    assert {event["event_id"] for event in events} <= stored(server)


def is_told_to_stop(pid: int) -> bool:
    """Whether SIGTERM waits for a process that stands still."""
    pending = re.findall(
        r"^(?:SigPnd|ShdPnd):\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M
    )
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in pending)


def test_a_reload_under_load_loses_no_answer(serve: Callable[..., Server]) -> None:
    server = serve()
    assert server.process is not None
    with Senders(server.port) as senders:
        for _ in range(2):
            (before,) = workers(server)
            answered = len(senders.acknowledged)
            eventually(lambda answered=answered: len(senders.acknowledged) > answered + 100)  # type: ignore[misc]
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda before=before: before not in workers(server))  # type: ignore[misc]
        answered = len(senders.acknowledged)
        eventually(lambda: len(senders.acknowledged) > answered + 100)
    assert senders.unanswered == []
    assert set(senders.acknowledged) <= stored(server)


@pytest.mark.slow
def test_a_request_that_hangs_in_flask_does_not_keep_the_process(
    environ: dict[str, str], tmp_path: Path
) -> None:
    server = Server(environ, tmp_path, SECRET)
    try:
        server.spawn([*GUNICORN[:-1], "tests.hanging:app"])
        eventually(server.ready)
        # Garbage is looked for again, once all is loaded.
        assert server.client.get("/collects").text == "True True"
        with ExitStack() as stack:
            connect(stack, server.port, b"GET /hangs HTTP/1.1\r\nHost: here\r\n\r\n")
            eventually(lambda: "it hangs" in server.log.read_text())
            assert server.terminate(within=29) == 0  # hosts leave 30
    finally:
        server.close()


def test_a_stop_during_a_reload_ends_the_new_processes_at_once(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """gunicorn itself hears of it only when the old ones have ended."""
    server = Server(environ, tmp_path, SECRET)
    try:
        server.spawn([*GUNICORN[:-1], "tests.hanging:app"])
        eventually(server.ready)
        server.client.close()
        (old,) = workers(server)
        with ExitStack() as stack:
            connect(stack, server.port, b"GET /hangs HTTP/1.1\r\nHost: here\r\n\r\n")
            eventually(lambda: "it hangs" in server.log.read_text())
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            new = eventually(lambda: [pid for pid in workers(server) if pid != old])
            # It is there when it answers.
            new_one = connect(stack, server.port, post(envelope("sms.sent", sms("sent"))))
            assert new_one.recv(65_536).startswith(b"HTTP/1.1 200")
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: is_gone(new[0]), 15)
            assert not is_gone(old)
    finally:
        server.close()


# --- with nothing in hand


def stop_with_nothing_in_hand(server: Server) -> float:
    """How long one stop takes with connections open on which nothing whole is on its way."""
    with ExitStack() as stack:
        answered = [connect(stack, server.port, post(envelope("sms.sent", {}))) for _ in range(3)]
        for connection in answered:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        for data in (b"", b"P", post(envelope("sms.sent", {}))[:-5]):
            connect(stack, server.port, data)
        # All of them are known to the service once it has answered one more.
        assert server.client.get("/readyz").status_code == 200
        began = time.monotonic()
        assert server.terminate() == 0
        return time.monotonic() - began


def test_with_nothing_in_hand_the_stop_takes_less_than_two_seconds_each_time(
    serve: Callable[..., Server],
) -> None:
    server = serve()

    def stop() -> float:
        if server.process is None or server.process.poll() is not None:
            server.start()
        return stop_with_nothing_in_hand(server)

    for number in range(5):
        assert quick(stop, 2), number


@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGTERM, signal.SIGTERM],
        [signal.SIGINT],
        [signal.SIGQUIT],
        [signal.SIGTERM, signal.SIGINT],
    ],
)
def test_other_signals_end_it_as_well(
    serve: Callable[..., Server], signals: list[signal.Signals]
) -> None:
    server = serve()
    assert server.process is not None
    (web,) = workers(server)
    event = envelope("sms.sent", sms("sent"))
    assert server.post(event).status_code == 200
    for number in signals:
        os.killpg(server.process.pid, number)  # as a terminal does, and some hosts
    assert server.process.wait(20) == 0
    assert is_gone(web)
    assert event["event_id"] in stored(server)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("after", [0.1, 0.4, 0.5, 0.6, 0.7, 0.9])
def test_a_signal_that_comes_during_the_start_is_not_lost(
    spawn: Callable[..., Server], after: float
) -> None:
    server = spawn()
    assert server.process is not None
    process = server.process
    with suppress(subprocess.TimeoutExpired):
        process.wait(after)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(20)
    eventually(lambda: not left_in_session(process.pid))


def test_a_process_whose_master_has_died_ends(serve: Callable[..., Server]) -> None:
    server = serve(WEB_CONCURRENCY="2")
    assert server.process is not None
    web = eventually(lambda: len(workers(server)) == 2 and workers(server))
    event = envelope("sms.sent", sms("sent"))
    assert server.post(event).status_code == 200
    server.process.kill()
    server.process.wait()
    eventually(lambda: all(is_gone(pid) for pid in web), within=20)


# --- gunicorn's other ways


def test_preload(spawn: Callable[..., Server], tmp_path: Path) -> None:
    server = spawn("--preload", WEB_CONCURRENCY="2")
    eventually(server.ready)
    events = [envelope("sms.sent", sms("sent")) for _ in range(20)]
    assert all(server.post(event).status_code == 200 for event in events)
    ids = {event["event_id"] for event in events}
    eventually(lambda: {line["id"] for line in seen(tmp_path, "first")} == ids)
    before = workers(server)
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)  # gunicorn would load no application anew
    eventually(lambda: "with --preload a reload cannot renew" in server.log.read_text())
    assert workers(server) == before
    assert server.terminate(within=20) == 0


def test_what_is_around_the_application_is_refused_where_it_cannot_be_served(
    environ: dict[str, str], tmp_path: Path
) -> None:
    server = Server(environ, tmp_path, SECRET)
    try:
        server.spawn([*GUNICORN[:-1], "tests.wrapped:app"])
        assert server.process is not None
        assert server.process.wait(30) == 1
        *_, told = server.log.read_text().splitlines()
        assert told.startswith("zimsend-receiver cannot start. tests.wrapped:app is something")
        assert "Traceback" not in server.log.read_text()
    finally:
        server.close()


def test_max_requests_begins_a_new_process_and_loses_no_answer(
    spawn: Callable[..., Server],
) -> None:
    server = spawn("--max-requests", "200")
    eventually(server.ready)
    (before,) = workers(server)
    with Senders(server.port, threads=4) as senders:
        eventually(lambda: before not in workers(server))
        answered = len(senders.acknowledged)
        eventually(lambda: len(senders.acknowledged) > answered + 20)
    assert senders.unanswered == []


def test_max_requests_waits_for_a_page_that_takes_long(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """Until it is answered, nobody else would let webhooks in."""
    server = Server({**environ, "GUNICORN_CMD_ARGS": "--max-requests 20"}, tmp_path, SECRET)
    try:
        server.spawn([*GUNICORN[:-1], "tests.hanging:app"])
        eventually(server.ready)
        with ExitStack() as stack:
            connect(stack, server.port, b"GET /hangs HTTP/1.1\r\nHost: here\r\n\r\n")
            eventually(lambda: "it hangs" in server.log.read_text())
            for _ in range(25):
                assert server.post(envelope("sms.sent", sms("sent"))).status_code == 200
            # Meanwhile it looks several times at how many there were.
            for _ in range(12):
                new = connect(stack, server.port, post(envelope("sms.sent", sms("sent"))))
                new.settimeout(5)
                assert new.recv(65_536).startswith(b"HTTP/1.1 200")
                time.sleep(0.1)
    finally:
        server.close()


# --- a log that nobody reads


def test_a_log_that_nobody_reads_stops_neither_webhooks_nor_the_stop(
    environ: dict[str, str], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4_096)
    script = (
        f"import os, sys; pipe = os.open({str(pipe)!r}, os.O_WRONLY); os.dup2(pipe, 1);"
        " os.dup2(pipe, 2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    # A line for each request, by gunicorn's own logger.
    settings = {"GUNICORN_CMD_ARGS": "--access-logfile -"}
    server = Server({**environ, **settings}, tmp_path, SECRET)
    try:
        server.spawn(["-c", script, *GUNICORN])
        eventually(server.ready)
        many = 2_000
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n" * many)
            answers = b""
            while answers.count(b"HTTP/1.1 200") < many:
                answers += connection.recv(65_536)
        took = []
        for _ in range(20):
            answer = server.post(envelope("sms.sent", sms("sent")))
            assert answer.status_code == 200
            took.append(answer.elapsed.total_seconds())
        assert sorted(took)[len(took) * 9 // 10] < 1
        # Somebody reads again: what waited is there, and how much did not find room.
        read = bytearray()

        def told() -> re.Match[bytes] | None:
            with suppress(BlockingIOError):
                while data := os.read(reader, 65_536):
                    read.extend(data)
            return re.search(rb"(\d+) log lines were dropped", read)

        found = eventually(told)
        assert 0 < int(found[1]) < many
        # And at the stop, again without anybody.
        for _ in range(60):
            server.client.get("/healthz")
        assert server.terminate(within=10) == 0
    finally:
        server.close()
        os.close(reader)
