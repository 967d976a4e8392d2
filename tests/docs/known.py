"""What documents may name: settings, commands with their options, targets of make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from handlers import email, forward
from receiver import config
from receiver.__main__ import program

#: Variables that are not ours: of hosts, by the beginning of their names, and of examples.
OF_OTHERS = (
    *("DYNO", "RENDER", "RAILWAY_", "FLY_", "K_SERVICE", "SCALINGO_", "CC_", "POSTGRES"),
    *("REQUIREMENTS", "TEAM_", "GUNICORN_"),
    # Django's own settings.
    *("SECURE_SSL_REDIRECT", "CONN_MAX_AGE", "ATOMIC_REQUESTS", "ALLOWED_HOSTS", "DATA_UPLOAD_"),
)
#: Of tests.
OF_TESTS = frozenset({"SEED"})
#: Where a Django project has our settings.
OF_DJANGO = frozenset({"ZIMSEND"})
#: Commands that are Flask's own, and are named to say that they are not ours.
OF_FLASK = frozenset({"run", "shell", "routes"})
#: Options that each command has, or that are another program's.
OPTIONS_OF_OTHERS = frozenset({"--help", "--build-arg", "--stop-timeout"})


#: Commands that hand their options on to another program.
HANDING_ON = frozenset({"serve"})

#: Each command's options by its words, like `events list`.
Commands = dict[str, frozenset[str]]


@dataclass(frozen=True)
class Known:
    """What there is."""

    settings: frozenset[str]
    #: Of `flask`, and of the package's command `zimsend-receiver`.
    flask: Commands
    package: Commands
    targets: frozenset[str]
    #: All words in capitals of the code: constants, error codes, settings of tests.
    capitals: frozenset[str]

    def is_name(self, name: str) -> bool:
        """Whether there is a variable, constant or code of this name."""
        return self.is_variable(name) or name in self.capitals

    def is_variable(self, name: str) -> bool:
        """Whether an environment may have it."""
        return name in self.settings | OF_TESTS | OF_DJANGO or name.startswith(OF_OTHERS)


def command_in(words: list[str], commands: Commands) -> str | None:
    """The longest command that these words begin with; None if there is none."""
    for count in (2, 1):
        path = " ".join(words[:count])
        if len(words) >= count and path in commands:
            return path
    if len(words) == 1 and any(path.startswith(f"{words[0]} ") for path in commands):
        return words[0]  # a group by itself
    return None


def commands_of(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """All commands of a group and of the groups in it, by their words."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield name, command
            for below, subcommand in commands_of(command):
                yield f"{name} {below}", subcommand
        else:
            yield name, command


def options_of(command: click.Command) -> frozenset[str]:
    return frozenset(
        name for param in command.params if isinstance(param, click.Option) for name in param.opts
    )


def known(root: Path, cli: click.Group) -> Known:
    """What the code of the project in this folder has."""
    settings = {s.name for s in config.SETTINGS} | {*forward.SETTINGS, *email.SETTINGS}
    makefile = (root / "Makefile").read_text()
    return Known(
        frozenset(settings),
        {words: options_of(command) for words, command in commands_of(cli)},
        {words: options_of(command) for words, command in commands_of(program)},
        frozenset(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)),
        _capitals(root),
    )


@cache
def _capitals(root: Path) -> frozenset[str]:
    found: set[str] = set()
    for folder in ("receiver", "handlers", "tests", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            if "docs" not in path.parts:
                found |= {*re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", path.read_text())}
    return frozenset(found)
