"""Reports, as the store lists what is known of a message."""

from __future__ import annotations

from receiver.store import Report
from receiver.times import DAY, HOUR, SECOND, iso

NUMBER = "+33612345678"
#: 2026-11-20, 09:00: a day whose history no other test has.
BEGAN = 20_777 * DAY + 9 * HOUR


def at(seconds: float) -> str:
    return iso(BEGAN + int(seconds * SECOND))


def report(kind: str, seconds: float, source: str = "webhook", error: bool = False) -> Report:
    return Report(f"sms.{kind}", BEGAN + int(seconds * SECOND), error, source)
