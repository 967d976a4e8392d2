"""Whose turn it is: one process of all does something, on any number of machines."""

from __future__ import annotations

from receiver.store import Store
from receiver.times import MINUTE

#: A turn that is held for longer than this was claimed by a clock that was ahead: nobody holds one
#: for so long without prolonging it, and clocks of machines differ by less.
FURTHEST = 15 * MINUTE


def claim(store: Store, name: str, now: int, until: int) -> bool:
    """Take a turn that nobody has, by this clock. Where a clock was ahead, and has been set right,
    that holds nobody up.

    :param until: it is somebody else's from then on, unless it is prolonged; less than `FURTHEST`
        ahead.
    """
    held = store.turn(name)
    if held is None or held <= now:
        return store.claim_turn(name, now, until)
    return held > now + FURTHEST and store.keep_turn(name, held, until)
