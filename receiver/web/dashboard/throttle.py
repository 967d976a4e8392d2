"""How often one may try to sign in, over all processes.

An address has 5 attempts, and one more every 12 s. The more attempts there are in all, the longer a
form must have been open before it is looked at, up to 5 s: that slows down who guesses from many
addresses, and keeps nobody out. Nobody waits in a thread: who comes too early is told when.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from receiver.store import Store
from receiver.times import MINUTE, SECOND

_ATTEMPTS = 5
#: Addresses share so many buckets, or the store would hold one for each that ever came.
_BUCKETS = 4_096
_BUCKET, _ALL = "sign-in ", "sign-in"
#: Seconds that a form must have been open at most.
_LONGEST = 5.0
#: Addresses of which a process remembers that they have to wait: it need not ask the store again.
_REMEMBERED = 1_024


class Throttle:
    """
    :param key: lets nobody know which addresses share a bucket.
    :param clock: in seconds.
    """

    def __init__(
        self, store: Store, key: bytes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._key = key
        self._clock = clock
        self._refused: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str | None, age: float | None, now: int) -> int:
        """Count an attempt, and say for how many seconds it comes too early; 0: not at all.

        :param age: seconds since its form was given out; `None` if nobody knows.
        :param now: microseconds.
        """
        who = self._bucket(address)
        if (rest := self._refused.get(who, 0.0) - self._clock()) > 0:
            return math.ceil(rest)
        early = self._delay(now) - (age or 0.0)
        if early > 0:
            return math.ceil(early)
        wait = self._store.take(who, now, MINUTE // _ATTEMPTS, MINUTE) / SECOND
        if wait > 0:
            self._refused[who] = self._clock() + wait
            if len(self._refused) > _REMEMBERED:
                self._refused.popitem(last=False)
            return math.ceil(wait)
        self._store.take(_ALL, now, SECOND, None)
        return 0

    def _delay(self, now: int) -> float:
        """Grows with the attempts of the last minute; in seconds."""
        full_at = self._store.turn(_ALL)
        ahead = 0 if full_at is None or full_at > now + MINUTE else max(0, full_at - now)
        busy = max(0, ahead - _ATTEMPTS * SECOND) / MINUTE
        return min(_LONGEST, _LONGEST * busy)

    def _bucket(self, address: str | None) -> str:
        digest = hmac.new(self._key, _network(address).encode(), hashlib.sha256).digest()
        return f"{_BUCKET}{int.from_bytes(digest[:4]) % _BUCKETS}"


def _network(address: str | None) -> str:
    """Whose address it is: of IPv6, everybody has a whole network of them."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if found.version == 4:
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False))
