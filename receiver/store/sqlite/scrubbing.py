"""What SQLite leaves in pages where no row and no entry is: overwritten, beside those who use it.

`secure_delete` overwrites what is deleted, but not what stays behind where SQLite moves entries
from page to page: it lies between a page's list of cells and its first cell, which nobody reads.
There, and nowhere else, zeros are written into the file itself.

Nobody writes meanwhile, for the write lock is held, and the log is empty, so no other copy of the
page is newer. The commit that ends it makes all others forget the pages that they remember. And no
second handle of the file is closed while SQLite has one: that would end its locks.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

#: Pages that are overwritten under one lock.
_AT_ONCE = 256
#: Interior and leaf pages of indexes and tables, and the length of what they begin with.
_HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}
#: Bytes in front of the first page's header.
_OF_THE_FILE = 100
#: Pages that are no tree's begin with a page's number, of four bytes. In a file with fewer pages
#: than this, its first byte is none of `_HEADERS`.
_TOO_MANY = 2 << 24
#: The byte that SQLite locks. The page with it is never used.
_LOCKED = 1 << 30


def scrub(path: str, log: str, holds: Callable[[bytes], bool]) -> None:
    """Overwrite the unused room of pages in which something is found. This process must have no
    connection to the file.

    :param log: the path of the -wal.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with closing(_connect(path)) as connection:
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            pages = [n for n, page in _pages(handle, size) if holds(page)]
        for first in range(0, len(pages), _AT_ONCE):
            # A connection for each: it would write pages that it remembers as they were.
            with closing(_connect(path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                connection.execute("BEGIN IMMEDIATE")
                if os.path.getsize(log) == 0 and os.fstat(handle).st_size < _TOO_MANY * size:
                    for number in pages[first : first + _AT_ONCE]:
                        _overwrite(handle, number, size)
                    os.fsync(handle)
                    connection.execute("UPDATE marks SET value = value + 1 WHERE name = 'checks'")
                connection.execute("COMMIT")
    finally:
        os.close(handle)


def _connect(path: str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=1.0, isolation_level=None)


def _pages(handle: int, size: int) -> Iterator[tuple[int, bytes]]:
    number = 1
    while page := os.pread(handle, size, (number - 1) * size):
        yield number, page
        number += 1


def _overwrite(handle: int, number: int, size: int) -> None:
    head = os.pread(handle, _OF_THE_FILE, 0)
    usable = size - head[20]
    moves = any(head[52:56])  # auto_vacuum: some pages are maps of the others
    if moves and is_map(number, size, usable):
        return
    room = unused(os.pread(handle, size, (number - 1) * size), usable, first=number == 1)
    if room is not None:
        start, end = room
        os.pwrite(handle, bytes(end - start), (number - 1) * size + start)


def is_map(number: int, size: int, usable: int) -> bool:
    """Whether a page is one of the maps of a file that can be made smaller.

    :param usable: as for `unused`.
    """
    locked = _LOCKED // size + 1
    if number == locked + 1:
        number = locked  # a map that would lie there is the next page
    elif number == locked:
        return False
    return (number - 2) % (usable // 5 + 1) == 0


def unused(page: bytes, usable: int, *, first: bool) -> tuple[int, int] | None:
    """Where a page of a tree has nothing; `None` for any other page, and where it has no room.

    :param usable: bytes of a page that SQLite uses.
    :param first: whether it is the first page of the file.
    """
    at = _OF_THE_FILE if first else 0
    header = _HEADERS.get(page[at])
    if header is None:
        return None
    cells = int.from_bytes(page[at + 3 : at + 5], "big")
    end = int.from_bytes(page[at + 5 : at + 7], "big") or 65_536
    start = at + header + 2 * cells
    if not start < end <= usable:
        return None
    pointers = page[at + header : start]
    found = (int.from_bytes(pointers[n : n + 2], "big") for n in range(0, len(pointers), 2))
    return (start, end) if all(end <= pointer < usable for pointer in found) else None
