"""Where only one process writes at a time, one lets connections in before the others."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.server import Server, eventually, quick
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
    assert first_of(two) == first


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
        assert came.pop(first) > 1_000
        assert sum(came.values()) > 0
