"""What the commands share: exit status, times, and output for people and for programs."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from flask.cli import ScriptInfo, with_appcontext

from receiver import times
from receiver.errors import ReceiverError
from receiver.event import clean_id
from receiver.parts import parts

_AGO = re.compile(r"(\d{1,9})([dhms])", re.ASCII)
_UNITS = {"d": times.DAY, "h": times.HOUR, "m": times.MINUTE, "s": times.SECOND}

#: In JSON only within strings. Many readers end a line at some of them, and terminals obey others.
_RAW_IN_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029]")


class _Command(click.Command):
    """Inside the application; a known error is one line and exit status 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for argument in args:
            try:
                argument.encode()
            except UnicodeEncodeError:
                raise click.UsageError(f"{argument!r} is not UTF-8", ctx) from None
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ReceiverError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            # A pipe whose reader has left is click's to handle; what names a file is no output.
            if error.errno == errno.EPIPE or error.filename is not None:
                raise
            with suppress(OSError):
                sys.stdout.close()  # or Python tries again at its end, and tells of it
            raise click.ClickException(f"the output cannot be written: {error}") from error


class _Moment(click.ParamType[int]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        ago = _AGO.fullmatch(value)
        if ago is not None and ctx is not None:
            # Parameters are read before there is an application context.
            app = ctx.ensure_object(ScriptInfo).load_app()
            moment: int | None = parts(app).now() - int(ago[1]) * _UNITS[ago[2]]
        else:
            moment = times.parse(value)
        if moment is None:
            self.fail(f"{value!r} is no time: write 2026-11-20T08:15:42Z, or 90d, 24h, 15m ago")
        try:
            times.to_datetime(moment)
        except OverflowError:
            self.fail(f"{value!r} is not within the years 1 to 9999")
        return moment


class _Id(click.ParamType[str]):
    """An event's or a message's, as it is stored."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return clean_id(value)


MOMENT = _Moment()
ID = _Id()

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


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """What tells how far it has come: on a terminal only, in one line that is gone at the end."""
    terminal = sys.stderr.isatty()

    def show(told: str) -> None:
        if terminal:
            click.echo(f"\r{told}\033[K", nl=False, err=True)

    try:
        yield show
    finally:
        show("")


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """JSON on standard output, readable where it is UTF-8 and never broken by what it holds."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    text = _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    click.echo(text)


def echo_columns(*columns: tuple[object, int]) -> None:
    """One row of a table: each value padded to its width, none cut."""
    row = "  ".join(f"{'-' if value is None else value!s:<{width}}" for value, width in columns)
    click.echo(row.rstrip())
