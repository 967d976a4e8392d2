"""Events as `status.project` gets them, and what a message became by them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from receiver import status, times
from receiver.status import FIELDS, STATES, Row

RETENTION = 90 * times.DAY
NOW = 1_795_162_542 * times.SECOND  # 2026-11-20T08:15:42Z
REGISTERS = 2 * len(STATES) + len(FIELDS) + 1  # states with their own times or receipts; error


def at(seconds: float) -> int:
    return NOW + int(seconds * times.SECOND)


def iso(seconds: float) -> str:
    return times.iso(at(seconds))


@dataclass(frozen=True)
class Report:
    """One event, as `status.project` gets it."""

    type: str
    timestamp: int | None
    id: str
    data: dict[str, Any] = field(default_factory=dict)
    received_at: int = NOW

    def row(self) -> Row | None:
        return status.project(
            self.type,
            self.data,
            event_id=self.id,
            timestamp=self.timestamp,
            received_at=self.received_at,
            retention=RETENTION,
        )


def sms(state: str, seconds: float | None = None, *, id: str = "", **data: Any) -> Report:
    """An event whose envelope says `seconds` after NOW, or nothing; received a minute after."""
    return Report(
        f"sms.{state}",
        None if seconds is None else at(seconds),
        id or f"evt_{state}_{seconds}",
        data,
        received_at=at(60),
    )


def fold(reports: Iterable[Report]) -> Row:
    row: Row = {}
    for report in reports:
        said = report.row()
        if said is not None:
            row = status.merge(row, said)
    return row


def became(*reports: Report) -> dict[str, Any]:
    """What a message became, whatever the order in which its events arrived."""
    rows = [fold(order) for order in itertools.permutations(reports)]
    assert all(row == rows[0] for row in rows)
    return status.describe(rows[0])


NO_CREDIT = {"code": "NO_CREDIT", "message": "No credit left"}
TIMEOUT = {"code": "TIMEOUT", "message": "No answer"}

ERRORS: list[tuple[Any, dict[str, str | None] | None]] = [
    (NO_CREDIT, NO_CREDIT),
    ({"code": "X"}, {"code": "X", "message": None}),
    ({"message": "Words"}, {"code": None, "message": "Words"}),
    ({"code": "X", "message": "", "more": 1}, {"code": "X", "message": None}),
    ({"code": 5, "message": "Words"}, {"code": "5", "message": "Words"}),
    ({"code": 10**400}, {"code": str(10**400), "message": None}),
    ({"code": 5.0, "message": 7}, {"code": None, "message": "7"}),
    ({"code": True, "message": "Words"}, {"code": None, "message": "Words"}),
    ({"code": None, "message": None}, None),
    ({"code": ["X"], "message": {"a": 1}}, None),
    ({}, None),
    ("NO_CREDIT", {"code": "NO_CREDIT", "message": None}),
    ("SMS_SEND_TIMEOUT", {"code": "SMS_SEND_TIMEOUT", "message": None}),
    ("The number does not exist", {"code": None, "message": "The number does not exist"}),
    ("no_credit", {"code": None, "message": "no_credit"}),
    ("ÉCHEC", {"code": None, "message": "ÉCHEC"}),
    (json.dumps(NO_CREDIT), NO_CREDIT),
    ('{"code": "X"', {"code": None, "message": '{"code": "X"'}),
    ("{" * 50_000, {"code": None, "message": "{" * 50_000}),
    ('{"a":' * 50_000, {"code": None, "message": '{"a":' * 50_000}),
    ('{"code": %s}' % ("9" * 5_000), {"code": "9" * 5_000, "message": None}),
    ("", None),
    (None, None),
    (30007, {"code": "30007", "message": None}),
    ("30007", {"code": "30007", "message": None}),
    (5.5, None),
    (True, None),
    (["NO_CREDIT"], None),
]
