"""A receiver for which time goes faster, for tests: `CLOCK_SPEED` seconds in one of ours.

All processes with the same `CLOCK_BEGAN` (microseconds) and `CLOCK_STARTED` (the machine's
monotonic clock) have the same time. Started as a program it makes passes of the reconciliation,
in a process of its own for each line that comes in, and prints its id and how it ended.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time

from app import create_app
from receiver import Event, Registry
from receiver.parts import Receiver
from receiver.providers.zimsend.account import Account
from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.budget import Half
from receiver.reconciliation.passes import Reconciliation
from receiver.times import SECOND
from tests.handlers import saw

_BEGAN, _STARTED = int(os.environ["CLOCK_BEGAN"]), float(os.environ["CLOCK_STARTED"])
_SPEED = float(os.environ["CLOCK_SPEED"])


def now() -> int:
    return _BEGAN + int((time.monotonic() - _STARTED) * _SPEED * SECOND)


def register(registry: Registry) -> None:
    # Leases are of this clock, too: a call that takes a moment must not outlast its own.
    @registry.on("*", name="all", timeout=3_600)
    def all_of_them(event: Event) -> None:
        saw("all", event)


def quick(receiver: Receiver) -> Reconciliation:
    """The reconciliation, whose naps are as short as its time is quick."""
    config = receiver.config
    assert config.api_key is not None
    assert config.client_id is not None
    zimsend = ZimSend(
        config.api_key.decode(),
        config.client_id.decode(),
        base_url=config.api_url,
        sleep=lambda seconds: time.sleep(seconds / _SPEED),
        clock=lambda: now() / SECOND,
    )
    made = Reconciliation(
        Account(zimsend, Half(receiver.store, now), now),
        receiver.store,
        receiver.ingest.submit_all,
        retention=config.retention,
    )
    receiver.ingest.on_recovery = made.notice_gap
    made.LOOK = 0.02  # type: ignore[misc]
    made.ASLEEP = 10 * _SPEED  # type: ignore[misc]
    return made


app = create_app(now=now)
_receiver: Receiver = app.extensions["receiver"]
if _receiver.config.api_key is not None:
    _receiver = dataclasses.replace(_receiver, reconciliations={"zimsend": quick(_receiver)})
    app.extensions["receiver"] = _receiver


def _passes() -> None:
    """Fork for each line that comes in, and say how it ended."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            reconciliation = _receiver.reconciliations["zimsend"]
            reconciliation.notice_gap()
            while True:
                made = reconciliation.step(now())
                if made is not None and made.problem is None and line.strip() == "one":
                    os._exit(0)
                time.sleep(0.002)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    assert threading.active_count() == 1  # a fork takes no threads along
    _passes()
