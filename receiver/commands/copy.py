"""`flask copy`: from one database to another, for instance from SQLite to PostgreSQL."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import click

from receiver.commands.common import command
from receiver.store import copying, open_store


@command()
@click.option("--from", "source_url", required=True, help="the database to read, as DATABASE_URL")
@click.option("--to", "target_url", required=True, help="the database to fill; an empty one")
def copy(source_url: str, target_url: str) -> None:
    """Copy everything from one database into another, and compare them.

    Stop the service first. After an interruption, run it again."""
    path = source_url.removeprefix("sqlite:///")
    if path != source_url and not Path(path).exists():
        raise click.ClickException(f"--from: there is no file {path}")
    terminal = sys.stderr.isatty()

    def progress(what: str, done: int) -> None:
        if terminal:
            click.echo(f"\r{what}: {done:,}\033[K", nl=False, err=True)

    with closing(open_store(source_url)) as source, closing(open_store(target_url)) as target:
        source.migrate()
        target.migrate()
        counts = copying.copy(source, target, progress)
    if terminal:
        click.echo("\r\033[K", nl=False, err=True)
    told = ", ".join(f"{counts[name]:,} {name}" for name in _TOLD)
    click.echo(f"copied {told}; both sides agree. Now set DATABASE_URL, and start the service")


#: The tables that a person knows of.
_TOLD = ("messages", "events", "deliveries", "quarantine")
