"""Where an exception came from: what the log and `flask events show` tell of it. Pure.

Frames hold file, line, function and source line, never a value: what an SMS says is in no source.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path

from receiver.causes import is_users

#: What is kept of a traceback, and of one of its lines; characters.
LONGEST = 4_000
_LONGEST_LINE = 200
#: Frames of one exception, the innermost ones; and exceptions that led to one another.
_FRAMES = 30
_CHAIN = 4

_WORKER = str(Path(__file__).parent)


def place_of(error: BaseException, function: Callable[..., object] | None = None) -> str:
    """` at file:line` in the file of the handler's own function; and where in other code of the
    user's it was raised, if that is in another file."""
    frames = _frames(error)
    if not frames:
        return ""
    own_file = None if function is None else _file_of(function)
    own = [frame for frame in frames if frame.filename == own_file]
    users = [frame for frame in frames if is_users(frame.filename)]
    shown = (own or users or frames)[-1]
    raised = (users or frames)[-1]
    told = f" at {shown.filename}:{shown.lineno}"
    if raised.filename != shown.filename and is_users(raised.filename):
        told += f" (raised at {raised.filename}:{raised.lineno})"
    return told


def traceback_of(error: BaseException) -> str:
    """A traceback as Python prints it, the latest exception last, with types and no texts.

    Of a long one the end is kept.
    """
    told, seen = [_one(error)], {id(error)}
    while len(told) < _CHAIN:
        cause = error.__cause__
        between = "The above exception was the direct cause of the following exception:"
        if cause is None:
            cause = None if error.__suppress_context__ else error.__context__
            between = "During handling of the above exception, another exception occurred:"
        if cause is None or id(cause) in seen:
            break
        seen.add(id(cause))
        told += [f"\n{between}\n", _one(cause)]
        error = cause
    text = "\n".join(reversed(told))
    return text if len(text) <= LONGEST else "...\n" + text[4 - LONGEST :]


def _one(error: BaseException) -> str:
    frames = traceback.StackSummary.from_list(_frames(error))
    lines = [line for frame in frames.format() for line in frame.splitlines()]
    if lines:
        lines.insert(0, "Traceback (most recent call last):")
    return "\n".join(line[:_LONGEST_LINE] for line in (*lines, type(error).__name__))


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Its innermost frames, without those that every call has."""
    found = traceback.extract_tb(error.__traceback__, limit=-_FRAMES)
    return [frame for frame in found if not frame.filename.startswith(_WORKER)]


def _file_of(function: Callable[..., object]) -> str | None:
    """The file that a handler's function is written in, however it is wrapped."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(type(function).__call__, "__code__", None)
    return None if code is None else str(code.co_filename)
