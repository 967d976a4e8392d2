"""`flask migrate`, `flask work` and `flask expire`."""

from __future__ import annotations

import logging
import os

import click

from receiver import times, upkeep, working
from receiver.commands.common import command, echo, patterns_without_a_type, progress
from receiver.parts import parts
from receiver.store import Expired

log = logging.getLogger(__name__)


@command()
def migrate() -> None:
    """Bring the database's schema up to date.

    Any number of processes may do so at once."""
    taken = parts().store.migrate()
    echo(f"migrated: {', '.join(taken)}" if taken else "the schema is up to date")


@command()
def work() -> None:
    """Run the handlers, until SIGTERM or Ctrl-C.

    gunicorn starts one by itself, but where EMBEDDED_WORKER=0. Any number may run at once. Expires
    old data and asks ZimSend for what was missed, too."""
    receiver = parts()
    names = ", ".join(handler.name for handler in receiver.registry)
    log.info("working for: %s", names or "no handler at all; see HANDLERS")
    for told in patterns_without_a_type(receiver.registry):
        log.warning("%s", told)
    working.work(receiver, os.environ)


@command()
@click.option("--dry-run", is_flag=True, help="only say what would be deleted")
def expire(dry_run: bool) -> None:
    """Delete what is older than RETENTION_DAYS.

    The service does so by itself, every 10 minutes. By hand the clock is believed. Statistics
    stay."""
    receiver = parts()
    if receiver.now() < times.RELEASED:
        raise click.ClickException(
            f"the clock says {times.iso(receiver.now())}, which is before the date of this "
            "release: nothing is deleted. Set the clock"
        )
    before = receiver.now() - receiver.config.retention
    if dry_run:
        echo(f"would delete {_told(receiver.store.expirable(before))}")
        return
    with progress() as show:
        expired = upkeep.expire(receiver.store, before, progress=lambda so_far: show(_told(so_far)))
    echo(f"deleted {_told(expired)}")


def _told(expired: Expired) -> str:
    return (
        f"{expired.messages} messages, {expired.events} events, "
        f"{expired.quarantined} bodies in quarantine"
    )
