"""CSV that spreadsheets open without harm. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable

#: Stands at the beginning of a file, or spreadsheets take it for Latin-1.
MARK = "\ufeff"
#: A spreadsheet takes what begins so for a formula; a phone number is none.
_FORMULA = re.compile(r"(?!\+[0-9]{6,15}\Z)[=+\-@\t\r]")


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
