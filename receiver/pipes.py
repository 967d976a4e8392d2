"""What gunicorn's master, the web processes and the worker's process say to each other by pipes.

The master holds one end of `life`: a byte asks the worker's process to stop, an end of file tells
it that the master is gone. The worker's process holds one end of `death`: a byte tells the master
that it has begun, an end of file that it has ended. Web processes write to `wake` after a commit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

#: The numbers of the ends that the worker's process has, in its environment; and of the end of
#: `wake` that web processes have.
LIFE = "RECEIVER_LIFE_FD"
DEATH = "RECEIVER_DEATH_FD"
WAKE = "RECEIVER_WAKE_FD"
WAKING = "RECEIVER_WAKING_FD"
#: Of one worker's process after the other: the name under which it leases work, and the number of
#: the file in which it writes which calls run.
OWNER = "RECEIVER_OWNER"
BEGUN = "RECEIVER_BEGUN_FD"

#: What is written: there is work; webhooks may have been missed; stop; the process has begun.
WORK, GAP, STOP, BEGINS = b"w", b"g", b"s", b"b"


def bell(environ: Mapping[str, str], said: bytes) -> Callable[[], None] | None:
    """What lets the worker's process hear something; `None` where there is no such process.

    Never blocks: a pipe that is full has not been heard yet, and will be.
    """
    given = environ.get(WAKING, "")
    if not given.isdigit():
        return None
    waking = int(given)
    try:
        if not stat.S_ISFIFO(os.fstat(waking).st_mode):
            return None  # the name has come along without the pipe
    except OSError:
        return None

    def ring() -> None:
        with suppress(OSError):
            os.write(waking, said)

    return ring
