"""The `flask …` commands: thin, over the same parts as the web service."""

from __future__ import annotations

from collections.abc import Sequence

import click
from flask import Flask


def register(app: Flask) -> None:
    """Add all of them to the application."""
    for command in commands():
        app.cli.add_command(command)


def commands() -> Sequence[click.Command]:
    """All of them. Each runs in the context of an application, which its click context loads."""
    from receiver.commands import (
        alerts,
        backup,
        config,
        copy,
        doctor,
        events,
        export,
        forget,
        handlers,
        messages,
        quarantine,
        reconcile,
        replay,
        run,
        simulate,
        tail,
        trigger,
        upgrade_check,
        webhooks,
    )

    return (
        run.migrate,
        run.work,
        run.expire,
        copy.copy,
        backup.backup,
        backup.restore,
        upgrade_check.upgrade_check,
        forget.forget,
        trigger.trigger,
        simulate.simulate,
        events.events,
        tail.tail,
        handlers.handlers,
        handlers.try_handler,
        messages.messages,
        messages.stats,
        quarantine.quarantine,
        replay.replay,
        reconcile.reconcile,
        webhooks.webhooks,
        config.config,
        doctor.doctor,
        export.export,
        alerts.alerts,
    )
