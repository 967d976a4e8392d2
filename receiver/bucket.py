"""A token bucket in one number: the time at which it is full again. Pure."""

from __future__ import annotations

from receiver.times import MINUTE


def take(full_at: int | None, now: int, interval: int, room: int | None) -> tuple[int, int]:
    """Take one token. Times are microseconds.

    :param full_at: the number that was stored; `None` for a bucket that nobody has used.
    :param interval: in which one token comes back.
    :param room: how far `full_at` may lie ahead; `None`: the token is taken whatever is left.
    :returns: the number to store, and 0; or what was stored, and how long to wait for a token.
    """
    # Never further ahead than a minute, so what lies further was written by a clock that was wrong.
    ahead = 0 if full_at is None or full_at > now + 2 * MINUTE else max(full_at - now, 0)
    if room is not None and ahead + interval > room:
        return now + ahead, ahead + interval - room
    return now + min(ahead + interval, MINUTE), 0
