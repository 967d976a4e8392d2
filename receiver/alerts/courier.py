"""The process that sends messages, started by `sending.py`.

For each message that has come to an end it writes a line: its number, and why it failed or `null`.
apprise's own words may hold a target's address, so of them only an HTTP status is passed on.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
from contextvars import ContextVar
from typing import Any

_STATUS = re.compile(r"error=(\d{3})\b")
_output = threading.Lock()


#: What was answered to the message that is being sent: apprise hands its context on to its threads.
_answered: ContextVar[list[str]] = ContextVar("_answered")


class _Status(logging.Handler):
    """Finds the HTTP status in apprise's warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        found = _STATUS.search(record.getMessage())
        answered = _answered.get(None)
        if found and answered is not None:
            answered.append(found[1])


def main() -> None:
    asked = json.load(sys.stdin)
    within = float(asked["within"])
    # Whatever a library does, and whatever becomes of whoever has started us: the kernel ends it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, within + 4)
    import apprise

    logging.getLogger("apprise").addHandler(_Status(logging.WARNING))
    by_target: dict[int, list[tuple[int, str, str, bool]]] = {}
    for number, (target, *message) in enumerate(asked["parcels"]):
        by_target.setdefault(target, []).append((number, *message))
    threads = []
    for number, messages in by_target.items():
        target = _target(apprise, asked["targets"][number])
        if target is None:
            for parcel, *_ in messages:
                _tell(parcel, "apprise does not understand its address")
            continue
        arguments = (apprise, target, messages)
        threads.append(threading.Thread(target=_deliver_all, args=arguments, daemon=True))
    signal.setitimer(signal.ITIMER_REAL, within)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # no thread of a library keeps it


def _target(apprise: Any, url: str) -> Any:
    """What sends to an address; `None` if apprise knows none."""
    target = apprise.Apprise()
    try:
        return target if target.add(url) else None
    except Exception:
        return None


def _deliver_all(apprise: Any, target: Any, messages: list[tuple[int, str, str, bool]]) -> None:
    for number, title, text, bad in messages:
        _tell(number, _deliver(apprise, target, title, text, bad))


def _deliver(apprise: Any, target: Any, title: str, text: str, bad: bool) -> str | None:
    kind = apprise.NotifyType.WARNING if bad else apprise.NotifyType.SUCCESS
    # Said to be text, so that where it becomes HTML its lines stay lines.
    plain = apprise.NotifyFormat.TEXT
    answered: list[str] = []
    _answered.set(answered)
    try:
        if target.notify(body=text, title=title, notify_type=kind, body_format=plain):
            return None
    except Exception as error:
        return f"it failed ({type(error).__name__})"
    return f"it answered {answered[-1]}" if answered else "it could not be reached, or refused"


def _tell(number: int, end: str | None) -> None:
    with _output:
        print(json.dumps([number, end]), flush=True)
