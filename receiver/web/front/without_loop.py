"""gunicorn's threads, where httptools cannot be had: a thread for each request, webhooks included.

The answers are the same, and so are the promises about what is stored. What is missing is the
event loop's patience with many senders: whoever is slow holds a thread.
"""

from __future__ import annotations

import socket
import struct
import time
from types import FrameType
from typing import TYPE_CHECKING

from gunicorn.workers.gthread import ThreadWorker

if TYPE_CHECKING:
    from receiver.parts import Receiver

#: Threads of a process at least: requests that wait for the same commit share it.
LEAST_THREADS = 32
#: Seconds without a byte after which a half-sent request gives its thread back.
_RECEIVE_TIMEOUT = 5


class ThreadsWorker(ThreadWorker):  # type: ignore[misc]
    """`gthread`, with the service's other parts beside it."""

    _receiver: Receiver | None = None
    _stopping_since: float | None = None

    def init_process(self) -> None:
        for listener in self.sockets:  # accepted connections inherit it
            listener.sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _RECEIVE_TIMEOUT, 0)
            )
        super().init_process()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # At once, so that requests and handlers come to their ends side by side. Hosts may send the
        # signal twice; the first one counts.
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()
        if self._receiver is not None:
            self._receiver.stop()
        super().handle_exit(sig, frame)

    def run(self) -> None:
        from receiver.parts import parts  # not in the master: a reload renews it

        receiver = parts(self.wsgi)
        if not receiver.config.embedded_worker:
            super().run()
            return
        receiver.worker.start()
        receiver.start()
        self._receiver = receiver
        super().run()
        receiver.stop()  # also where the master has gone without a signal
        worker, since = receiver.worker, self._stopping_since or time.monotonic()
        if not worker.drain(max(0.0, since + worker.DRAIN - time.monotonic())):
            self.log.warning("work could not be given back: it is done again when its lease ends")
