"""Runs the handlers: claim under a lease, call outside any transaction, write the end.

`worker` has the loop and its rounds, `pace` the rest between two rounds, `lane` what one handler
may claim, `calls` one claimed item, `threads` where calls run, `ends` what becomes of them, `begun`
which of them run, as the next process sees it, `leases` what the process does not know that it has
leased, `notes` what processes tell each other.
"""

from __future__ import annotations

from receiver.worker.begun import memory_for
from receiver.worker.calls import Call, Surroundings, call, event_of
from receiver.worker.ends import FIRST_BACKOFF, backoff
from receiver.worker.notes import (
    hold,
    is_held,
    last_heartbeat,
    noted_handlers,
    release,
    stuck_handlers,
    warnings_of_handlers,
)
from receiver.worker.threads import Executor, Executors, Threads
from receiver.worker.worker import LEASE_SPARE, Worker

__all__ = [
    "FIRST_BACKOFF",
    "LEASE_SPARE",
    "Call",
    "Executor",
    "Executors",
    "Surroundings",
    "Threads",
    "Worker",
    "backoff",
    "call",
    "event_of",
    "hold",
    "is_held",
    "last_heartbeat",
    "memory_for",
    "noted_handlers",
    "release",
    "stuck_handlers",
    "warnings_of_handlers",
]
