"""Requests as bytes, to a real gunicorn: where each begins and ends, and in which order answers
come."""

from __future__ import annotations

import socket

import pytest

from receiver.store import Store
from tests.server import Server, eventually
from tests.service.test_faults import workers
from tests.web.front.raw import (
    PATH,
    Line,
    an_event,
    answers_in,
    ask,
    chunked,
    chunks,
    signature,
    webhook,
)

HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
NOWHERE = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
READYZ = b"HEAD /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"


# --- in pieces, and several at once


@pytest.mark.parametrize("write", [webhook, chunked])
def test_a_request_may_be_split_at_every_byte(server: Server, write: object) -> None:
    assert callable(write)
    _, body = an_event()
    request = write(body)
    with Line(server.port) as line:
        for at in range(1, len(request)):
            line.send(request[:at], request[at:])
            (answer,) = line.until(1)
            assert answer.status == 200, at
        line.send(*(bytes([byte]) for byte in request))
        (answer,) = line.until(1)
        assert answer.status == 200


def test_what_is_sent_ahead_is_answered_in_its_order(server: Server, kept: Store) -> None:
    events = [an_event() for _ in range(40)]
    requests, statuses, methods = [], [], []
    for number, (_, body) in enumerate(events):
        requests.append(chunked(body) if number % 3 else webhook(body))
        requests += [HEALTHZ, NOWHERE, READYZ]
        statuses += [200, 200, 404, 200]
        methods += ["POST", "GET", "GET", "HEAD"]
    everything = b"\r\n".join(requests)  # a blank line between two requests is allowed
    for pieces in (everything,), (everything[:5_000], everything[5_000:]):
        answers = ask(server.port, *pieces, methods=tuple(methods))
        assert [answer.status for answer in answers] == statuses
        for (event_id, body), answer in zip(events, answers[::4], strict=True):
            assert f'"event_id": "{event_id}"'.encode() in answer.body
            assert kept.body(event_id) == body


def test_many_quick_ones_before_the_end_are_all_answered(server: Server) -> None:
    answers = ask(server.port, HEALTHZ * 500)
    assert [answer.status for answer in answers] == [200] * 500
    assert {answer.header("Connection") for answer in answers[:-1]} == {None}


def test_a_half_close_leaves_what_was_whole(server: Server, kept: Store) -> None:
    _, body = an_event()
    for request in webhook(body), chunked(body):
        (answer,) = ask(server.port, request)
        assert answer.status == 200
        for shorter in request[:-1], request[: -len(body)]:
            (answer,) = ask(server.port, shorter)
            assert answer.status == 400
            assert answer.header("Connection") == "close"
        assert ask(server.port, request[:30]) == []
    first, second = an_event(), an_event()
    answers = ask(server.port, webhook(first[1]) + webhook(second[1])[:-1])
    assert [answer.status for answer in answers] == [200, 400]
    assert kept.body(first[0]) == first[1]
    assert kept.body(second[0]) is None


def test_a_reset_in_the_middle_of_anything_leaves_the_server_well(server: Server) -> None:
    _, body = an_event()
    request = webhook(body)
    for at in range(0, len(request) + 1, 7):
        with Line(server.port) as line:
            line.send(request[:at])
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    (answer,) = ask(server.port, request)
    assert answer.status == 200


# --- Expect


def test_who_waits_for_a_word_gets_it(server: Server) -> None:
    _, body = an_event()
    for request in (
        webhook(body, b"Expect: 100-continue"),
        chunked(body, b"Expect: 100-Continue"),
    ):
        head, end, rest = request.partition(b"\r\n\r\n")
        with Line(server.port) as line:
            line.send(head + end)
            assert line.socket.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            line.send(rest)
            (answer,) = line.until(1)
            assert answer.status == 200
        # Whoever does not wait needs no word.
        answers = ask(server.port, request)
        assert [answer.status for answer in answers] == [200]


def test_no_word_where_the_body_is_not_wanted(server: Server) -> None:
    head = b"POST %b HTTP/1.%d\r\nHost: a\r\nExpect: %b\r\nContent-Length: %d\r\n\r\n"
    for path, version, expects, length, status in (
        (PATH, 1, b"100-continue", 300_000, 413),
        (PATH, 1, b"100-continue", 10**30, 413),
        (b"/nowhere", 1, b"100-continue", 5_000_000, 404),
        (PATH, 1, b"200-ok", 10, 417),
        (PATH, 0, b"100-continue", 10, 400),
        (PATH, 0, b"anything", 10, 400),
    ):
        request = head % (path, version, expects, length)
        answers = ask(server.port, request)
        assert [answer.status for answer in answers] == [status], request
        assert answers[0].header("Connection") == "close"


def test_a_chunked_body_over_the_limit_gets_no_word_behind_its_answer(server: Server) -> None:
    request = chunked(b"", b"Expect: 100-continue")[: -len(chunks(b""))]
    answers = ask(server.port, request + b"%x\r\n" % 300_000 + b"x" * 300_000)
    assert [answer.status for answer in answers] == [413]


# --- the end of a connection, and answers without a body


@pytest.mark.parametrize(
    ("version", "told", "stays"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: x, Close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: close\r\n", False),
    ],
)
@pytest.mark.parametrize("path", [b"/healthz", b"/nowhere", PATH])
def test_the_connection_stays_as_its_sender_says(
    server: Server, path: bytes, version: bytes, told: bytes, stays: bool
) -> None:
    _, body = an_event()
    if path == PATH:
        request = webhook(body, *told.splitlines(), version=version)
    else:
        request = b"GET %b HTTP/%b\r\nHost: a\r\n%b\r\n" % (path, version, told)
    with Line(server.port) as line:
        line.send(request)
        (answer,) = line.until(1)
        assert answer.header("Connection") == (
            "close" if not stays else "keep-alive" if version == b"1.0" else None
        )
        if stays:
            line.send(request)
            assert line.until(1)[0].status == answer.status
        else:
            assert line.rest() == b""


def test_an_answer_to_head_has_a_length_and_no_body(server: Server) -> None:
    for path in b"/healthz", b"/readyz", b"/nowhere", b"/v1/sms/stats":
        end = b" " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
        got, head = ask(server.port, b"GET" + end + b"HEAD" + end, methods=("GET", "HEAD"))
        assert head.status == got.status
        assert head.body == b""
        assert head.header("Content-Length") == str(len(got.body))
        assert head.header("Content-Type") == got.header("Content-Type")


def test_a_head_of_8_mb_is_cut_off_and_nothing_of_it_is_kept(server: Server) -> None:
    def memory() -> int:
        total = 0
        for pid in workers(server):
            with open(f"/proc/{pid}/statm") as statm:
                total += int(statm.read().split()[1]) * 4_096
        return total

    before = memory()
    piece = b"X-Padding: " + b"x" * 1_000 + b"\r\n"
    for _ in range(10):
        with Line(server.port) as line:
            line.send(b"GET / HTTP/1.1\r\n", *[piece] * 8_000)
            received = line.rest()
            # Whoever goes on sending after the answer may lose it to a reset.
            assert [answer.status for answer in answers_in(received)] in ([431], [])
    assert eventually(lambda: memory() - before < 8 * 1024 * 1024)
    (answer,) = ask(server.port, b"GET / HTTP/1.1\r\n" + piece * 70)
    assert answer.status == 431
    (answer,) = ask(server.port, b"GET / HTTP/1.1\r\n" + piece * 60 + b"\r\n")
    assert answer.status == 200


# --- what stands for the path, and other freedoms


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (PATH, 200),
        (PATH + b"?a=b", 200),
        (PATH + b"?/nowhere", 200),
        (b"/webhooks/%7Aimsend", 200),
        (b"/webhooks%2Fzimsend", 200),
        (b"http://localhost" + PATH, 200),
        (b"http://elsewhere:80" + PATH + b"?x", 200),
        (b"http://elsewhere?x=" + PATH, 405),
        (b"/webhooks/%FFzimsend", 404),
        (b"/webhooks/zimsend%", 404),
        (b"/webhooks/zimsend%00", 404),
        (b"//localhost" + PATH, 404),
        (b"//webhooks//zimsend/", 200),
        (b"http://localhost//webhooks/zimsend", 200),
        (b"*", 404),
        (b"/x?" + PATH, 404),
        (b"/../webhooks/zimsend", 404),
    ],
)
def test_targets(server: Server, kept: Store, target: bytes, status: int) -> None:
    event_id, body = an_event()
    (answer,) = ask(server.port, webhook(body, target=target))
    assert answer.status == status
    assert (kept.body(event_id) == body) == (status == 200)


def test_a_wish_for_another_protocol_is_passed_over(server: Server, kept: Store) -> None:
    wish = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"]
    for request_of in (webhook, chunked):
        event_id, body = an_event()
        answers = ask(server.port, request_of(body, *wish) + HEALTHZ)
        assert [answer.status for answer in answers] == [200, 200]
        assert kept.body(event_id) == body
    bare = b"\r\n".join([b"GET /healthz HTTP/1.1", b"Host: a", *wish, b"", b""])
    assert [answer.status for answer in ask(server.port, bare + bare)] == [200, 200]


def test_extensions_and_trailers_are_passed_over(server: Server, kept: Store) -> None:
    event_id, body = an_event()
    told = b"X-Trailer: yes\r\nContent-Length: 3\r\n"
    answers = ask(server.port, chunked(body, extension=b" ;a=b", trailers=told) + HEALTHZ)
    assert [answer.status for answer in answers] == [200, 200]
    assert kept.body(event_id) == body
    # A signature that comes behind the body does not count.
    event_id, body = an_event()
    head = b"POST " + PATH + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    trailer = b"X-Webhook-Signature: " + signature(body) + b"\r\n"
    (answer,) = ask(server.port, head + chunks(body, trailers=trailer))
    assert answer.status == 401
    assert kept.body(event_id) is None


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t  "])
def test_blanks_around_a_value_are_none_of_it(server: Server, blanks: bytes) -> None:
    _, body = an_event()
    request = webhook(body)
    for value in signature(body), b"%d" % len(body):
        request = request.replace(b" " + value + b"\r\n", blanks + value + blanks + b"\r\n")
    assert [answer.status for answer in ask(server.port, request)] == [200]
    request = chunked(body).replace(b": chunked\r\n", b":  chunked  \r\n")
    assert [answer.status for answer in ask(server.port, request)] == [200]


def test_a_missing_host_is_forgiven(server: Server) -> None:
    """Simple health checks send none."""
    request = b"GET /healthz HTTP/1.1\r\n\r\n"
    assert [answer.status for answer in ask(server.port, request)] == [200]


def test_a_length_with_many_zeros(server: Server) -> None:
    _, body = an_event()
    zeros = webhook(body).replace(b"Content-Length: ", b"Content-Length: " + b"0" * 6_000)
    assert [answer.status for answer in ask(server.port, zeros)] == [200]
    zeros = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"0" * 6_000 + b"1\r\n\r\nx"
    assert [answer.status for answer in ask(server.port, zeros)] == [404]
