"""Each deadline and each bound of a connection, with a clock that a test moves."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from receiver.ingest import FROM_LAST_BYTE
from receiver.parts import Receiver
from receiver.providers import PROVIDERS
from receiver.providers.zimsend.webhook import sign
from receiver.receiving import LARGE, Receiving
from receiver.web.front import connection as limits
from receiver.web.front import front as bounds
from receiver.web.front.connection import Connection
from receiver.web.front.flask_threads import MOST_BYTES, MOST_WAITING, WAIT
from receiver.web.front.front import Front
from receiver.web.front.requests import MOST_HEADERS
from tests.conftest import SECRET
from tests.payloads import envelope, sms
from tests.shortage import threads_allowed

ZIMSEND = PROVIDERS["zimsend"]
HEAD = b"POST /webhooks/zimsend HTTP/1.1\r\nHost: here\r\n"


class Wire(asyncio.Transport):
    """The other end of a connection, as far as it can be seen from here."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = b""
        self.unread = 0
        self.is_read = self.is_open = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def setsockopt(self, *_: object) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unread

    def write(self, data: Any) -> None:
        self.answer += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def is_closing(self) -> bool:
        return not self.is_open

    def close(self) -> None:
        self.is_open = False

    abort = close

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", self.answer)]


@dataclass
class House:
    """A front, and whoever comes to it."""

    front: Front
    loop: asyncio.AbstractEventLoop
    ahead: float = 0.0
    wires: dict[Wire, Connection] = field(default_factory=dict)

    def clock(self) -> float:
        return time.monotonic() + self.ahead

    def come(self, *data: bytes) -> Wire:
        wire = Wire()
        self.wires[wire] = self.front.connect()
        self.wires[wire].connection_made(wire)
        self.say(wire, *data)
        return wire

    def say(self, wire: Wire, *data: bytes) -> None:
        for piece in data:
            if wire.is_open:
                self.wires[wire].data_received(piece)

    def half_close(self, wire: Wire) -> None:
        if not self.wires[wire].eof_received():
            wire.close()

    def after(self, seconds: float) -> None:
        """Let time go by, and the front have its look."""
        self.ahead += seconds
        self.front.look(self.clock())

    def until(self, condition: Callable[[], object]) -> None:
        """Let the loop run until something is so."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            self.loop.run_until_complete(asyncio.sleep(0.001))


@pytest.fixture
def house(receiver: Receiver) -> Iterator[Callable[..., House]]:
    """Open one: `house(application, most_connections=...)`."""
    loop = asyncio.new_event_loop()

    def build(application: Any = None, receiver: Receiver = receiver, **options: Any) -> House:
        built = House(front=None, loop=loop)  # type: ignore[arg-type]
        built.front = Front(receiver, application, loop, clock=built.clock, **options)
        return built

    yield build
    loop.close()


def signed(size: int = 0) -> bytes:
    """A whole request with an event of its own."""
    body = json.dumps(envelope("sms.sent", sms("sent", message="x" * size))).encode()
    return head(body) + body


def head(body: bytes) -> bytes:
    return HEAD + b"X-Webhook-Signature: %s\r\nContent-Length: %d\r\n\r\n" % (
        sign(SECRET.encode(), body).encode(),
        len(body),
    )


def half_a_body(length: int, came: int) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % length + b"x" * came


UNSIGNED = HEAD + b"Content-Length: 500\r\n\r\n" + b"x" * 500


def known(house: House) -> Wire:
    """One that has sent an authenticated request."""
    wire = house.come(signed())
    house.until(lambda: wire.answer)
    assert wire.statuses == [200]
    return wire


# --- deadlines


def test_a_head_has_ten_seconds_from_its_first_byte(house: Callable[..., House]) -> None:
    here = house()
    wire = here.come()
    here.after(8)  # its silence has a deadline of its own
    here.say(wire, HEAD)
    for _ in range(9):
        here.after(1)
        here.say(wire, b"a")
    assert wire.is_open
    here.after(1.5)
    assert not wire.is_open


def test_a_body_may_take_ten_seconds_as_it_likes(house: Callable[..., House]) -> None:
    here = house()
    slow = here.come(half_a_body(5_000, 1))
    here.after(9.5)
    assert slow.is_open
    here.after(1)
    assert not slow.is_open


def test_a_body_must_then_come_at_a_kilobyte_a_second(house: Callable[..., House]) -> None:
    here = house()
    steady = here.come(half_a_body(200_000, 2_000))
    slow = here.come(half_a_body(200_000, 3_000))
    for _ in range(28):
        here.after(2)
        here.say(steady, b"x" * 2_100)
        here.say(slow, b"x" * 1_900)
    assert steady.is_open
    assert not slow.is_open
    here.after(5)  # a minute in all
    assert not steady.is_open
    assert steady.answer == b""


def test_what_comes_in_time_is_accepted_however_slowly(house: Callable[..., House]) -> None:
    here = house()
    request = signed()
    wire = here.come(request[:-300])
    for at in range(len(request) - 300, len(request), 40):
        here.after(1)
        here.say(wire, request[at : at + 40])
    here.until(lambda: wire.answer)
    assert wire.statuses == [200]


def test_an_answer_must_be_read_within_ten_seconds(house: Callable[..., House]) -> None:
    here = house()
    late, reading = known(here), known(here)
    late.unread = reading.unread = 200
    here.after(0.25)
    here.after(9.9)
    assert late.is_open
    reading.unread = 0
    here.after(0.2)
    assert not late.is_open
    assert reading.is_open


def test_silence_has_ten_seconds_and_75_for_who_is_known(house: Callable[..., House]) -> None:
    here = house()
    friend, stranger = known(here), here.come()
    refused = here.come(UNSIGNED)
    assert refused.statuses == [401]
    here.after(9.5)
    assert all(wire.is_open for wire in here.wires)
    here.after(1)
    assert not stranger.is_open
    assert not refused.is_open
    here.after(64)
    assert friend.is_open
    here.after(1)
    assert not friend.is_open


def test_line_ends_are_silence(house: Callable[..., House]) -> None:
    here = house()
    wire = here.come()
    for _ in range(10):
        here.after(1)
        here.say(wire, b"\r\n")
    here.after(0.5)
    assert not wire.is_open


def test_who_goes_on_sending_after_a_refusal_is_cut_off(house: Callable[..., House]) -> None:
    here = house()
    drips, floods = here.come(b"no HTTP at all\r\n"), here.come(b"no HTTP at all\r\n")
    assert drips.statuses == floods.statuses == [400]
    here.say(floods, *[b"x" * 65_536] * 65)
    assert not floods.is_open
    here.after(4)
    assert drips.is_open
    here.after(1.5)
    assert not drips.is_open


# --- bounds


def test_a_head_of_8_megabytes_is_cut_off(house: Callable[..., House]) -> None:
    here = house()
    piece = b"X-Padding: " + b"x" * 65_000 + b"\r\n"
    wire = here.come(HEAD, piece)
    assert wire.statuses == []
    here.say(wire, piece)
    assert wire.statuses == [431]
    here.say(wire, *[piece] * 126)
    assert not wire.is_open
    assert len(wire.statuses) == 1


def test_a_head_of_many_headers_is_refused(house: Callable[..., House]) -> None:
    here = house()
    lines = [b"X:\r\n"] * (MOST_HEADERS - 1)  # with `Host`, all that there may be
    get = [b"GET /healthz HTTP/1.1\r\nHost: here\r\n", *lines]
    assert here.come(*get, b"\r\n").statuses == [200]
    wire = here.come(*get, b"X:\r\n\r\n")
    assert wire.statuses == [431]
    assert b"more than 256 headers" in wire.answer


def test_the_newcomer_is_let_in_and_the_longest_silent_stranger_goes(
    house: Callable[..., House],
) -> None:
    assert bounds.MOST_CONNECTIONS == 4_000
    here = house(most_connections=4)
    friend, first, second, third = known(here), here.come(), here.come(), here.come()
    here.say(first, b"P")  # so the second is silent for longest
    fourth = here.come()
    assert not second.is_open
    fifth = here.come()
    assert not third.is_open
    assert all(wire.is_open for wire in (friend, first, fourth, fifth))
    assert here.front.open == 4


def test_whoever_is_known_stays(house: Callable[..., House]) -> None:
    here = house(most_connections=3)
    friends = [known(here) for _ in range(3)]
    stranger = here.come()
    assert not stranger.is_open
    assert all(friend.is_open for friend in friends)
    here.say(friends[0], signed())
    here.until(lambda: friends[0].statuses == [200, 200])


def test_the_sum_of_what_is_not_whole_is_bounded(house: Callable[..., House]) -> None:
    here = house()
    small = here.come(signed()[:-1])
    large = [here.come(half_a_body(250_000, 200_000)) for _ in range(120)]
    left = sum(wire.is_open for wire in large)
    assert 0 < left <= bounds.MOST_HELD // 200_000
    assert left * 200_000 > bounds.MOST_HELD * 0.9
    assert small.is_open
    here.say(small, b"}")
    here.until(lambda: small.statuses == [200])


def test_one_look_makes_room_for_many(house: Callable[..., House]) -> None:
    """Who looks at thousands of connections for a few bytes each time does nothing else."""
    here = house()
    half = half_a_body(250_000, 6_000)
    wires = [here.come(half) for _ in range(bounds.MOST_HELD // 6_000)]
    assert all(wire.is_open for wire in wires)
    here.say(wires[0], b"x" * 6_000)
    assert sum(wire.is_open for wire in wires) <= bounds.HELD_AFTERWARDS // 6_000 + 1


def test_what_is_large_and_comes_at_once_is_kept_before_what_is_slow(
    house: Callable[..., House],
) -> None:
    here = house()
    slow = [here.come(half_a_body(250_000, 90_000)) for _ in range(bounds.MOST_HELD // 90_000)]
    here.after(2)
    for _ in range(3):
        whole = signed(150_000)
        large = here.come(whole[:-1])
        here.say(large, whole[-1:])
        here.until(lambda wire=large: wire.statuses == [200])  # type: ignore[misc]
    assert sum(wire.is_open for wire in slow) > len(slow) - 10


def test_line_ends_before_a_request_are_passed_over(house: Callable[..., House]) -> None:
    here = house()
    wire = here.come(b"\r\n" * 128_000, b"\n\r", signed())
    here.until(lambda: wire.statuses == [200])


def test_a_stop_leaves_an_answer_to_its_slow_reader(house: Callable[..., House]) -> None:
    here = house()
    wire = known(here)
    wire.unread = 200
    here.front.stop()
    here.front.close_incomplete()
    assert wire.is_open
    wire.unread = 0
    here.front.close_incomplete()
    assert not wire.is_open


def test_a_large_body_needs_no_thread_that_is_not_there_yet(house: Callable[..., House]) -> None:
    here = house()
    large = signed(2 * LARGE)
    with threads_allowed("parser", 0):
        wire = here.come(large)
        here.until(lambda: wire.statuses == [200])


def test_large_bodies_wait_in_a_bounded_queue_and_are_refused_in_time(
    house: Callable[..., House], receiver: Receiver
) -> None:
    """The first of them takes for ever, as where the machine has no memory left."""
    released = threading.Event()
    read: list[int] = []

    def parse(body: bytes, **more: Any) -> Any:
        if len(body) > LARGE:
            released.wait(20)
        read.append(len(body))
        return ZIMSEND.parse(body, **more)

    receiving = Receiving(receiver.config, [replace(ZIMSEND, parse=parse)], receiver.now)
    here = house(receiver=replace(receiver, receiving=receiving))
    large = signed(2 * LARGE)
    held, *waiting = [here.come(large) for _ in range(4)]
    assert here.front.is_busy
    here.after(FROM_LAST_BYTE / 2 - 0.2)
    assert not any(wire.answer for wire in waiting)
    here.after(0.3)
    assert all(wire.statuses == [503] for wire in waiting)
    assert all(b"Retry-After" in wire.answer for wire in waiting)
    honest = here.come(signed())
    here.until(lambda: honest.statuses == [200])
    size = len(large.partition(b"\r\n\r\n")[2])
    many = [here.come(large) for _ in range(bounds.MOST_UNPARSED // size + 1)]
    assert many[-1].statuses == [503]
    assert many[-2].statuses == []
    released.set()
    here.until(lambda: held.answer)
    here.until(lambda: all(wire.statuses for wire in many))
    stored = sum(wire.statuses == [200] for wire in many)  # a busy machine has no time for some
    assert stored > 1
    assert len(read) == 1 + 1 + stored  # what was refused was not read


def test_what_is_sent_ahead_is_read_when_it_is_its_turn(house: Callable[..., House]) -> None:
    here = house()
    greedy = [here.come(UNSIGNED * 400) for _ in range(10)]
    assert not any(wire.is_read for wire in greedy)
    assert all(len(wire.statuses) < 10 for wire in greedy)
    # The half-close of one that has sent all it had is no reason to drop what waits.
    here.half_close(greedy[0])
    honest = here.come(signed())
    here.until(lambda: honest.statuses == [200])
    here.until(lambda: all(wire.statuses == [401] * 400 for wire in greedy))
    assert [wire.is_open for wire in greedy] == [False] + [True] * 9
    assert all(wire.is_read for wire in greedy)


def test_who_does_not_read_gets_no_further_answers(house: Callable[..., House]) -> None:
    here = house()
    wire = here.come(UNSIGNED)
    here.wires[wire].pause_writing()
    here.say(wire, *[UNSIGNED * 20] * 20)
    assert wire.statuses == [401]
    assert not wire.is_read
    here.wires[wire].resume_writing()
    here.until(lambda: wire.statuses == [401] * 401)
    assert wire.is_read


@pytest.mark.parametrize("size", [1, 7])
def test_a_body_in_tiny_chunks_is_bounded_by_what_it_costs(
    house: Callable[..., House], receiver: Receiver, size: int
) -> None:
    here = house()
    limit = receiver.config.max_body_bytes
    chunk = b"%x\r\n%s\r\n" % (size, b"x" * size)
    wire = here.come(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    sent = 0
    while not wire.answer and sent < 10 * limit:
        here.say(wire, chunk * 1_000)
        sent += 1_000 * len(chunk)
        here.until(lambda: wire.is_read)
    assert wire.statuses == [{1: 400, 7: 413}[size]]
    assert sent <= {1: 200_000, 7: 2 * limit + 200_000}[size]


def test_an_honest_body_in_tiny_chunks_is_taken_also_before_a_half_close(
    house: Callable[..., House],
) -> None:
    here = house()
    body = json.dumps(envelope("sms.sent", sms("sent", message="x" * 10_000))).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    coded = head(body).replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
    wire = here.come(coded + chunks)
    here.half_close(wire)
    here.until(lambda: wire.answer)
    assert wire.statuses == [200]


# --- Flask's threads


def waiting_for(released: threading.Event) -> Callable[..., list[bytes]]:
    """An application whose pages wait, as for a provider."""

    def waits(environ: Any, start_response: Any) -> list[bytes]:
        released.wait(20)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    return waits


def test_all_threads_taken_is_503_at_once_while_webhooks_go_on(
    house: Callable[..., House], receiver: Receiver
) -> None:
    released = threading.Event()
    here = house(waiting_for(released))
    request = b"GET /v1/sms/history HTTP/1.1\r\nHost: here\r\n\r\n"
    threads = receiver.config.web_threads
    held = [here.come(request) for _ in range(threads)]
    waiting = [here.come(request) for _ in range(MOST_WAITING)]
    too_many = here.come(request)
    assert too_many.statuses == [503]
    assert b"Retry-After" in too_many.answer
    assert waiting[0].statuses == []
    here.after(WAIT + 0.01)
    assert all(wire.statuses == [503] for wire in waiting)
    honest = here.come(signed())
    healthy = here.come(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
    assert healthy.statuses == [200]
    here.until(lambda: honest.statuses == [200])
    assert not any(wire.answer for wire in held)
    released.set()
    here.until(lambda: all(wire.statuses == [200] for wire in held))


def test_of_large_bodies_fewer_wait_for_a_thread(
    house: Callable[..., House], receiver: Receiver
) -> None:
    released = threading.Event()
    here = house(waiting_for(released))
    size = 1024 * 1024
    head = f"POST /v1/sms/send HTTP/1.1\r\nHost: here\r\nContent-Length: {size}\r\n\r\n".encode()
    fit = receiver.config.web_threads + MOST_BYTES // size
    wires = [here.come(head, b"x" * size) for _ in range(fit + 1)]
    assert not any(wire.answer for wire in wires[:fit])
    assert wires[fit].statuses == [503]
    released.set()
    here.until(lambda: all(wire.statuses == [200] for wire in wires[:fit]))


def test_who_finds_no_further_thread_waits_for_one_that_runs(house: Callable[..., House]) -> None:
    released = threading.Event()
    here = house(waiting_for(released))
    request = b"GET /v1/sms/history HTTP/1.1\r\nHost: here\r\n\r\n"
    with threads_allowed("flask", 0):
        assert here.come(request).statuses == [503]
    with threads_allowed("flask", 1):
        both = [here.come(request) for _ in range(2)]
        assert not any(wire.answer for wire in both)
        released.set()
        here.until(lambda: all(wire.statuses == [200] for wire in both))


def test_a_thread_outlives_a_call_that_has_no_memory(
    house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError

    here = house()
    with monkeypatch.context() as patched:
        patched.setattr(bounds, "Future", fails)
        wire = here.come(signed(2 * LARGE))
        here.until(lambda: not here.front.is_busy)
        assert wire.statuses == []
    wire = here.come(signed(2 * LARGE))
    here.until(lambda: wire.statuses == [200])


def test_a_long_answer_is_made_as_far_as_it_is_read(house: Callable[..., House]) -> None:
    made = 0

    def long_answer(environ: Any, start_response: Any) -> Iterator[bytes]:
        nonlocal made
        start_response("200 OK", [])
        for _ in range(1_000):
            made += 1
            yield b"x" * 10_000

    here = house(long_answer)
    wire = here.come(b"GET /messages.csv HTTP/1.1\r\nHost: here\r\n\r\n")
    here.until(lambda: wire.answer)
    here.wires[wire].pause_writing()
    so_far = made
    wire.unread = 10_000
    for _ in range(20):
        here.loop.run_until_complete(asyncio.sleep(0.005))
    assert made < so_far + 20
    here.after(limits.READ_WITHIN + 1)
    here.after(limits.READ_WITHIN + 1)
    assert not wire.is_open
