"""A chunked body out of the bytes that come, to its exact end: what follows is the next request.

Strict where readers differ: each line ends with CRLF, and a size is hexadecimal digits alone.
"""

from __future__ import annotations

import re

#: Bytes of a line: a chunk's size with its extensions, or a trailer.
LONGEST_LINE = 4 * 1024
#: Chunks that are taken in one call: each costs time, however small.
_AT_ONCE = 128

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
        """Move what belongs to the body from the one to the other, or a part of that.

        :returns: whether the body is whole; what is left in the buffer then is not of it.
        :raises Malformed: and nothing more can be read.
        """
        at = 0
        for _ in range(_AT_ONCE):
            if self._ended or at == len(buffer):
                break
            to = self._take(buffer, body, at)
            if to < 0:
                break
            at = to
        del buffer[:at]
        return self._ended

    # Each takes what is at a place, and returns what place comes next; -1: it is not whole.

    def _size_line(self, buffer: bytearray, body: bytearray, at: int) -> int:
        end = _line(buffer, at)
        if end < 0:
            return end
        found = _SIZE.fullmatch(buffer, at, end - 2)
        if found is None:
            raise Malformed("a chunk's size")
        size = int(found[1], 16)
        if not size:
            self._take = self._trailer
            return end
        to = end + size
        if buffer[to : to + 2] == b"\r\n":  # all of it is here
            body += buffer[end:to]
            return to + 2
        self._missing = size
        self._take = self._data
        return end

    def _data(self, buffer: bytearray, body: bytearray, at: int) -> int:
        to = min(at + self._missing, len(buffer))
        body += buffer[at:to]
        self._missing -= to - at
        if not self._missing:
            self._take = self._end_of_data
        return to

    def _end_of_data(self, buffer: bytearray, body: bytearray, at: int) -> int:
        found = buffer[at : at + 2]
        if found == b"\r":
            return -1
        if found != b"\r\n":
            raise Malformed("a chunk's end")
        self._take = self._size_line
        return at + 2

    def _trailer(self, buffer: bytearray, body: bytearray, at: int) -> int:
        """Passed over: what comes behind a body is no header."""
        end = _line(buffer, at)
        if end < 0:
            return end
        if end - at == 2:
            self._ended = True
        elif not _TRAILER.fullmatch(buffer, at, end - 2):
            raise Malformed("a trailer")
        return end


def _line(buffer: bytearray, at: int) -> int:
    """Where the line at a place ends, CRLF included; -1 while it is not whole."""
    end = buffer.find(b"\n", at, at + LONGEST_LINE)
    if end < 0:
        if len(buffer) - at >= LONGEST_LINE:
            raise Malformed("a line that is too long")
        return -1
    if end == at or buffer[end - 1] != 13:
        raise Malformed("a line's end")
    return end + 1
