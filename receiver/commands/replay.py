"""`flask replay`: give work to handlers again."""

from __future__ import annotations

import click

from receiver.commands.common import (
    ID,
    command,
    echo,
    progress,
    registered,
    selection_options,
    tell_if_no_type,
)
from receiver.event import ALIASES
from receiver.ids import written
from receiver.parts import parts
from receiver.store import Selection


@command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=ID)
@click.option("--failed", is_flag=True, help="work that is dead")
@selection_options
@click.option("--handler", help="for this handler only")
@click.option("--dry-run", is_flag=True, help="say how much, and change nothing")
def replay(
    ids: tuple[str, ...],
    failed: bool,
    event_type: str | None,
    since: int | None,
    until: int | None,
    handler: str | None,
    dry_run: bool,
) -> None:
    """Give events to their handlers again: those named, or all that match.

    A handler that was added later gets them, too."""
    if not (ids or failed or event_type or handler or since is not None or until is not None):
        raise click.UsageError("say which: an ID, --failed, --type, --since, --until or --handler")
    event_type = ALIASES.get(event_type, event_type) if event_type else None
    receiver = parts()
    if handler is not None:
        registered(receiver.registry, handler)
    selection = Selection(
        ids=ids,
        event_type=event_type,
        since=since,
        until=until,
        state="dead" if failed else None,
        handler=handler,
    )
    if ids:
        known_ids = {event["event_id"] for event in receiver.store.events(Selection(ids=ids))}
        missing = sorted(set(ids) - known_ids)
        if missing:
            raise click.ClickException(
                f"there is no event {', '.join(map(written, missing))}; nothing is changed"
            )
    with progress() as show:
        count = receiver.store.replay(
            selection,
            wanting=receiver.registry.wanting,
            now=receiver.now(),
            dry_run=dry_run,
            progress=lambda count: show(f"{count} work items"),
        )
    items, are = ("work item", "is") if count == 1 else ("work items", "are")
    echo(f"{count} {items} {'would be' if dry_run else are} given to handlers again")
    if not count:
        tell_if_no_type(event_type)
