"""The process that sends messages: `python -m receiver.alerts.courier`, started by `sending.py`.

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
from typing import Any

_STATUS = re.compile(r"error=(\d{3})\b")
_output = threading.Lock()


class _Status(logging.Handler):
    """What the last warning of each thread says of an HTTP status."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._of = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if found := _STATUS.search(record.getMessage()):
            self._of.status = found[1]

    def take(self) -> str | None:
        status: str | None = getattr(self._of, "status", None)
        self._of.status = None
        return status


def main() -> None:
    asked = json.load(sys.stdin)
    within = float(asked["within"])
    # Whatever a library does, and whatever becomes of whoever has started us: the kernel ends it.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, within + 4)
    import apprise

    status = _Status()
    logging.getLogger("apprise").addHandler(status)
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
        arguments = (apprise, target, status, messages)
        threads.append(threading.Thread(target=_deliver_all, args=arguments, daemon=True))
    signal.setitimer(signal.ITIMER_REAL, within)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _target(apprise: Any, url: str) -> Any:
    """What sends to an address; `None` if apprise knows none."""
    try:
        return apprise.Apprise.instantiate(url, suppress_exceptions=True)
    except Exception:
        return None


def _deliver_all(
    apprise: Any, target: Any, status: _Status, messages: list[tuple[int, str, str, bool]]
) -> None:
    for number, title, text, bad in messages:
        _tell(number, _deliver(apprise, target, status, title, text, bad))


def _deliver(
    apprise: Any, target: Any, status: _Status, title: str, text: str, bad: bool
) -> str | None:
    kind = apprise.NotifyType.WARNING if bad else apprise.NotifyType.SUCCESS
    try:
        if target.notify(body=text, title=title, notify_type=kind):
            return None
    except Exception as error:
        return f"it failed ({type(error).__name__})"
    answered = status.take()
    return f"it answered {answered}" if answered else "it could not be reached, or refused"


def _tell(number: int, end: str | None) -> None:
    with _output:
        print(json.dumps([number, end]), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # no thread of a library keeps it
