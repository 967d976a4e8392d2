"""A server whose answers a test gives in advance: a ZimSend that misbehaves."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

Step = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        canned: Canned = self.server.canned
        seen = SimpleNamespace(method=self.command, path=self.path, headers=self.headers, body=body)
        with canned.lock:
            canned.seen.append(seen)
            step = canned.steps.popleft() if len(canned.steps) > 1 else canned.steps[0]
        step(self)

    do_GET = do_POST = do_DELETE = do_PUT = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class Canned:
    """A server whose answers are given in advance; the last one for all that follow."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.steps: deque[Step] = deque()
        self.seen: list[SimpleNamespace] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.canned = self  # type: ignore[attr-defined]
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def answers(self, *steps: Step) -> None:
        with self.lock:
            self.steps, self.seen = deque(steps), []

    @property
    def last(self) -> SimpleNamespace:
        return self.seen[-1]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def raw(data: bytes, *, close: bool = True) -> Step:
    def step(handler: Handler) -> None:
        handler.wfile.write(data)
        handler.close_connection = close

    return step


def status(code: int, body: bytes = b"", *headers: str) -> Step:
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", *headers, "", ""]
    return raw("\r\n".join(lines).encode() + body, close=False)


def ok(document: Any, code: int = 200) -> Step:
    return status(code, json.dumps(document).encode(), "Content-Type: application/json")


def reset(handler: Handler) -> None:
    """End the connection with RST."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True


def silent(handler: Handler) -> None:
    handler.server.canned.released.wait(20)
    handler.close_connection = True


def trickle(start: bytes) -> Step:
    """Some bytes, and then one by one for ever."""

    def step(handler: Handler) -> None:
        canned = handler.server.canned
        handler.wfile.write(start)
        while not canned.released.wait(0.02):
            handler.wfile.write(b"x")
        handler.close_connection = True

    return step
