"""gunicorn's settings, and the hooks that start, renew and stop the worker's process.

A settings file of gunicorn's takes them over: `gunicorn.conf.py` of a clone, `gunicorn_conf.py` of
the installed package. It is read anew at each reload.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http.errors import NoMoreData, ParseException

from receiver import environment
from receiver.config import NAMES, Config, unknown_in
from receiver.environment import Environment
from receiver.errors import ConfigError
from receiver.logs import Sparingly, logging_config, tell, tell_at_the_start
from receiver.pipes import WAKING
from receiver.web.front.doors import addresses, obstacle, separate_ip_versions
from receiver.web.front.master import (
    Master,
    begin_apart,
    end_of,
    is_ours,
    loaded,
    rest_if_not_booted,
)
from receiver.web.front.worker_process import WorkerProcess, command_of

#: Seconds between SIGTERM and the end: hosts leave 30. Requests end within 5, handlers get 20.
_GRACE = 24
#: Open files with which a process can work.
_FEWEST_FILES = 64
#: What no reload changes, and the settings that say it. Old and new processes run side by side for
#: a moment: what the old ones stored in another database would wait there for ever.
_UNTIL_RESTART = {
    "database_url": "DATABASE_URL and DATABASE_SCHEMA",
    "embedded_worker": "EMBEDDED_WORKER",
}
#: What this master was started with.
_running: Config | None = None


def settings(application: str, beside: Path | None = None) -> dict[str, Any]:
    """What gunicorn is to know, by its own names. A wrong setting ends the process with one line:
    here, in the master, since a worker that stopped at it would be started again and again.

    :param application: what it serves, as `module:name`.
    :param beside: the folder of the clone's `wsgi.py`.
    """
    try:
        environ = environment.read_anew(beside, NAMES)
        if beside is None:
            environment.find_modules_in(environ.folder)
        config = Config.from_env(environ)
    except ConfigError as error:
        sys.exit(f"zimsend-receiver cannot start. {error}")
    for field, names in _UNTIL_RESTART.items():
        if _running is not None and getattr(_running, field) != getattr(config, field):
            sys.exit(f"{names} cannot be changed by a reload: restart")
    environment.take_over(environ)
    os.environ.update(environment.handed_on(environ))
    separate_ip_versions()
    serving, without_loop = _how(config)
    hooks = _Hooks(environ, config, without_loop)
    return {
        "wsgi_app": application,
        "bind": addresses(config.bind, config.port),
        "workers": config.web_concurrency,
        **serving,
        "graceful_timeout": _GRACE,
        "timeout": 60,  # a process whose loop is silent so long is replaced; none for a request
        # Which proxies are believed says TRUSTED_PROXIES alone.
        "forwarded_allow_ips": "",
        # No header of a request says at which path the application lies: through a tunnel like
        # ngrok, everybody's requests come from this machine, which gunicorn trusts.
        "forwarder_headers": "",
        # A socket for remote control that nobody here uses.
        "control_socket_disable": True,
        "logger_class": _Logger,
        # Where it is asked for: without the query, which may hold a number or a text, and the
        # referer.
        "access_log_format": '%(h)s %(l)s %(u)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s "%(a)s"',
        "logconfig_dict": logging_config(
            config.log_format, config.log_level, config.handlers, config.in_addresses
        ),
        **{name: getattr(hooks, name) for name in _HOOKS},
    }


def _how(config: Config) -> tuple[dict[str, Any], ImportError | None]:
    """The settings for an event loop for webhooks and threads for Flask (`receiver/web/front/`);
    and why there is none, if there is none."""
    try:
        import httptools  # noqa: F401
    except ImportError as error:  # no wheel for this machine
        from receiver.web.front.without_loop import LEAST_THREADS

        return {
            "worker_class": "receiver.web.front.without_loop.ThreadsWorker",
            "threads": max(LEAST_THREADS, config.web_threads),  # webhooks wait in them as well
            "keepalive": 5,  # gunicorn's 2 s are short for a proxy between two events
            # The C parser took bare LF for a line's end and lost folded headers.
            "http_parser": "python",
        }, error
    return {"worker_class": "receiver.web.front.loop_worker.LoopWorker"}, None


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's logger, without what anybody on the network could fill a disk with, and without
    what a request holds: a search for a text, a number, a key in a header that is misspelt."""

    _malformed = Sparingly()

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, ParseException | NoMoreData):
            args = tuple(type(a).__name__ if a is error else a for a in args)
        super().debug(msg, *args, **kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, ParseException):  # gunicorn would quote it
            held_back = self._malformed.admit()
            if held_back is None:
                return
            msg = "a request was refused, it is no proper HTTP: %s (%d more since the last line)"
            args = type(error).__name__, held_back
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """A request that stays half-sent until the receive time-out is no error of ours."""
        if isinstance(sys.exc_info()[1], BlockingIOError):
            self.debug("a half-sent request was given up")
            return
        if msg.startswith("Error handling request"):  # and its URI
            msg, args = "a request could not be handled", ()
        super().exception(msg, *args, **kwargs)

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Only where asked for (`--access-logfile -`).

        With a `logconfig_dict` gunicorn would write a line for each request: what the sender
        asked is in the store already, and the line costs more than the commit.
        """
        if self.cfg.accesslog:
            super().access(resp, req, environ, request_time)


class _Hooks:
    """What gunicorn calls, by the names of its hooks."""

    def __init__(
        self, environ: Environment, config: Config, without_loop: ImportError | None
    ) -> None:
        self._environ = environ
        self._config = config
        self._without_loop = without_loop

    def on_starting(self, server: Any) -> None:
        """Try the application as web processes load it, and migrate, before any of them exists."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if 0 <= files < _FEWEST_FILES:  # less than 0: without a limit
            sys.exit(
                "zimsend-receiver cannot start. The system allows a process "
                f"{files} open files, and {_FEWEST_FILES} are the least: raise it (ulimit -n)."
            )
        if (told := None if server.cfg.reuse_port else obstacle(server.cfg.address)) is not None:
            sys.exit(f"zimsend-receiver cannot start. {told}")
        if self._without_loop is not None:
            server.log.warning(
                "httptools cannot be imported (%s): requests are served by gunicorn's threads,"
                " which is slower, and slow senders can take all of them",
                self._without_loop,
            )
        tell_at_the_start(unknown_in(self._environ))

        def migrate() -> None:
            from receiver.parts import parts
            from receiver.service import create_app

            application = loaded(server)
            if not is_ours(application):  # in a wrapper, or another one
                application = create_app(self._environ)
            receiver = parts(application)
            for step in receiver.store.migrate():
                server.log.info("migrated the database: %s", step)

        if end_of(begin_apart(migrate, partial(print, file=sys.stderr, flush=True))):
            sys.exit(1)

    def when_ready(self, server: Any) -> None:
        """Start the worker's process: one for the service, however many web processes."""
        global _running
        _running = self._config
        server.__class__ = Master
        process: WorkerProcess | None = None
        if self._config.embedded_worker:
            process = server.worker_process = WorkerProcess(
                command_of(server.app.app_uri), self._of_handlers()
            )
            os.environ[WAKING] = str(process.wake_fd)  # for the web processes
            process.start()
        master = os.getpid()

        def stop(number: int, frame: object, gunicorn_stop: Any) -> None:
            # At once, so that requests and handlers come to their ends side by side: gunicorn hears
            # of it only when a reload has ended, which waits for the web processes before.
            # Hosts may send it twice; the first one counts.
            if os.getpid() == master:
                server.stopping_since = server.stopping_since or time.monotonic()
                if process is not None:
                    process.stop()
                for pid in list(server.WORKERS):
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
            gunicorn_stop(number, frame)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, partial(stop, gunicorn_stop=signal.getsignal(number)))

    def post_fork(self, server: Any, worker: Any) -> None:
        """A signal that comes now is put where only the master looks: to be stopped is not lost."""
        gc.disable()  # what is loaded now stays; see `post_worker_init`
        if hasattr(server, "worker_process"):
            server.worker_process.forget()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, worker.handle_exit)
        while not server.SIG_QUEUE.empty():
            if server.SIG_QUEUE.get_nowait() in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                sys.exit(0)

    def on_reload(self, server: Any) -> None:
        tell(unknown_in(self._environ))
        if hasattr(server, "worker_process"):
            server.worker_process.renew(self._of_handlers())

    def _of_handlers(self) -> dict[str, str]:
        """The environment of their process."""
        # All that `.env` says is in there; the `flask` command would expand it.
        return {**os.environ, **environment.handed_on(self._environ), "FLASK_SKIP_DOTENV": "1"}

    def pre_exec(self, server: Any) -> None:
        """Another master (USR2) reads `.env` by itself."""
        server.cfg.env_orig = environment.without_file()

    def child_exit(self, server: Any, worker: Any) -> None:
        """While one develops (`--reload`): the handlers' code has changed, too."""
        if server.cfg.reload and hasattr(server, "worker_process"):
            server.worker_process.renew()

    def on_exit(self, server: Any) -> None:
        """Wait for the handlers that run; what is left of them is given back."""
        if hasattr(server, "worker_process"):
            server.worker_process.stop()
            since = server.stopping_since or time.monotonic()
            if not server.worker_process.wait(max(0.5, since + _GRACE - time.monotonic())):
                server.log.warning(
                    "the worker's process was ended by force: its work is done again"
                )

    def worker_exit(self, server: Any, worker: Any) -> None:
        rest_if_not_booted(worker)

    def post_worker_init(self, worker: Any) -> None:
        """What is loaded stays: the garbage collector need not look through it again and again."""
        gc.collect()
        gc.freeze()
        gc.enable()


_HOOKS = (
    "on_starting",
    "when_ready",
    "post_fork",
    "on_reload",
    "pre_exec",
    "child_exit",
    "on_exit",
    "worker_exit",
    "post_worker_init",
)
