"""`flask messages` and `flask stats`: what became of each SMS, and of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from flask.cli import with_appcontext

from receiver import ids, mirror, status, times
from receiver.calling import call
from receiver.commands.common import (
    ID,
    LAST_MOMENT,
    MOMENT,
    OF_NUMBER,
    UTC_MOMENT,
    CallableGroup,
    command,
    echo_json,
    for_people,
    numbers_of,
    shown,
    width_of_times,
)
from receiver.commands.tables import Column, echo_rows, table_format_option
from receiver.event import clean_id
from receiver.mirror import Search
from receiver.parts import parts
from receiver.providers import by_report
from receiver.store import Selection

#: Events of a message that are shown at most; how many there are is told.
MOST_EVENTS = 1_000

_COLUMNS = (
    Column("status", "STATUS", 10),
    Column("to", "NUMBER", 14),
    Column("error_code", "ERROR", 18),
    Column("message_id", "MESSAGE", 24),
    Column("marks", "", 0),
)
#: What is known of a message, in the order of a CSV.
KEYS = (
    *("message_id", "status", "to", "error_code", "error_message", "device_id"),
    *(f"{state}_at" for state in status.STATES),
    *("message", "metadata", "priority", "test"),
)


class _Pair(click.ParamType[tuple[str, str]]):
    name = "K=V"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        key, equals, text = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is no pair: write it like order_id=CMD-1042", param, ctx)
        return mirror.storable(key), mirror.storable(text)


#: What a timeline need not say of each event.
_OF_THE_MESSAGE = ("message_id", "to", "provider")


@click.group(cls=CallableGroup, invoke_without_command=True)
@click.option("--status", "state", type=click.Choice(status.STATES), help="that have it now")
@click.option("--error", "code", help="that failed with this code")
@click.option("--to", help=f"to {OF_NUMBER}")
@click.option(
    "--metadata",
    "pairs",
    type=_Pair(),
    multiple=True,
    help="sent with this; may come several times",
)
@click.option("--since", type=MOMENT, help="of then or later (or 90d, 24h, 15m ago)")
@click.option("--until", type=LAST_MOMENT, help="of then or before; a date is the whole day")
@table_format_option
@click.pass_context
@with_appcontext
def messages(
    ctx: click.Context,
    state: str | None,
    code: str | None,
    to: str | None,
    pairs: tuple[tuple[str, str], ...],
    since: int | None,
    until: int | None,
    style: str,
) -> None:
    """What became of each SMS: all that match, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    search = Search(
        status=state,
        numbers=numbers_of(to),
        since=since,
        until=until,
        code=None if code is None else clean_id(code),
        metadata=pairs,
    )
    rows = (shown_message(*found) for found in parts().store.messages(search))
    if style == "table":
        rows = (_with_marks(row) for row in rows)
    columns = [Column("time", "TIME", width_of_times()), *_COLUMNS]
    echo_rows(rows, style, columns, KEYS)


@command(messages, name="show")
@click.argument("message_id", metavar="ID", type=ID)
def show_message(message_id: str) -> None:
    """One message as JSON, with its timeline: each event, and what became of its work."""
    store = parts().store
    evidence = store.evidence(message_id, 1)
    if evidence is None:
        raise click.ClickException(
            f"there is no message {ids.written(message_id)!r}; see `{call('messages')}`"
        )
    row, count, _ = evidence
    timeline = []
    for found in store.events(Selection(message_id=message_id)):
        event = for_people(found, store)
        timeline.append({key: event[key] for key in event if key not in _OF_THE_MESSAGE})
        if len(timeline) == MOST_EVENTS:
            break
    echo_json(
        shown_message(message_id, row) | {"events_total": count, "events": timeline}, indent=2
    )


def shown_message(message_id: str, row: status.Row) -> dict[str, Any]:
    """A message as programs read it, with `KEYS`."""
    view = status.describe(row)
    error = view.pop("error") or {}
    view |= {"error_code": error.get("code"), "error_message": error.get("message")}
    told = {
        name: times.iso(value) if name.endswith("_at") and value is not None else value
        for name, value in view.items()
    }
    known = {key: told[key] for key in KEYS if key in told}
    return {"message_id": ids.written(message_id), **known}


def _with_marks(row: dict[str, Any]) -> dict[str, Any]:
    known = (row[f"{state}_at"] for state in ("sent", "delivered", "failed", "queued"))
    time = next(filter(None, known), None)
    return row | {"time": time and shown(time), "marks": "test" if row["test"] else ""}


# --- statistics

#: What they are told by: the column of the statistics.
_BY = {"day": "day", "error": "code", "device": "device_id", "provider": "provider"}


@command()
@click.option("--since", type=UTC_MOMENT, help="from the day of then on, like yesterday or 7d ago")
@click.option("--until", type=UTC_MOMENT, help="to the day of then, this included")
@click.option("--by", type=click.Choice(list(_BY)), default="day", show_default=True)
@table_format_option
def stats(since: int | None, until: int | None, by: Any, style: str) -> None:
    """How many messages were delivered and how many failed, and why (--by error).

    Days are those of UTC. Messages that have expired are still counted, tests are not."""
    first, last = (None if at is None else at // times.DAY for at in (since, until))
    column: Any = _BY[by]
    counts = parts().store.statistics(first, last, None, by=(column, "provider"))
    head = "DAY (UTC)" if by == "day" else by.upper()
    if by == "error":
        failures = mirror.failures((code, n) for code, _, state, n in counts if state == "failed")
        rows: Iterator[dict[str, Any]] = (
            {"error": one["code"], "failed": one["failed"]} for one in failures
        )
        numbers = ["failed"]
    else:
        rows = _by_group(by, counts)
        numbers = ["sent", "delivered", "failed", "pending", "cancelled", "delivery_rate"]
        if by_report(counts)[1]:
            numbers.append("not_reported")
        rows = ({key: row[key] for key in (by, *numbers)} for row in rows)
    columns = [Column(by, head, 20), *(Column(n, n.upper(), len(n) + 1) for n in numbers)]
    echo_rows(rows, style, columns, [by, *numbers])


def _by_group(by: str, counts: list[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    groups: dict[Any, list[tuple[Any, ...]]] = {}
    for count in counts:
        groups.setdefault(count[0], []).append(count)
    for value, found in sorted(groups.items()):
        reported, silent = by_report(found)
        sums = mirror.statistics(*([(0, *n) for _, _, *n in part] for part in (reported, silent)))
        cancelled = sum(n for _, _, state, n in found if state == "cancelled")
        numbers = {
            "sent": sums["total_sent"],
            **{name: sums[name] for name in ("delivered", "failed", "pending")},
            "cancelled": cancelled,
            "delivery_rate": sums["delivery_rate"],
            "not_reported": sum(n for _, _, state, n in silent if state in mirror.PENDING),
        }
        if any(numbers.values()):
            told = times.iso(value * times.DAY)[:10] if by == "day" else value or None
            yield {by: told, **numbers}
