"""`flask events`: what came in and what became of it."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any

import click

from receiver import ids
from receiver.calling import call
from receiver.commands.common import (
    ID,
    OF_NUMBER,
    command,
    echo_columns,
    echo_json,
    for_people,
    format_option,
    numbers_of,
    selection_options,
    shown,
    tell_if_no_type,
    width_of_times,
)
from receiver.errors import Unusable
from receiver.event import ALIASES
from receiver.parts import parts
from receiver.store import Selection, WantedState
from receiver.strict_json import read_signed

_WIDTHS = (19, 14, 18, 24, 24)


@click.group()
def events() -> None:
    """What came in and what became of it."""


@command(events, name="list")
@selection_options
@click.option("--message-id", type=ID, help="events of this message")
@click.option(
    "--state",
    type=click.Choice(["pending", "retrying", "done", "dead"]),
    help="with work in this state for at least one handler",
)
@click.option("--handler", help="with work of this handler")
@click.option("--to", help=f"of messages to {OF_NUMBER}")
@click.option("--limit", type=click.IntRange(1), help="so many at most")
@click.option("--newest", is_flag=True, help="the newest first")
@format_option
def list_events(
    event_type: str | None,
    message_id: str | None,
    since: int | None,
    until: int | None,
    state: WantedState | None,
    handler: str | None,
    to: str | None,
    limit: int | None,
    newest: bool,
    style: str,
) -> None:
    """All events that match, oldest first."""
    event_type = ALIASES.get(event_type, event_type) if event_type else None
    selection = Selection(
        event_type=event_type,
        message_id=message_id,
        numbers=numbers_of(to),
        newest=newest,
        since=since,
        until=until,
        state=state if state is not None or handler is None else "any",
        handler=handler,
    )
    if style == "table":
        echo_head()
    store = parts().store
    most = None if limit is None else min(limit, sys.maxsize)
    found = None
    for found in islice(store.events(selection), most):
        echo_event(for_people(found, store), style)
    if found is None:
        tell_if_no_type(event_type)


@command(events, name="show")
@click.argument("event_id", metavar="ID", type=ID)
def show_event(event_id: str) -> None:
    """One event with its body and its deliveries, as JSON."""
    store = parts().store
    for event in store.events(Selection(ids=[event_id])):
        body = store.body(event_id)
        if body is not None:
            try:
                event["body"] = read_signed(body)
            except Unusable:
                event["body"] = body.decode("utf-8", "replace")
        tracebacks = store.tracebacks(event_id)
        for delivery in event["deliveries"]:
            if delivery["handler"] in tracebacks:
                delivery["traceback"] = tracebacks[delivery["handler"]].splitlines()
        echo_json(for_people(event, store), indent=2)
        return
    raise click.ClickException(
        f"there is no event {ids.written(event_id)!r}; see `{call('events list')}`"
    )


def echo_head() -> None:
    """The head of a table of events."""
    _echo_row("RECEIVED", "TYPE", "NUMBER", "ERROR", "EVENT", "MESSAGE", "DELIVERIES")


def echo_event(event: dict[str, Any], style: str) -> None:
    """One event in a row, or as JSON.

    :param event: as `for_people` has it.
    """
    if style == "jsonl":
        echo_json(event)
        return
    marks = [mark for mark in ("late", "repeat", "test") if event[mark]]
    if event["receipts"] > 1:
        marks.append(f"received {event['receipts']} times")
    _echo_row(
        shown(event["received_at"]),
        event["type"],
        event["to"],
        event["error_code"],
        event["event_id"],
        event["message_id"],
        ", ".join([*map(_in_words, event["deliveries"]), *marks]),
    )


def _in_words(delivery: dict[str, Any]) -> str:
    details = []
    if delivery["attempts"] > 1:
        details.append(f"{delivery['attempts']} attempts")
    if delivery["attempts"] and delivery["next_attempt_at"]:
        details.append(f"next {shown(delivery['next_attempt_at'])}")
    words = f"{delivery['handler']} {delivery['state']}"
    return f"{words} ({', '.join(details)})" if details else words


def _echo_row(*values: object) -> None:
    echo_columns(*zip(values, (width_of_times(), *_WIDTHS, 0), strict=True))
