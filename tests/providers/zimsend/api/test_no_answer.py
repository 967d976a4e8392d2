"""Servers that misbehave: answers that break off, are too large, take too long or never come."""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import Any

import pytest

from receiver.providers import exchange
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.errors import (
    NotUnderstood,
    Unavailable,
)
from tests.canned import Canned, Step, ok, silent, status, trickle
from tests.providers.zimsend.api.calls import BROKEN, CALLS, ID, KEY, MESSAGE, Naps, call
from tests.server import eventually, free_port
from tests.shortage import threads_allowed

# --- beside a server that answers as a test says

TRICKLES = {
    "in the body": trickle(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n"),
    "in the headers": trickle(b"HTTP/1.1 200 X\r\nX-Header: "),
    "in the status": trickle(b"HTTP/1.1 200 "),
    "not at all": silent,
}


# --- no answer


@pytest.mark.parametrize("step", BROKEN.values(), ids=BROKEN)
def test_answers_that_break_off(once: ZimSend, server: Canned, step: Step) -> None:
    server.answers(step)
    error = call(once, "send")
    assert type(error) is Unavailable
    assert (error.code, error.status, error.maybe_sent) == (None, None, True)
    assert not error.timed_out
    assert "before you send it again" in error.advice
    assert error.__cause__ is None
    assert len(server.seen) == 1


def test_without_a_thread_nothing_is_sent(once: ZimSend, server: Canned) -> None:
    with threads_allowed("provider-call", 0):
        error = call(once, "send")
    assert type(error) is Unavailable
    assert (error.maybe_sent, server.seen) == (False, [])


def test_an_answer_that_is_badly_compressed(once: ZimSend, server: Canned) -> None:
    server.answers(status(200, b"\x1f\x8b nonsense", "Content-Encoding: gzip"))
    error = call(once, "send")
    assert (type(error), error.maybe_sent) == (NotUnderstood, True)


def test_an_answer_that_is_too_large(
    once: ZimSend, server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LARGEST_ANSWER", 1_000)
    server.answers(ok({**MESSAGE, "more": "x" * 1_000}))
    error = call(once, "send")
    assert (type(error), error.status, error.maybe_sent) == (NotUnderstood, 200, True)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(once: ZimSend, server: Canned, code: int) -> None:
    there = f"Location: {server.url}/elsewhere"
    server.answers(status(code, b"", there), ok(MESSAGE))
    error = call(once, "send")
    assert (type(error), error.status, error.maybe_sent) == (NotUnderstood, code, False)
    assert "redirect" in str(error)
    assert len(server.seen) == 1
    server.answers(status(code, b"", there), ok(MESSAGE))
    assert once.forward("GET", "/x").status == code
    assert len(server.seen) == 1


@pytest.mark.parametrize("way", TRICKLES)
def test_nobody_is_held_up(server: Canned, way: str) -> None:
    server.answers(TRICKLES[way])
    with ZimSend(KEY, ID, base_url=server.url, timeout=1, tries=1) as zimsend:
        began = time.monotonic()
        error = call(zimsend, "send")
        assert 0.9 < time.monotonic() - began < 15
        assert (type(error), error.status, error.maybe_sent) == (Unavailable, None, True)
        assert error.timed_out
        assert re.search(r"no answer within 1 s|timed out|longer than it may", str(error))
        with pytest.raises(Unavailable):
            zimsend.forward("GET", "/x")
        server.released.set()


def test_what_is_given_up_is_not_sent_afterwards(
    server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = socket.getaddrinfo, threading.Event()

    def slow(*arguments: Any, **more: Any) -> Any:
        asked.set()
        server.released.wait(20)
        return resolve(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with ZimSend(KEY, ID, base_url=server.url, timeout=0.1, tries=1) as zimsend:
        error = call(zimsend, "send")
        assert (type(error), error.maybe_sent) == (Unavailable, False)
        assert asked.wait(15)
        server.released.set()
        eventually(lambda: not [t for t in threading.enumerate() if t.name == "provider-call"])
    assert server.seen == []


@pytest.mark.parametrize("name", CALLS)
def test_nobody_listens(naps: Naps, name: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with ZimSend(KEY, ID, base_url=url, tries=3, sleep=naps.sleep, clock=naps.clock) as zimsend:
        error = call(zimsend, name)
    assert (type(error), error.status, error.maybe_sent) == (Unavailable, None, False)
    assert len(naps.taken) == 2  # also what sends: it never left
    assert "before you send it again" not in str(error)
