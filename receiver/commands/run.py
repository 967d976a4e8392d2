"""`flask migrate` and `flask work`."""

from __future__ import annotations

import logging
import signal

import click

from receiver.commands.common import command
from receiver.web import parts

log = logging.getLogger(__name__)


@command()
def migrate() -> None:
    """Bring the database's schema up to date.

    Any number of processes may do so at once."""
    taken = parts().store.migrate()
    click.echo(f"migrated: {', '.join(taken)}" if taken else "the schema is up to date")


@command()
def work() -> None:
    """Run the handlers, until SIGTERM or Ctrl-C.

    For deployments with EMBEDDED_WORKER=0; any number may run at once."""
    receiver = parts()
    receiver.store.check()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: receiver.worker.stop())
    names = ", ".join(handler.name for handler in receiver.registry)
    log.info("working for: %s", names or "no handler at all; see HANDLERS")
    receiver.worker.run()
    receiver.store.close()
