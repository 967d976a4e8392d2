"""Threads that work beside those that asked for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from receiver.logs import Sparingly

log = logging.getLogger(__name__)

_told = Sparingly()


def begin(work: Callable[[], object], name: str) -> threading.Thread | None:
    """Run something in a thread of its own, which does not keep the process from its exit: a call
    may hang.

    :returns: `None` if the system allows no more threads at this moment; the log tells so.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        held_back = _told.admit()
        if held_back is not None:
            log.error(
                "%s: %r; allow more, or have fewer (%d more since the last such line)",
                name,
                error,
                held_back,
            )
        return None
    return thread
