"""`flask events`: what came in and what became of it."""

from __future__ import annotations

from typing import Any

import click

from receiver.commands.common import (
    ID,
    command,
    echo_columns,
    echo_json,
    format_option,
    selection_options,
    shown,
    width_of_times,
)
from receiver.errors import Unusable
from receiver.event import ALIASES
from receiver.parts import parts
from receiver.store import DeliveryState, Selection
from receiver.strict_json import read_signed

_WIDTHS = (19, 24, 24)


@click.group()
def events() -> None:
    """What came in and what became of it."""


@command(events, name="list")
@selection_options
@click.option("--message-id", type=ID, help="events of this message")
@click.option(
    "--state",
    type=click.Choice(["pending", "done", "dead"]),
    help="with work in this state for at least one handler",
)
@format_option
def list_events(
    event_type: str | None,
    message_id: str | None,
    since: int | None,
    until: int | None,
    state: DeliveryState | None,
    style: str,
) -> None:
    """All events that match, oldest first."""
    selection = Selection(
        event_type=ALIASES.get(event_type, event_type) if event_type else None,
        message_id=message_id,
        since=since,
        until=until,
        state=state,
    )
    if style == "table":
        _echo_row("RECEIVED", "TYPE", "EVENT", "MESSAGE", "DELIVERIES")
    for event in parts().store.events(selection):
        if style == "jsonl":
            echo_json(event)
        else:
            marks = [mark for mark in ("late", "repeat") if event[mark]]
            if event["receipts"] > 1:
                marks.append(f"received {event['receipts']} times")
            _echo_row(
                shown(event["received_at"]),
                event["type"],
                event["event_id"],
                event["message_id"],
                ", ".join([*map(_in_words, event["deliveries"]), *marks]),
            )


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
        echo_json(event, indent=2)
        return
    raise click.ClickException(f"there is no event {event_id!r}; see `flask events list`")


def _in_words(delivery: dict[str, Any]) -> str:
    words = f"{delivery['handler']} {delivery['state']}"
    return words if delivery["attempts"] <= 1 else f"{words} ({delivery['attempts']} attempts)"


def _echo_row(*values: object) -> None:
    echo_columns(*zip(values, (width_of_times(), *_WIDTHS, 0), strict=True))
