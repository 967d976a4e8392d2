"""Where only one process writes at a time, one lets connections in before the others."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from receiver.providers.zimsend.webhook import sign
from tests.conftest import SECRET
from tests.payloads import envelope, sms
from tests.server import ROOT, Server, eventually, quick
from tests.web.front.test_strangers import post, workers


@pytest.fixture
def two(serve: Callable[..., Server]) -> Server:
    server = serve(WEB_CONCURRENCY="2")
    server.client.close()  # so that its connection is none of those that are counted
    eventually(lambda: len(workers(server)) == 2 and first_of(server))
    return server


def shares(server: Server) -> dict[int, int]:
    """How many connections to the server each of its processes has let in."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if int(local.partition(":")[2], 16) == server.port and state == "01":
            inodes.add(f"socket:[{inode}]")
    found = {}
    for pid in workers(server):
        files = Path(f"/proc/{pid}/fd").iterdir()
        with suppress(FileNotFoundError):
            found[pid] = sum(os.readlink(file) in inodes for file in files)
    return found


@contextmanager
def connected(server: Server, number: int) -> Iterator[dict[int, int]]:
    """So many connections; gives how many of them each process has let in."""
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        eventually(lambda: sum(shares(server).values()) == number)
        yield shares(server)


def first_of(server: Server) -> int:
    """The process that lets all in. On a busy machine it may be late, and others help."""

    def found() -> int | None:
        eventually(lambda: not any(shares(server).values()))
        with connected(server, 20) as came:
            return next((pid for pid in came if came[pid] == 20), None)

    return int(eventually(found))


def test_one_process_lets_all_in(two: Server) -> None:
    first = first_of(two)
    assert [first_of(two) for _ in range(3)] == [first] * 3


def test_the_other_one_helps_while_it_stands_still(two: Server) -> None:
    first = first_of(two)
    os.kill(first, signal.SIGSTOP)
    try:
        assert quick(lambda: max(post(two.port) for _ in range(10)), 0.25)
    finally:
        os.kill(first, signal.SIGCONT)
    eventually(lambda: first_of(two) == first)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_other_one_follows_it(two: Server, end: signal.Signals) -> None:
    first = first_of(two)
    os.kill(first, end)
    eventually(lambda: first not in workers(two) and len(workers(two)) == 2)
    assert quick(lambda: max(post(two.port) for _ in range(10)), 0.25)
    assert first_of(two) in workers(two)


def test_the_other_one_takes_what_is_too_much(two: Server) -> None:
    first = first_of(two)
    with connected(two, 2_300) as came:
        assert 0 < came.pop(first) < 2_100  # half of what it may have, and a few on their way
        assert sum(came.values()) > 0


def test_a_process_that_can_store_nothing_any_more_gives_way_to_another(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """The thread that commits dies in the first process."""
    mortal = (
        "import runpy, sys\n"
        "from receiver.store.sqlite import SqliteStore\n"
        "ingest = SqliteStore.ingest\n"
        "def once(store, items, *rest):\n"
        "    if any(b'the end' in (item.body or b'') for item in items): sys.exit()\n"
        "    return ingest(store, items, *rest)\n"
        "SqliteStore.ingest = once\n"
        "sys.argv = ['gunicorn', *sys.argv[1:]]\n"
        "runpy.run_module('gunicorn', run_name='__main__')\n"
    )
    server = Server({**environ, "WEB_CONCURRENCY": "2"}, tmp_path, SECRET)
    try:
        server.spawn(["-c", mortal, "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"])
        eventually(lambda: server.ready() and len(workers(server)) == 2)
        server.client.close()
        before = set(workers(server))
        with httpx.Client(base_url=server.url, timeout=20) as client:
            body = json.dumps(envelope("sms.sent", sms("sent", message="the end"))).encode()
            headers = {"X-Webhook-Signature": sign(SECRET.encode(), body)}
            answer = client.post("/webhooks/zimsend", content=body, headers=headers)
            assert answer.status_code == 503
        eventually(lambda: len(before & set(workers(server))) == 1 and len(workers(server)) == 2)
        assert quick(lambda: max(post(server.port) for _ in range(10)), 0.25)
        assert first_of(server) in workers(server)
    finally:
        server.close()


@pytest.fixture
def silent_provider() -> Iterator[tuple[str, list[socket.socket]]]:
    """A provider that takes every request and answers none; its URL, and its connections."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(listening.accept()[0])

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", taken
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in taken:
        connection.close()


def test_the_other_one_takes_what_the_first_has_no_threads_for(
    serve: Callable[..., Server], silent_provider: tuple[str, list[socket.socket]]
) -> None:
    """At most four requests of a process wait for a provider; here eight come, one by one."""
    url, taken = silent_provider
    account = {"ZIMSEND_API_KEY": "key", "ZIMSEND_CLIENT_ID": "client"}
    server = serve(WEB_CONCURRENCY="2", ZIMSEND_API_URL=url, **account)
    server.client.close()
    eventually(lambda: len(workers(server)) == 2)
    first_of(server)
    send = partial(
        httpx.post,
        f"{server.url}/v1/sms/send",
        headers={"X-API-Key": "key", "X-Client-ID": "client"},
        timeout=60,
    )

    def refused() -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            before = len(taken)  # also who looks up what was missed has a connection
            sending: list[Future[httpx.Response]] = []
            for number in range(1, 9):
                message = {"to": f"+3361200000{number}", "message": "x"}
                sending.append(pool.submit(send, json=message))
                eventually(
                    lambda number=number: len(taken) >= before + number or sending[-1].done()  # type: ignore[misc]
                )
            done = [sent.result().text for sent in sending if sent.done()]
            for connection in taken:
                connection.close()
        return done

    # On a busy machine the other one may be late.
    eventually(lambda: refused() == [])


@pytest.mark.parametrize("refused", ["memfd_create", "memfd_create, TemporaryFile"])
def test_without_a_file_to_lock_all_is_served(
    environ: dict[str, str], tmp_path: Path, refused: str
) -> None:
    """As where the system's own rules forbid it."""
    script = (
        "import os, runpy, sys, tempfile\n"
        "def refuse(*_): raise PermissionError(1, 'not permitted')\n"
        f"for name in '{refused}'.split(', '):\n"
        "    setattr(os if hasattr(os, name) else tempfile, name, refuse)\n"
        "sys.argv = ['gunicorn', *sys.argv[1:]]\n"
        "runpy.run_module('gunicorn', run_name='__main__')\n"
    )
    # The worker's process needs one of the two.
    alone = {"EMBEDDED_WORKER": "0"} if "TemporaryFile" in refused else {}
    server = Server({**environ, "WEB_CONCURRENCY": "2", **alone}, tmp_path, SECRET)
    try:
        server.spawn(["-c", script, "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"])
        eventually(lambda: server.ready() and len(workers(server)) == 2)
        assert quick(lambda: max(post(server.port) for _ in range(10)), 0.25)
        assert server.terminate() == 0
    finally:
        server.close()
