"""`flask export`: everything, or what concerns one number, for other programs and spreadsheets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import click

from receiver.commands.common import (
    LAST_MOMENT,
    MOMENT,
    OF_NUMBER,
    binary_output,
    command,
    echo,
    for_people,
    numbers_of,
    progress,
    refuse_to_replace,
)
from receiver.commands.messages import KEYS, shown_message
from receiver.errors import Unusable
from receiver.mirror import Search
from receiver.parts import parts
from receiver.sheets import csv_line
from receiver.store import Selection, Store
from receiver.strict_json import read_signed
from receiver.visible import visible_json

#: Events whose bodies are read at once, and rows between two words on how far it has come.
_AT_ONCE, _TOLD_EACH = 100, 1_000

_EVENT_KEYS = (
    *("event_id", "type", "message_id", "provider", "to", "error_code", "occurred_at"),
    *("received_at", "source", "late", "repeat", "test", "receipts", "deliveries", "body"),
)

Row = dict[str, Any]


@command()
@click.option("--what", type=click.Choice(["messages", "events"]), default="messages")
@click.option("--since", type=MOMENT, help="of then or later (or 90d, 24h, 15m ago)")
@click.option("--until", type=LAST_MOMENT, help="of then or before; a date is the whole day")
@click.option("--to", help=f"to {OF_NUMBER}")
@click.option(
    "--format",
    "style",
    type=click.Choice(["ndjson", "csv"]),
    default="ndjson",
    show_default=True,
    help="ndjson (one JSON object a line) for programs, csv for spreadsheets",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="into this file, with its digest in FILE.sha256",
)
def export(
    what: str,
    since: int | None,
    until: int | None,
    to: str | None,
    style: str,
    out: Path | None,
) -> None:
    """All messages, or all events with their bodies, as a stream.

    How many there are, and the SHA-256 of what was written, stand in the last line, or in
    FILE.sha256; without them it is not whole. Events of a time are those received then."""
    numbers = numbers_of(to)
    if out is not None:
        for file in (out, _digest_of(out)):
            refuse_to_replace(file, "--out")
    store = parts().store
    if what == "messages":
        keys: tuple[str, ...] = KEYS
        rows = _messages(store, Search(numbers=numbers, since=since, until=until))
    else:
        keys = _EVENT_KEYS
        rows = _events(store, Selection(numbers=numbers, since=since, until=until))
    lines = _csv(rows, keys) if style == "csv" else map(_json, rows)
    count_by = -1 if style == "csv" else 0  # the head of a CSV is no row
    with progress(of_output=out is None) as show:

        def told(count: int) -> None:
            if count % _TOLD_EACH == 0:
                show(f"{count:,} {what}")

        if out is None:
            stream = binary_output()
            written, digest = _write(stream, lines, told)
            last = {"export": what, "count": written + count_by, "sha256": digest}
            text = ", ".join(f"{name}: {value}" for name, value in last.items())
            end = csv_line([f"# {text}"]).encode() if style == "csv" else _json(last)
            stream.write(end)
            stream.flush()
            return
        with _new_file(out) as stream:
            written, digest = _write(stream, lines, told)
            _remove(_digest_of(out))  # it would be that of the file before
    count = written + count_by
    with _new_file(_digest_of(out)) as stream:
        stream.write(f"# {count} {what}\n{digest}  {out.name}\n".encode())
    echo(f"{out} holds {count:,} {what}; `sha256sum -c {_digest_of(out).name}` proves it whole")


def _write(
    stream: BinaryIO, lines: Iterable[bytes], told: Callable[[int], None]
) -> tuple[int, str]:
    """Write lines as they come; returns how many there were, and their digest."""
    count, digest = 0, hashlib.sha256()
    for line in lines:
        stream.write(line)
        digest.update(line)
        count += 1
        told(count)
    return count, digest.hexdigest()


# --- rows


def _messages(store: Store, search: Search) -> Iterator[Row]:
    return (shown_message(*found) for found in store.messages(search))


def _events(store: Store, selection: Selection) -> Iterator[Row]:
    found = store.events(selection)
    while page := list(islice(found, _AT_ONCE)):
        bodies = store.bodies([event["event_id"] for event in page])
        for event in page:
            body = bodies.get(event["event_id"], b"")  # it may have expired since
            row = for_people(event, store, body)
            try:
                row["body"] = read_signed(body)
            except Unusable:
                row["body"] = body.decode("utf-8", "replace")
            yield row


def _json(row: Row) -> bytes:
    text = visible_json(json.dumps(row, ensure_ascii=False))
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:  # half of a character
        return f"{json.dumps(row)}\n".encode()


def _csv(rows: Iterable[Row], keys: tuple[str, ...]) -> Iterator[bytes]:
    yield csv_line(["\ufeff" + keys[0], *keys[1:]]).encode()
    for row in rows:
        yield csv_line([row.get(key) for key in keys]).encode("utf-8", "replace")


# --- files


@contextmanager
def _new_file(file: Path) -> Iterator[BinaryIO]:
    """A file beside, 0600, that takes the other's place when all of it is on the disk."""
    file = file.resolve()  # a link stays one
    partial = file.with_name(f".{file.name}.partial")
    try:
        _remove(partial)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb", buffering=1 << 16) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        _remove(partial)
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from error
    except BaseException:
        _remove(partial)
        raise


def _digest_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _remove(file: Path) -> None:
    with suppress(FileNotFoundError):
        file.unlink()
