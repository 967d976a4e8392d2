"""`flask tail`: what comes in, as it comes, whichever machine takes it."""

from __future__ import annotations

from collections.abc import Callable

import click

from receiver.commands.common import (
    command,
    echo,
    for_people,
    format_option,
    tell_if_no_type,
    until_ended,
    wait_while_read,
)
from receiver.commands.events import echo_event, echo_head
from receiver.errors import FileReplaced, SchemaMismatch, StoreUnavailable
from receiver.event import ALIASES
from receiver.parts import parts
from receiver.store import Position, Store

#: Seconds between two looks; and after one that failed.
EVERY, _AGAIN = 0.3, 2.0
#: Events that are read at once. So many numbers before the newest may be of transactions that have
#: not ended when one begins to look.
_AT_ONCE = 100


@command()
@click.option("--type", "event_type", help="a type, or a family like 'sms.*'")
@format_option
def tail(event_type: str | None, style: str) -> None:
    """What comes in from now on, as it comes, from any machine. Ctrl-C ends it."""
    event_type = ALIASES.get(event_type, event_type) if event_type else None
    wanted = _wanting(event_type)
    tell_if_no_type(event_type)
    receiver = parts()
    store = receiver.store
    with until_ended():
        if style == "table":
            echo_head()
        position = _from_now_on(store, receiver.now())
        failing = False
        while True:
            try:
                found, position = store.arrivals(position, receiver.now(), _AT_ONCE)
                events = [for_people(e, store) for _, e in found if wanted(e["type"])]
            except (SchemaMismatch, FileReplaced):
                raise  # to ask again is of no use
            except StoreUnavailable as error:
                if not failing:
                    echo(f"nothing can be read, and it is tried again: {error}", err=True)
                failing = True
                wait_while_read(_AGAIN)
                continue
            failing = False
            for event in events:
                echo_event(event, style)
            if len(found) < _AT_ONCE:
                wait_while_read(EVERY)


def _from_now_on(store: Store, now: int) -> Position:
    """What is here already is read, but for numbers whose events may still come."""
    position = store.position(_AT_ONCE)
    while True:
        found, position = store.arrivals(position, now, _AT_ONCE)
        if not found:
            return position


def _wanting(event_type: str | None) -> Callable[[str], bool]:
    if event_type is None:
        return lambda _: True
    if event_type.endswith(".*"):
        return lambda given: given.startswith(event_type[:-1])
    return lambda given: given == event_type
