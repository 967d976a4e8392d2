"""Work of handlers in the store of a dashboard: what becomes of it without a worker."""

from __future__ import annotations

from receiver.parts import Receiver
from receiver.store import Settlement, Want
from receiver.times import SECOND

TRACE = """Traceback (most recent call last):
  File "/app/my_handlers.py", line 12, in note
    sheet[order]
KeyError"""


def die(
    receiver: Receiver,
    now: int,
    handler: str = "second",
    error: str = "KeyError: 'CMD-1042'",
    trace: str | None = TRACE,
) -> int:
    """All that a handler has to do dies; returns how much that was."""
    claims = receiver.store.work(now, [], [Want(handler, 1_000, 30 * SECOND, 12)], 5)
    ends = [Settlement(claim, "dead", now, error, traceback=trace) for claim in claims]
    receiver.store.work(now, ends, [], 5)
    return len(ends)
