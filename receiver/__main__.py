"""The command `zimsend-receiver`, also as `python -m receiver`: the service and its commands."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from flask.cli import ScriptInfo

from receiver import first_steps, welcome
from receiver.calling import PROGRAM, be_called, call, installed
from receiver.commands import commands
from receiver.errors import ConfigError
from receiver.starting import application
from receiver.version import __version__

#: gunicorn reads it by its path, so that it reads it anew at a reload.
_SETTINGS = Path(__file__).with_name("gunicorn_conf.py")


class _Group(click.Group):
    """Lists its commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group)
@click.version_option(__version__, message="%(prog)s %(version)s")
def program() -> None:
    """Receives the webhooks of ZimSend and others, keeps each event, and calls your handlers.

    Settings are environment variables, or stand in a file .env, which is looked for from the
    current folder upwards.
    """


@program.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
def init(folder: Path) -> None:
    """Write .env, with fresh secrets, and my_handlers.py.

    Into the current folder, or the one that is given. What is there is never overwritten: where
    there is a my_handlers.py and no .env, only that is written.
    """
    try:
        for file, is_new in first_steps.begin(folder).items():
            told = f"wrote {file}" if is_new else f"{file} was there already, and is left as it is"
            click.echo(told)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    steps = [call("serve"), f"{call('trigger sms.delivered')}    (in another terminal)"]
    if folder.resolve() != Path.cwd():
        steps.insert(0, f"cd {shlex.quote(str(folder))}")
    click.echo("\nNow:\n" + "".join(f"  {step}\n" for step in steps))
    click.echo(
        "The secret to give to ZimSend, and the dashboard's password, stand in .env. Keep it out\n"
        "of version control."
    )


@program.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", metavar="[GUNICORN OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def serve(options: Sequence[str]) -> None:
    """Serve, and run the handlers, until SIGTERM or Ctrl-C.

    Brings the database up to date first. This is gunicorn with the settings of this service;
    what follows is handed on to it, as in: serve --access-logfile -
    """
    if sys.stdout.isatty():
        welcome.tell()
    # -P: no file in the current folder stands in for a module of Python's or gunicorn's own.
    command = [sys.executable, "-P", "-m", "gunicorn", "-c", str(_SETTINGS), *options]
    os.execv(sys.executable, command)  # noqa: S606 - our own program


for _command in commands():
    program.add_command(_command)


def main() -> None:
    """What the command runs."""
    be_called(installed())
    program(prog_name=PROGRAM, obj=ScriptInfo(create_app=application))


if __name__ == "__main__":
    main()
