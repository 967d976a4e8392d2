"""Answers of any WSGI application through the threads beside the loop: streamed, large, broken."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from receiver.web.front.connection import LARGEST_HEAD
from receiver.web.front.requests import Request
from tests.server import eventually
from tests.shortage import threads_allowed
from tests.web.front.raw import Line, answers_in, ask
from tests.web.front.small import Small, Start, hello

LARGE = bytes(range(256)) * 16 * 1024  # 4 MB


def answering(
    pieces: Iterable[bytes], *headers: tuple[str, Any], status: str = "200 OK"
) -> Callable[..., Iterable[bytes]]:
    def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        start(status, list(headers))
        return pieces

    return application


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def shared(request: pytest.FixtureRequest) -> Iterator[Small]:
    small = Small(pytest.importorskip(request.param).new_event_loop())
    yield small
    small.close()


@pytest.fixture
def small(shared: Small) -> Iterator[Small]:
    shared.application, shared.fails_at = hello, ""
    yield shared
    # Whatever happened: its one thread works, and nothing is held for anybody who has gone.
    shared.application, shared.fails_at = hello, ""
    assert ask(shared.port, get())[0].body == b"hello"
    assert eventually(lambda: not shared.connections)
    assert shared.held == 0
    assert shared.lowest == 0


def get(version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    return method + b" / HTTP/" + version + b"\r\nHost: localhost\r\n\r\n"


# --- lengths


def test_without_a_length_it_is_chunked_and_the_connection_stays(small: Small) -> None:
    small.application = answering([b"one ", b"", b"two"])
    with Line(small.port) as line:
        line.send(get() + get())
        received = b""
        while received.count(b"0\r\n\r\n") < 2:
            received += line.socket.recv(1_000)
    first, second = answers_in(received)
    assert first.header("Transfer-Encoding") == "chunked"
    assert first.header("Content-Length") is None
    assert first.body == second.body == b"one two"
    assert first.header("Connection") is None


def test_without_a_length_it_ends_by_close_in_http_1_0(small: Small) -> None:
    small.application = answering([b"one ", b"two"])
    request = get(b"1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
    with Line(small.port) as line:
        line.send(request)
        (answer,) = answers_in(line.rest())
    assert answer.header("Transfer-Encoding") is None
    assert answer.header("Connection") == "close"
    assert answer.body == b"one two"


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("pieces", [1, 64])
def test_a_large_answer_arrives_whole_at_a_slow_reader(
    small: Small, told: bool, pieces: int
) -> None:
    headers = [("Content-Length", str(len(LARGE)))] if told else []
    size = len(LARGE) // pieces
    cut = [LARGE[at : at + size] for at in range(0, len(LARGE), size)]
    small.application = answering(cut, *headers)
    with Line(small.port) as line:
        line.send(get() + get(method=b"HEAD"))
        line.half_close()
        received = b""
        while piece := line.socket.recv(8_000):
            received += piece
            time.sleep(0.0005)  # slow
    whole, head = answers_in(received, "GET", "HEAD")
    assert whole.body == LARGE
    assert head.body == b""


def test_no_more_is_made_than_the_reader_takes(small: Small) -> None:
    made = []

    def endless() -> Iterator[bytes]:
        while True:
            made.append(1)
            yield b"x" * 10_000

    closed = threading.Event()

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            return endless()

        def close(self) -> None:
            closed.set()

    small.application = answering(Pieces())
    with Line(small.port) as line:
        line.send(get())
        still = 0

        def stands() -> bool:
            nonlocal still
            before, still = still, len(made)
            return still == before > 0

        eventually(stands)
        # What the two kernels' buffers take, and what may wait here.
        assert len(made) * 10_000 < 16 * 1024 * 1024
    assert closed.wait(10)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("told", [(), (("Content-Length", "5"),)])
def test_an_answer_without_body_has_none_whatever_the_application_gives(
    small: Small, status: str, told: tuple[tuple[str, str], ...]
) -> None:
    small.application = answering([b"never"], *told, status=status)
    with Line(small.port) as line:
        line.send(get() + get())
        first, second = line.until(2)
    assert first.status == second.status == int(status[:3])
    assert first.header("Transfer-Encoding") is None


def test_head_without_a_length_claims_none(small: Small) -> None:
    small.application = answering([b"never"])
    first, second = ask(small.port, get(method=b"HEAD") * 2, methods=("HEAD", "HEAD"))
    assert first.header("Content-Length") is None
    assert second.status == 200


@pytest.mark.parametrize("length", [4, 6, 2_000_000])
def test_a_length_that_is_not_true_is_never_taken_for_one(small: Small, length: int) -> None:
    small.application = answering([b"hello"], ("Content-Length", str(length)))
    with Line(small.port) as line:
        line.send(get() + get())
        line.half_close()
        received = line.rest()
    assert b"hello" not in received or received.endswith(b"hello")
    assert received.startswith(b"HTTP/1.1 500 ") == (length < 1_000_000)
    small.application = answering([LARGE], ("Content-Length", str(len(LARGE) - 1)))
    received = b"".join(_rest(small.port, get()))
    assert len(received.partition(b"\r\n\r\n")[2]) < len(LARGE)


def _rest(port: int, request: bytes) -> Iterator[bytes]:
    with Line(port) as line:
        line.send(request)
        yield line.rest()


# --- headers


def test_a_header_twice_stays_twice(small: Small) -> None:
    small.application = answering([b"x"], ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2, c"))
    (answer,) = ask(small.port, get())
    assert [value for name, value in answer.headers if name == "Set-Cookie"] == ["a=1", "b=2, c"]


def test_no_value_can_split_an_answer(small: Small) -> None:
    value = "a\r\nX-Evil: 1\r\n\r\nHTTP/1.1 200 OK\nX-Evil: 2\x00\x7f\u2028\x85é"
    small.application = answering([b"x"], ("X-Good", value), ("Content-Length", "1"))
    (answer,) = ask(small.port, get())
    assert answer.header("X-Evil") is None
    assert answer.body == b"x"
    assert answer.header("X-Good") is not None


def test_what_belongs_to_the_connection_is_not_the_applications(small: Small) -> None:
    small.application = answering(
        [b"x"], ("Connection", "close"), ("Transfer-Encoding", "gzip"), ("Keep-Alive", "max=1")
    )
    first, second = ask(small.port, get() * 2)
    assert first.header("Connection") is None
    assert first.header("Transfer-Encoding") == "chunked"
    assert second.body == b"x"


# --- defects


def _raising(error: BaseException, *before: bytes) -> Iterator[bytes]:
    yield from before
    raise error


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_before_the_answer_is_a_500(small: Small, error: BaseException) -> None:
    def failing(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        raise error

    for application in (
        failing,
        answering(_raising(error)),
        answering(_raising(error, b"ab"), ("Content-Length", "4")),
    ):
        small.application = application
        answers = ask(small.port, get() + get())
        assert answers[0].status == 500
        assert answers[0].header("Content-Type") == "application/problem+json"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(3)])
def test_an_error_within_an_answer_breaks_it_off(
    small: Small, version: bytes, error: BaseException
) -> None:
    small.application = answering(_raising(error, b"some", b"of it"))
    with Line(small.port) as line:
        line.send(get(version) + get(version))
        began = time.monotonic()
        received = line.rest()
    assert b"0\r\n\r\n" not in received
    assert b"500" not in received
    assert received.count(b"HTTP/1.1") <= 1
    assert time.monotonic() - began < 5


def test_an_error_behind_an_answer_harms_nobody(small: Small) -> None:
    class Pieces(list[bytes]):
        def close(self) -> None:
            raise RuntimeError("x")

    small.application = answering(Pieces([b"hello"]), ("Content-Length", "5"))
    answers = ask(small.port, get() * 3)
    assert [answer.body for answer in answers] == [b"hello"] * 3


def test_an_application_may_begin_its_answer_with_the_first_piece(small: Small) -> None:
    def late(environ: dict[str, Any], start: Start) -> Iterator[bytes]:
        start("201 Created", [("X-Late", "yes")])
        yield b"x"

    small.application = late
    (answer,) = ask(small.port, get())
    assert (answer.status, answer.header("X-Late"), answer.body) == (201, "yes", b"x")


@pytest.mark.parametrize(
    "application",
    [
        answering([b"x"], ("X-Number", 5), ("Content-Length", "1")),
        answering([b"x"], ("X-Number", 5)),
        lambda environ, start: [b"x"],
    ],
)
def test_an_application_against_the_rules_leaves_nobody_waiting(
    small: Small, application: Callable[..., Iterable[bytes]]
) -> None:
    small.application = application
    with Line(small.port, timeout=5) as line:
        line.send(get().replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answers = answers_in(line.rest())
    assert [answer.status for answer in answers] in ([], [500])


@pytest.mark.parametrize("where", ["heard", "head", "whole", "answered"])
def test_a_defect_of_the_front_closes_the_connection(small: Small, where: str) -> None:
    small.fails_at = where
    with Line(small.port, timeout=5) as line:
        line.send(get())
        line.rest()


# --- threads


def test_without_a_thread_a_request_is_refused_and_the_next_one_tries_again() -> None:
    small = Small(asyncio.new_event_loop())
    try:
        with threads_allowed("flask", 0):
            for _ in range(2):
                (answer,) = ask(small.port, get())
                assert (answer.status, answer.header("Retry-After")) == (503, "1")
        assert ask(small.port, get())[0].body == b"hello"
    finally:
        small.close()


# --- connections that go


def test_a_reader_who_goes_ends_the_application_s_work(small: Small) -> None:
    ended = threading.Event()

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield b"x" * 1_000

        def close(self) -> None:
            ended.set()

    small.application = answering(Pieces())
    with Line(small.port) as line:
        line.send(get())
        line.socket.recv(10)
    assert ended.wait(10)


def test_nothing_of_a_request_waits_for_the_garbage_collector(small: Small) -> None:
    """A megabyte each would be many before it looks."""
    body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    gc.collect()
    gc.disable()
    before = requests_alive()
    try:
        for _ in range(20):
            assert ask(small.port, body)[0].status == 200
            assert ask(small.port, body.replace(b"Host: a", b"Host : a"))[0].status == 400
            assert ask(small.port, body.replace(b"Length", b"\nLength"))[0].status == 400
        assert eventually(lambda: not small.connections)
        assert requests_alive() <= before + 1
    finally:
        gc.enable()


def requests_alive() -> int:
    return sum(type(each) is Request for each in gc.get_objects())


def test_what_is_held_is_let_go_wherever_it_ends(small: Small) -> None:
    body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + b"x" * 400_000
    for request in (
        get()[:20],
        body,
        body + b"x" * 100_000 + get() * 5_000,
        b"X: y\r\n" * LARGEST_HEAD,
        get() + body,
        get() * 100 + body[:70],
    ):
        for half_close in True, False:
            with Line(small.port) as line:
                line.send(request)
                if half_close:
                    line.half_close()
                    line.rest()
    assert eventually(lambda: not small.connections)
    assert small.held == 0
