"""The settings of a service that is built into another program: given by it, or the environment's.

The environment is the host's first: what is called there `DATABASE_URL`, `PORT` or `SECRET_KEY` may
be its own, so each name may be written with `ZIMSEND_` in front of it, which wins. `.env` is the
host's business, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from receiver.config import NAMES, OF_HANDLERS, PREFIXES, unknown_in
from receiver.environment import Environment, clean
from receiver.errors import ConfigError
from receiver.misspelt import meant
from receiver.sqlite_file import EPHEMERAL_HOSTS

#: In front of a name that the host has for itself.
OURS = "ZIMSEND_"
#: Handlers come from the host's own code; tables are put where its are not.
_DEFAULTS = {"HANDLERS": "", "DATABASE_SCHEMA": "zimsend"}
#: Settings that a comma separates, and in whose parts it is written otherwise.
_ESCAPED = ("ZIMSEND_WEBHOOK_SECRET", "SECRET_KEY")
_IN_THE_ENVIRONMENT = (
    "is read from the environment by the built-in handlers: set it there, and name them in HANDLERS"
)
_OF_POSTGRES = ("postgres://", "postgresql://")
#: What decides about processes, sockets and logs, which are the host's.
_OF_A_SERVER = ("BIND", "PORT", "WEB_CONCURRENCY", "EMBEDDED_WORKER", "LOG_FORMAT", "LOG_LEVEL")


class Settings(NamedTuple):
    """
    :param written: how a name is written where it was read from, if otherwise.
    :param warnings: a line for each that will not do what somebody may expect.
    """

    environment: Environment
    written: Mapping[str, str]
    warnings: list[str]

    def error(self, error: ConfigError) -> ConfigError:
        """The same, with the name as it is written."""
        return ConfigError(self.written.get(error.name, error.name), error.problem)


def settings_of(
    given: Mapping[str, object] | None, folder: Path, environ: Mapping[str, str] = os.environ
) -> Settings:
    """
    :param given: by the names of the settings; `None`: what the environment says.
    :param folder: what relative paths count from.
    :raises ConfigError: if a name that is given is no setting, or its value is of no use as one.
    """
    # What a host says of its disks is a fact, and no setting.
    marks = {mark: environ[mark] for mark in EPHEMERAL_HOSTS if mark in environ}
    if given is None:
        found, written = _from_environment(environ)
        source = "environment"
    else:
        found, written = {name: _text(name, value) for name, value in given.items()}, {}
        source = "settings"
    defaults = (
        _DEFAULTS
        if clean(found.get("DATABASE_URL", "")).startswith(_OF_POSTGRES)
        else {name: text for name, text in _DEFAULTS.items() if name != "DATABASE_SCHEMA"}
    )
    environment = Environment(marks | found, folder, source=source, defaults=defaults)
    warnings = [
        f"{written.get(name, name)}:{told}"
        for name, _, told in (line.partition(":") for line in unknown_in(environment))
    ]
    if given is not None:
        warnings += [
            f"{name}: has no effect inside another program"
            for name in _OF_A_SERVER
            if name in found
        ]
    return Settings(environment, written, warnings)


def _text(name: str, value: object) -> str:
    """A value that is given by a program, as the environment would have it."""
    if name not in NAMES:
        near = meant(name, NAMES) or next(iter(get_close_matches(name, NAMES, 1)), None)
        told = f"; is {near} meant?" if near else ""
        raise ConfigError(name, f"no setting has this name{told}")
    if name in OF_HANDLERS:
        raise ConfigError(name, _IN_THE_ENVIRONMENT)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str | int | Path):
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        parts = (part.replace(",", "%2C") if name in _ESCAPED else part for part in value)
        return ",".join(parts)
    raise ConfigError(
        name, f"must be a text, a number or a list of texts, and not a {type(value).__name__}"
    )


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Our variables, and how those are written that have `ZIMSEND_` in front.

    :raises ConfigError: if the host's own database would be taken for ours, and cannot be.
    """
    found = {name: text for name, text in environ.items() if name in NAMES or _is_ours(name)}
    written = dict(_with_prefix(environ))
    for name, whole in written.items():
        found.pop(whole, None)
        if clean(environ[whole]):
            found[name] = environ[whole]
    url = clean(found.get("DATABASE_URL", ""))
    if url and "DATABASE_URL" not in written and not url.startswith(_OF_POSTGRES):
        raise ConfigError(
            "DATABASE_URL",
            "is taken for the database of the program around, and the receiver shares none but a "
            f"PostgreSQL; set {OURS}DATABASE_URL to where it is to keep its own data, like "
            "sqlite:///receiver.db",
        )
    return found, written


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIXES)


def _with_prefix(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Settings, or what is nearly one, and how each is written with the prefix."""
    for whole in environ:
        name = whole.removeprefix(OURS)
        if name == whole or whole in NAMES or name in OF_HANDLERS:
            continue
        if name in NAMES or (meant(name, NAMES) and not meant(whole, NAMES)):
            yield name, whole
