"""What SMS.CX's reports tell of messages, as the events that its callbacks would have brought.

Pure. A report has the message's last state, the code of a failure, when it was sent and when it
last changed. So of what was missed, the state that a message came to is found, and not the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from receiver import times
from receiver.event import Incoming
from receiver.providers.smscx.api.answers import Message
from receiver.providers.smscx.webhook import ROW, parse, time_of, wrap
from receiver.store import Report
from receiver.store.group import told_already
from receiver.times import MINUTE

#: For so long after something has happened, its callback may still come. Nobody knows whether
#: SMS.CX tries one again.
QUIET = 10 * MINUTE
SOURCE = "reconciliation"


def latest(message: Message) -> int | None:
    """The latest time that a report tells of; microseconds."""
    return time_of(ROW, message.raw)


def facts(
    message: Message,
    *,
    now: int,
    retention: int,
    text_mode: str = "full",
    known: Sequence[Report] = (),
    quiet: int = QUIET,
    source: str = SOURCE,
) -> list[Incoming]:
    """The event that a report stands for, if nothing has reported it yet.

    Its id depends on message, type and second alone. `sms.queued` is among the events only for a
    message of which nothing is known.

    :param now: microseconds; nothing is said of a message that changed less than `quiet` ago.
    :param retention: microseconds; what is older is left out.
    :param text_mode: see `receiver.providers.smscx.webhook.parse`.
    :param known: what the message's events have reported.
    :param source: see `receiver.event.Incoming`.
    """
    body = wrap(ROW, dict(message.raw))
    found = parse(
        body,
        received_at=times.receipt(now),
        retention=retention,
        text_mode=text_mode,
        source=source,
    )
    return [
        event
        for event in found
        if isinstance(event, Incoming)  # else it is too old
        and event.says is not None
        and (event.reported_at is None or event.reported_at <= now - quiet)
        and _is_new(event, known)
    ]


def _is_new(event: Incoming, known: Sequence[Report]) -> bool:
    if event.type == "sms.queued":
        return not known
    if event.reported_at is None:
        return all(other.type != event.type for other in known)
    report = Report(event.type, event.reported_at, event.has_error, event.source)
    same = told_already(report, known)
    return not same or (event.has_error and not any(other.has_error for other in same))


def days(since: int, until: int) -> tuple[date, date]:
    """The first and the last day to ask reports of, to have all of a span of time.

    In which zone SMS.CX's days begin is not documented, so they are one more on each side.

    :param since: microseconds; likewise `until`.
    """
    day = timedelta(days=1)
    first, last = times.to_datetime(since).date(), times.to_datetime(until).date()
    return first - day, last + day
