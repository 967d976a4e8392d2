"""Requests that were refused: counted, and told in the log once a minute with their likely cause.

What was refused was sent by anybody. So counting costs next to nothing and keeps little, and the
cause is looked for in a thread of its own, when the answer is on its way.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from receiver import ids, threads
from receiver.errors import StoreUnavailable
from receiver.forks import renew_in_forks
from receiver.store import Store
from receiver.times import MINUTE

log = logging.getLogger(__name__)

#: Why a request was refused; the last two are not told of here.
SIGNATURE, SIZE, PATH, BODY, STORE = "signature", "size", "path", "body", "store"

#: Bytes of a refused body that are looked at; of a larger one, so many and one more are kept.
LARGEST = 64 * 1024

#: A path that one may print: too short in each part to hold a secret or a number.
_HARMLESS = re.compile(r"(?:/[A-Za-z_-]{0,12}){1,4}", re.ASCII)
_NEARLY = re.compile("|".join(("webhook", *ids.NAMES)), re.IGNORECASE)


#: The note of the last line, of whichever process; and for how long it is told, in microseconds.
_NOTE = "refusals"
_TOLD_FOR = 15 * MINUTE


def note(store: Store, now: int, line: str) -> None:
    """Write down what a process has told its log, for those who ask another one."""
    try:
        store.write_note(_NOTE, json.dumps([now, line]))
    except StoreUnavailable as error:
        log.debug("refusals are not written down: %s", error)


def last_noted(store: Store, now: int, within: int = _TOLD_FOR) -> tuple[int, str] | None:
    """When a process has last told of refusals, and what; `None` if that is not lately.

    :param within: so many microseconds ago at most.
    """
    at, line = json.loads(store.note(_NOTE) or '[0, ""]')
    return (at, line) if now - within < at <= now + MINUTE else None


class Refusals:
    """Those of this process.

    :param right: the paths of the webhooks.
    """

    #: Seconds between two lines in the log; and for which a refusal is one of lately.
    EVERY = 60.0
    LATELY = 900.0
    #: Refused requests between two lines that are looked at.
    LOOKED_AT = 4
    #: Seconds that `stop` waits at most.
    STOP_WITHIN = 1.0

    def __init__(self, right: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._right = right
        self._clock = clock
        #: Called with the cause of each.
        self.on_refusal: Callable[[str], None] = lambda cause: None
        self._guard: threading.Lock
        renew_in_forks(self, "_guard", threading.Lock)
        #: In all; and since the last line.
        self.counts: Counter[str] = Counter()
        self._untold: Counter[str] = Counter()
        self._samples: deque[Callable[[], str]] = deque(maxlen=self.LOOKED_AT)
        self._paths: set[str] = set()
        self._last: float | None = None
        #: Writes the lines for as long as there is something to tell.
        self._teller: threading.Thread | None = None
        self._stopped = threading.Event()
        #: Told of each line of the log, in a thread that may wait.
        self.keep: Callable[[str], object] = lambda line: None

    def signature(self, look: Callable[[], str]) -> None:
        """A signature did not fit.

        :param look: finds its likely cause; called in another thread, if at all.
        """
        with self._guard:
            self._samples.append(look)
        self._count(SIGNATURE)

    def size(self) -> None:
        """A webhook's body was too large."""
        self._count(SIZE)

    def path(self, path: str, *, signed: bool) -> None:
        """There is nothing at this path; counted if the webhook may have been meant.

        :param signed: there was a signature.
        """
        if not signed and not _NEARLY.search(path):
            return
        with self._guard:
            if _HARMLESS.fullmatch(path) and len(self._paths) < self.LOOKED_AT:
                self._paths.add(path)
        self._count(PATH)

    def lately(self) -> int:
        """How many there were in all, if the last one is not long ago; else 0."""
        with self._guard:
            if self._last is None or self._clock() - self._last > self.LATELY:
                return 0
            return self.counts.total()

    def _count(self, cause: str) -> None:
        self.on_refusal(cause)
        with self._guard:
            self._last = self._clock()
            self.counts[cause] += 1
            self._untold[cause] += 1
            # In a fork the thread has not come along.
            begins = self._teller is None or not self._teller.is_alive()
            if begins and not self._stopped.is_set():
                self._teller = threads.begin(self._tell_all, "refusals")

    def _tell_all(self) -> None:
        """One line now, and one a minute for as long as there is something to tell."""
        while True:
            try:
                told = self.tell()
            except Exception:
                log.exception("why requests were refused cannot be told")
                told = ""
            with self._guard:
                if told is None and not self._untold:
                    self._teller = None
                    return
            if self._stopped.wait(self.EVERY):
                return

    def stop(self) -> None:
        """Tell nothing more, and wait a moment for a line that is being written."""
        self._stopped.set()
        with self._guard:
            teller = self._teller
        if teller is not None:
            teller.join(self.STOP_WITHIN)

    def tell(self) -> str | None:
        """Write down what has not been told; returns that line, `None` if there is nothing."""
        with self._guard:
            counts, self._untold = self._untold, Counter()
            samples, paths = list(self._samples), sorted(self._paths)
            self._samples.clear()
            self._paths.clear()
        parts = []
        if number := counts[SIGNATURE]:
            causes = {look(): None for look in samples}
            parts.append(f"{number} for their signature (likely: {'; '.join(causes)})")
        if number := counts[SIZE]:
            parts.append(f"{number} larger than MAX_BODY_BYTES")
        if number := counts[PATH]:
            right = " or ".join(self._right) or "none, since no provider that is set up sends any"
            seen = f", like {', '.join(paths)}" if paths else ""
            parts.append(f"{number} to a path that does not exist{seen}: right is {right}")
        if not parts:
            return None
        line = f"webhooks were refused: {', '.join(parts)}"
        log.warning("%s", line)
        self.keep(line)
        return line
