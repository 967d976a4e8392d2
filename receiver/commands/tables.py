"""Rows for people, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from receiver.commands.common import echo_columns, echo_exactly, echo_json

#: A spreadsheet takes what begins so for a formula; a phone number is none.
_FORMULA = re.compile(r"(?!\+[0-9]{6,15}\Z)[=+\-@\t\r]")

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
        echo_csv(["\ufeff" + keys[0], *keys[1:]])
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


def csv_line(values: Iterable[object]) -> str:
    """One line of CSV (RFC 4180), of which no spreadsheet takes a cell for a formula."""
    line = io.StringIO()
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value
