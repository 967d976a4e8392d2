"""Handlers of a receiver beside simulators whose time goes faster: its naps are as short.

What they saw goes into a file, as in `tests/handlers.py`: provider, message and type.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from receiver import Event, Registry
from receiver.polling import Polling
from receiver.providers import clock
from receiver.reconciliation.passes import Reconciliation
from tests.handlers import SEEN

#: Seconds between two looks at whether a pass is due, and at the simulators' clocks; and a nap.
LOOK, AGAIN, NAP = 0.2, 0.5, 0.02

_take = Reconciliation.take


def _hurried(self: Reconciliation) -> float:
    return min(_take(self), NAP)


def register(registry: Registry) -> None:
    Polling.LOOK = LOOK
    Reconciliation.LOOK = LOOK
    Reconciliation.take = _hurried  # type: ignore[method-assign]
    clock._AGAIN = AGAIN

    # A call that takes long on a busy machine is no failure.
    @registry.on("sms.*", name="all", timeout=3_600)
    def every_one(event: Event) -> None:
        told = [event.provider, event.message_id, event.type, event.source, event.error_code]
        with (Path(os.environ[SEEN]) / "all").open("ab", buffering=0) as file:
            file.write(json.dumps(told).encode() + b"\n")
