"""One connection: whole requests out of bytes, answers into bytes, and a deadline for each state.

httptools reads a head and what is chunked; where a request ends is decided here, so that never more
than one request of a connection is in hand, however many were sent ahead.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from typing import Protocol, cast

import httptools
from werkzeug.http import HTTP_STATUS_CODES

from receiver.web.answers import error_answer

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
#: Requests of one connection that are answered in a row before others get their turn.
_IN_A_ROW = 16
#: Bytes of an answer that wait for a slow reader before no further request of it is looked at.
_UNREAD = 16 * 1024
#: A chunked body is read in such slices: what follows its end within one was sent ahead.
_SLICE = 4 * 1024

_TOKEN = re.compile(rb"[A-Z0-9$\-_.]{1,20}")
#: Content-Lengths that httptools cannot hold.
_ENORMOUS = re.compile(rb"\r\ncontent-length:[ \t]*[0-9]{19,}[ \t]*\r\n", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
_UPGRADE = re.compile(rb"\r\nupgrade(?=[ \t]*:)", re.IGNORECASE)

IDLE, HEAD, BODY, ANSWERING, THROWING_AWAY, CLOSED = range(6)

Headers = Iterable[tuple[str, str]]


class Request:
    """A request's head, and its body once it is whole.

    :param target: as it came.
    :param began: when its first byte came, and `ended`, its last; by `time.monotonic`.
    """

    __slots__ = (
        "began",
        "body",
        "chunked",
        "ended",
        "headers",
        "keeps_alive",
        "length",
        "limit",
        "method",
        "target",
        "version",
    )

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended = began
        self.method = ""
        self.target = b""
        self.version = "1.1"
        #: Names in lower case, without those that hold an underscore.
        self.headers: list[tuple[bytes, bytes]] = []
        self.keeps_alive = True
        self.chunked = False
        #: Bytes of the body, as declared.
        self.length: int | None = None
        #: Bytes of the body that are read.
        self.limit = 0
        self.body = b""

    def header(self, name: bytes) -> bytes | None:
        """A header's value; several are joined, as WSGI servers do."""
        values = [value for key, value in self.headers if key == name]
        return b",".join(values) if values else None


class Server(Protocol):
    """What a connection asks of the front."""

    #: For the header of this name.
    date: str

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    def heard(self, connection: Connection) -> None:
        """Something came from one that has sent nothing authenticated yet."""

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


class _Refuse(Exception):
    """A request that is answered here, and its connection closed."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Connection(asyncio.Protocol):
    """See the module. All of it runs on the event loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.peer: tuple[str, int] = ("", 0)
        self.local: tuple[str, int] = ("", 0)
        self.state = IDLE
        self.request: Request | None = None
        #: It has sent a request that was authenticated.
        self.known = False
        #: When this state began.
        self.since = time.monotonic()
        #: What this connection counts for among the bytes that are held.
        self.held = 0
        #: Bytes that came and are not used yet; how far the end of a head was looked for; a body.
        self._buffer = bytearray()
        self._searched = 0
        self._body = bytearray()
        #: Of one request: the head is read, the body is whole, more came behind the body in one
        #: slice, the sender was told to go on, and bytes of its chunks.
        self._parser: httptools.HttpRequestParser | None = None
        self._head_read = self._whole = self._overrun = self._continued = False
        self._raw = 0
        #: What has come is looked at now; and how many requests in a row that were.
        self._stepping = False
        self._turns = 0
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
        self.abort()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        if self.state == THROWING_AWAY:
            self._thrown_away += len(data)
            if self._thrown_away > THROWN_AWAY:
                self.abort()
            return
        if not self.known:
            self._server.heard(self)
        self._buffer += data
        if self.state == ANSWERING or self._writing_paused:
            if len(self._buffer) > _AHEAD and not self._reading_paused:
                self._reading_paused = True
                self.transport.pause_reading()
        else:
            self._advance()
        self._hold(len(self._buffer) + len(self._body))

    def eof_received(self) -> bool:
        """The other side has said all; it may still listen.

        :returns: whether the connection stays open.
        """
        self._eof = True
        if self.state == BODY and self.request is not None:
            came = len(self._body) + len(self._buffer)
            declared = self.request.length
            self._refuse(
                _Refuse(400, f"the body ends after {came} of {declared} bytes")
                if declared is not None
                else _Refuse(400, "the body could not be read whole")
            )
        return self.state == ANSWERING

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self.state in (IDLE, HEAD, BODY):
            self._advance()

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

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer the request in hand, and go on to the next one."""
        if self.state != ANSWERING:
            return  # it has gone, or was given up
        head = self._head(status, headers, len(body))
        self.transport.write(head if self._is_head else head + body)
        self._sent = len(body)
        self._answered()

    def begin_answer(self, status: int, headers: Headers) -> None:
        """Begin an answer whose body comes piece by piece."""
        if self.state == ANSWERING:
            self._sent = 0
            self.transport.write(self._head(status, headers, None))

    def continue_answer(self, piece: bytes) -> None:
        """The next piece of its body."""
        if self.state == ANSWERING and piece and not self._is_head:
            self._sent += len(piece)
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunks else piece)

    def end_answer(self) -> None:
        """There is no more of it."""
        if self.state == ANSWERING:
            if self._chunks and not self._is_head:
                self.transport.write(b"0\r\n\r\n")
            self._answered()

    def abort(self) -> None:
        """Close at once, whatever is in hand: an answer that is not complete must not look so."""
        self.state = CLOSED
        self._buffer.clear()
        self._body.clear()
        self._hold(0)
        self.transport.abort()

    @property
    def drained(self) -> bool:
        """Whether the other side has read enough of a streamed answer for the next piece."""
        return not self._writing_paused or self.state == CLOSED

    @property
    def is_in_hand(self) -> bool:
        """Whether a whole request waits for its answer, or an answer for its reader."""
        return self.state == ANSWERING

    def close_after_answer(self) -> None:
        """Close when what is in hand is answered; now, if nothing has come."""
        self._closing = True
        if self.state == IDLE:
            self.transport.close()

    # --- reading

    def _advance(self) -> None:
        """Use what has come, until something is missing or a request is in hand."""
        self._turns = 0
        self._stepping = True
        try:
            while self._step():
                pass
        except _Refuse as refused:
            self._refuse(refused)
        finally:
            self._stepping = False

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
            while buffer.startswith((b"\r", b"\n")):
                del buffer[:1]
            if not buffer:
                return False
            self._turns += 1
            if self._turns > _IN_A_ROW:
                asyncio.get_running_loop().call_soon(self._go_on)
                return False
            if not _TOKEN.match(buffer):
                self._server.malformed("no request line")
                raise _Refuse(400, "this is no HTTP request")
            self._enter(HEAD)
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if (len(buffer) if end < 0 else end) > LARGEST_HEAD:
            raise _Refuse(431, f"the head is larger than {LARGEST_HEAD} bytes")
        if end < 0:
            self._searched = len(buffer)
            return False
        head = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._searched = 0
        request = self._read_head(head)
        self._body.clear()
        self._whole = self._overrun = self._continued = False
        self._raw = 0
        self._enter(BODY)
        self._server.head(self, request)
        if (request.length or 0) > request.limit:
            raise _Refuse(413, _too_large(request.limit))
        return True

    def _go_on(self) -> None:
        if self.state == IDLE:
            self._advance()

    def _read_head(self, head: bytes) -> Request:
        request = self.request = Request(self.since)
        self._head_read = False
        self._parser = httptools.HttpRequestParser(self)
        method = head[: head.find(b" ")]
        try:
            try:
                self._parser.feed_data(head)
            except (httptools.HttpParserInvalidMethodError, httptools.HttpParserUpgrade):
                # Any method is for Flask to refuse, and a wish for another protocol is passed over.
                if not _TOKEN.fullmatch(method) or method == b"CONNECT":
                    raise _Refuse(405, "this method is not for this server") from None
                request.headers.clear()
                request.target = b""
                self._parser = httptools.HttpRequestParser(self)
                rest = _UPGRADE.sub(b"\r\nx-pgrade", head[len(method) :])
                self._parser.feed_data(b"POST" + rest)
            request.method = method.decode("ascii")
            request.version = self._parser.get_http_version()
            request.keeps_alive = self._parser.should_keep_alive()
        except (httptools.HttpParserError, UnicodeDecodeError) as error:
            if _ENORMOUS.search(head):
                raise _Refuse(413, "the body is larger than any limit") from None
            self._server.malformed(type(error).__name__)
            raise _Refuse(400, "this is no proper HTTP request") from None
        if not self._head_read or request.version not in ("1.0", "1.1"):
            raise _Refuse(400, "this is neither HTTP/1.0 nor HTTP/1.1")
        _read_framing(request)
        return request

    # httptools calls these; the names are its own.

    def on_url(self, url: bytes) -> None:
        cast("Request", self.request).target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # A WSGI server could not tell `X-A` from `X_A`; and what comes behind a body is no header.
        if b"_" not in name and not self._head_read:
            cast("Request", self.request).headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._head_read = True

    def on_message_begin(self) -> None:
        self._overrun = self._whole

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._whole = True

    def _step_body(self) -> bool:
        request = cast("Request", self.request)
        if request.chunked:
            self._take_chunks(request)
        else:
            missing = (request.length or 0) - len(self._body)
            if missing:
                self._body += self._buffer[:missing]
                del self._buffer[:missing]
            self._whole = len(self._body) == (request.length or 0)
        if not self._whole:
            self._ask_for_more(request)
            return False
        request.ended = time.monotonic()
        request.body = bytes(self._body)
        self._body.clear()
        self._enter(ANSWERING)
        self._server.whole(self, request)
        return self.state == IDLE

    def _take_chunks(self, request: Request) -> None:
        parser = cast("httptools.HttpRequestParser", self._parser)
        try:
            while self._buffer and not self._whole:
                piece = bytes(self._buffer[:_SLICE])
                del self._buffer[: len(piece)]
                self._raw += len(piece)
                parser.feed_data(piece)
                if len(self._body) > request.limit:
                    raise _Refuse(413, _too_large(request.limit))
                if self._raw > 4 * request.limit + _AHEAD:
                    raise _Refuse(400, "the body comes in chunks that are too small")
        except httptools.HttpParserUpgrade:
            self._overrun = True
        except httptools.HttpParserError as error:
            self._server.malformed(type(error).__name__)
            raise _Refuse(400, "the body could not be read whole") from None
        if self._overrun:  # what was sent ahead has gone with the slice
            self._closing = True

    def _ask_for_more(self, request: Request) -> None:
        if not self._continued:
            self._continued = True
            if request.header(b"expect") is not None and not self._body:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- writing

    def _head(self, status: int, headers: Headers, length: int | None) -> bytes:
        """
        :param length: of the body, where it is known and the headers do not tell it.
        """
        request = self.request
        self._status = status
        lines = [f"HTTP/1.1 {status} {HTTP_STATUS_CODES.get(status, 'Unknown')}"]
        measured = status in (204, 304)
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
        self._closing |= self._eof or request is None or not request.keeps_alive
        lines.append(f"Date: {self._server.date}")
        if self._closing:
            lines.append("Connection: close")
        elif request is not None and request.version == "1.0":
            lines.append("Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    @property
    def _is_head(self) -> bool:
        return self.request is not None and self.request.method == "HEAD"

    def _refuse(self, refused: _Refuse) -> None:
        """Answer what is no proper request, or is not let in, and be done with this connection."""
        path = "" if self.request is None else self.request.target.decode("latin-1")
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
                self._resume_reading()
                if self.transport.can_write_eof():
                    self.transport.write_eof()
            return
        self._enter(IDLE)
        self._resume_reading()
        if not self._stepping:
            self._next()

    def _next(self) -> None:
        """Look at what was sent ahead, after an answer that came later than its request."""
        if self.state == IDLE and self._buffer:
            self._advance()
            self._hold(len(self._buffer) + len(self._body))
        if self.state == IDLE and self._eof:
            self.transport.close()

    def _has_more_to_come(self, request: Request | None) -> bool:
        """Whether the other side may be sending still: then a close would be a reset for it."""
        return request is None or not self._whole or bool(self._buffer)

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def _enter(self, state: int) -> None:
        self.state = state
        self.since = time.monotonic()

    def _hold(self, count: int) -> None:
        if count != self.held:
            change, self.held = count - self.held, count
            self._server.holds(self, change)


def _read_framing(request: Request) -> None:
    """How long the body is. What one reader may see otherwise than another is refused."""
    length = request.header(b"content-length")
    coding = request.header(b"transfer-encoding")
    if coding is not None:
        if coding.strip().lower() != b"chunked":
            raise _Refuse(501, "the only transfer coding that is known here is chunked")
        if request.version == "1.0" or length is not None:
            raise _Refuse(400, "how long the body is can be read in two ways")
        request.chunked = True
    elif length is not None:
        request.length = int(length)  # httptools has let only digits in, and one such header
    expects = request.header(b"expect")
    if expects is not None and (expects.strip().lower() != b"100-continue"):
        raise _Refuse(417, "only 100-continue can be expected")


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes"


def _address(address: object) -> tuple[str, int]:
    """Host and port; of a socket in the file system, neither."""
    if isinstance(address, tuple) and len(address) >= 2:
        return str(address[0]), int(address[1])
    return "", 0
