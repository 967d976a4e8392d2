"""`flask config`: the settings in effect, and where each comes from."""

from __future__ import annotations

from receiver import in_effect
from receiver.commands.common import command, echo, echo_columns, echo_json, format_option
from receiver.environment import FILE
from receiver.parts import parts


@command()
@format_option
def config(style: str) -> None:
    """The settings in effect, and where each comes from. Secrets are not shown."""
    environment = parts().environment
    rows = list(in_effect.rows(parts().config, environment))
    if style == "jsonl":
        for row in rows:
            echo_json(
                {"name": row.name, "value": row.value, "set": row.is_set, "source": row.source}
            )
        return
    width = max(len(row.value or "") for row in rows)
    echo_columns(("NAME", 24), ("VALUE", width), ("FROM", 0))
    for row in rows:
        unseen = ("set" if row.is_set else "not set") if row.secret else "not set"
        echo_columns((row.name, 24), (row.value or unseen, width), (row.source, 0))
    read = f"{FILE} is {environment.file}" if environment.file else f"there is no {FILE}"
    echo(f"{read}; relative paths count from {environment.folder.absolute()}")
