"""What forgetting a number asks of a database; a part of `receiver.store.contract`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from receiver.forgetting import Entry, Forgotten

#: The values of a row's key.
RowKey = tuple[Any, ...]

#: The parts of a store, in the order in which they are gone through: codes of failures get the ones
#: that follow them, before messages count by these; messages go with all ids that refer to them;
#: numbers of messages under what has an end by then come last.
PARTS = ("codes", "messages", "events", "deliveries", "quarantine", "notes", "marks", "cells")


class Forgetting(Protocol):
    """What forgetting a number asks: a list of whom to redact, and a way through all that is kept.

    The parts of a store are gone through in the order of `PARTS`.
    """

    def forgotten(self) -> list[Entry]:
        """The list."""

    def forget(self, entries: Sequence[Entry], patience: float) -> None:
        """Add to the list. What is committed after this, by whichever process, is without them."""

    def sweep(
        self, part: str, after: RowKey | None, whom: Forgotten, patience: float, *, dry_run: bool
    ) -> tuple[int, RowKey | None]:
        """Take numbers out of some rows of a part, in one short transaction.

        :param after: the key after which it goes on; `None`: from the beginning.
        :returns: how many rows held one, and after which key to go on; `None` at the end.
        """

    def wipe(self, begin: bool, patience: float) -> bool:
        """Do a little of what makes that nothing is left of what the rows held before.

        :param begin: whether the way through begins with this call.
        :returns: whether there is more to do.
        """

    def leaves_traces(self) -> bool:
        """Whether what was deleted before may still be read, as earlier releases left it."""

    def rewrite(self) -> None:
        """Write all anew, without such traces. Nobody else may be connected."""

    def scrub(self, whom: Forgotten, digits: Sequence[str]) -> None:
        """Overwrite what `traces` has found where nothing is stored."""

    def traces(self, whom: Forgotten, digits: Sequence[str]) -> list[str]:
        """The files in which a number is found, by reading them.

        :param digits: that are found inside of others as well.
        """

    def proof(self) -> str:
        """What is known where `traces` has found nothing, in one sentence."""
