"""gunicorn's settings, and the hooks that start, renew and stop the worker's process.

gunicorn reads this file by itself: `gunicorn wsgi:app`.
"""

import gc
import logging
import os
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path

from gunicorn.glogging import Logger
from gunicorn.http.errors import NoMoreData, ParseException

from receiver import environment
from receiver.config import NAMES, Config, unknown_in
from receiver.errors import ConfigError, ReceiverError
from receiver.logs import Sparingly, logging_config, tell_at_the_start
from receiver.pipes import WAKING
from receiver.web.front.child import WorkerProcess, command_of
from receiver.web.front.doors import addresses, obstacle, separate_ip_versions

try:
    # Here, in the master: a worker that stops at this would be started again and again.
    _environ = environment.load(Path(__file__).parent, NAMES)
    _config = Config.from_env(_environ)
except ConfigError as error:
    sys.exit(f"zimsend-receiver cannot start. {error}")


wsgi_app = "wsgi:app"
separate_ip_versions()
bind = addresses(_config.bind, _config.port)
workers = _config.web_concurrency

_no_event_loop = None
try:
    import httptools  # noqa: F401
except ImportError as error:  # no wheel for this machine
    from receiver.web.front.without_loop import LEAST_THREADS

    _no_event_loop = error
    worker_class = "receiver.web.front.without_loop.ThreadsWorker"
    threads = max(LEAST_THREADS, _config.web_threads)  # webhooks wait in them as well
    keepalive = 5  # gunicorn's 2 s are short for a proxy between two events
    # The C parser took bare LF for a line's end and lost folded headers.
    http_parser = "python"
else:
    # An event loop for webhooks, and threads for Flask: see `receiver/web/front/`.
    worker_class = "receiver.web.front.worker.LoopWorker"

# Between SIGTERM and SIGKILL hosts leave 30 s. Requests end within 5 s, handlers get 20.
graceful_timeout = 24
timeout = 60  # a process whose loop is silent so long is replaced; no limit for a request

# Which proxies are believed says TRUSTED_PROXIES alone.
forwarded_allow_ips = ""
# No header of a request says at which path the application lies: through a tunnel like ngrok,
# everybody's requests come from this machine, which gunicorn trusts.
forwarder_headers = ""
# A socket for remote control that nobody here uses.
control_socket_disable = True


class _Logger(Logger):
    """gunicorn's logger, without what anybody on the network could fill a disk with, and without
    what a request holds: a search for a text, a number, a key in a header that is misspelt."""

    _malformed = Sparingly()

    def debug(self, msg, *args, **kwargs):
        error = sys.exc_info()[1]
        if isinstance(error, ParseException | NoMoreData):
            args = tuple(type(a).__name__ if a is error else a for a in args)
        super().debug(msg, *args, **kwargs)

    def warning(self, msg, *args, **kwargs):
        error = sys.exc_info()[1]
        if isinstance(error, ParseException):  # gunicorn would quote it
            held_back = self._malformed.admit()
            if held_back is None:
                return
            msg = "a request was refused, it is no proper HTTP: %s (%d more since the last line)"
            args = type(error).__name__, held_back
        super().warning(msg, *args, **kwargs)

    def exception(self, msg, *args, **kwargs):
        """A request that stays half-sent until the receive time-out is no error of ours."""
        if isinstance(sys.exc_info()[1], BlockingIOError):
            self.debug("a half-sent request was given up")
            return
        if msg.startswith("Error handling request"):  # and its URI
            msg, args = "a request could not be handled", ()
        super().exception(msg, *args, **kwargs)

    def access(self, resp, req, environ, request_time):
        """Only where asked for (`--access-logfile -`).

        With a `logconfig_dict` gunicorn would write a line for each request: what the sender
        asked is in the store already, and the line costs more than the commit.
        """
        if self.cfg.accesslog:
            super().access(resp, req, environ, request_time)


logger_class = _Logger
# Where it is asked for: without the query, which may hold a number or a text, and the referer.
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s "%(a)s"'
logconfig_dict = logging_config(
    _config.log_format, _config.log_level, _config.handlers, _config.in_addresses
)


def on_starting(server):
    """Try the application and migrate, before any worker exists.

    In a child: what the handlers' modules open at import must not be carried across a fork, and
    the master keeps no code that a reload could not renew.
    """
    if (told := None if server.cfg.reuse_port else obstacle(server.cfg.address)) is not None:
        sys.exit(f"zimsend-receiver cannot start. {told}")
    if _no_event_loop is not None:
        server.log.warning(
            "httptools cannot be imported (%s): requests are served by gunicorn's threads, which is"
            " slower, and slow senders can take all of them",
            _no_event_loop,
        )
    tell_at_the_start(unknown_in(_environ))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            from receiver.parts import parts
            from receiver.service import create_app

            for step in parts(create_app(_environ)).store.migrate():
                server.log.info("migrated the database: %s", step)
            status = 0
        except ReceiverError as error:
            print(f"zimsend-receiver cannot start. {error}", file=sys.stderr, flush=True)
        except BaseException:
            traceback.print_exc()
        finally:
            logging.shutdown()  # what waits is written
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(1)


def when_ready(server):
    """Start the worker's process: one for the service, however many web processes."""
    if not _config.embedded_worker:
        return
    process = server.worker_process = WorkerProcess(command_of(server.app.app_uri), os.environ)
    os.environ[WAKING] = str(process.wake_fd)  # for the web processes
    process.start()
    server.stopping_since = None

    def stop(number, frame, gunicorn_stop):
        # At once, so that requests and handlers come to their ends side by side.
        # Hosts may send it twice; the first one counts.
        server.stopping_since = server.stopping_since or time.monotonic()
        process.stop()
        gunicorn_stop(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, partial(stop, gunicorn_stop=signal.getsignal(number)))


def post_fork(server, worker):
    """A signal that comes now is put where only the master looks: to be stopped is not lost."""
    if hasattr(server, "worker_process"):
        server.worker_process.forget()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, worker.handle_exit)
    while not server.SIG_QUEUE.empty():
        if server.SIG_QUEUE.get_nowait() in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            sys.exit(0)


def on_reload(server):
    if hasattr(server, "worker_process"):
        server.worker_process.renew()


def child_exit(server, worker):
    """While one develops (`--reload`): the handlers' code has changed, too."""
    if server.cfg.reload and hasattr(server, "worker_process"):
        server.worker_process.renew()


def on_exit(server):
    """Wait for the handlers that run; what is left of them is given back."""
    if hasattr(server, "worker_process"):
        server.worker_process.stop()
        since = server.stopping_since or time.monotonic()
        if not server.worker_process.wait(max(1.0, since + graceful_timeout - time.monotonic())):
            server.log.warning("the worker's process was ended by force: its work is done again")


def post_worker_init(worker):
    """What is loaded stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
