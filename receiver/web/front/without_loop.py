"""gunicorn's threads, where httptools cannot be had: a thread for each request, webhooks included.

The answers are the same, and so are the promises about what is stored. What is missing is the
event loop's patience with many senders: whoever is slow holds a thread.
"""

from __future__ import annotations

import socket
import struct

from gunicorn.workers.gthread import ThreadWorker

#: Threads of a process at least: requests that wait for the same commit share it.
LEAST_THREADS = 32
#: Seconds without a byte after which a half-sent request gives its thread back.
_RECEIVE_TIMEOUT = 5


class ThreadsWorker(ThreadWorker):  # type: ignore[misc]
    """`gthread`, with a time-out for what is half-sent."""

    #: It asks the application for its parts: see `loaded` in master.py.
    SERVES_OURS_ALONE = True

    def init_process(self) -> None:
        for listener in self.sockets:  # accepted connections inherit it
            listener.sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _RECEIVE_TIMEOUT, 0)
            )
        super().init_process()

    def notify(self) -> None:
        """Called once a second and more; a process that can store nothing ends, as on a loop."""
        from receiver.parts import parts

        super().notify()
        if self.booted and parts(self.wsgi).ingest.has_died:
            self.log.error("this process can store nothing any more: another one follows")
            self.alive: bool = False

    def run(self) -> None:
        super().run()
        from receiver.parts import parts

        parts(self.wsgi).counting.flush()
