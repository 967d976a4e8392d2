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
#: The note of when each handler was last registered somewhere, or work for it was first found.
_HANDLERS = "handlers"
#: The note of which process has registered which handlers, and how often it is written again, in
#: microseconds.
_REGISTERED = "registered"
LOOK_AT_HANDLERS = times.MINUTE
#: The note of which handlers are stuck in which process, and how often it is written again.
_STUCK = "stuck"
_SAID_AGAIN = 20 * times.SECOND

#: The note that says that handlers wait for a person's word.
_HELD = "held"

#: The note of when any process that runs handlers was last alive, and how often that is written.
_HEARTBEAT = "heartbeat"
_BEAT = 10 * times.SECOND

#: By process: when it has said so, and its handlers, or those that are stuck.
_Said = dict[str, tuple[int, list[str]]]


def stuck_handlers(store: Store, now: int) -> list[str]:
    """The handlers that are stuck in any process, as these have noted it."""
    return sorted({name for _, names in _stuck_anywhere(store, now).values() for name in names})


def _stuck_anywhere(store: Store, now: int) -> _Said:
    """Without the processes that have not said so again for a while."""
    noted: _Said = json.loads(store.note(_STUCK) or "{}")
    return {who: said for who, said in noted.items() if abs(now - said[0]) < 3 * _SAID_AGAIN}


def last_heartbeat(store: Store) -> int | None:
    """When a process that runs handlers was last alive, in microseconds; `None` if never."""
    noted = store.note(_HEARTBEAT)
    return None if noted is None else int(noted)


def is_held(store: Store) -> bool:
    """Whether no handler may run: after a restore, until somebody says so. Written while nobody is
    connected, so who has seen that it is not need not look again."""
    return bool(store.note(_HELD))


def hold(store: Store) -> None:
    store.write_note(_HELD, "1")


def release(store: Store) -> None:
    store.write_note(_HELD, "")


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


def _registered_elsewhere(store: Store, now: int, process: str) -> _Said:
    """What the other processes that run handlers have registered, as they have noted it."""
    noted: _Said = json.loads(store.note(_REGISTERED) or "{}")
    return {
        who: said
        for who, said in noted.items()
        if who != process and abs(now - said[0]) < 3 * LOOK_AT_HANDLERS
    }


def warnings_of_handlers(
    store: Store, now: int, registered: Collection[str], process: str = ""
) -> list[str]:
    """What does not fit between the handlers here, those of other processes, and the work.

    :param registered: the handlers here.
    :param process: who asks, if it runs handlers.
    """
    here = set(registered)
    others = [set(names) for _, names in _registered_elsewhere(store, now, process).values()]
    told = []
    if any(other != here for other in others):
        theirs = ", ".join(sorted(set().union(*others) - here)) or "fewer than here"
        told.append(
            f"another service on this database has other HANDLERS ({theirs}): an event goes to the "
            "handlers of the service that receives it, and to no others"
        )
    left = sorted(set(store.owed()).difference(here, *others))
    if left:
        told.append(
            f"work waits for handlers that nobody has registered: {', '.join(left)}. Where one was "
            "renamed, register it under its old name as well; after 7 days its work is dead"
        )
    return told


def noted_handlers(store: Store) -> Collection[str]:
    """Those that some process has had within `UNKNOWN_HANDLER_WAIT`, or for which there is work."""
    noted: dict[str, int] = json.loads(store.note(_HANDLERS) or "{}")
    return noted.keys()


class Handlers:
    """What one process says of the handlers that it has, and does about those that nobody has.

    :param registered: their names; there may come to be more.
    """

    def __init__(self, store: Store, registered: Collection[str]) -> None:
        self._store = store
        self._registered = registered
        self._told: list[str] = []

    def look(self, process: str, now: int) -> None:
        """Once in `LOOK_AT_HANDLERS`."""
        noted = _registered_elsewhere(self._store, now, process)
        noted[process] = now, sorted(self._registered)
        self._store.write_note(_REGISTERED, json.dumps(noted))
        told = warnings_of_handlers(self._store, now, self._registered, process)
        for warning in told:
            if warning not in self._told:
                log.warning(warning)
        self._told = told
        bury(self._store, now, self._registered)

    def leave(self, process: str, now: int) -> None:
        """The process ends."""
        noted = _registered_elsewhere(self._store, now, process)
        self._store.write_note(_REGISTERED, json.dumps(noted))


def bury(store: Store, now: int, registered: Collection[str]) -> None:
    """End the work of handlers that no process has had for long. Each notes which it has.

    What is owed to a handler of which nobody knows waits from then on. A time in which no process
    ran does not count: who had registered it was away as well.

    :param registered: the handlers of this process.
    """
    noted: dict[str, int] = json.loads(store.note(_HANDLERS) or "{}")
    before = dict(noted)
    away = now - (last_heartbeat(store) or now)
    if away > times.DAY:
        noted = {name: at + away for name, at in noted.items()}
    owed = store.owed()
    for name in owed:
        noted.setdefault(name, now)
    if any(noted.get(name, 0) < now - times.HOUR for name in registered):
        noted |= dict.fromkeys(registered, now)
    long_ago = {name for name, at in noted.items() if at <= now - UNKNOWN_HANDLER_WAIT}
    noted = {name: at for name, at in noted.items() if name in owed or name not in long_ago}
    if noted != before:
        store.write_note(_HANDLERS, json.dumps(noted))
    buried = store.bury(now, [name for name in noted if name not in long_ago], UNKNOWN_HANDLER_WAIT)
    if buried:
        log.error("%d work items are dead: their handlers are not registered", buried)
