"""What the commands share: exit status, times, and output for people and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from flask.cli import ScriptInfo, with_appcontext

from receiver import times
from receiver.errors import ReceiverError

if TYPE_CHECKING:
    from app import Receiver

_AGO = re.compile(r"(\d{1,9})([dhms])", re.ASCII)
_UNITS = {"d": times.DAY, "h": times.HOUR, "m": times.MINUTE, "s": times.SECOND}


class _Command(click.Command):
    """Inside the application; a known error is one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ReceiverError as error:
            raise click.ClickException(str(error)) from error


class _Moment(click.ParamType[int]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        ago = _AGO.fullmatch(value)
        if ago is not None and ctx is not None:
            # Parameters are read before there is an application context.
            app = ctx.ensure_object(ScriptInfo).load_app()
            receiver: Receiver = app.extensions["receiver"]
            return receiver.now() - int(ago[1]) * _UNITS[ago[2]]
        moment = times.parse(value)
        if moment is None:
            self.fail(f"{value!r} is no time: write 2026-11-20T08:15:42Z, or 90d, 24h, 15m ago")
        return moment


MOMENT = _Moment()

format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="table for people, jsonl (one JSON object a line) for programs",
)


def command(
    group: click.Group | None = None, name: str | None = None
) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command, by itself or in a group."""

    def declare(function: Callable[..., Any]) -> click.Command:
        declared = click.command(name=name, cls=_Command)(with_appcontext(function))
        if group is not None:
            group.add_command(declared)
        return declared

    return declare


def selection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--type`, `--since`, `--until`: which events are meant."""
    for option in (
        click.option("--until", type=MOMENT, help="received then or before"),
        click.option("--since", type=MOMENT, help="received then or later (or 90d, 24h, 15m ago)"),
        click.option("--type", "event_type", help="a type, or a family like 'sms.*'"),
    ):
        function = option(function)
    return function


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """JSON on standard output, readable where it is UTF-8 and never broken by a surrogate."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    click.echo(text)


def echo_columns(*columns: tuple[object, int]) -> None:
    """One row of a table: each value padded to its width, none cut."""
    row = "  ".join(f"{'-' if value is None else value!s:<{width}}" for value, width in columns)
    click.echo(row.rstrip())
