"""`flask quarantine`: signed bodies that could not be used."""

from __future__ import annotations

import base64
from itertools import islice
from typing import Any

import click

from receiver import ids
from receiver.calling import call
from receiver.commands.common import (
    command,
    echo,
    echo_columns,
    echo_json,
    format_option,
    shown,
    width_of_times,
)
from receiver.parts import parts
from receiver.quarantine import retry
from receiver.times import iso


@click.group()
def quarantine() -> None:
    """Signed bodies that could not be used, kept until they can."""


@command(quarantine, name="list")
@format_option
def list_quarantine(style: str) -> None:
    """All of them, oldest first."""
    width = width_of_times()
    if style == "table":
        echo_columns(("ID", 12), ("RECEIVED", width), ("TIMES", 5), ("BYTES", 7), ("REASON", 0))
    for entry in parts().store.quarantined():
        if style == "jsonl":
            echo_json(_facts(entry))
        else:
            echo_columns(
                (_short(entry), 12),
                (shown(entry["received_at"]), width),
                (entry["receipts"], 5),
                (entry["length"], 7),
                (entry["reason"], 0),
            )


@command(quarantine, name="show")
@click.argument("digest", metavar="ID")
def show_quarantine(digest: str) -> None:
    """One of them with its body, as JSON. The beginning of the ID is enough."""
    entry = _find(digest)
    body = entry["body"]
    shown = _facts(entry)
    if body is None:
        shown["body"] = None
    else:
        try:
            shown["body"] = body.decode()
        except UnicodeDecodeError:
            shown["body_base64"] = base64.b64encode(body).decode()
    echo_json(shown, indent=2)


@command(quarantine, name="retry")
@click.argument("digests", metavar="[ID]...", nargs=-1)
def retry_quarantine(digests: tuple[str, ...]) -> None:
    """Try them again, all or those named: after an update, or a changed setting."""
    receiver = parts()
    entries = [_find(digest) for digest in digests] if digests else receiver.store.quarantined()
    failed = 0
    for entry in entries:
        ends = retry(entry, receiver.store, receiver.ingest, receiver.config, receiver.now())
        told = ", ".join(f"{outcome} as {ids.written(key)}" for key, outcome in ends)
        echo(f"{_short(entry)}: {told or 'still not usable'}")
        failed += not ends
    if failed:
        raise click.ClickException(f"{failed} could not be used and stay in quarantine")


def _short(entry: dict[str, Any]) -> str:
    """As much of its id as tells it from others."""
    provider, digest = ids.split(entry["digest"])
    return ids.written(ids.key(provider, digest[:12]))


def _find(prefix: str) -> dict[str, Any]:
    found = list(islice(parts().store.quarantined(ids.read(prefix)), 2)) if prefix else []
    if len(found) != 1:
        many = "several begin" if found else "none begins"
        raise click.ClickException(f"{many} with {prefix!r}; see `{call('quarantine list')}`")
    return found[0]


def _facts(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": ids.written(entry["digest"]),
        "received_at": iso(entry["received_at"]),
        "receipts": entry["receipts"],
        "length": entry["length"],
        "reason": entry["reason"],
    }
