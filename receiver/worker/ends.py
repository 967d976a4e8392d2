"""What becomes of a work item when its call has ended: done, tried again, or dead."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import NamedTuple

from receiver import ids, times
from receiver.calling import call
from receiver.errors import HandlerError
from receiver.registry import Handler
from receiver.store import Claim, Settlement
from receiver.worker.frames import place_of, traceback_of

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
    :param traceback: where it came from; stored as well.
    :param wait: microseconds until the next attempt, if it says so.
    """

    kind: str
    place: str
    text: str
    permanent: bool = False
    wait: int | None = None
    traceback: str | None = None


def failure_of(error: BaseException, handler: Handler | None = None) -> Failure:
    """Take an exception apart, in the thread of the call that raised it. Never raises."""
    place, traceback = _origin(error, handler)
    return Failure(type(error).__name__, place, _text(error), *_wishes(error), traceback)


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
        "handler %s failed at event %s, attempt %d: %s%s; %s (`%s` tells more)",
        handler.name,
        ids.written(claim.event_id),
        claim.attempt,
        failure.kind,
        failure.place,
        "it is dead" if dead else f"next attempt in {wait / times.SECOND:.0f} s",
        call("events show"),
    )
    return Settlement(
        claim,
        "dead" if dead else "pending",
        now if dead else now + wait,
        error=failure.text,
        traceback=failure.traceback,
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
    return _storable(text[:_LONGEST_ERROR])


def _origin(error: BaseException, handler: Handler | None) -> tuple[str, str | None]:
    """Its place and its traceback. Never raises: what it is chained to may be of any kind."""
    try:
        place = place_of(error, None if handler is None else handler.function)
        traceback = traceback_of(error) if error.__traceback__ is not None else None
    except BaseException:
        return "", None
    return place, traceback and _storable(traceback)


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
