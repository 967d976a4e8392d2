"""Every exception of the receiver, named by what the one who catches it can do about it."""

from __future__ import annotations

import errno
import importlib
import traceback


class ReceiverError(Exception):
    """The base of all that this package raises on purpose."""


class ConfigError(ReceiverError):
    """A setting is missing or wrong: mend it and start again.

    :param name: the environment variable.
    :param problem: what is wrong with it and what would be right; never the value of a secret.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem


class Unusable(ReceiverError):
    """A signed body that cannot be used as an event: keep it in quarantine, tell the sender why.

    :param reason: one sentence, without anything that the body holds.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refused(ReceiverError):
    """A request that is answered with an error instead of with what it wanted.

    :param detail: what is wrong with it, for its sender.
    :param headers: further ones of the answer.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class StoreUnavailable(ReceiverError):
    """The store cannot be written or read at this moment: try again after a while."""


_SHORT_OF = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOBUFS,
    errno.EAGAIN,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
}


def is_shortage(error: BaseException) -> bool:
    """Whether the machine is short of something for a moment, as files, memory or disk. It is
    nobody's defect: what was to be stored is to be sent again, and not to be kept apart."""
    if isinstance(error, OSError):
        return error.errno in _SHORT_OF
    return isinstance(error, MemoryError)


class SchemaMismatch(StoreUnavailable):
    """The database's tables are not those that this release works with: run `flask migrate`."""


class FileReplaced(StoreUnavailable):
    """The database's file is no longer in its place: nothing is stored until a restart."""


class CopyRefused(ReceiverError):
    """One database cannot be copied into the other: do what it says, and copy again."""


class HandlerError(ReceiverError):
    """Raised by a handler that failed and knows what should happen next.

    :param message: what went wrong; stored with the work item, never logged.
    :param retry_after: seconds until the next attempt, instead of the usual backoff.
    :param permanent: no attempt can succeed; the work item is dead at once.
    :raises ValueError: if `retry_after` is not a number of seconds from 0 up to 30 days.
    """

    LONGEST_RETRY_AFTER = 30 * 86_400

    def __init__(
        self, message: str = "", *, retry_after: float | None = None, permanent: bool = False
    ) -> None:
        super().__init__(message)
        # Written so that NaN is refused as well.
        if retry_after is not None and not 0 <= retry_after <= self.LONGEST_RETRY_AFTER:
            raise ValueError("retry_after is a number of seconds between 0 and 2592000 (30 days)")
        self.retry_after = retry_after
        self.permanent = permanent


def told_where(error: BaseException, caller: str) -> str:
    """What code of the user's has raised, which may be anything, and where: in one line.

    :param caller: the file that has called or imported this code; its own lines tell nothing.
    """
    told = " ".join(f"{type(error).__name__}: {error}".split())
    line = where(error, caller)
    return f"{told} ({line})" if line else told


def where(error: BaseException, caller: str = "") -> str:
    """The line that has raised it, without those of Python's import and of the caller; empty where
    there is no other, as where no module was found."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<frozen ") and frame.filename not in (
            caller,
            importlib.__file__,
        ):
            return f"{frame.filename}:{frame.lineno}"
    return ""
