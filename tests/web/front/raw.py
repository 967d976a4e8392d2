"""Bytes as they are, to a server and back."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
from dataclasses import dataclass
from typing import cast

from receiver.providers.zimsend.webhook import sign
from tests.conftest import SECRET
from tests.payloads import envelope, sms

PATH = b"/webhooks/zimsend"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ",".join(values) if values else None


class _Bytes:
    """As much of a socket as `http.client` reads from."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._file


class _Kept(io.BufferedReader):
    """Not closed at the end of one answer: the next one is in there."""

    def close(self) -> None:
        pass


def answers_in(received: bytes, *methods: str) -> list[Answer]:
    """All answers in what a server sent; an interim one counts as any other.

    :param methods: of the requests, where one of them is not such that its answer has a body.
    """
    file = _Kept(cast("io.RawIOBase", io.BytesIO(received)))
    found = []
    while file.peek(1):
        if file.peek(1).startswith(b"HTTP/1.1 100 "):
            while file.readline().strip():
                pass
            found.append(Answer(100, [], b""))
            continue
        method = methods[len(found)] if len(found) < len(methods) else "POST"
        response = http.client.HTTPResponse(cast("socket.socket", _Bytes(file)), method=method)
        response.begin()
        found.append(Answer(response.status, response.getheaders(), response.read()))
    return found


class Line:
    """One connection to a server."""

    def __init__(self, port: int, timeout: float = 20) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """A server that has refused what came before may be gone."""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self.socket.sendall(piece)

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := self.socket.recv(65_536):
                received += piece
        return received

    def until(self, count: int, *methods: str) -> list[Answer]:
        """So many answers; the connection stays open."""
        received = b""
        while True:
            with contextlib.suppress(http.client.HTTPException, ValueError):
                found = answers_in(received, *methods)
                if len(found) >= count:
                    return found
            piece = self.socket.recv(65_536)
            assert piece, f"closed after {received!r}"
            received += piece


def ask(port: int, *pieces: bytes, methods: tuple[str, ...] = ()) -> list[Answer]:
    """Send, say that this was all, and read what is answered until the server closes."""
    with Line(port) as line:
        line.send(*pieces)
        line.half_close()
        return answers_in(line.rest(), *methods)


def an_event() -> tuple[str, bytes]:
    """An event's id, and its body."""
    payload = envelope("sms.sent", sms("sent"))
    return payload["event_id"], json.dumps(payload).encode()


def signature(body: bytes) -> bytes:
    return sign(SECRET.encode(), body).encode()


def webhook(
    body: bytes,
    *headers: bytes,
    length: bool = True,
    target: bytes = PATH,
    version: bytes = b"1.1",
) -> bytes:
    """A signed webhook; without `length`, the headers say where its body ends."""
    lines = [
        b"POST " + target + b" HTTP/" + version,
        b"Host: localhost",
        b"X-Webhook-Signature: " + signature(body),
        *headers,
    ]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunks(body: bytes, size: int = 50, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    cut = [body[at : at + size] for at in range(0, len(body), size)]
    told = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in cut)
    return told + b"0" + extension + b"\r\n" + trailers + b"\r\n"


def chunked(body: bytes, *headers: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """A signed webhook in chunks."""
    head = webhook(b"", *headers, b"Transfer-Encoding: chunked", length=False)
    head = head.replace(signature(b""), signature(body))
    return head + chunks(body, extension=extension, trailers=trailers)
