"""Slow and silent clients cost an honest sender nothing; with a real gunicorn.

Full numbers: `benchmarks/strangers.py`.
"""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from receiver.providers.zimsend.webhook import sign
from tests.conftest import SECRET
from tests.distance import Distance
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, cannot_run, eventually, quick
from tests.service.test_faults import sockets, workers
from tests.strangers import strangers


def request(*headers: bytes) -> bytes:
    body = json.dumps(envelope("sms.sent", sms("sent"))).encode()
    lines = [
        b"POST /webhooks/zimsend HTTP/1.1",
        b"Host: here",
        b"X-Webhook-Signature: " + sign(SECRET.encode(), body).encode(),
        b"Content-Length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join([*lines, b"", body])


def post(port: int, *headers: bytes) -> float:
    """Post an event on a connection of its own; returns the seconds until the answer was there.

    The connection is closed when the answer has come. Its set-up does not count.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = request(*headers)
        began = time.monotonic()
        connection.sendall(data)
        answer = connection.recv(65_536)
        took = time.monotonic() - began
    assert answer.startswith(b"HTTP/1.1 200")
    return took


def slowest_of_most(took: list[float]) -> float:
    """What 99 of 100 take at most."""
    return sorted(took)[int(len(took) * 0.99) - 1]


def memory_mb(pid: int) -> float:
    """What a process holds of the machine's memory; of what it shares, its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


@pytest.mark.parametrize("round_trip", [0.0, 0.05, 0.15, 0.25])
def test_clients_that_close_after_each_answer_get_it_in_time_from_any_distance(
    serve: Callable[..., Server], round_trip: float
) -> None:
    way = Distance(serve().port, round_trip)

    with ThreadPoolExecutor(16) as clients:

        def slowest(*headers: bytes) -> float:
            send = lambda _: max(post(way.port, *headers) for _ in range(2))  # noqa: E731
            return max(clients.map(send, range(16)))

        def later_than_others() -> float:
            """As much as 16 at once take on this machine, just now, is no business of theirs."""
            return slowest(b"Connection: close") - slowest()

        slowest()  # what comes late the first time
        # The way opens its own connection first, which is a round trip.
        assert quick(lambda: slowest(b"Connection: close"), 2.5 * round_trip + 0.5)
        assert quick(later_than_others, 0.5 * round_trip + 0.05)
    way.close()


def test_those_who_do_not_close_or_say_nothing_delay_nobody(serve: Callable[..., Server]) -> None:
    server = serve()
    with ExitStack() as stack:
        never_closes = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        never_closes.sendall(request(b"Connection: close"))
        assert never_closes.recv(65_536).startswith(b"HTTP/1.1 200")
        for kind, count in {b"P": 50, b"": 400}.items():
            for _ in range(count):
                connection = socket.create_connection(("127.0.0.1", server.port))
                stack.enter_context(connection)
                connection.sendall(kind)
        assert quick(lambda: slowest_of_most([post(server.port) for _ in range(100)]), 0.1)


def test_strangers_delay_nobody_cost_little_and_are_closed(serve: Callable[..., Server]) -> None:
    server = serve()
    (web,) = workers(server)
    for _ in range(50):
        post(server.port)
    memory, open_before = memory_mb(web), sockets(web)
    kinds = {"silent": 300, "half a head": 300, "half a body": 300, "never read": 100}

    def look() -> float:
        took = []
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            took.append(post(server.port))
            time.sleep(0.01)
        return slowest_of_most(took)

    with strangers(server.port, kinds) as crowd:
        in_time = quick(look, 0.25)
        grown = memory_mb(web) - memory
    assert in_time
    assert grown < 100
    assert crowd.gone is not None
    assert crowd.gone < 30
    eventually(lambda: sockets(web) <= open_before + 1)


#: Runs gunicorn with limits of its own for open files, or with a system that behaves as another.
LIMITED = (
    "import resource, runpy, sys\n"
    "{}\n"
    "sys.argv = ['gunicorn', *sys.argv[1:]]\n"
    "runpy.run_module('gunicorn', run_name='__main__')\n"
)


@pytest.fixture
def limited(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    server = Server({**environ, "WEB_CONCURRENCY": "2"}, tmp_path, SECRET)

    def start(first: str) -> Server:
        conf = str(ROOT / "gunicorn.conf.py")
        server.spawn(["-c", LIMITED.format(first), "-c", conf, "wsgi:app"])
        eventually(lambda: server.ready() and len(workers(server)) == 2)
        return server

    yield start
    server.close()


@contextmanager
def silent(server: Server, number: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        yield


@pytest.mark.parametrize(("soft", "hard"), [(300, 500), (150, 150), (64, 64)])
def test_a_low_limit_of_files_is_raised_as_far_as_it_may_and_told_once(
    limited: Callable[[str], Server], soft: int, hard: int
) -> None:
    server = limited(f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))")
    with silent(server, 600):  # those who come when it is full do not keep others out
        assert quick(lambda: max(post(server.port) for _ in range(20)), 0.25)
    eventually(lambda: server.log.read_text().count("raise it (ulimit -n)") == 1)
    assert f"{hard} files" in server.log.read_text()
    assert hard < 100 or "Too many open files" not in server.log.read_text()
    assert server.terminate() == 0
    assert server.log.read_text().count("raise it (ulimit -n)") == 1


def test_with_too_few_files_it_does_not_start(environ: dict[str, str], tmp_path: Path) -> None:
    server = Server(environ, tmp_path, SECRET)
    first = "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"
    server.spawn(["-c", LIMITED.format(first), "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"])
    try:
        assert server.process is not None
        assert server.process.wait(20) == 1
    finally:
        server.close()
    assert "40 open files, and 64 are the least: raise it (ulimit -n)" in server.log.read_text()


def test_a_system_that_does_not_grant_its_own_limit_of_files(
    limited: Callable[[str], Server],
) -> None:
    """macOS tells of no limit, begins with 256 files and allows some 10,000."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 10_500:
        cannot_run("the system allows fewer than 10,500 files")
    server = limited(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 10_500))\n"
        "really = resource.setrlimit\n"
        "def refuse(what, limits):\n"
        "    if limits[0] > 10_240: raise ValueError('current limit exceeds maximum limit')\n"
        "    really(what, limits)\n"
        "resource.setrlimit = refuse\n"
    )
    before = sum(sockets(pid) for pid in workers(server))
    with silent(server, 600):
        eventually(lambda: sum(sockets(pid) for pid in workers(server)) >= before + 600)
    assert "ulimit" not in server.log.read_text()


def is_stored(port: int) -> bool:
    try:
        return post(port) > 0
    except (AssertionError, OSError):
        return False


def test_if_there_are_no_more_files_strangers_make_room(limited: Callable[[str], Server]) -> None:
    """Something else has taken them."""
    server = limited("")
    server.client.close()
    for pid in workers(server):
        most = max(int(file.name) for file in Path(f"/proc/{pid}/fd").iterdir()) + 8
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    with silent(server, 40):
        # The first event of a process needs files: it may be answered 503, and is sent again.
        eventually(lambda: is_stored(server.port), within=8)  # they would go by themselves after 10
    eventually(lambda: is_stored(server.port))
    assert quick(lambda: max(post(server.port) for _ in range(10)), 0.25)
    assert 1 <= server.log.read_text().count("allow this process more (ulimit -n)") <= 2
    assert server.terminate() == 0
