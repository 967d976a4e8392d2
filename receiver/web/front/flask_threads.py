"""Flask beside the event loop: a bounded number of threads, each with one request at a time."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

from receiver.web.answers import error_answer
from receiver.web.front.connection import CLOSED, WITHOUT_BODY, Connection
from receiver.web.front.pool import Gone, OnLoop, Pool
from receiver.web.front.requests import Request

log = logging.getLogger(__name__)

#: Requests that wait for a thread, the bytes of their bodies, and seconds that they wait, at most.
MOST_WAITING = 64
MOST_BYTES = 32 * 1024 * 1024
WAIT = 0.25
#: Bytes of an answer that is sent whole; what is longer goes out piece by piece.
AT_ONCE = 1024 * 1024
#: Bytes of an answer that are handed to the loop before it must have taken them.
_AHEAD = 256 * 1024
#: Seconds between two looks at whether a slow reader has made room.
_PAUSE = 0.02


class FlaskThreads(Pool):
    """See the module.

    :param application: any WSGI application.
    """

    def __init__(self, application: Any, threads: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__("flask", threads, MOST_BYTES, loop)
        self._application = application

    def run(
        self, connection: Connection, request: Request, path: str, known: Callable[[], object]
    ) -> None:
        """Let Flask answer a request.

        :param known: called, in the thread, if the request turns out to be authenticated.
        """
        call = _Call(self._application, connection, request, path, known)
        self.put(call, WAIT, max(len(request.body), MOST_BYTES // MOST_WAITING))


class _Call:
    """One request on its way through Flask."""

    def __init__(
        self,
        application: Any,
        connection: Connection,
        request: Request,
        path: str,
        known: Callable[[], object],
    ) -> None:
        self._application = application
        self._connection = connection
        self._path = path
        self._environ = environ_of(connection, request, path)
        #: For whoever authenticates a request: see `receiver.web.v1.authenticate`.
        self._environ["receiver.known"] = known
        self._status: int | None = None
        self._headers: list[tuple[str, str]] = []
        self._sent = False

    def refuse(self) -> None:
        """There is no thread for it."""
        detail = "all threads for such requests are taken; try again"
        self._connection.answer(*error_answer(self._path, 503, detail, {"Retry-After": "1"}))

    def run(self, on_loop: OnLoop) -> None:
        """In a thread: call the application, and send what it answers."""
        pieces: Any = ()
        try:
            pieces = self._application(self._environ, self._start)
            self._send(pieces, on_loop)
        except BaseException as error:  # also SystemExit: the thread is needed for others
            if not isinstance(error, Gone):
                log.exception("a request could not be answered")
            if self._sent:
                on_loop(self._connection.abort)
            else:
                detail = "a defect of this program; its log says more"
                on_loop(self._connection.answer, *error_answer(self._path, 500, detail))
        try:
            if hasattr(pieces, "close"):
                pieces.close()
        except BaseException:
            log.exception("an answer was sent, and could not be closed")

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        self._status, self._headers = int(status.partition(" ")[0]), headers
        return _refuse_to_write

    def _send(self, answer: Any, on_loop: OnLoop) -> None:
        connection = self._connection
        pieces = iter(answer)
        first = next(pieces, b"")  # an application may begin its answer only now
        if self._status is None:
            raise RuntimeError("the application did not begin its answer")
        if self._environ["REQUEST_METHOD"] == "HEAD" or self._status in WITHOUT_BODY:
            self._sent = True
            on_loop(connection.begin_answer, self._status, self._headers)
            on_loop(connection.end_answer)
            return
        pieces = chain((first,), pieces)
        length = next((int(v) for n, v in self._headers if n.lower() == "content-length"), None)
        if length is not None and length <= AT_ONCE:
            body = b"".join(pieces)
            if length != len(body):
                raise RuntimeError("the application tells another length than its answer has")
            self._sent = True
            on_loop(connection.answer, self._status, self._headers, body)
            return
        self._sent = True
        on_loop(connection.begin_answer, self._status, self._headers)
        sent = untaken = 0
        for piece in pieces:
            sent += len(piece)
            if length is not None and sent > length:
                raise RuntimeError("the application's answer is longer than it tells")
            on_loop(connection.continue_answer, piece)
            untaken += len(piece)
            if untaken > _AHEAD:
                taken = threading.Event()
                on_loop(taken.set)
                taken.wait()
                untaken = 0
            while not connection.drained:  # its deadline ends this, if the reader does not
                time.sleep(_PAUSE)
            if connection.state == CLOSED:
                raise Gone
        if length not in (None, sent):
            raise RuntimeError("the application's answer is shorter than it tells")
        on_loop(connection.end_answer)


def _refuse_to_write(_data: bytes) -> None:
    raise NotImplementedError("answers are returned here, not written")


def environ_of(connection: Connection, request: Request, path: str) -> dict[str, Any]:
    """A request as PEP 3333 wants it.

    :param path: decoded, its bytes as Latin-1.
    """
    host, port = connection.local
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": request.target.partition(b"#")[0].partition(b"?")[2].decode("latin-1"),
        "RAW_URI": request.target.decode("latin-1"),
        "REQUEST_URI": request.target.decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "REMOTE_ADDR": connection.peer[0],
        "REMOTE_PORT": str(connection.peer[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in request.headers:
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        value = raw_value.decode("latin-1")
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            name = f"HTTP_{name}"
        environ[name] = f"{environ[name]},{value}" if name in environ else value
    return environ
