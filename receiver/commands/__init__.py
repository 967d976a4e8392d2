"""The `flask …` commands: thin, over the same parts as the web service."""

from __future__ import annotations

from flask import Flask


def register(app: Flask) -> None:
    """Add all of them to the application."""
    from receiver.commands import events, quarantine, replay, run, simulate, trigger

    for command in (
        run.migrate,
        run.work,
        run.expire,
        trigger.trigger,
        simulate.simulate,
        events.events,
        quarantine.quarantine,
        replay.replay,
    ):
        app.cli.add_command(command)
