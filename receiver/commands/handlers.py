"""`flask handlers` and `flask try`: what is registered, and one handler on one event."""

from __future__ import annotations

import traceback
from pathlib import Path

import click

from receiver import worker
from receiver.calling import call
from receiver.commands.common import (
    ID,
    command,
    echo,
    echo_columns,
    patterns_without_a_type,
    registered,
)
from receiver.errors import HandlerError
from receiver.ids import written
from receiver.parts import parts

_HERE = (str(Path(__file__)), str(Path(worker.__file__).parent))


@command()
def handlers() -> None:
    """What is registered, for which types, with waiting and dead work."""
    receiver = parts()
    owed = {name: (waiting, dead) for name, waiting, dead in receiver.store.work_counts()}
    _echo_row("HANDLER", "EVENTS", "WAITING", "DEAD")
    for handler in receiver.registry:
        waiting, dead = owed.pop(handler.name, (0, 0))
        _echo_row(handler.name, ", ".join(handler.patterns), waiting, dead)
    for name, (waiting, dead) in owed.items():
        _echo_row(name, "(not registered)", waiting, dead)
    for told in patterns_without_a_type(receiver.registry):
        echo(told, err=True)


@command(name="try")
@click.argument("handler_name", metavar="HANDLER")
@click.argument("event_id", metavar="EVENT", type=ID)
def try_handler(handler_name: str, event_id: str) -> None:
    """Run one handler on one stored event, here and now. Nothing of it is stored.

    The handler really does what it does. Its time-out does not hold here."""
    receiver = parts()
    handler = registered(receiver.registry, handler_name)
    claim = receiver.store.unclaimed(event_id, handler.name)
    if claim is None:
        raise click.ClickException(
            f"there is no event {written(event_id)!r}; see `{call('events list')}`"
        )
    if not handler.wants(claim.event_type):
        told = f"{handler.name} does not want {claim.event_type} and would not get it"
        echo(f"{told}; it runs all the same", err=True)
    event = worker.event_of(claim)
    try:
        with receiver.inside():
            worker.call(handler, event)
    except (Exception, SystemExit) as error:
        for line in _traceback(error).splitlines():
            echo(line, err=True)
        raise click.ClickException(
            f"{handler.name} raised {type(error).__name__}; {_what_then(error)}"
        ) from None
    echo(f"{handler.name} has handled {event.id} ({event.type})")


def _traceback(error: BaseException) -> str:
    """As Python prints it, from the handler's first line on."""
    told = traceback.TracebackException.from_exception(error)
    told.stack = traceback.StackSummary.from_list(
        [frame for frame in told.stack if not frame.filename.startswith(_HERE)]
    )
    return "".join(told.format())


def _what_then(error: BaseException) -> str:
    if isinstance(error, HandlerError):
        if error.permanent:
            return "its work would be dead"
        if error.retry_after is not None:
            return f"the worker would try again in {error.retry_after:g} s"
    return "the worker would try again"


def _echo_row(*values: object) -> None:
    echo_columns(*zip(values, (32, 32, 8, 0), strict=True))
