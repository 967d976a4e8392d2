"""A chunked body out of the bytes that come, to its exact end: what follows is the next request.

Strict where readers differ: each line ends with CRLF, and a size is hexadecimal digits alone.
"""

from __future__ import annotations

import re

#: Bytes of a line: a chunk's size with its extensions, or a trailer.
LONGEST_LINE = 4 * 1024

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")


class Malformed(Exception):
    """These are no chunks."""


class Chunks:
    """What is known of one body between two pieces of it."""

    def __init__(self) -> None:
        self._take = self._size_line
        #: Bytes of this chunk that are missing.
        self._missing = 0
        self._ended = False

    def feed(self, buffer: bytearray, body: bytearray) -> bool:
        """Move what belongs to the body from the one to the other.

        :returns: whether the body is whole; what is left in the buffer then is not of it.
        :raises Malformed: and nothing more can be read.
        """
        while not self._ended and buffer:
            if not self._take(buffer, body):
                break
        return self._ended

    def _size_line(self, buffer: bytearray, body: bytearray) -> bool:
        line = _line(buffer)
        if line is None:
            return False
        found = _SIZE.fullmatch(line)
        if found is None:
            raise Malformed("a chunk's size")
        self._missing = int(found[1], 16)
        self._take = self._data if self._missing else self._trailer
        return True

    def _data(self, buffer: bytearray, body: bytearray) -> bool:
        before = len(buffer)
        body += buffer[: self._missing]
        del buffer[: self._missing]
        self._missing -= before - len(buffer)
        if not self._missing:
            self._take = self._end_of_data
        return True

    def _end_of_data(self, buffer: bytearray, body: bytearray) -> bool:
        if len(buffer) < 2 and buffer.startswith(b"\r"):
            return False
        if not buffer.startswith(b"\r\n"):
            raise Malformed("a chunk's end")
        del buffer[:2]
        self._take = self._size_line
        return True

    def _trailer(self, buffer: bytearray, body: bytearray) -> bool:
        """Passed over: what comes behind a body is no header."""
        line = _line(buffer)
        if line is None:
            return False
        if not line:
            self._ended = True
        elif not _TRAILER.fullmatch(line):
            raise Malformed("a trailer")
        return True


def _line(buffer: bytearray) -> bytes | None:
    """The next line, without its end; `None` while it is not whole."""
    end = buffer.find(b"\n", 0, LONGEST_LINE)
    if end < 0:
        if len(buffer) >= LONGEST_LINE:
            raise Malformed("a line that is too long")
        return None
    if not buffer.endswith(b"\r", 0, end):
        raise Malformed("a line's end")
    line = bytes(buffer[: end - 1])
    del buffer[: end + 1]
    return line
