"""One connection: whole requests out of bytes, answers into bytes, and a deadline for each state.

httptools reads a head; where a request ends is decided here, so that never more than one request of
a connection is in hand, however many were sent ahead.
"""

from __future__ import annotations

import asyncio
import logging
import re
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from socket import SO_LINGER, SOL_SOCKET
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from werkzeug.http import HTTP_STATUS_CODES

from receiver.web.answers import error_answer
from receiver.web.front.chunks import Chunks, Malformed
from receiver.web.front.requests import TOKEN, MalformedHead, Refuse, Request, read_head

log = logging.getLogger(__name__)

#: Bytes of a head, and seconds from its first byte to its last.
LARGEST_HEAD = 64 * 1024
HEAD_WITHIN = 10.0
#: Seconds that a body may take as it likes; from then on it must have come at so many bytes a
#: second in the mean; and seconds in all.
BODY_FREE = 10.0
BODY_RATE = 1_000.0
BODY_WITHIN = 60.0
#: Seconds that a connection may say nothing; and after a request that was authenticated.
SILENCE = 10.0
SILENCE_OF_THE_KNOWN = 75.0
#: Seconds within which an answer must be read.
READ_WITHIN = 10.0
#: Bytes that are read and thrown away after an answer that came before its request had ended, so
#: that its sender gets to read the answer instead of a reset; and seconds for that.
THROWN_AWAY = 4 * 1024 * 1024
THROW_AWAY_WITHIN = 5.0
#: Bytes sent ahead that are kept while a request is answered.
_AHEAD = 64 * 1024
#: Steps of one connection in a row before others get their turn: heads, bodies, slices of one.
_IN_A_ROW = 4
#: Bytes of an answer that wait for a slow reader before no further request of it is looked at.
_UNREAD = 16 * 1024

_BARE_LF = re.compile(rb"(?<!\r)\n")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
#: Statuses whose answers have no body.
WITHOUT_BODY = {204, 304}
#: For SO_LINGER: on, and no seconds.
_NO_LINGER = struct.pack("ii", 1, 0)
#: Bytes that the chunks of a body may cost beyond the body itself; and as many more as it has. Who
#: sends a few bytes in each is honest up to there.
_OVERHEAD = 64 * 1024
#: Bytes of a chunked body that are taken apart in one step.
_SLICE = 4 * 1024

IDLE, HEAD, BODY, ANSWERING, THROWING_AWAY, CLOSED = range(6)

Headers = Iterable[tuple[str, str]]

P = ParamSpec("P")
T = TypeVar("T")


class Server(Protocol):
    """What a connection asks of the front."""

    #: For the header of this name.
    date: str

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    def heard(self, connection: Connection) -> None:
        """Something came from one that has sent nothing authenticated yet."""

    def again(self, connection: Connection) -> None:
        """There is more to do on it: call `go_on` when it is its turn."""

    def holds(self, connection: Connection, change: int) -> None:
        """So many bytes more are held for it, or fewer."""

    def head(self, connection: Connection, request: Request) -> None:
        """A head has come: say how large the body may be (`request.limit`)."""

    def whole(self, connection: Connection, request: Request) -> None:
        """A request is whole: answer it, now or later."""

    def answered(self, connection: Connection, request: Request, status: int, size: int) -> None:
        """A request has its answer; `size` is that of its body in bytes."""

    def malformed(self, why: str) -> None:
        """Something came that is no HTTP."""


def _or_abort(
    method: Callable[Concatenate[Connection, P], T],
) -> Callable[Concatenate[Connection, P], T | None]:
    """Whatever goes wrong: nobody waits on a connection that nobody goes on with."""

    @wraps(method)
    def guarded(connection: Connection, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return method(connection, *args, **kwargs)
        except Exception:
            log.exception("a connection is closed by a defect of this program")
            connection.abort()
            return None

    return guarded


class Connection(asyncio.Protocol):
    """See the module. All of it runs on the event loop."""

    def __init__(self, server: Server, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.peer: tuple[str, int] = ("", 0)
        self.local: tuple[str, int] = ("", 0)
        self.state = IDLE
        self.request: Request | None = None
        #: It has sent a request that was authenticated.
        self.known = False
        #: When this state began.
        self.since = clock()
        #: What this connection counts for among the bytes that are held.
        self.held = 0
        #: Bytes that came and are not used yet; how far the end of a head was looked for; a body.
        self._buffer = bytearray()
        self._searched = 0
        self._body = bytearray()
        #: Of one request: the head is read, the body is whole, the sender was told to go on, and
        #: its chunks with the bytes of them that came.
        self._whole = self._continued = False
        self._chunks_read = Chunks()
        self._raw = 0
        #: What has come is looked at now; or when it is the turn of this connection.
        self._stepping = self._queued = False
        self._eof = self._reading_paused = self._writing_paused = False
        #: When an answer began to wait for its reader.
        self._unread_since: float | None = None
        #: No request after the one in hand.
        self._closing = False
        self._thrown_away = 0
        #: Of an answer: its status, bytes of its body so far, and whether it is sent in chunks.
        self._status = self._sent = 0
        self._chunks = False

    # --- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_UNREAD)
        self.peer = _address(transport.get_extra_info("peername"))
        self.local = _address(transport.get_extra_info("sockname"))
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop()
        self._server.closed(self)

    @_or_abort
    def data_received(self, data: bytes) -> None:
        if self.state == CLOSED:
            return
        if self.state == THROWING_AWAY:
            self._thrown_away += len(data)
            if self._thrown_away > THROWN_AWAY:
                self.abort()
            return
        if self.state == CLOSED:
            return
        if not self.known:
            self._server.heard(self)
        self._buffer += data
        if self.state != ANSWERING and not self._writing_paused and not self._queued:
            self._advance()
        if len(self._buffer) > _AHEAD and not self._reading_paused and self.state != CLOSED:
            self._reading_paused = True
            self.transport.pause_reading()
        self._hold(len(self._buffer) + len(self._body))

    @_or_abort
    def eof_received(self) -> bool:
        """The other side has said all; it may still listen.

        :returns: whether the connection stays open.
        """
        self._eof = True
        if self.state == THROWING_AWAY:
            return False
        if not self._writing_paused and not self._queued:
            self._end_what_is_half()
        return self.state != CLOSED

    def _end_what_is_half(self) -> None:
        """Nothing more comes: end what would wait for it. What was sent ahead is still answered."""
        if self.state == BODY and self.request is not None:
            came, declared = len(self._body) + len(self._buffer), self.request.length
            self._refuse(
                Refuse(400, f"the body ends after {came} of {declared} bytes")
                if declared is not None
                else Refuse(400, "the body could not be read whole")
            )
        elif self.state == HEAD or (self.state == IDLE and not self._buffer):
            self.transport.close()

    def pause_writing(self) -> None:
        self._writing_paused = True

    @_or_abort
    def resume_writing(self) -> None:
        self._writing_paused = False
        self._next()

    # --- from the front

    def is_late(self, now: float) -> bool:
        """Whether a deadline has passed; the front looks now and then."""
        if self.state != CLOSED and self.transport.get_write_buffer_size():
            if self._unread_since is None:
                self._unread_since = now
            if now - self._unread_since > READ_WITHIN:
                return True
        else:
            self._unread_since = None
        took = now - self.since
        if self.state == IDLE:
            return took > (SILENCE_OF_THE_KNOWN if self.known else SILENCE)
        if self.state == HEAD:
            return took > HEAD_WITHIN
        if self.state == BODY:
            if took <= BODY_FREE:
                return False
            return len(self._body) < BODY_RATE * took or took > BODY_WITHIN
        return self.state == THROWING_AWAY and took > THROW_AWAY_WITHIN

    @_or_abort
    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer the request in hand, and go on to the next one."""
        if self.state != ANSWERING:
            return  # it has gone, or was given up
        head = self._head(status, headers, len(body))
        self.transport.write(head if self._has_no_body else head + body)
        self._sent = len(body)
        self._answered()

    @_or_abort
    def begin_answer(self, status: int, headers: Headers) -> None:
        """Begin an answer whose body comes piece by piece."""
        if self.state == ANSWERING:
            self._sent = 0
            self.transport.write(self._head(status, headers, None))

    @_or_abort
    def continue_answer(self, piece: bytes) -> None:
        """The next piece of its body."""
        if self.state == ANSWERING and piece and not self._has_no_body:
            self._sent += len(piece)
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunks else piece)

    @_or_abort
    def end_answer(self) -> None:
        """There is no more of it."""
        if self.state == ANSWERING:
            if self._chunks and not self._has_no_body:
                self.transport.write(b"0\r\n\r\n")
            self._answered()

    def abort(self) -> None:
        """Close at once, whatever is in hand: an answer that is not complete must not look so."""
        if self.state != CLOSED:
            # A reset: what nobody reads would stay with the system long after an ordinary close.
            socket = self.transport.get_extra_info("socket")
            with suppress(OSError):
                if socket is not None:
                    socket.setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGER)
        self._drop()
        self.transport.abort()

    def _drop(self) -> None:
        self.state = CLOSED
        self._buffer.clear()
        self._body.clear()
        self._hold(0)

    @property
    def drained(self) -> bool:
        """Whether the other side has read enough of a streamed answer for the next piece."""
        return not self._writing_paused or self.state == CLOSED

    @property
    def is_in_hand(self) -> bool:
        """Whether a whole request waits for its answer, or an answer for its reader."""
        if self.state == CLOSED:
            return False
        return self.state == ANSWERING or self.transport.get_write_buffer_size() > 0

    def close_after_answer(self) -> None:
        """Close when what is in hand is answered; now, if nothing has come."""
        self._closing = True
        if self.state == IDLE and not self._buffer:
            self.transport.close()

    @_or_abort
    def go_on(self) -> None:
        """Take the next steps; the front calls it when it is the turn of this connection."""
        self._queued = False
        self._next()

    # --- reading

    def _advance(self) -> None:
        """Use what has come, until something is missing or a request is in hand."""
        self._stepping = True
        steps = 0
        try:
            while self._step():
                steps += 1
                if steps == _IN_A_ROW:
                    self._queued = True
                    self._server.again(self)
                    break
        except Refuse as refused:
            self._refuse(refused)
        finally:
            self._stepping = False
        if self._reading_paused and len(self._buffer) <= _AHEAD and self.state != CLOSED:
            self._reading_paused = False
            self.transport.resume_reading()
        self._hold(len(self._buffer) + len(self._body))
        if self._eof and not self._writing_paused and not self._queued:
            self._end_what_is_half()

    def _step(self) -> bool:
        """
        :returns: whether there may be more to do.
        """
        if self._writing_paused:
            return False
        if self.state == IDLE or self.state == HEAD:
            return self._step_head()
        if self.state == BODY:
            return self._step_body()
        return False

    def _step_head(self) -> bool:
        buffer = self._buffer
        if self.state == IDLE:
            del buffer[: len(buffer) - len(buffer.lstrip(b"\r\n"))]
            if not buffer:
                return False
            if not TOKEN.match(buffer):
                raise self._malformed("no request line")
            self._whole = self._continued = False
            self._enter(HEAD)
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if (len(buffer) if end < 0 else end) > LARGEST_HEAD:
            raise Refuse(431, f"the head is larger than {LARGEST_HEAD} bytes")
        if end < 0:
            if _BARE_LF.search(buffer, max(0, self._searched - 1)):
                raise self._malformed("a line's end")
            self._searched = len(buffer)
            return False
        head = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._searched = 0
        try:
            request = self.request = read_head(head, self.since)
        except MalformedHead as error:
            raise self._malformed(str(error)) from None
        self._body.clear()
        self._chunks_read = Chunks()
        self._raw = 0
        self._enter(BODY)
        self._server.head(self, request)
        if (request.length or 0) > request.limit:
            self._cut(request)
            return False
        return True

    def _cut(self, request: Request) -> None:
        """The body is too large: its beginning is enough for an answer, which is the last one."""
        request.cut = self._closing = True
        self._hand_over(request)

    def _malformed(self, why: str) -> Refuse:
        self._server.malformed(why)
        return Refuse(400, "this is no proper HTTP/1.1 request")

    def _step_body(self) -> bool:
        request = cast("Request", self.request)
        before = len(self._buffer)
        if request.chunked:
            if self._buffer:
                self._take_chunks(request)
        else:
            missing = (request.length or 0) - len(self._body)
            if missing:
                self._body += self._buffer[:missing]
                del self._buffer[:missing]
            self._whole = len(self._body) == (request.length or 0)
        if request.cut:
            return False
        if not self._whole:
            if request.chunked and len(self._buffer) < before:
                return bool(self._buffer)
            self._ask_for_more(request)
            return False
        self._hand_over(request)
        return self.state == IDLE

    def _hand_over(self, request: Request) -> None:
        request.ended = self._clock()
        request.body = bytes(self._body)
        self._body.clear()
        self._enter(ANSWERING)
        self._server.whole(self, request)

    def _take_chunks(self, request: Request) -> None:
        before = len(self._buffer)
        try:
            piece = self._buffer[:_SLICE]
            del self._buffer[:_SLICE]
            self._whole = self._chunks_read.feed(piece, self._body)
            self._buffer[:0] = piece  # what is not whole, or not of this body
        except Malformed as error:
            self._server.malformed(f"chunks, {error}")
            raise Refuse(400, "the body could not be read whole") from None
        self._raw += before - len(self._buffer)
        if len(self._body) > request.limit:
            self._whole = False
            self._cut(request)
        elif self._raw > 2 * len(self._body) + _OVERHEAD:
            raise Refuse(400, "the body comes in chunks that are too small")

    def _ask_for_more(self, request: Request) -> None:
        if not self._continued:
            self._continued = True
            if request.expects and not self._body:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- writing

    def _head(self, status: int, headers: Headers, length: int | None) -> bytes:
        """
        :param length: of the body, where it is known and the headers do not tell it.
        """
        request = self.request
        self._status = status
        lines = [f"HTTP/1.1 {status} {HTTP_STATUS_CODES.get(status, 'Unknown')}"]
        measured = status in WITHOUT_BODY
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                measured |= name.lower() == "content-length"
                lines.append(f"{name}: {_CONTROL.sub(' ', value)}")
        self._chunks = False
        if not measured:
            if length is not None:
                lines.append(f"Content-Length: {length}")
            elif request is not None and request.version == "1.1":
                self._chunks = True
                lines.append("Transfer-Encoding: chunked")
            else:
                self._closing = True
        self._closing |= self._eof and not self._buffer  # else more was sent ahead
        self._closing |= request is None or not request.keeps_alive
        lines.append(f"Date: {self._server.date}")
        if self._closing:
            lines.append("Connection: close")
        elif request is not None and request.version == "1.0":
            lines.append("Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    @property
    def _has_no_body(self) -> bool:
        to_head = self.request is not None and self.request.method == "HEAD"
        return to_head or self._status in WITHOUT_BODY

    def _refuse(self, refused: Refuse) -> None:
        """Answer what is no proper request, or is not let in, and be done with this connection."""
        target = b"" if self.request is None else self.request.target
        path = target.partition(b"?")[0].decode("latin-1")
        self._closing = True
        self._enter(ANSWERING)
        self.answer(*error_answer(path, refused.status, refused.detail))

    def _answered(self) -> None:
        request, self.request = self.request, None
        if request is not None:
            self._server.answered(self, request, self._status, self._sent)
        if self._closing:
            if self._eof or not self._has_more_to_come(request):
                self.transport.close()
            else:
                self._enter(THROWING_AWAY)
                self._buffer.clear()
                self._body.clear()
                if self._reading_paused:
                    self._reading_paused = False
                    self.transport.resume_reading()
                if self.transport.can_write_eof():
                    self.transport.write_eof()
            return
        self._enter(IDLE)
        if not self._stepping:
            self._next()

    def _next(self) -> None:
        """Look at what has come, where nothing new calls for it."""
        if not (self._queued or self._stepping) and self.state in (IDLE, HEAD, BODY):
            self._advance()

    def _has_more_to_come(self, request: Request | None) -> bool:
        """Whether the other side may be sending still: then a close would be a reset for it."""
        return request is None or not self._whole or bool(self._buffer)

    def _enter(self, state: int) -> None:
        self.state = state
        self.since = self._clock()

    def _hold(self, count: int) -> None:
        if count != self.held:
            change, self.held = count - self.held, count
            self._server.holds(self, change)


def _address(address: object) -> tuple[str, int]:
    """Host and port; of a socket in the file system, neither."""
    if isinstance(address, tuple) and len(address) >= 2:
        return str(address[0]), int(address[1])
    return "", 0
