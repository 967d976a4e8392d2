"""gunicorn's master, which goes on where gunicorn's own would end the service.

A reload (HUP) is tried in a child first. A web process that cannot be started, or cannot boot, is
started again: the service has started once, so what is wrong may be over soon.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

from gunicorn.arbiter import Arbiter

from receiver.errors import ReceiverError
from receiver.web.front.doors import obstacle

#: The exit status of a child that has told what is wrong.
TOLD = 70
#: Seconds between two looks at a reload that is tried; what it has, if there is no time-out; and
#: after how many more it is ended by force.
_LOOK = 0.05
_WITHIN = 60
_SPARE = 1
#: Seconds between the failed boot of a web process and the next one.
_PAUSE = 1.0


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's arbiter gets this class once it is ready: there is no setting for its class."""

    #: Exit statuses of a web process at which gunicorn ends the service. No process ends with -1.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1

    #: When the service was told to stop, by `time.monotonic`.
    stopping_since: float | None = None

    def reload(self) -> None:
        """Only if the service could start with what is there now; else nothing changes."""
        try:
            status = self._tried()
        except (OSError, MemoryError) as error:
            self._refuse(repr(error))
            return
        if self.stopping_since is not None or status == TOLD:
            return
        if status:
            self._refuse(f"nothing, for it ended with status {status}")
            return
        before = self.app.cfg
        try:
            super().reload()
        except (Exception, SystemExit) as error:  # as where a file has changed after the trial
            if os.getpid() != self.pid:
                raise  # a web process that ends
            self.app.cfg = self.cfg = before
            self.log.error("the reload is not whole, reload again: %s", _told(error))

    def _tried(self) -> int:
        """Start anew in a child, for as long as nobody wants the service to stop; returns the
        child's exit status."""
        child = begin_apart(self._start_anew, self._refuse)
        until = time.monotonic() + self._within + _SPARE
        while not (found := os.waitpid(child, os.WNOHANG))[0]:
            # Its modules may have handlers for other signals.
            if self.stopping_since is not None or time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
            time.sleep(_LOOK)
        return os.waitstatus_to_exitcode(found[1])

    def spawn_worker(self) -> None:
        """gunicorn calls it again, within a second, where it has not worked."""
        try:
            super().spawn_worker()
        except (OSError, MemoryError) as error:
            if os.getpid() != self.pid:  # it has started, and could not even say why it ends
                os._exit(3)
            self.log.error("no web process can be started: %r", error)

    @property
    def _within(self) -> int:
        """Seconds that a trial has: as long as a web process has for its boot."""
        return int(self.cfg.timeout) or _WITHIN

    def _start_anew(self) -> None:
        """All at which a start may fail."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(self._within)  # also where the master has ended
        if self.cfg.preload_app:  # gunicorn loads it once for all web processes
            raise SystemExit("with --preload a reload cannot renew the application: restart")
        self.app.reload()  # while as many files are open as in the master
        if hasattr(self, "worker_process"):
            self.worker_process.forget()
        before, after = self.cfg.address, self.app.cfg.address
        if self.systemd and before != after:
            raise SystemExit("BIND and PORT cannot be changed, for the socket is systemd's")
        new = [place for place in after if place not in before]
        if len(new) != len(after) and before != after:
            # gunicorn would open all of them anew, while the old processes still listen there.
            raise SystemExit("BIND and PORT cannot be changed in part by a reload: restart")
        if (told := None if self.cfg.reuse_port else obstacle(new)) is not None:
            raise SystemExit(f"zimsend-receiver cannot start. {told}")
        self.setup(self.app)
        loaded(self)

    def _refuse(self, told: str) -> None:
        self.log.error(
            "nothing was reloaded, and the service goes on as it was. The reason: %s", told
        )


def loaded(arbiter: Arbiter) -> Any:
    """The application, as web processes load it.

    :raises SystemExit: if they could not serve it.
    """
    application = arbiter.app.wsgi()
    if hasattr(arbiter.worker_class, "SERVES_OURS_ALONE") and not is_ours(application):
        raise SystemExit(
            f"zimsend-receiver cannot start. {arbiter.app.app_uri} is something around the"
            " service's application, which its event loop cannot serve: wrap `app.wsgi_app`, which"
            " webhooks go past, or start with `--worker-class gthread`"
        )
    return application


def is_ours(application: Any) -> bool:
    """Whether it has the parts of a service, and is nothing that somebody has put around it."""
    return "receiver" in getattr(application, "extensions", ())


def begin_apart(step: Callable[[], None], tell: Callable[[str], None]) -> int:
    """Do something in a child: what the handlers' modules open at import must not be carried across
    a fork, and the master keeps no code that a reload could not renew.

    :param tell: called there with what is wrong; the exit status is `TOLD` then.
    :returns: the child's number.
    """
    child = os.fork()
    if child:
        return child
    gc.disable()
    status = 1
    try:
        step()
        status = 0
    except BaseException as error:
        tell(_told(error))
        status = TOLD
    finally:
        logging.shutdown()  # what waits is written
        os._exit(status)


def end_of(child: int) -> int:
    """Wait for a child; returns its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _told(error: BaseException) -> str:
    """One line, if somebody has thought of it; else all that Python tells."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, str) else repr(error.__context__ or error)
    if isinstance(error, ReceiverError):
        return f"zimsend-receiver cannot start. {error}"
    return "".join(traceback.format_exception(error))


def rest_if_not_booted(worker: Any) -> None:
    """In a web process that ends: if it could not boot, the next one comes a little later."""
    if os.getpid() == worker.pid and worker.alive and not worker.booted:
        time.sleep(_PAUSE)
