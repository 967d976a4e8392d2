"""The parts of the index of texts, put together a little at a time.

Each transaction that writes texts adds a part, and a search looks into all of them. FTS5 would put
them together by itself, hundreds of pages in one of these transactions. So it is told not to, and
each step of ours is a short transaction by itself.
"""

from __future__ import annotations

import sqlite3

#: Pages that are merged in one transaction, about: a trigram is not divided.
_AT_ONCE = 16

_LEFT_TO_US = "SELECT 1 FROM search_config WHERE k = 'automerge' AND v = 0"
_LEAVE_TO_US = "INSERT INTO search (search, rank) VALUES ('automerge', 0)"
_MERGE = "INSERT INTO search (search, rank) VALUES ('merge', ?)"


def merge(connection: sqlite3.Connection, *, all_of_it: bool = False) -> bool:
    """Take a step. Needs the write lock.

    :param all_of_it: begin to make a single part of all that there are. Else those that are alike
        are put together, where there are four of them.
    :returns: whether there may be more to do.
    """
    if connection.execute(_LEFT_TO_US).fetchone() is None:
        connection.execute(_LEAVE_TO_US)
    before = connection.total_changes
    connection.execute(_MERGE, (-_AT_ONCE if all_of_it else _AT_ONCE,))
    return connection.total_changes - before >= 2
