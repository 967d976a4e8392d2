"""`flask copy`: from one database to another, for instance from SQLite to PostgreSQL."""

from __future__ import annotations

import os
from contextlib import closing

import click

from receiver.commands.common import command, echo, progress
from receiver.config import url_like_the_settings
from receiver.errors import ConfigError, StoreUnavailable
from receiver.parts import parts
from receiver.store import Store, copying, open_store


@command()
@click.option("--from", "source_url", required=True, help="the database to read, as DATABASE_URL")
@click.option("--to", "target_url", required=True, help="the database to fill; an empty one")
def copy(source_url: str, target_url: str) -> None:
    """Copy everything from one database into another, and compare them.

    Stop the service first. After an interruption, run it again. Relative paths, and
    DATABASE_SCHEMA, go for both as for DATABASE_URL; ?schema= in a URL says another one."""
    with (
        closing(_open("--from", source_url, there=True)) as source,
        closing(_open("--to", target_url)) as target,
        progress() as show,
    ):
        _migrate("--from", source)
        _migrate("--to", target)
        counts = copying.copy(source, target, lambda what, done: show(f"{what}: {done:,}"))
    told = ", ".join(f"{counts[name]:,} {name}" for name in _TOLD)
    echo(f"copied {told}; both sides agree. Now set DATABASE_URL, and start the service")


def _open(option: str, text: str, *, there: bool = False) -> Store:
    """
    :param there: if it is a file, it must be there.
    """
    receiver = parts()
    try:
        url = url_like_the_settings(text, receiver.config, receiver.environment.folder)
        store = open_store(url)
    except ConfigError as error:
        told = error.problem.replace("DATABASE_URL", option)
        raise click.BadParameter(told, param_hint=[option]) from error
    path = url.removeprefix("sqlite:///")
    if there and path != url and not os.path.exists(path):
        raise click.ClickException(f"{option}: there is no file {path}")
    return store


def _migrate(option: str, store: Store) -> None:
    """The first that needs a connection."""
    try:
        store.migrate()
    except StoreUnavailable as error:
        # The store takes its URL for the setting's.
        told = str(error).removeprefix("DATABASE_URL: ").replace("DATABASE_URL", option)
        raise click.ClickException(f"{option}: {told}") from error


#: The tables that a person knows of.
_TOLD = ("messages", "events", "deliveries", "quarantine")
