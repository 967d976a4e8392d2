"""Rows for people, for programs and for spreadsheets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from receiver.commands.common import echo_columns, echo_exactly, echo_json
from receiver.sheets import MARK, csv_line

table_format_option = click.option(
    "--format",
    "style",
    type=click.Choice(["table", "jsonl", "csv"]),
    default="table",
    show_default=True,
    help="table for people, jsonl (one JSON object a line) for programs, csv for spreadsheets",
)


class Column(NamedTuple):
    """A column of the table for people; the other formats have all keys."""

    key: str
    head: str
    width: int


def echo_rows(
    rows: Iterable[Mapping[str, Any]], style: str, columns: Sequence[Column], keys: Sequence[str]
) -> None:
    """Print rows as they come.

    :param keys: those of a row, in the order of the CSV.
    """
    if style == "csv":
        echo_csv([MARK + keys[0], *keys[1:]])
    elif style == "table":
        echo_columns(*((column.head, column.width) for column in columns))
    for row in rows:
        if style == "csv":
            echo_csv([row[key] for key in keys])
        elif style == "jsonl":
            echo_json(row)
        else:
            echo_columns(*((row[column.key], column.width) for column in columns))


def echo_csv(values: Iterable[object]) -> None:
    """One line of CSV."""
    echo_exactly(csv_line(values))
