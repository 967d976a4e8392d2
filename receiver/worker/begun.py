"""Which calls have begun and not ended, written where it outlives the process."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections import deque
from contextlib import suppress

from receiver.store import Claim

#: A lease, as it is written down; zeros stand where there is none.
_LEASE = struct.Struct("<qq8s")
_NONE = bytes(_LEASE.size)


def memory_for(calls: int, file: int = -1) -> mmap.mmap:
    """Room for so many calls at once: in a file, all of it, or in this process alone."""
    size = max(1, calls) * _LEASE.size
    if file >= 0:
        size = max(size, os.fstat(file).st_size)
        os.truncate(file, size)
    return mmap.mmap(file, size)


def _lease(claim: Claim) -> bytes:
    name = hashlib.blake2b(claim.handler.encode(), digest_size=8).digest()
    return _LEASE.pack(claim.event_seq, claim.fence, name)


class Begun:
    """A slot of memory for each call that runs. To write one takes a microsecond, and no lock.

    :param memory: shared with whoever is to read it when this process has died; what it holds of
        the process before is read, and then forgotten.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        slots = range(0, len(memory) - _LEASE.size + 1, _LEASE.size)
        written = {memory[at : at + _LEASE.size] for at in slots}
        #: What had begun in the process before, and not ended.
        self._before = frozenset(written - {_NONE})
        self.clear()
        self._free = deque(slots)

    @property
    def before(self) -> int:
        """How many calls of the process before had begun and not ended."""
        return len(self._before)

    def had_begun(self, claim: Claim) -> bool:
        """Whether the call of a lease had begun in the process before, and not ended."""
        return _lease(claim) in self._before

    def begin(self, claim: Claim) -> int | None:
        """Write down that a call begins; returns what `end` wants."""
        with suppress(IndexError):  # more calls than were told of: they are as not begun
            slot = self._free.pop()
            self._memory[slot : slot + _LEASE.size] = _lease(claim)
            return slot
        return None

    def end(self, slot: int | None) -> None:
        if slot is not None:
            self._memory[slot : slot + _LEASE.size] = _NONE
            self._free.append(slot)

    def clear(self) -> None:
        """Forget all: what has not ended was told to the store."""
        self._memory[:] = bytes(len(self._memory))
