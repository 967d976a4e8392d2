"""What work that died alike has in common: the kind of error, and its place in a file. Pure.

An exception's text is no part of it: it may hold what an SMS says, and is another one each time.
"""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path

#: Work whose attempts ended without a word, and work of a handler that is no longer registered.
#: A kind of error is one word, so neither can be one.
GIVEN_UP = "given up"
NO_HANDLER = "no handler of this name is registered"

_LONGEST_KIND = 100
_KIND = re.compile(r"[^\W\d]\w*(?=: |$)")
_FRAME = re.compile(r'^  File "(.*)", line (\d+)', re.MULTILINE)

_RECEIVER = str(Path(__file__).parent)
#: But the built-in handlers are handlers like the user's.
_HANDLERS = str(Path(__file__).parent / "handlers") + os.sep
#: Whose frames say nothing of the handler: Python's, installed packages', and the receiver's own.
_FOREIGN = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib"))
_INSTALLED = ("site-packages", "dist-packages")


def is_users(filename: str) -> bool:
    """Whether a frame's file is the user's own, or a built-in handler's."""
    return filename.startswith(_HANDLERS) or not (
        filename.startswith(("<", _RECEIVER, *_FOREIGN))
        or any(part in _INSTALLED for part in Path(filename).parts)
    )


def cause_of(error: str | None, traceback: str | None) -> str:
    """Like `KeyError at /app/handlers/sheet.py:42`; empty if nothing can be told.

    :param error: as it is stored of a work item: its kind and its text, or a sentence of ours.
    :param traceback: as `receiver.worker.frames` tells it, the latest exception last. Of its frames
        the innermost one in a file of the user's counts, else the innermost one.
    """
    for ours in (GIVEN_UP, NO_HANDLER):
        if error is not None and error.startswith(ours):
            return ours
    kind = _KIND.match(error or "")
    if kind is None:
        return ""
    frames = _FRAME.findall(traceback or "")
    users = [frame for frame in frames if is_users(frame[0])]
    place = (users or frames)[-1:]
    return kind[0][:_LONGEST_KIND] + "".join(f" at {file}:{line}" for file, line in place)
