"""The worker's process, from the side of gunicorn's master: started, watched, renewed and stopped.

gunicorn's master reaps every child and forgets those that it does not know, so no exit status is
asked for: pipes tell of life and death (`receiver/pipes.py`).

Nothing but the standard library: the master keeps no code that a reload could not renew.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from receiver.pipes import BEGUN, DEATH, LIFE, OWNER, STOP, WAKE, WAKING

log = logging.getLogger(__name__)

#: The application of the installed package.
INSTALLED = "receiver.wsgi:app"

#: Seconds before it is started again: at first, and at most; and after how many seconds of life it
#: counts as the first time.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
LIVES = 60.0
#: Seconds from its start until it must have begun: the modules of handlers may hang. And from the
#: word to stop until it must have ended, which it sees to by itself unless it stands still.
BEGINS_WITHIN = 60.0
ENDS_WITHIN = 25.0


class WorkerProcess:
    """One child, and a thread that starts it again.

    :param command: what it runs.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environ = environ
        self._wake_end, self.wake_fd = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._wake_end, False)
        # One process at a time: each goes on with the leases of the one before.
        self._owner = secrets.token_hex(8)
        self._begun = file_without_name("begun")
        self._life: int | None = None
        self._death: int | None = None
        self._group: int | None = None
        self._stopping = False
        #: When it was told to end in favour of another, by `time.monotonic`.
        self._renewing_since: float | None = None
        self._pause = FIRST_PAUSE
        self._gone = threading.Event()
        #: Held while its own ends of the pipes are open here: a fork would keep them open.
        self._spawning = threading.Lock()
        self._master = os.getpid()

    def start(self) -> None:
        """Start it and watch it. To be called in the master, once."""
        os.register_at_fork(
            before=self._spawning.acquire,
            after_in_parent=self._spawning.release,
            after_in_child=self._spawning.release,
        )
        self._spawn()
        threading.Thread(target=self._watch, name="worker watch", daemon=True).start()

    def renew(self, environ: Mapping[str, str] | None = None) -> None:
        """Let it finish, and start another with the code and the handlers as they are now.

        :param environ: another environment, from now on.
        """
        self._environ = self._environ if environ is None else environ
        self._renewing_since = time.monotonic()
        self._say_stop()

    def stop(self) -> None:
        """Let it finish what runs. Safe in a signal handler, and of no effect in a fork."""
        if os.getpid() != self._master:
            return
        self._stopping = True
        self._say_stop()

    def wait(self, seconds: float) -> bool:
        """Wait for its end after `stop`.

        :returns: whether it has ended; if not, it is killed.
        """
        ended = self._gone.wait(seconds)
        self._kill_group()
        return ended

    def forget(self) -> None:
        """In a process that was forked from the master: its ends of the pipes are the master's."""
        for end in (self._life, self._death, self._wake_end, self._begun):
            if end is not None:
                with suppress(OSError):
                    os.close(end)

    def _say_stop(self) -> None:
        if self._life is not None:
            with suppress(OSError):
                os.write(self._life, STOP)

    def _spawn(self) -> None:
        with self._spawning, ExitStack() as its_own:
            life_end, self._life = os.pipe()
            its_own.callback(os.close, life_end)
            self._death, death_end = os.pipe()
            its_own.callback(os.close, death_end)
            environ = {
                **{name: value for name, value in self._environ.items() if name != WAKING},
                LIFE: str(life_end),
                DEATH: str(death_end),
                WAKE: str(self._wake_end),
                BEGUN: str(self._begun),
                OWNER: self._owner,
            }
            process = subprocess.Popen(  # noqa: S603 - our own program
                self._command,
                env=environ,
                pass_fds=(life_end, death_end, self._wake_end, self._begun),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that what its handlers leave behind ends with it
            )
        self._group = process.pid
        process.returncode = 0  # gunicorn reaps it, and nobody asks

    def _watch(self) -> None:
        while not self._gone.is_set():
            try:
                self._start_again_when_it_ends()
            except Exception as error:  # want of files, memory, ...: nobody else would try again
                with suppress(Exception):
                    log.error("the worker's process cannot be started: %r", error)
                time.sleep(FIRST_PAUSE)

    def _start_again_when_it_ends(self) -> None:
        began = time.monotonic()
        self._await_end(began)
        self._kill_group()
        self._close()
        if self._renewing_since is not None:
            self._pause = FIRST_PAUSE
        elif not self._stopping:
            if time.monotonic() - began > LIVES:
                self._pause = FIRST_PAUSE
            log.error("the worker's process has ended; another starts in %.1f s", self._pause)
            self._rest(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._renewing_since = None
        if self._stopping:
            self._gone.set()
            return
        self._spawn()
        # It may have been said before there was anybody to hear it.
        if self._stopping or self._renewing_since is not None:
            self._say_stop()

    def _await_end(self, began: float) -> None:
        """Wait until the process has ended. One that does not begin, or end, in time is killed.

        :param began: when it was started, by `time.monotonic`.
        """
        has_begun = False
        while self._death is not None:
            if select.select([self._death], [], [], 1.0)[0]:
                if not os.read(self._death, 1):
                    return
                has_begun = True
            now = time.monotonic()
            asked = now if self._renewing_since is None else self._renewing_since
            hangs = now - began > BEGINS_WITHIN and not has_begun
            if self._group is not None and (hangs or now - asked > ENDS_WITHIN):
                log.error(
                    "the worker's process does not %s: it is ended by force; perhaps the module of"
                    " a handler hangs",
                    "end" if has_begun else "begin",
                )
                self._kill_group()

    def _rest(self, seconds: float) -> None:
        """Sleep, but no longer than it takes until somebody wants something. A signal handler may
        be who wants it, and takes no lock, so this looks."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping and self._renewing_since is None:
            time.sleep(0.05)

    def _close(self) -> None:
        life, death = self._life, self._death
        self._life = self._death = None
        for end in (life, death):
            if end is not None:
                os.close(end)

    def _kill_group(self) -> None:
        """End what is left of its process group: it, if it hangs, and what its handlers started."""
        group, self._group = self._group, None
        if group is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def file_without_name(purpose: str) -> int:
    """The number of a file that lasts as long as some process has it open."""
    with suppress(AttributeError, OSError):  # Linux alone has it, and may refuse it
        return os.memfd_create(purpose)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def command_of(application: str) -> list[str]:
    """The command `work` for a WSGI application as gunicorn names it."""
    # -P: no file in the current folder stands in for a module of Python's own. The `flask` command
    # would put that folder in front again.
    if application == INSTALLED:
        return [sys.executable, "-P", "-m", "receiver", "work"]
    return [sys.executable, "-P", "-m", "flask", "--app", application, "work"]
