"""A request: its head, read from its bytes, and what that says of its body. Pure.

httptools takes a head apart, strictly. What readers may understand differently is refused.
"""

from __future__ import annotations

import re
from contextlib import suppress

import httptools

#: Headers of a request: many times what clients and proxies send.
MOST_HEADERS = 256
#: What a request can begin with, and its first line, as gunicorn takes them.
TOKEN = re.compile(rb"[A-Z0-9$\-_.]{1,20}")
_FIRST_LINE = re.compile(rb"([A-Z0-9$\-_.]{1,20}) [^ ]+ HTTP/1\.[01]")
#: Methods that httptools reads as any other; what it makes of the rest does not matter here.
_PLAIN = {b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"}
#: Content-Lengths that httptools cannot hold.
_ENORMOUS = re.compile(rb"\r\ncontent-length:[ \t]*[0-9]{19,}[ \t]*\r\n", re.IGNORECASE)


class MalformedHead(Exception):
    """No head of a request, and why."""


class Refuse(Exception):
    """A request that is answered here, and its connection closed."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Request:
    """A request's head, and its body once it is whole.

    :param target: as it came.
    :param began: when its first byte came, and `ended`, its last; by `time.monotonic`.
    """

    __slots__ = (
        "began",
        "body",
        "chunked",
        "cut",
        "ended",
        "expects",
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
        #: The sender waits for a word before it sends the body.
        self.expects = False
        self.chunked = False
        #: Bytes of the body, as declared.
        self.length: int | None = None
        #: Bytes of the body that are read. If it is larger, `body` is not all of it.
        self.limit = 0
        self.cut = False
        self.body = b""

    def header(self, name: bytes) -> bytes | None:
        """A header's value; several are joined, as WSGI servers do."""
        values = [value for key, value in self.headers if key == name]
        return b",".join(values) if values else None


class _Head:
    """What httptools tells of a head; the names are its own."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._parser = httptools.HttpRequestParser(self)
        self.whole = False

    def read(self, head: bytes) -> None:
        try:
            with suppress(httptools.HttpParserUpgrade):  # such a wish is passed over
                self._parser.feed_data(head)
            self._request.version = self._parser.get_http_version()
        finally:
            # It refers to this object: in such a cycle the request would stay, with its body,
            # until Python's garbage collector runs.
            del self._parser

    def on_url(self, url: bytes) -> None:
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # A WSGI server could not tell `X-A` from `X_A`.
        if b"_" not in name:
            self._request.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.whole = True
        # Later the parser has forgotten what the head said.
        self._request.keeps_alive = self._parser.should_keep_alive()


def read_head(head: bytes, began: float) -> Request:
    """Read a head, its last empty line included.

    :param began: when its first byte came.
    :raises MalformedHead, Refuse: if there is no request that one could go on with.
    """
    request = Request(began)
    first = _FIRST_LINE.fullmatch(head, 0, head.index(b"\r\n"))
    if first is None:
        raise MalformedHead("no request line")
    method = first[1]
    if method == b"CONNECT":
        raise Refuse(405, "this method is not for this server")
    if head.count(b"\n") > MOST_HEADERS + 2:  # with the first line and the last one
        raise Refuse(431, f"the head has more than {MOST_HEADERS} headers")
    request.method = method.decode("ascii")
    reading = _Head(request)
    try:
        # Any method is for Flask to refuse, and none changes where a request ends.
        reading.read(head if method in _PLAIN else b"POST" + head[len(method) :])
    except httptools.HttpParserError as error:
        if _ENORMOUS.search(head):
            raise Refuse(413, "the body is larger than any limit") from None
        raise MalformedHead(type(error).__name__) from None
    if not reading.whole:
        raise MalformedHead("no end of the head")
    _read_framing(request)
    return request


def _read_framing(request: Request) -> None:
    """How long the body is, and for whom. What readers may see differently is refused."""
    length = request.header(b"content-length")
    coding = request.header(b"transfer-encoding")
    if coding is not None:
        if coding.lower() != b"chunked":
            raise Refuse(501, "the only transfer coding that is known here is chunked")
        if request.version == "1.0" or length is not None:
            raise Refuse(400, "how long the body is can be read in two ways")
        request.chunked = True
    elif length is not None:
        # httptools has let only digits in, of a number that it can hold, and one such header.
        request.length = int(length.lstrip(b"0") or b"0")
    if sum(name == b"host" for name, _ in request.headers) > 1:
        raise Refuse(400, "there is more than one Host")
    expects = request.header(b"expect")
    if expects is not None and request.version == "1.1":
        if expects.lower() != b"100-continue":
            raise Refuse(417, "only 100-continue can be expected")
        request.expects = True
