"""The time at a provider: the clock on the wall; or that of a simulator on this machine, for which
time may go faster, so that an outage of hours can be seen in seconds."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from receiver import times
from receiver.config import is_loopback

#: Seconds between two questions, and for the answer to one; its most bytes.
_AGAIN = 5.0
_WITHIN = 1.0
_LONGEST_ANSWER = 1_000


def clock_of(api_url: str, now: Callable[[], int]) -> Callable[[], int]:
    """The clock to ask an API by, in microseconds.

    :param now: the wall clock. It is what one gets, unless the API is on this machine: no other
        can tell us the time.
    """
    parts = urlsplit(api_url)
    if not is_loopback(parts.hostname or ""):
        return now
    return SimulatorsClock(f"{parts.scheme}://{parts.netloc}/clock", now)


class SimulatorsClock:
    """Asks a simulator for its time now and then, and goes on at its speed in between.

    While nobody answers, or something else than a simulator, it is the wall clock.
    """

    def __init__(self, url: str, now: Callable[[], int]) -> None:
        self._url = url
        self._wall = now
        self._lock = threading.Lock()
        self._ask_at = 0.0
        #: The simulator's time at a moment of the monotonic clock, and its speed.
        self._known: tuple[int, float, float] | None = None

    def __call__(self) -> int:
        with self._lock:
            if time.monotonic() >= self._ask_at:
                self._known = self._ask()
                self._ask_at = time.monotonic() + _AGAIN
            if self._known is None:
                return self._wall()
            told, at, speed = self._known
            return told + int((time.monotonic() - at) * speed * times.SECOND)

    def _ask(self) -> tuple[int, float, float] | None:
        try:
            # No proxy stands between this machine and itself.
            with (
                httpx.Client(trust_env=False, timeout=_WITHIN) as client,
                client.stream("GET", self._url) as answer,
            ):
                length = answer.headers.get("Content-Length", "")
                if answer.status_code != 200 or not length.isdecimal():
                    return None
                if int(length) > _LONGEST_ANSWER:
                    return None
                told: Any = json.loads(answer.read())
                at = time.monotonic()
            now, speed = times.parse(told["now"]), float(told["speed"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None
        return None if now is None or not 0 < speed <= 1_000 else (now, at, speed)
