"""One connection without a socket: what the transport may do at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from receiver.web.front.connection import Connection
from receiver.web.front.requests import Request
from tests.web.front.raw import answers_in

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = b"x" * 200_000


class Transport(asyncio.Transport):
    """Keeps what is written, and what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


class Answers:
    """A front that answers at once, or when it is told."""

    date = "Thu, 01 Jan 1970 00:00:00 GMT"

    def __init__(self) -> None:
        self.at_once = True
        self.bodies: list[bytes] = []
        self.held = 0
        self.lowest = 0
        self.on_hold: Callable[[Connection], None] = lambda _: None
        self.turns: list[Connection] = []

    def again(self, connection: Connection) -> None:
        self.turns.append(connection)

    def take_turns(self) -> None:
        while self.turns:
            self.turns.pop(0).go_on()

    def opened(self, connection: Connection) -> None:
        pass

    def closed(self, connection: Connection) -> None:
        pass

    def heard(self, connection: Connection) -> None:
        pass

    def holds(self, connection: Connection, change: int) -> None:
        self.held += change
        self.lowest = min(self.lowest, self.held)
        self.on_hold(connection)

    def head(self, connection: Connection, request: Request) -> None:
        request.limit = 1_000_000

    def whole(self, connection: Connection, request: Request) -> None:
        self.bodies.append(request.body)
        if self.at_once:
            connection.answer(200, [], b"")

    def answered(self, connection: Connection, request: Request, status: int, size: int) -> None:
        pass

    def malformed(self, why: str) -> None:
        pass


@pytest.fixture
def front() -> Answers:
    return Answers()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def connection(front: Answers, transport: Transport) -> Connection:
    connection = Connection(front)
    connection.connection_made(transport)
    return connection


def statuses(transport: Transport) -> list[int]:
    return [answer.status for answer in answers_in(transport.written)]


def test_reading_goes_on_when_the_reader_has_read(
    connection: Connection, front: Answers, transport: Transport
) -> None:
    connection.data_received(GET)
    connection.pause_writing()
    connection.data_received(POST + BODY[:100_000])
    assert not transport.reading
    assert len(front.bodies) == 1
    connection.resume_writing()
    assert transport.reading
    connection.data_received(BODY[100_000:])
    assert front.bodies == [b"", BODY]
    assert statuses(transport) == [200, 200]
    assert front.held == 0


def test_what_is_sent_ahead_has_a_bound(
    connection: Connection, front: Answers, transport: Transport
) -> None:
    front.at_once = False
    connection.data_received(GET)
    connection.data_received(POST + BODY[:100_000])
    assert not transport.reading
    front.at_once = True
    connection.answer(200, [], b"")
    assert transport.reading
    connection.data_received(BODY[100_000:])
    assert statuses(transport) == [200, 200]
    assert front.held == 0


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (GET + GET, [200, 200, 200]),
        (POST + BODY, [200, 200]),
        (POST + BODY[:-1], [200, 400]),
        (CHUNKED + b"1\r\nx\r\n", [200, 400]),
        (GET[:-1], [200]),
        (b"", [200]),
    ],
)
@pytest.mark.parametrize("waits_for", ["its reader", "its answer"])
def test_an_end_that_comes_while_something_waits(
    connection: Connection,
    front: Answers,
    transport: Transport,
    sent: bytes,
    expected: list[int],
    waits_for: str,
) -> None:
    front.at_once = waits_for == "its reader"
    connection.data_received(GET)
    if front.at_once:
        connection.pause_writing()
    if sent:
        connection.data_received(sent)
    assert connection.eof_received()
    assert not transport.is_closed
    if front.at_once:
        connection.resume_writing()
    else:
        front.at_once = True
        connection.answer(200, [], b"")
    assert statuses(transport) == expected
    assert transport.is_closed
    connection.connection_lost(None)
    assert front.held == 0


@pytest.mark.parametrize(
    "sent", [b"", GET[:9], POST, POST + b"x", CHUNKED + b"5\r\nx", GET, GET + POST + b"x", b"\0"]
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_loss_at_any_moment_is_the_end(
    connection: Connection, front: Answers, transport: Transport, sent: bytes, at_once: bool
) -> None:
    front.at_once = at_once
    if sent:
        connection.data_received(sent)
    connection.connection_lost(ConnectionResetError())
    written = transport.written
    assert front.held == 0
    assert front.lowest == 0
    # Whoever comes too late says it to nobody.
    connection.answer(200, [], b"x")
    connection.begin_answer(200, [])
    connection.continue_answer(b"x")
    connection.end_answer()
    connection.data_received(GET)
    connection.resume_writing()
    connection.close_after_answer()
    assert transport.written == written
    assert front.held == 0
    assert not connection.is_in_hand


def test_one_that_is_given_up_for_its_size_stays_given_up(
    connection: Connection, front: Answers, transport: Transport
) -> None:
    front.on_hold = lambda each: each.abort() if each.held > 1_000 else None
    connection.data_received(POST + b"x" * 2_000)
    assert transport.is_closed
    connection.data_received(b"x" * 2_000)
    connection.eof_received()
    assert transport.written == b""
    assert (front.held, front.lowest) == (0, 0)


def test_one_word_to_go_on(connection: Connection, transport: Transport) -> None:
    head = POST[:-2] + b"Expect: 100-continue\r\n\r\n"
    connection.data_received(head)
    connection.data_received(b"x")
    connection.data_received(BODY[1:])
    connection.data_received(head)
    connection.data_received(BODY)
    assert statuses(transport) == [100, 200, 100, 200]


def test_a_thousand_answers_are_no_recursion(
    connection: Connection, front: Answers, transport: Transport
) -> None:
    async def send() -> None:
        connection.data_received(GET * 5_000)
        while len(front.bodies) < 5_000:
            front.take_turns()
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(send(), 20))
    assert transport.written.count(b"HTTP/1.1 200 OK") == 5_000
    assert front.held == 0
