"""What can be wrong on this machine, and with the database."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from receiver import times
from receiver.calling import call
from receiver.checks.found import SET_CLOCK, Found, compared
from receiver.config import unknown_in
from receiver.parts import Receiver
from receiver.providers import PROVIDERS
from receiver.readiness import OLDEST, SILENT, try_to_store
from receiver.refusals import last_noted
from receiver.worker import is_held, last_heartbeat, stuck_handlers, warnings_of_handlers

#: Parts of a disk, and bytes, that should be free; and bytes that must be.
_FREE_PART, _FREE, _LEAST_FREE = 0.1, 256 * 1024 * 1024, 32 * 1024 * 1024
#: Microseconds since a refusal that is told.
_LATELY = times.DAY


def settings(receiver: Receiver) -> Found:
    """They can be read, or the command would not have begun."""
    environment = receiver.environment
    unknown = unknown_in(environment)
    for line in unknown:
        yield "warning", line, "correct its name, or remove it"
    if not unknown:
        source = environment.file or f"the {environment.source}"
        yield "ok", f"all are understood, from {source}"
    set_up = [p.title for p in PROVIDERS.values() if p.is_set_up(receiver.config)]
    yield "ok", f"providers that are set up: {', '.join(set_up)}"


def database(receiver: Receiver) -> Found:
    """It has the schema of this release, and takes what is to be stored."""
    store = receiver.store
    engine = store.engine()
    store.prove_writable()
    try_to_store(receiver.store, receiver.config.retention, receiver.now(), 2.5)
    yield "ok", f"{engine.title} takes events, and has the schema of this release"
    warning = store.warning()
    if warning is not None:
        yield "warning", warning, "do what it says"


def disk(receiver: Receiver) -> Found:
    """There is room for what comes."""
    file = receiver.store.engine().file
    if file is None:
        yield "ok", "the database is on another server; look there for its room"
        return
    size = 0
    for name in (file, f"{file}-wal"):
        with suppress(OSError):
            size += Path(name).stat().st_size
    try:
        room = shutil.disk_usage(Path(file).parent)
    except OSError as error:
        yield "wrong", f"{Path(file).parent}: {error.strerror}", "correct DATABASE_URL"
        return
    told = f"{_bytes(room.free)} of {_bytes(room.total)} are free; the database has {_bytes(size)}"
    if room.free < _LEAST_FREE:
        yield "wrong", told, "make room now: without it nothing can be stored"
    elif room.free < _FREE or room.free < _FREE_PART * room.total:
        yield "warning", told, "make room, or lower RETENTION_DAYS"
    else:
        yield "ok", told


def clock(receiver: Receiver) -> Found:
    """It is later than this release, and the database's server agrees."""
    now = receiver.now()
    if now < times.RELEASED:
        yield "wrong", f"it is {times.iso(now)} here, before this release was made", SET_CLOCK
        return
    theirs = receiver.store.engine().clock
    if theirs is None:
        yield "ok", f"it is {times.iso(now)}"
    else:
        yield compared(theirs - receiver.now(), "the database's server")


def handlers(receiver: Receiver) -> Found:
    """Somebody runs them, and they keep up."""
    store, now = receiver.store, receiver.now()
    names = [handler.name for handler in receiver.registry]
    beat = last_heartbeat(store)
    start = f"start the service, or `{call('work')}` where EMBEDDED_WORKER=0"
    if receiver.host is not None:
        start = f"start `{call('work')}`"
    if beat is None:
        yield "wrong", "nothing has ever run the handlers", start
    elif abs(now - beat) > SILENT:
        yield "wrong", f"nothing has run the handlers since {times.iso(beat)}", start
    else:
        yield "ok", f"they run, {len(names)} of them"
    if is_held(store):
        release = call("restore --run-work")
        yield "warning", "they wait since a restore", f"let them run: `{release}`"
    if stuck := stuck_handlers(store, now):
        yield "wrong", f"stuck: {', '.join(stuck)}", "see what they wait for, and restart"
    waiting, age = store.backlog(now, names)
    if age > OLDEST and not is_held(store):
        told = f"{waiting:,} work items wait, the oldest for {age / times.MINUTE:,.0f} minutes"
        yield "wrong", told, "see in the log why the handlers do not keep up"
    dead = [f"{number:,} of {name}" for name, number, _ in store.troubles(now, names) if number]
    if dead:
        told = f"work was given up: {', '.join(dead)}"
        see, then = call("events list --state dead"), call("replay --failed")
        yield "warning", told, f"see `{see}`, then `{then}`"
    for told in warnings_of_handlers(store, now, names):
        yield "warning", told, "set HANDLERS alike everywhere, or wait until it is buried"


def refusals(receiver: Receiver) -> Found:
    """The last requests that were not let in."""
    last = last_noted(receiver.store, receiver.now(), _LATELY)
    if last is None:
        yield "ok", "none in the last day"
    else:
        yield (
            "warning",
            f"{times.iso(last[0])}: {last[1]}",
            f"give a body and its signature to `{call('doctor BODYFILE --signature S')}`",
        )


def _bytes(count: int) -> str:
    if count < 1024**3:
        return f"{count / 1024**2:,.1f} MB"
    return f"{count / 1024**3:,.1f} GB"
