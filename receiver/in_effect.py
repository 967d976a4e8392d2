"""The settings in effect, as people may see them: secrets are set or not. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from receiver.config import OF_HANDLERS, SETTINGS, Config
from receiver.environment import FILE, Environment


class Row(NamedTuple):
    """One setting as it is shown.

    :param value: `None` if it is secret, or neither set nor given a default.
    :param source: `environment` (or `settings`), `.env` or `default`.
    """

    name: str
    value: str | None
    is_set: bool
    source: str
    secret: bool
    meaning: str


def rows(config: Config, environment: Environment) -> Iterator[Row]:
    """All settings, in the order of docs/reference/settings.md."""
    known = [(s.name, s.default, s.secret, s.meaning) for s in SETTINGS]
    for name, default, secret, meaning in known + [(name, "", True, "") for name in OF_HANDLERS]:
        given = environment.value(name)
        source = FILE if name in environment.filed else environment.source
        default = environment.defaults.get(name, default)
        value = _without_password(config.database_url if name == _URL else given or default)
        yield Row(
            name,
            None if secret else value or None,
            bool(given),
            source if given else "default",
            secret,
            meaning,
        )


_URL = "DATABASE_URL"


def _without_password(url: str) -> str:
    """Up to the last `@`, since a password may hold one; and those among the parameters."""
    url = re.sub(r"(?<=://)([^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(?i)((?:ssl)?password=)[^&]*", r"\1***", url)
