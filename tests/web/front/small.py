"""As much of a front as connections need, around any WSGI application."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

from receiver.web.front.connection import Connection
from receiver.web.front.flask_threads import FlaskThreads
from receiver.web.front.requests import Request

Start = Callable[..., Any]


def hello(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


class Small:
    """On a loop in a thread of its own.

    `application` is called in one thread; `fails_at` names what raises.
    """

    date = "Thu, 01 Jan 1970 00:00:00 GMT"

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.application: Callable[[dict[str, Any], Start], Iterable[bytes]] = hello
        self.loop = loop
        self.loop.set_exception_handler(lambda *_: None)
        self.flask = FlaskThreads(self.call, 1, self.loop)
        self.connections: set[Connection] = set()
        self.held = 0
        self.lowest = 0
        self.fails_at = ""
        server = self.loop.run_until_complete(
            self.loop.create_server(lambda: Connection(self), "127.0.0.1", 0)
        )
        self.port: int = server.sockets[0].getsockname()[1]
        self.server = server
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._stop)
        self.thread.join(30)
        self.loop.close()

    def _stop(self) -> None:
        self.server.close()
        for connection in list(self.connections):
            connection.abort()
        self.loop.call_later(0.05, self.loop.stop)

    def call(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        return self.application(environ, start)

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def heard(self, connection: Connection) -> None:
        self._fail("heard")

    def holds(self, connection: Connection, change: int) -> None:
        self.held += change
        self.lowest = min(self.lowest, self.held, connection.held)

    def head(self, connection: Connection, request: Request) -> None:
        request.limit = 1_000_000
        self._fail("head")

    def whole(self, connection: Connection, request: Request) -> None:
        self._fail("whole")
        self.flask.run(connection, request, request.target.decode(), known=lambda: None)

    def answered(self, connection: Connection, request: Request, status: int, size: int) -> None:
        self._fail("answered")

    def malformed(self, why: str) -> None:
        pass

    def _fail(self, where: str) -> None:
        if self.fails_at == where:
            raise RuntimeError("a defect")
