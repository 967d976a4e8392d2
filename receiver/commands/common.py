"""What the commands share: exit status, times, and output for people and for programs."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO

import click
from flask.cli import ScriptInfo, with_appcontext

from receiver import ids, moments, phone, times
from receiver.errors import ReceiverError
from receiver.event import key_of
from receiver.parts import parts
from receiver.providers import PROVIDERS
from receiver.registry import Handler, Registry, matches
from receiver.status import read_error
from receiver.store import Store
from receiver.store.sqlite.files import BESIDE
from receiver.visible import visible, visible_json


class _Command(click.Command):
    """Inside the application; a known error is one line and exit status 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # an emoji, and a Latin-1 terminal
        for argument in args:
            try:
                argument.encode()
            except UnicodeEncodeError:
                raise click.UsageError(f"{argument!r} is not UTF-8", ctx) from None
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._invoke(ctx)
        except click.ClickException:
            for handler in logging.getLogger().handlers:
                handler.flush()  # the last line names the problem
            raise

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ReceiverError as error:
            raise click.ClickException(visible(str(error))) from error
        except click.UsageError:  # quotes nobody but who has typed it
            raise
        except click.ClickException as error:
            raise click.ClickException(visible(error.message)) from error
        except OSError as error:
            # A pipe whose reader has left is click's to handle; what names a file is no output.
            if error.errno == errno.EPIPE or error.filename is not None:
                raise
            with suppress(OSError):
                sys.stdout.close()  # or Python tries again at its end, and tells of it
            raise click.ClickException(f"the output cannot be written: {error}") from error


class CallableGroup(_Command, click.Group):
    """A group that does something by itself, where no command of it is named."""


class _Moment(click.ParamType[int]):
    """A time; of a whole day the first moment, or the last one.

    What names no zone is meant in TIMEZONE: a date, `today`, a time of the day.

    :param last: whether a day means its last microsecond.
    :param utc: whether it is meant in UTC instead, as the days of statistics are.
    """

    name = "time"

    def __init__(self, *, last: bool = False, utc: bool = False) -> None:
        self._last = last
        self._utc = utc

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            moment = self._moment(value, ctx)
        except OverflowError:
            self.fail(f"{value!r} is not within the years 1 to 9999")
        if moment is None:
            self.fail(
                f"{value!r} is no time: write 2026-11-20T08:15:42Z, 2026-11-20, today, yesterday, "
                "or 90d, 24h, 15m ago"
            )
        return moment

    def _moment(self, value: str, ctx: click.Context | None) -> int | None:
        # Parameters are read before there is an application context.
        app = None if ctx is None else ctx.ensure_object(ScriptInfo).load_app()
        receiver = None if app is None else parts(app)
        zone = UTC if receiver is None or self._utc else receiver.config.timezone
        now = None if receiver is None else receiver.now()
        return moments.moment(value, now, zone, last=self._last)


def shown(moment: int | str) -> str:
    """A time for people: ISO 8601 in TIMEZONE, which every command understands.

    :param moment: microseconds, or ISO 8601 as the store tells it.
    """
    time_us = moment if isinstance(moment, int) else times.parse(moment)
    assert time_us is not None
    zone = parts().config.timezone
    in_utc = times.iso(time_us)
    if zone.key == "UTC":
        return in_utc
    try:
        there = times.to_datetime(time_us).astimezone(zone)
    except OverflowError:  # the first day of the year 1, or the last one of 9999
        return in_utc
    bare = there.replace(tzinfo=None).isoformat()
    # The fraction of a second is the same everywhere.
    return bare[:19] + in_utc[19:-1] + there.isoformat()[len(bare) :]


def width_of_times() -> int:
    """Of a column that holds what `shown` returns."""
    return len(shown(1))


class _Id(click.ParamType[str]):
    """An event's or a message's, as it is printed; the value is its key."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return key_of(value)


MOMENT = _Moment()
LAST_MOMENT = _Moment(last=True)
UTC_MOMENT = _Moment(utc=True)
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
        click.option(
            "--until", type=LAST_MOMENT, help="received then or before; a date is the whole day"
        ),
        click.option(
            "--since",
            type=MOMENT,
            help="received then or later (or a date, today, yesterday, 90d, 24h, 15m ago)",
        ),
        click.option("--type", "event_type", help="a type, or a family like 'sms.*'"),
    ):
        function = option(function)
    return function


#: The help of `--to`.
OF_NUMBER = "this number; without its country's code it needs DEFAULT_COUNTRY"


def numbers_of(to: str | None) -> tuple[str, ...]:
    """The forms under which the number of `--to` may be stored; none without it.

    :raises click.BadParameter: if it is none, or nobody knows of which country. Nothing would be
        found, as if there were nothing.
    """
    if to is None:
        return ()
    country = parts().config.default_country
    numbers = phone.forms(to, country)
    if not numbers or phone.needs_country(to, country):
        raise no_number("--to")
    return numbers


def no_number(parameter: str) -> click.BadParameter:
    """What is typed is no phone number, or may be that of several countries."""
    hint = "write it with its country's code, like +33612345678"
    setting = "" if parts().config.default_country else ", or set DEFAULT_COUNTRY"
    return click.BadParameter(f"this is no phone number: {hint}{setting}", param_hint=[parameter])


def registered(registry: Registry, name: str) -> Handler:
    """The handler of a name that was typed.

    :raises click.BadParameter: if there is none.
    """
    handler = registry.get(name)
    if handler is None:
        known = ", ".join(h.name for h in registry) or "none at all"
        raise click.BadParameter(f"no handler {name!r} is registered: {known}")
    return handler


def patterns_without_a_type(registry: Registry) -> Iterator[str]:
    """A sentence for each pattern that no documented type matches: mostly a slip."""
    for name, pattern in registry.unmatched(_types()):
        yield f"handler {name} wants {pattern!r}, which is {_no_type(pattern)}"


def tell_if_no_type(pattern: str | None) -> None:
    """A hint beside the output, where nothing is found by `--type` or may ever come."""
    if pattern is not None and not any(matches(pattern, each) for each in _types()):
        echo(f"{pattern!r} is {_no_type(pattern)}", err=True)


def _types() -> set[str]:
    return {event_type for provider in PROVIDERS.values() for event_type in provider.samples}


def _no_type(pattern: str) -> str:
    types = _types()
    families = {f"{event_type.partition('.')[0]}.*" for event_type in types}
    near = get_close_matches(pattern, sorted(types | families), 1, cutoff=0.7)
    return f"no documented type of event{f': is {near[0]!r} meant?' if near else ''}"


@contextmanager
def progress(*, of_output: bool = False) -> Iterator[Callable[[str], None]]:
    """What tells how far it has come: on a terminal only, in one line that is gone at the end.

    :param of_output: of what goes to standard output, so not where both are on one terminal.
    """
    terminal = sys.stderr.isatty() and not (of_output and sys.stdout.isatty())

    def show(told: str) -> None:
        if terminal:
            click.echo(f"\r{visible(told)}\033[K", nl=False, err=True)

    try:
        yield show
    finally:
        show("")


def echo(text: str, *, err: bool = False) -> None:
    """A line for people. Whatever an id or a text holds, no terminal obeys it.

    :param err: to standard error, instead of standard output.
    """
    click.echo(visible(text), err=err)


def echo_json(value: Any, *, indent: int | None = None) -> None:
    """JSON on standard output, readable as far as that can show it, and never broken by it."""
    text = visible_json(json.dumps(value, ensure_ascii=False, indent=indent))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    click.echo(text)


def for_people(event: dict[str, Any], store: Store, body: bytes | None = None) -> dict[str, Any]:
    """An event of the store's with its ids as people write them, read as its provider tells it.

    :param body: its own, where that was read already.
    """
    key, message_id = event["event_id"], event["message_id"]
    told: dict[str, Any] = {}
    provider = ids.split(key)[0]
    if provider != ids.FIRST and provider in PROVIDERS:
        body = store.body(key) if body is None else body
    else:
        body = None
    if body:
        _, fields = PROVIDERS[provider].read(body)
        error = read_error(event["type"], fields)
        told = {"to": fields.get("to"), "error_code": error["code"] if error else None}
    return event | {
        "event_id": ids.written(key),
        "message_id": None if message_id is None else ids.written(message_id),
        "provider": provider,
        **told,
    }


def echo_columns(*columns: tuple[object, int]) -> None:
    """One row of a table: each value padded to its width, none cut."""
    row = "  ".join(f"{'-' if value is None else value!s:<{width}}" for value, width in columns)
    echo(row.rstrip())


def echo_exactly(text: str) -> None:
    """For a file, or another program: in UTF-8, whatever the terminal is, and nothing hidden."""
    click.echo(text.encode("utf-8", "replace"), nl=False)


def binary_output() -> BinaryIO:
    """Standard output for bytes, many and in a hurry: it is not flushed at each line."""
    return sys.stdout.buffer


def refuse_to_replace(file: Path, parameter: str) -> None:
    """What a new file takes the place of must be a file, and not the database.

    :raises click.BadParameter: if it is something else, as a device or a pipe.
    """
    if os.path.exists(file) and not file.is_file():
        raise click.BadParameter(f"{file} is no file: name one", param_hint=[parameter])
    url = parts().config.database_url
    if url.startswith("sqlite:///"):
        own = os.path.realpath(url.removeprefix("sqlite:///"))
        if any(_same(file, own + ending) for ending in ("", *BESIDE)):
            raise click.BadParameter("that is the database itself", param_hint=[parameter])


def _same(file: Path, name: str) -> bool:
    return os.path.exists(file) and os.path.exists(name) and file.samefile(name)


_told_to_end = threading.Event()


@contextmanager
def until_ended() -> Iterator[None]:
    """For what has no end of its own: SIGINT and SIGTERM are one, and a reader that has left."""
    _told_to_end.clear()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, _end) for number in numbers]
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Or Python tries again at its end, and tells of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _end(number: int, frame: object) -> None:
    # An exception in a callback of SQLite's, or in a destructor, goes no further.
    _told_to_end.set()
    raise KeyboardInterrupt


def wait_while_read(seconds: float) -> None:
    """
    :raises KeyboardInterrupt: if `until_ended` was told to end.
    :raises BrokenPipeError: if nobody reads the output any more, also where there is none.
    """
    if _told_to_end.is_set():
        raise KeyboardInterrupt
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file
        time.sleep(seconds)
        return
    poller = select.poll()
    poller.register(output, 0)
    if any(seen & (select.POLLERR | select.POLLNVAL) for _, seen in poller.poll(seconds * 1000)):
        raise BrokenPipeError
