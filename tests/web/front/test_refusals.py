"""What is no proper request, to a real gunicorn: refused, and nothing wrong read out of it.

Behind each refused request stands a signed webhook: were it stored, a proxy in front and this
server would see two different requests.
"""

from __future__ import annotations

import pytest

from receiver.store import Store
from tests.server import Server
from tests.web.front.raw import PATH, an_event, ask, chunks, signature, webhook

POST = b"POST " + PATH + b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
TLS = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n"

#: The request, and the status of its answer; `None`: closed without one.
REFUSED: dict[str, tuple[bytes, int]] = {
    "length and chunks": (POST + b"Content-Length: 4\r\n" + TE + b"\r\n0\r\n\r\n", 400),
    "chunks and length": (POST + TE + b"Content-Length: 4\r\n\r\n0\r\n\r\n", 400),
    "the same length twice": (POST + b"Content-Length: 2\r\n" * 2 + b"\r\n{}", 400),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", 400),
    "+2": (POST + b"Content-Length: +2\r\n\r\n{}", 400),
    "-2": (POST + b"Content-Length: -2\r\n\r\n{}", 400),
    "2, 2": (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
    "0x2": (POST + b"Content-Length: 0x2\r\n\r\n{}", 400),
    "2_0": (POST + b"Content-Length: 2_0\r\n\r\n{}", 400),
    "other digits": (POST + "Content-Length: ٢\r\n\r\n{}".encode(), 400),
    "no length": (POST + b"Content-Length: \r\n\r\n{}", 400),
    "an enormous length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n{}", 413),
    "a length over the limit": (POST + b"Content-Length: 262145\r\n\r\n{}", 413),
    "bare LF": (GET.replace(b"\r", b"") + b"\n", 400),
    "a bare LF in the head": (GET + b"A: b\nContent-Length: 50\r\n\r\n", 400),
    "a bare LF at its end": (GET + b"A: b\n\r\n", 400),
    "a bare LF at its end, then more": (GET + b"\n", 400),
    "a bare CR in the head": (GET + b"A: b\rContent-Length: 50\r\n\r\n", 400),
    "a folded header": (GET + b"A: b\r\n c\r\n\r\n", 400),
    "a folded coding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "a blank before the first header": (GET[:23] + b" A: b\r\n\r\n", 400),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "chunked, identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n", 400),
    "chunked twice": (POST + TE + TE + b"\r\n0\r\n\r\n", 400),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "a control before chunked": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (POST.replace(b"1.1", b"1.0") + TE + b"\r\n0\r\n\r\n", 400),
    "a blank before the colon": (POST + b"Content-Length : 2\r\n\r\n{}", 400),
    "a blank before a coding's colon": (
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "no name": (GET + b": b\r\n\r\n", 400),
    "no colon": (GET + b"A\r\n\r\n", 400),
    "NUL in a name": (GET + b"A\x00: b\r\n\r\n", 400),
    "NUL in a value": (GET + b"A: b\x00\r\n\r\n", 400),
    "NUL in the target": (b"GET /healthz\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "NUL first": (b"\x00" + GET + b"\r\n", 400),
    "blanks in the target": (b"GET /healthz HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two blanks": (b"GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tab": (b"GET\t/healthz\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a blank at the line's end": (b"GET /healthz HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "a relative target": (b"GET healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 400),
    "HTTP/0.9, told": (b"GET /healthz HTTP/0.9\r\n\r\n", 400),
    "HTTP/1.2": (b"GET /healthz HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    "HTTP/2.0": (b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    "HTTP/11.1": (b"GET /healthz HTTP/11.1\r\nHost: a\r\n\r\n", 400),
    "http/1.1": (b"GET /healthz http/1.1\r\nHost: a\r\n\r\n", 400),
    "RTSP": (b"GET /healthz RTSP/1.0\r\nHost: a\r\n\r\n", 400),
    "ICE": (b"SOURCE /healthz ICE/1.0\r\nHost: a\r\n\r\n", 400),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", 400),
    "TLS": (TLS, 400),
    "a lower-case method": (b"get /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no method": (b" /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "one word": (b"GARBAGE\r\n\r\n", 400),
    "a long method": (b"A" * 21 + b" /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "CONNECT": (b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n", 405),
    "two hosts": (GET + b"Host: elsewhere\r\n\r\n", 400),
    "other expectations": (POST + b"Expect: wonders\r\nContent-Length: 2\r\n\r\n{}", 417),
    **{
        f"chunks: {name}": (POST + TE + b"\r\n" + sent, 400)
        for name, sent in {
            "no size": b"\r\n\r\n",
            "no number": b"x\r\n",
            "+1": b"+1\r\n{\r\n0\r\n\r\n",
            "-1": b"-1\r\n{\r\n0\r\n\r\n",
            "0x1": b"0x1\r\n{\r\n0\r\n\r\n",
            "1_0": b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n",
            "a blank first": b" 1\r\n{\r\n0\r\n\r\n",
            "a number that overflows": b"10000000000000002\r\n{}\r\n0\r\n\r\n",
            "too short": b"1\r\n{}\r\n0\r\n\r\n",
            "too long": b"3\r\n{}\r\n0\r\n\r\n",
            "bare LF": b"2\n{}\n0\n\n",
            "a bare LF behind a size": b"2\n{}\r\n0\r\n\r\n",
            "a bare LF behind a chunk": b"2\r\n{}\n0\r\n\r\n",
            "a bare LF in an extension": b"2;a\nb\r\n{}\r\n0\r\n\r\n",
            "a bare CR in an extension": b"2;a\rb\r\n{}\r\n0\r\n\r\n",
            "NUL in an extension": b"2;\x00\r\n{}\r\n0\r\n\r\n",
            "an extension without end": b"2;" + b"x" * 5_000 + b"\r\n{}\r\n0\r\n\r\n",
            "a bare LF at the end": b"2\r\n{}\r\n0\r\n\n",
            "a trailer without colon": b"2\r\n{}\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
            "a folded trailer": b"2\r\n{}\r\n0\r\nA: b\r\n c\r\n\r\n",
        }.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_is_the_last_one(server: Server, kept: Store, name: str) -> None:
    request, status = REFUSED[name]
    event_id, body = an_event()
    behind = webhook(body)
    for pieces in (request + behind,), (request, behind), (request,):
        (answer,) = ask(server.port, *pieces)
        assert answer.status == status
        assert answer.header("Connection") == "close"
        assert answer.header("Content-Type") == "application/problem+json"
    assert kept.body(event_id) is None


@pytest.mark.parametrize("name", REFUSED)
def test_the_answers_before_it_arrive(server: Server, name: str) -> None:
    request, status = REFUSED[name]
    answers = ask(server.port, webhook(an_event()[1]) + GET + b"\r\n" + request)
    assert [answer.status for answer in answers] == [200, 200, status]


def test_names_with_underscores_count_for_nothing(server: Server, kept: Store) -> None:
    event_id, body = an_event()
    signed = b"X_Webhook_Signature: " + signature(body) + b"\r\n"
    told = b"Content-Length: %d\r\n\r\n" % len(body)
    (answer,) = ask(server.port, POST + signed + told + body)
    assert answer.status == 401
    # They do not say where a request ends either: what follows is another request.
    for header in b"Content_Length: 40\r\n", b"Transfer_Encoding: chunked\r\n":
        answers = ask(server.port, GET + header + b"\r\n" + GET + b"\r\n")
        assert [answer.status for answer in answers] == [200, 200]
    assert kept.body(event_id) is None


def test_many_empty_chunks_with_long_extensions_are_given_up(server: Server) -> None:
    request = POST + TE + b"\r\n" + (b"1;" + b"x" * 4_000 + b"\r\n{\r\n") * 400
    assert [answer.status for answer in ask(server.port, request)] == [400]


def test_the_body_of_a_refused_request_is_no_request(server: Server, kept: Store) -> None:
    """Also where the body is too large for Flask, which answers before it has come."""
    event_id, body = an_event()
    behind = webhook(body)
    for path, status in ((PATH, 413), (b"/nowhere", 404), (b"/healthz", 405), (b"/v1/x", 400)):
        head = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n"
        declared = head + b"Content-Length: 3000000\r\n\r\n"
        in_chunks = head + TE + b"\r\n" + chunks(b"x" * 3_000_000, 100_000)
        for request in declared, in_chunks:
            (answer,) = ask(server.port, request, behind)
            assert answer.status == status, path
            assert answer.header("Connection") == "close"
    assert kept.body(event_id) is None
