"""What ZimSend's API says of a message, as the events that its webhooks would have brought. Pure.

An answer and a webhook may tell the same thing at slightly different times, and the API gives no
time at all for some of it. So what is told twice is found by `receiver.store.group.told_already`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from receiver import times
from receiver.errors import Unusable
from receiver.event import Incoming
from receiver.providers.zimsend.api.answers import Message
from receiver.providers.zimsend.webhook import parse
from receiver.status import STATE_OF_TYPE, STATES
from receiver.store import Report
from receiver.store.group import SAME_REPORT, told_already
from receiver.times import MINUTE, SECOND

#: For so long after something has happened, the provider may still report it by itself: its third
#: try comes after 5 or 6 minutes.
QUIET = 10 * MINUTE
SOURCE = "reconciliation"

#: The states for which the API may give a time.
_TIMED = ("queued", "sent", "delivered", "failed")
_RANK = {state: rank for rank, state in enumerate(STATES)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    """The events that an answer stands for and that nothing has reported yet, by their time.

    A state without a time of its own (the API gives none for a failure) has the latest one that
    there is: a report that comes by webhook after all is later, and wins. `sms.queued` is among
    them while the message is in the queue, and where it alone tells that it was put back there.
    Their ids depend on message, type and second alone.

    :param now: microseconds; nothing is said of a message that changed less than `quiet` ago.
    :param retention: microseconds; what is older is left out.
    :param text_mode: see `parse` of the provider.
    :param known: what the message's events have reported.
    :param source: see `receiver.event.Incoming`.
    :returns: nothing also if the answer gives no time at all.
    """
    at = moments(message)
    latest = max(at.values(), default=None)
    if latest is None or latest > now - quiet:
        return []
    reached = dict(at)
    if message.status in _RANK:
        # What is reported of the state before, a moment later, must not look like a resend.
        since = SAME_REPORT if message.status == "failed" and quiet < QUIET else 0
        reached.setdefault(message.status, latest + since)
    found = []
    for state in sorted(reached, key=lambda state: (reached[state], _RANK[state])):
        body = _body(message, state, reached[state], at)
        with suppress(Unusable):  # too old
            found.append(
                parse(
                    body,
                    received_at=times.receipt(now),
                    retention=retention,
                    text_mode=text_mode,
                    source=source,
                )
            )
    return _unknown(found, known)


def _unknown(found: Sequence[Incoming], known: Sequence[Report]) -> list[Incoming]:
    reports, unknown = list(known), []
    for fact in found:
        report = Report(fact.type, fact.reported_at, fact.has_error, fact.source)
        is_new = not told_already(report, reports)
        if fact.type == "sms.queued":
            is_new = _was_resent(report, known) or (is_new and fact is found[-1])
        if is_new:
            unknown.append(fact)
        reports.append(report)
    return unknown


def _was_resent(queued: Report, known: Sequence[Report]) -> bool:
    """Whether this says that the message was put back into the queue, and nothing else does."""
    before, same = False, False
    for report in known:
        state = STATE_OF_TYPE.get(report.type)
        if report.reported_at is None or queued.reported_at is None:
            continue
        if state in ("sent", "failed"):
            before |= report.reported_at + SAME_REPORT <= queued.reported_at
        elif state in ("queued", "processing"):
            same |= abs(report.reported_at - queued.reported_at) < SAME_REPORT
    return before and not same


def _body(message: Message, state: str, own: int, at: dict[str, int]) -> bytes:
    data: dict[str, Any] = {
        "message_id": message.message_id,
        "status": state,
        "to": message.to,
        "message": message.text,
        "device_id": message.device_id,
        "priority": message.priority,
        "metadata": message.metadata,
    }
    data = {name: value for name, value in data.items() if value is not None}
    for other, moment in at.items():
        if _RANK[other] <= _RANK[state] and moment <= own:
            data[f"{other}_at"] = times.iso(moment)
    kind = f"sms.{state}"
    envelope = {
        "event": kind,
        "event_id": f"api:{message.message_id}:{kind}:{times.iso(own - own % SECOND)}",
        "timestamp": times.iso(own),
        "data": data,
    }
    return json.dumps(envelope, separators=(",", ":")).encode("ascii")


def moments(message: Message) -> dict[str, int]:
    """The times that an answer gives, by state; microseconds."""
    at = {state: getattr(message, f"{state}_at") for state in _TIMED}
    at["queued"] = at["queued"] or message.created_at
    return {
        state: (moment - _EPOCH) // timedelta(microseconds=1)
        for state, moment in at.items()
        if moment is not None
    }


def is_whole(message: Message) -> bool:
    """Whether an answer has all that the API tells. One document's history has no `queued_at`, by
    which a failure is placed, and no `metadata`, by which handlers know what an SMS was for."""
    return "queued" in moments(message) and "metadata" in message.raw


def may_be_new(message: Message, known: Sequence[Report], since: int) -> bool:
    """Whether there may be more to a message without any time than is known.

    :param since: where the part of the history begins in which it was found; a failure that was
        reported before is not why it is there.
    """
    told = _times(known, message.status)
    if message.status in ("queued", "processing"):
        failed = max(_times(known, "failed"), default=None)
        # A message that has failed is in the queue because it was put back.
        return not known or (failed is not None and not any(at > failed for at in told))
    if message.status == "failed":
        return not any(at >= since for at in told)
    return message.status in _RANK and not told


def _times(known: Sequence[Report], state: str | None) -> list[int]:
    return [r.reported_at or 0 for r in known if STATE_OF_TYPE.get(r.type) == state]
