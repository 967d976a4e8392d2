"""What a fork of the tests' process does."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable


def in_a_fork(check: Callable[[], bool]) -> bool:
    """Whether it is so there; not, if it raises, or if it takes longer than 20 seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # to fork beside threads, from 3.12 on
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
