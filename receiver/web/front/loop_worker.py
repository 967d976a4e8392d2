"""The event loop under gunicorn: `worker_class` of `gunicorn.conf.py`.

gunicorn's master loads this file. What the service is made of is loaded in the worker alone, so
that a reload renews it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gunicorn.workers.base import Worker

from receiver.web.front.worker_process import file_without_name

if TYPE_CHECKING:
    from receiver.web.front.connection import Connection
    from receiver.web.front.front import Front
    from receiver.web.front.requests import Request

#: Seconds for which a thread may keep Python's lock while others wait for it. Python's own 5 ms are
#: as long as several events take.
_SWITCH = 0.0005
#: Files of a process beside its connections: so many, or half of all, but never fewer than it
#: takes; and below how many connections one is told.
_OTHER_FILES = 256
_FEWEST_OTHERS = 80
FEW_CONNECTIONS = 2_500
#: Connections that are accepted in one round of the loop, and that make room where the system has
#: none; and seconds until the next round where there is nobody who could.
_AT_ONCE = 16
_NO_ROOM = 0.5
#: What `accept` tells of a connection that is gone already, by its manual.
_GONE = {
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
    errno.ECONNABORTED,
}
#: Seconds for which a process leaves new connections to the one that goes first; and twice as long
#: to all others, while it is busy.
_GIVES_WAY = 0.005
#: Rounds in which a stop lets those in that wait at the door: gunicorn lets 2,048 wait.
_LAST_ROUNDS = 128
#: Seconds that a stop waits for requests that are on their way here, and for those half-sent.
_ON_THEIR_WAY = 0.3
#: Seconds that a stop waits for answers: a host allows 30 in all.
_ANSWERED_WITHIN = 20.0
_HALF_SENT = 1.0


class LoopWorker(Worker):  # type: ignore[misc]
    """One process: an event loop, and the parts of the service beside it.

    Where all processes share one writer (`one_writer`), one of them accepts new connections at
    once, and the others only what it has left for a moment, because it is busy, stands still or has
    ended. Two processes that write in turns store less than one.
    """

    #: It asks the application for its parts: see `loaded` in master.py.
    SERVES_OURS_ALONE = True

    #: The process that holds a lock on it goes first; the end of a process releases the lock. All
    #: processes of a master share it. `None` where no such file can be had: then all go first.
    _precedence: int | None = None

    @classmethod
    def setup(cls) -> None:
        """Called by gunicorn's master whenever it reads its settings."""
        if cls._precedence is None:
            with suppress(OSError):
                cls._precedence = file_without_name("precedence")

    def init_process(self) -> None:
        try:
            import uvloop

            self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        except ImportError:  # no wheel for this machine
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self._stopped = asyncio.Event()
        self._at_once = False
        #: Whether one process goes first at accepting connections; and whether it is this one.
        self._one_goes_first = False
        self._goes_first = True
        self._doors_are_open = True
        #: Connections that are about to be open.
        self._opening: set[asyncio.Task[Any]] = set()
        super().init_process()

    def init_signals(self) -> None:
        super().init_signals()
        signal.set_wakeup_fd(-1)  # the loop's
        # uvloop would lose what comes before it runs.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self.handle_exit)

    def _stop(self) -> None:
        self.alive = False
        self._stopped.set()

    def _quit(self) -> None:
        self._at_once = True
        self.cfg.worker_int(self)
        self._stop()

    def run(self) -> None:
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self.loop.close()

    async def _serve(self) -> None:
        self.loop.add_signal_handler(signal.SIGTERM, self._stop)
        self.loop.add_signal_handler(signal.SIGINT, self._quit)
        self.loop.add_signal_handler(signal.SIGQUIT, self._quit)
        if not self.alive:
            return
        sys.setswitchinterval(_SWITCH)
        from receiver.parts import parts
        from receiver.web.front.front import LOOK, Front

        receiver = parts(self.wsgi)
        front = Front(
            receiver,
            self.wsgi,
            self.loop,
            most_connections=self._connections(),
            log_access=self._log_access if self.cfg.accesslog else None,
        )
        # With `reuse_port` each process has a door of its own.
        alone = self.cfg.workers == 1 or self.cfg.reuse_port
        self._one_goes_first = receiver.store.one_writer and not alone
        self._goes_first = self._takes_precedence()
        for listener in self.sockets:
            listener.sock.setblocking(False)
            self.loop.add_reader(listener.sock, self._knocks, front, listener.sock)
        while self.alive and self.ppid == os.getppid():
            self.notify()
            front.look(time.monotonic())
            self._goes_first = self._goes_first or self._takes_precedence()
            if self._is_over(front):
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), LOOK)
        self._doors_are_open = False
        if self._precedence is not None:
            with suppress(OSError):
                fcntl.lockf(self._precedence, fcntl.LOCK_UN)
        for listener in self.sockets:
            self.loop.remove_reader(listener.sock)
            # Who waits at the door may have sent all of a request: to close it would be a reset.
            for _ in range(_LAST_ROUNDS):
                if not self._accept(front, listener.sock):
                    break
                await asyncio.sleep(0)  # what they have sent is read
            listener.sock.close()
        # With one process, webhooks wait at the door until it has ended.
        within = _HALF_SENT if front.has_died else _ANSWERED_WITHIN
        await self._end(front, time.monotonic() + within)

    def _is_over(self, front: Front) -> bool:
        """Whether another process is to follow this one, which gunicorn starts at its end."""
        if front.has_died:
            self.log.error("this process can store nothing any more: another one follows")
            return True
        # A page that takes long would keep the doors closed until it is answered.
        beyond = front.answers - self.max_requests
        if beyond < 0 or (front.has_pages_in_hand and beyond < self.max_requests):
            return False
        self.log.info("%d requests are answered: another process follows", front.answers)
        return True

    def _takes_precedence(self) -> bool:
        """Try to be the process that goes first; returns whether it is this one."""
        if not self._one_goes_first or self._precedence is None:
            return True
        try:
            fcntl.lockf(self._precedence, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # another process holds it
            return False
        except OSError:  # this system has no such locks: all go first
            pass
        return True

    def _knocks(self, front: Front, listening: socket.socket) -> None:
        """Accept who waits for a connection, or leave them to the other processes for a moment."""
        wait = 0.0
        if self._one_goes_first and front.is_busy:
            wait = 2 * _GIVES_WAY
        elif not self._goes_first:
            wait = _GIVES_WAY
        if wait:
            self.loop.remove_reader(listening)
            self.loop.call_later(wait, self._accept_again, front, listening)
        else:
            self._accept(front, listening)

    def _accept(self, front: Front, listening: socket.socket) -> bool:
        """Let some of those in that wait at the door.

        The loops' own servers let one in each round, or a hundred: either those who come wait for
        those who are here, or the other way round.

        :returns: whether more may wait.
        """
        for _ in range(_AT_ONCE):
            try:
                accepted, _address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except (OSError, MemoryError) as error:
                number = getattr(error, "errno", None)
                if number in _GONE:
                    continue
                front.no_room(error)
                makes_room = number == errno.EMFILE and front.let_go(_AT_ONCE)
                wait = _GIVES_WAY if makes_room else _NO_ROOM
                self.loop.remove_reader(listening)
                self.loop.call_later(wait, self._accept_again, front, listening)
                return False
            accepted.setblocking(False)
            opening = self.loop.create_task(
                self.loop.connect_accepted_socket(front.connect, accepted)
            )
            self._opening.add(opening)
            opening.add_done_callback(partial(self._has_opened, accepted))
        return True

    def _has_opened(self, accepted: socket.socket, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        error = None if opening.cancelled() else opening.exception()
        if error is not None:  # as for want of memory
            self.log.error("a connection could not be opened: %r", error)
        if error is not None or opening.cancelled():
            accepted.close()

    def _accept_again(self, front: Front, listening: socket.socket) -> None:
        if self._doors_are_open:
            self.loop.add_reader(listening, self._knocks, front, listening)
            if self._accept(front, listening):  # the others have waited as long
                self.loop.remove_reader(listening)
                self.loop.call_soon(self._accept_again, front, listening)

    async def _end(self, front: Front, deadline: float) -> None:
        """Answer what is in hand, and close what is not; add to the store what was counted."""
        from receiver.parts import parts

        front.stop()
        if self._opening:
            await asyncio.wait(self._opening)
        began = time.monotonic()
        while front.open and not self._at_once:
            await asyncio.sleep(0)  # if it has stood still, it reads first what came meanwhile
            now = time.monotonic()
            if now > began + _ON_THEIR_WAY:
                front.close_idle()
            if now > began + _HALF_SENT:
                front.close_incomplete()
            if now > deadline:
                self.log.warning("%d connections are closed before their answer", front.open)
                break
            self.notify()
            front.look(now)
            await asyncio.sleep(0.05)
        front.abort()
        await asyncio.sleep(0)  # closing is the loop's work, too
        if not self._at_once:
            parts(self.wsgi).counting.flush()

    def _connections(self) -> int:
        """How many this process may have; as many files as the system allows are made available."""
        from receiver.web.front.front import MOST_CONNECTIONS

        files = _files(MOST_CONNECTIONS + _OTHER_FILES)
        most = max(_AT_ONCE, files - min(_OTHER_FILES, max(_FEWEST_OTHERS, files // 2)))
        if most < FEW_CONNECTIONS and self.age == 1:  # told once, by the first process
            self.log.warning(
                "the system allows this process %d files, so %d connections: raise it (ulimit -n)",
                files,
                most,
            )
        return most

    def _log_access(self, connection: Connection, request: Request, status: int, size: int) -> None:
        """A line for a request, as gunicorn writes them; where it is asked for."""
        from receiver.parts import parts
        from receiver.web.front.flask_threads import environ_of
        from receiver.web.front.front import path_of
        from receiver.web.proxies import as_told

        response = SimpleNamespace(status=str(status), sent=size, headers=())
        environ = environ_of(connection, request, path_of(request))
        environ = as_told(parts(self.wsgi).config.trusted_proxies, environ)
        told = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers]
        took = timedelta(seconds=time.monotonic() - request.began)
        self.log.access(response, SimpleNamespace(headers=told), environ, took)


def _files(wanted: int) -> int:
    """How many this process may have open, or `wanted` if more. All that the system allows are made
    available."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (hard, max(soft, wanted)):  # macOS tells a hard limit that it does not grant
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            soft = limit
            break
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
