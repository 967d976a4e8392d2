"""`flask backup` and `flask restore`."""

from __future__ import annotations

from pathlib import Path

import click

from receiver import backups
from receiver.calling import call
from receiver.commands.common import command, echo, progress, refuse_to_replace
from receiver.parts import parts
from receiver.worker import release

_FILE = click.Path(dir_okay=False, path_type=Path)


@command()
@click.argument("file", type=_FILE)
def backup(file: Path) -> None:
    """Write a consistent copy of everything into FILE, while the service runs.

    It is a file of SQLite, also of a PostgreSQL database, and only you can read it."""
    refuse_to_replace(file, "FILE")
    with progress() as show:
        backups.back_up(parts().store, file, show)
    echo(f"{file} holds everything, {file.stat().st_size:,} bytes")


@command()
@click.argument("file", type=_FILE, required=False)
@click.option("--replace", is_flag=True, help="also where the database holds events; it is kept")
@click.option("--run-work", is_flag=True, help="let the handlers run what they are owed")
def restore(file: Path | None, replace: bool, run_work: bool) -> None:
    """Put a backup into the place of the database. Stop the service first.

    Handlers wait afterwards: they may have done already what the backup says they are owed. With
    --run-work they run, then or later."""
    receiver = parts()
    if file is None and not run_work:
        raise click.UsageError("name a FILE to restore, or --run-work")
    if file is not None:
        with progress() as show:
            counts = backups.restore(
                file, receiver.config.database_url, replace=replace, progress=show
            )
        echo(f"restored {counts['events']:,} events of {counts['messages']:,} messages")
    if run_work:
        release(receiver.store)
        echo("the handlers run what they are owed, as soon as the service does")
    else:
        echo(
            "Handlers wait: what they are owed since the backup they may have done already. Start "
            f"the service; `{call('restore --run-work')}` lets them run"
        )
        for reconciliation in receiver.reconciliations.values():
            title = reconciliation.account.title
            echo(f"{title} is asked for what came since the backup, once the service runs")
