"""A process that writes into the file for another one.

A transaction holds the file's one lock while Python's lock is waited for, again and again. Where
handlers compute, that makes milliseconds of each statement, and the webhooks of all processes wait
meanwhile. So the process that runs handlers lets a second one write, in which nothing else runs.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import struct
import subprocess
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol

from receiver import own_process
from receiver.errors import StoreUnavailable
from receiver.store.sqlite.files import File

#: Seconds that a thread waits for what others of its process let write; each of them waits less.
_PATIENCE = 10.0
#: Seconds until an answer, which is more than any call waits for the file; else it stands still.
LONGEST = 15.0
#: Seconds that its end waits for what it still writes.
CLOSING = 4.0
_ENDED = (
    "the process that writes for this one has ended, or stands still; the next call starts another"
)
_SERVE = "from receiver.store import sqlite; sqlite.serve(*sys.argv[1:])"


class WriterProcess:
    """One child, started at once, and again by the first call after its end.

    It ends with this process, however that ends: its end of the socket is then closed. Signals to
    the group do not end it, for what is to be settled at the end is written by it.
    """

    def __init__(self, path: str, file: Callable[[], File]) -> None:
        """
        :param file: which file this process has; none other may be written there.
        """
        self._path = path
        self._file = file
        # As long as handlers have not changed it.
        self._environ = dict(os.environ)
        self._asking = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None
        self._start()
        # What a handler forks must not keep the child alive, nor speak to it.
        os.register_at_fork(after_in_child=self._hang_up)

    def call(self, name: str, *args: object, **named: object) -> Any:
        """Call a method of the store there.

        :raises StoreUnavailable: also if the child ended meanwhile: nobody knows whether it wrote.
        """
        if not self._asking.acquire(timeout=_PATIENCE):
            raise StoreUnavailable("another thread is writing")
        try:
            line = self._line or self._start()
            line.send((name, args, named))
            succeeded, answer = line.recv()
        except (OSError, EOFError) as error:
            self._end()
            raise StoreUnavailable(_ENDED) from error
        except BaseException:
            self._end()  # the next answer would be the one to this call
            raise
        finally:
            self._asking.release()
        if not succeeded:
            raise answer
        return answer

    def close(self) -> None:
        """End the child, when it has written what it writes."""
        if self._asking.acquire(timeout=CLOSING):
            try:
                self._end(CLOSING)
            finally:
                self._asking.release()
        elif (child := self._child) is not None:
            child.kill()  # who waits for it is told

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        longest = struct.pack("ll", int(LONGEST), int(LONGEST % 1 * 1_000_000))
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, longest)
        with theirs:
            file = map(str, self._file() or ())
            self._child = subprocess.Popen(  # noqa: S603 - our own program
                own_process.command(_SERVE, str(theirs.fileno()), self._path, *file),
                env=self._environ,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._line = Connection(ours.detach())
        return self._line

    def _end(self, patience: float = 0.0) -> None:
        self._hang_up()
        child, self._child = self._child, None
        if child is not None:
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            with suppress(OSError):
                line.close()


class Methods(Protocol):
    """Whatever may be called."""

    def __getattribute__(self, name: str, /) -> Any: ...


def answer_calls(line: Connection, store: Methods) -> None:
    """The child's whole life: until the other end is closed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # What goes wrong is told to who asks, and is logged there.
    logging.getLogger().addHandler(logging.NullHandler())
    with suppress(EOFError, OSError):
        while True:
            name, args, named = line.recv()
            try:
                answer = True, getattr(store, name)(*args, **named)
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = False, error
            try:
                line.send(answer)
            except (pickle.PicklingError, TypeError, AttributeError):
                line.send((False, StoreUnavailable(repr(answer[1]))))
