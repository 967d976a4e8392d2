"""`manage.py zimsend …`: all commands of the receiver, with their own options and help."""

from __future__ import annotations

import argparse
import sys
from typing import Any, ClassVar

import click
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from receiver.django.embedding import receiver
from receiver.errors import ConfigError

#: What `manage.py` itself has read.
_OF_DJANGO: list[click.Parameter] = [
    click.Option([name], expose_value=False, help="as for every command of Django")
    for name in ("--settings", "--pythonpath")
]


class Command(BaseCommand):  # type: ignore[misc]
    """The receiver's commands; `manage.py zimsend --help` lists them."""

    help = "The commands of zimsend-receiver: `manage.py zimsend --help` lists them"
    requires_system_checks: ClassVar[list[str]] = []  # a wrong setting is one line

    def run_from_argv(self, argv: list[str]) -> None:
        """Run one as it was typed: click reads the arguments, and says how it ended."""
        program = f"{argv[0].rpartition('/')[2]} {argv[1]}"
        try:
            _group().main(argv[2:], prog_name=program)
        except CommandError as error:
            self.stderr.write(str(error))
            sys.exit(1)
        finally:
            connections.close_all()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *_: object, arguments: list[str], **__: Any) -> None:
        """For `call_command("zimsend", "migrate")`.

        :raises CommandError: if it fails.
        """
        try:
            _group().main(arguments, prog_name="zimsend", standalone_mode=False)
        except click.ClickException as error:
            raise CommandError(error.format_message(), returncode=error.exit_code) from error


def _group() -> click.Group:
    """
    :raises CommandError: if a setting is missing or wrong.
    """
    try:
        group = receiver().group
    except ConfigError as error:
        raise CommandError(f"zimsend-receiver cannot start. {error}") from None
    group.params = _OF_DJANGO
    return group
