"""What the workers of all processes tell each other, in notes of the store."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Collection

from receiver import times
from receiver.store import Store

log = logging.getLogger(__package__)

#: How long work for a handler that is not registered waits before it is dead.
UNKNOWN_HANDLER_WAIT = 7 * times.DAY
#: The note of when each handler was last registered somewhere.
_HANDLERS = "handlers"
#: The note of which handlers are stuck in which process, and how often it is written again.
_STUCK = "stuck"
_SAID_AGAIN = 20 * times.SECOND

#: The note of when any process that runs handlers was last alive, and how often that is written.
_HEARTBEAT = "heartbeat"
_BEAT = 10 * times.SECOND

#: By process: when it has said so, and its handlers that are stuck.
_Stuck = dict[str, tuple[int, list[str]]]


def stuck_handlers(store: Store, now: int) -> list[str]:
    """The handlers that are stuck in any process, as these have noted it."""
    return sorted({name for _, names in _stuck_anywhere(store, now).values() for name in names})


def _stuck_anywhere(store: Store, now: int) -> _Stuck:
    """Without the processes that have not said so again for a while."""
    noted: _Stuck = json.loads(store.note(_STUCK) or "{}")
    return {who: said for who, said in noted.items() if abs(now - said[0]) < 3 * _SAID_AGAIN}


def last_heartbeat(store: Store) -> int | None:
    """When a process that runs handlers was last alive, in microseconds; `None` if never."""
    noted = store.note(_HEARTBEAT)
    return None if noted is None else int(noted)


class Heartbeat:
    """Says that this process runs handlers: `/readyz` is asked of another one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next_at = 0

    def beat(self, now: int) -> None:
        """Write it down, if that was not done lately."""
        if not self._next_at - _BEAT <= now < self._next_at:
            self._store.write_note(_HEARTBEAT, str(now))
            self._next_at = now + _BEAT


class StuckNote:
    """What one process says of its stuck handlers: `/readyz` is asked of one of them all."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._process = secrets.token_hex(8)
        self._told: list[str] = []
        self._tell_at = 0

    def tell(self, now: int, stuck: list[str]) -> None:
        """Write it down, if it has changed or must be said again."""
        if stuck == self._told and (not stuck or now < self._tell_at):
            return
        noted = _stuck_anywhere(self._store, now) | {self._process: (now, stuck)}
        self._store.write_note(
            _STUCK, json.dumps({w: said for w, said in noted.items() if said[1]})
        )
        self._told, self._tell_at = stuck, now + _SAID_AGAIN


def bury(store: Store, now: int, registered: Collection[str]) -> None:
    """End the work of handlers that no process has had for long. Each notes which it has.

    :param registered: the handlers of this process.
    """
    noted: dict[str, int] = json.loads(store.note(_HANDLERS) or "{}")
    noted = {name: at for name, at in noted.items() if at > now - UNKNOWN_HANDLER_WAIT}
    if any(noted.get(name, 0) < now - times.HOUR for name in registered):
        noted |= dict.fromkeys(registered, now)
        store.write_note(_HANDLERS, json.dumps(noted))
    buried = store.bury(now, list(noted), UNKNOWN_HANDLER_WAIT)
    if buried:
        log.error("%d work items are dead: their handlers are not registered", buried)
