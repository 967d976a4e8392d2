"""`flask config`: the settings in effect, and where each comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from receiver.commands.common import command, echo, echo_columns, echo_json, format_option
from receiver.config import OF_HANDLERS, SETTINGS
from receiver.environment import FILE
from receiver.parts import parts


class _Row(NamedTuple):
    """One setting as it is shown.

    :param value: `None` if it is secret, or neither set nor given a default.
    :param source: `environment`, `.env` or `default`.
    """

    name: str
    value: str | None
    is_set: bool
    source: str
    secret: bool


@command()
@format_option
def config(style: str) -> None:
    """The settings in effect, and where each comes from. Secrets are not shown."""
    environment = parts().environment
    if style == "jsonl":
        for row in _rows():
            echo_json(
                {"name": row.name, "value": row.value, "set": row.is_set, "source": row.source}
            )
        return
    width = max(len(row.value or "") for row in _rows())
    echo_columns(("NAME", 24), ("VALUE", width), ("FROM", 0))
    for row in _rows():
        unseen = ("set" if row.is_set else "not set") if row.secret else "not set"
        echo_columns((row.name, 24), (row.value or unseen, width), (row.source, 0))
    read = f"{FILE} is {environment.file}" if environment.file else f"there is no {FILE}"
    echo(f"{read}; relative paths count from {environment.folder.absolute()}")


def _rows() -> Iterator[_Row]:
    environment = parts().environment
    known = [(s.name, s.default, s.secret) for s in SETTINGS]
    for name, default, secret in known + [(name, "", True) for name in OF_HANDLERS]:
        given = environment.value(name)
        source = FILE if name in environment.filed else "environment"
        value = _without_password(parts().config.database_url if name == _URL else given or default)
        yield _Row(
            name,
            None if secret else value or None,
            bool(given),
            source if given else "default",
            secret,
        )


_URL = "DATABASE_URL"


def _without_password(url: str) -> str:
    """Up to the last `@`, since a password may hold one; and those among the parameters."""
    url = re.sub(r"(?<=://)([^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"(?i)((?:ssl)?password=)[^&]*", r"\1***", url)
