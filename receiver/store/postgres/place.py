"""Where a receiver's tables are in a database, and which locks go with that.

Without a schema of its own, it has what its user's `search_path` finds. With one, which is
`DATABASE_SCHEMA`, it looks nowhere else, so tables of the same names that are another program's are
neither read nor changed. Locks of PostgreSQL's are the whole database's; so those of a schema are
told apart from those of another by their numbers.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

#: The second numbers of advisory locks; the first is a place's `space`.
MIGRATION = 1
SCHEMA = 2
CODES = 3

#: Of all receivers without a schema of their own, whichever release.
_SPACE = 31590


class Place(NamedTuple):
    """
    :param schema: a plain name, or empty.
    """

    schema: str = ""

    @property
    def search_path(self) -> str | None:
        """What PostgreSQL is to look for names in; `None`: as it does by itself.

        Temporary tables come last: a pooler's session may have somebody else's.
        """
        return f'"{self.schema}", pg_temp' if self.schema else None

    @property
    def prefix(self) -> str:
        """What stands in front of a table's name where no `search_path` can be set."""
        return f'"{self.schema}".' if self.schema else ""

    @property
    def space(self) -> int:
        """The first of the two numbers of its advisory locks."""
        return self._number(4) if self.schema else _SPACE

    @property
    def seed(self) -> int:
        """Seeds the hashes by which ids are locked; for queues it is one more."""
        return self._number(8) if self.schema else 0

    def lock(self, number: int) -> str:
        """One of its locks, as an argument of PostgreSQL's functions."""
        return f"{self.space}, {number}"

    def _number(self, size: int) -> int:
        """A number for the schema's name, positive and of so many bytes; one more fits as well."""
        return int.from_bytes(sha256(self.schema.encode()).digest()[:size]) >> 2
