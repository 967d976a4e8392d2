"""`flask work`: the process that runs handlers, expiry, indexing and reconciliation.

Started by hand or by a host it ends at SIGTERM. Started by gunicorn's master it has three pipes as
well (see `receiver/web/front/worker_process.py`), and a watchdog: if Python stands still for too
long (a handler that computes in C and never gives Python's lock away), the kernel ends the process,
and the master starts another.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress

from receiver.parts import Receiver
from receiver.pipes import BEGINS, BEGUN, DEATH, GAP, LIFE, OWNER, WAKE
from receiver.worker import memory_for

#: Seconds for which Python may stand still under gunicorn's master; and between two signs of life.
STANDSTILL = 20.0
_SIGN_OF_LIFE = 1.0
#: Seconds for which a handler that computes may keep Python's lock while the worker's loop waits,
#: perhaps in the middle of a transaction, and with it the webhooks of other processes.
SWITCH = 0.0005
#: How much under gunicorn's master handlers leave to webhooks where both want the processor: an
#: acknowledgement has seconds, a handler's call has time.
NICENESS = 5
#: Seconds after the worker's own patience until the kernel ends the process.
_SPARE = 3.0


class Pipes:
    """The ends that the master has given, by its names; none if there is no master."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        ends = [environ.get(name, "") for name in (LIFE, WAKE, DEATH, BEGUN)]
        self.given = all(end.isdigit() for end in ends)
        if self.given:
            self.life, self.wake, self.death, self.begun = map(int, ends)
            for end in (self.life, self.wake, self.death, self.begun):
                os.set_inheritable(end, False)
            # What a handler forks must not look like us: the master waits for the end of this pipe.
            os.register_at_fork(after_in_child=self.close)

    def close(self) -> None:
        for end in (self.life, self.wake, self.death):
            with suppress(OSError):
                os.close(end)


def work(receiver: Receiver, environ: Mapping[str, str]) -> None:
    """Run until SIGTERM, SIGINT, or the master's word or end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: receiver.worker.stop())
    sys.setswitchinterval(SWITCH)
    pipes = Pipes(environ)
    if not pipes.given:
        receiver.store.prove_writable()  # whoever started it by hand is told at once
    else:
        receiver.worker.succeed(environ[OWNER], memory_for(receiver.worker.most_calls, pipes.begun))
        os.close(pipes.begun)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        os.write(pipes.death, BEGINS)
    for target in (_watch, _listen) if pipes.given else (_watch,):
        threading.Thread(
            target=target, args=(receiver, pipes), name=target.__name__, daemon=True
        ).start()
    receiver.store.write_apart()
    if pipes.given:
        os.nice(NICENESS)
    receiver.start()
    receiver.worker.run()
    receiver.stop()
    receiver.counting.flush()
    receiver.store.close()
    if pipes.given:
        logging.shutdown()
        # Handlers may have left threads that never end, and processes.
        os.killpg(0, signal.SIGKILL)
    elif receiver.ingest.has_died:
        sys.exit("this process can store nothing any more: start it again")


def _watch(receiver: Receiver, pipes: Pipes) -> None:
    """Stop when the master says so or is gone, or when nothing that was missed can be stored any
    more: the master, or the host, starts another. Until then, show signs of life to the kernel."""
    told = [pipes.life] if pipes.given else []
    while not select.select(told, [], [], _SIGN_OF_LIFE)[0]:
        if receiver.ingest.has_died:
            break
        if pipes.given:
            signal.setitimer(signal.ITIMER_REAL, STANDSTILL)
    if pipes.given:
        signal.setitimer(signal.ITIMER_REAL, receiver.worker.DRAIN + _SPARE)
    receiver.worker.stop()


def _listen(receiver: Receiver, pipes: Pipes) -> None:
    """Look for work when a web process has committed some."""
    while True:
        select.select([pipes.wake], [], [])
        try:
            said = os.read(pipes.wake, 65_536)
        except BlockingIOError:
            continue
        if not said:
            return
        receiver.worker.wake()
        if GAP in said:
            receiver.notice_gap()
