"""`flask upgrade-check`: what the next start of this release would change."""

from __future__ import annotations

import click

from receiver.calling import call
from receiver.commands.common import command, echo
from receiver.config import unknown_in
from receiver.parts import parts
from receiver.store.contract import Outlook
from receiver.version import __version__


@command(name="upgrade-check")
@click.pass_context
def upgrade_check(ctx: click.Context) -> None:
    """What the next start would change, before it does.

    Changes nothing, and may run while the release before serves. Exit status 0: the start changes
    nothing, and all settings are known; 1: there is something to do, which the last line names."""
    receiver = parts()
    outlook = receiver.store.outlook()
    engine = receiver.store.engine()
    place = engine.title if engine.file is None else f"{engine.title}, {engine.file}"
    echo(f"release {__version__}; database: {place}")
    echo(f"it has {outlook.events:,} events and {outlook.size / 1e6:,.1f} MB")
    for step in outlook.steps:
        echo(f"step to take: {step}")
    unknown = unknown_in(receiver.environment)
    for line in unknown:
        echo(f"setting: {line}")
    todo = _before(outlook)
    if unknown:
        todo.append("correct or remove the settings above")
    echo("; ".join(todo) or "the next start changes nothing")
    ctx.exit(1 if todo else 0)


def _before(outlook: Outlook) -> list[str]:
    """What to know and to do before the steps are taken."""
    if not outlook.steps:
        return []
    steps = f"{len(outlook.steps)} step{'s' if len(outlook.steps) > 1 else ''}"
    told = [f"the next start, or `{call('migrate')}`, takes {steps}"]
    if outlook.events:
        told.append(
            "the release before cannot work with the database afterwards"
            if outlook.breaking
            else "the release before can work with the database beside it, and afterwards"
        )
        told.append(f"back up first, with the release before: `{call('backup FILE')}`")
    return told
