"""What becomes of a work item when its call has ended: done, tried again, or dead."""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Callable
from typing import NamedTuple

from receiver import times
from receiver.errors import HandlerError
from receiver.registry import Handler
from receiver.store import Claim, Settlement

log = logging.getLogger(__package__)

#: Backoff before the second attempt, and the most there is between two.
FIRST_BACKOFF = 5 * times.SECOND
LONGEST_BACKOFF = times.HOUR
_LONGEST_ERROR = 500


def backoff(failures: int, draw: Callable[[], float] = random.random) -> int:
    """Microseconds until the next attempt: exponential, with full jitter.

    :param failures: attempts that have failed, from 1 on.
    :param draw: a random number in [0, 1).
    """
    ceiling = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(failures - 1, 32))
    return int(ceiling * draw())


class Failure(NamedTuple):
    """What a handler raised, as plain values: an exception's own code may take as long as it likes.

    :param kind: the name of its type.
    :param place: where it was raised, for the log.
    :param text: what is stored of it.
    :param wait: microseconds until the next attempt, if it says so.
    """

    kind: str
    place: str
    text: str
    permanent: bool = False
    wait: int | None = None


def failure_of(error: BaseException) -> Failure:
    """Take an exception apart, in the thread of the call that raised it. Never raises."""
    return Failure(type(error).__name__, _place(error), _text(error), *_wishes(error))


def settlement(handler: Handler, claim: Claim, failure: Failure | None, now: int) -> Settlement:
    """The end of a call, for the store.

    :param failure: what the handler raised.
    """
    if failure is None:
        return Settlement(claim, "done", now)
    dead = failure.permanent or claim.attempt >= handler.max_attempts
    wait = backoff(claim.attempt) if failure.wait is None else failure.wait
    # Neither the exception's text nor its arguments: they may hold what an SMS says.
    log.log(
        logging.ERROR if dead else logging.WARNING,
        "handler %s failed at event %s, attempt %d: %s%s; %s (`flask events show` tells more)",
        handler.name,
        claim.event_id,
        claim.attempt,
        failure.kind,
        failure.place,
        "it is dead" if dead else f"next attempt in {wait / times.SECOND:.0f} s",
    )
    return Settlement(
        claim,
        "dead" if dead else "pending",
        now if dead else now + wait,
        error=failure.text,
    )


def _wishes(error: BaseException) -> tuple[bool, int | None]:
    """Whether the failure is permanent, and after how many microseconds to try again.

    Never raises: it may be a subclass that did not call its base, or was changed since.
    """
    if not isinstance(error, HandlerError):
        return False, None
    permanent = False
    try:
        permanent = error.permanent is True
        wait = int(error.retry_after * times.SECOND) if error.retry_after is not None else -1
    except BaseException:
        return permanent, None
    return permanent, wait if 0 <= wait <= error.LONGEST_RETRY_AFTER * times.SECOND else None


def _text(error: BaseException) -> str:
    """What is stored of a failure. Never raises, whatever the exception makes of `str()`."""
    name = type(error).__name__
    try:
        text = f"{name}: {error}"
    except BaseException:
        text = name
    return text[:_LONGEST_ERROR].encode("utf-8", "replace").decode()


def _place(error: BaseException) -> str:
    """` at file:line` of the innermost frame, for an error that says no more in the log."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
