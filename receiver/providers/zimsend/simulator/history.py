"""The messages that are asked for: pages of them, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from receiver import times
from receiver.mirror import statistics
from receiver.providers.zimsend.simulator.reading import read_moment, read_page
from receiver.providers.zimsend.simulator.world import SimulatedMessage, view


def history_page(messages: list[SimulatedMessage], asked: Mapping[str, str]) -> dict[str, Any]:
    page, limit = read_page(asked)
    found = _found(messages, asked)
    found.sort(key=lambda message: (-message.queued_at, message.number))
    names = ("message_id", "status", "to", "message", "sent_at", "delivered_at")
    rows = [view(message) for message in found[(page - 1) * limit : page * limit]]
    return {
        "success": True,
        "data": [{name: row[name] for name in names} for row in rows],
        "pagination": {
            "current_page": page,
            "per_page": limit,
            "total_pages": -(-len(found) // limit),
            "total_items": len(found),
        },
    }


def _found(messages: list[SimulatedMessage], asked: Mapping[str, str]) -> list[SimulatedMessage]:
    """The messages that are asked for."""
    since, until = read_moment(asked, "from_date"), read_moment(asked, "to_date")
    if until is not None and len(asked["to_date"]) == len("2026-11-20"):
        until += times.DAY - 1

    def matches(message: SimulatedMessage) -> bool:
        at = message.sent_at or message.queued_at
        return (
            asked.get("status") in (None, "", message.status)
            and asked.get("device_id") in (None, "", message.device_id)
            and asked.get("to") in (None, "", message.to)
            and asked.get("search", "").casefold() in message.text.casefold()
            and (since is None or since <= at)
            and (until is None or at <= until)
        )

    return [message for message in messages if matches(message)]


def statistics_of(messages: list[SimulatedMessage], asked: Mapping[str, str]) -> dict[str, Any]:
    counts = [
        ((m.sent_at or m.failed_at or m.queued_at) // times.DAY, m.status, 1)
        for m in _found(messages, asked)
    ]
    period = {"from": asked.get("from_date"), "to": asked.get("to_date")}
    return {"success": True, "period": period, "stats": statistics(counts)}
