"""The `flask …` commands: thin, over the same parts as the web service."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from importlib import import_module

import click
from flask import Flask

#: Where each of them is, as `module:name` in this package.
_PLACES = {
    "migrate": "run:migrate",
    "work": "run:work",
    "expire": "run:expire",
    "copy": "copy:copy",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "upgrade-check": "upgrade_check:upgrade_check",
    "forget": "forget:forget",
    "trigger": "trigger:trigger",
    "simulate": "simulate:simulate",
    "events": "events:events",
    "tail": "tail:tail",
    "handlers": "handlers:handlers",
    "try": "handlers:try_handler",
    "messages": "messages:messages",
    "stats": "messages:stats",
    "quarantine": "quarantine:quarantine",
    "replay": "replay:replay",
    "reconcile": "reconcile:reconcile",
    "webhooks": "webhooks:webhooks",
    "config": "config:config",
    "doctor": "doctor:doctor",
    "export": "export:export",
    "alerts": "alerts:alerts",
}


class _Commands(MutableMapping[str, click.Command]):
    """All of them by their names, and what others add. A module is read when one of its commands is
    asked for: a process that serves asks for none, and together they are a fifth of its start."""

    def __init__(self) -> None:
        self._read: dict[str, click.Command] = {}
        self._places = dict(_PLACES)

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._read:
            module, _, function = self._places[name].partition(":")
            self._read[name] = getattr(import_module(f"receiver.commands.{module}"), function)
        return self._read[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._places[name], self._read[name] = "", command

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._read.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places


def register(app: Flask) -> None:
    """Add all of them to the application."""
    app.cli.commands = _Commands()


def commands() -> Sequence[click.Command]:
    """All of them. Each runs in the context of an application, which its click context loads."""
    return list(_Commands().values())
