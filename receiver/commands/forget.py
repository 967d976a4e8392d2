"""`flask forget`."""

from __future__ import annotations

import click

from receiver import erasing, phone
from receiver.commands.common import command, echo, no_number, progress
from receiver.errors import ReceiverError
from receiver.parts import parts

#: What is told of how many rows, in this order.
_TOLD = {
    "messages": ("message", "messages"),
    "events": ("event", "events"),
    "quarantine": ("body in quarantine", "bodies in quarantine"),
    "deliveries": ("work item", "work items"),
    "notes": ("note", "notes"),
}


class _StillThere(ReceiverError):
    """A number is not wholly gone."""


@command()
@click.argument("number")
@click.option("--dry-run", is_flag=True, help="only tell how much holds it")
@click.option("--yes", is_flag=True, help="do not ask")
def forget(number: str, dry_run: bool, yes: bool) -> None:
    """Remove a phone number from everything that is stored, for good.

    Ids, times, states and statistics stay. What comes later for the number is redacted. In backups,
    logs, and with whoever was told, it stays: docs/how-to/forget.md says more."""
    receiver = parts()
    store = receiver.store
    named = phone.number(number, receiver.config.default_country)
    if named is None:
        raise no_number("NUMBER")
    if not dry_run and not yes:
        click.confirm(
            f"+{named.international} is removed from all that is stored. This cannot be undone. Go"
            " on?",
            abort=True,
        )
    with progress() as show:
        go = erasing.count if dry_run else erasing.forget
        found = go(store, named, show)
    counts = [f"{found[part]:,} {words[found[part] != 1]}" for part, words in _TOLD.items()]
    told = f"{', '.join(counts[:-1])} and {counts[-1]}"
    if dry_run:
        echo(f"{told} hold the number; nothing was changed")
        return
    echo(f"the number was in {told}, and is removed from them")
    with progress() as show:
        todo = erasing.prove(store, named, show)
    if todo is not None:
        raise _StillThere(todo)
    echo(store.proof())
    echo("what comes for it from now on is redacted; backups and logs still hold it")
