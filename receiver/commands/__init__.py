"""The `flask …` commands: thin, over the same parts as the web service."""

from __future__ import annotations

from flask import Flask


def register(app: Flask) -> None:
    """Add all of them to the application."""
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
        webhooks,
    )

    for command in (
        run.migrate,
        run.work,
        run.expire,
        copy.copy,
        backup.backup,
        backup.restore,
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
    ):
        app.cli.add_command(command)
