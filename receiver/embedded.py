"""The service inside another program: its WSGI callable, its commands, its handlers.

The doors into frameworks stand on this: `receiver/flask.py`, `receiver/django/`. Nothing is opened
and no thread starts before the first request or command of a process, so that servers may load a
program and fork; and what a process has opened is never used by a fork of it.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import click
from flask import Flask
from flask.cli import ScriptInfo
from werkzeug.http import HTTP_STATUS_CODES

from receiver import calling, hosted, times
from receiver.errors import ConfigError, StoreUnavailable
from receiver.forks import renew_in_forks
from receiver.logs import Sparingly
from receiver.parts import Host, parts
from receiver.registry import Registry
from receiver.service import close, create_app
from receiver.web.answers import refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger(__name__)

#: Seconds for handlers that run in this process when it ends; after that, their calls are made
#: again by another one.
_DRAIN = 5.0

_FORKED = (
    "this process is a fork of one that had used the receiver, and its SQLite file cannot be used "
    "by both. Let the server load the application without asking it anything, or load it "
    "in each process (gunicorn without --preload), or use PostgreSQL"
)


class Embedded:
    """The service inside another program: one WSGI callable, one group of commands, one registry.

    :param settings: by their names, as in docs/reference/settings.md; `None`: what the environment
        says, where a name may have `ZIMSEND_` in front of it.
    :param folder: what relative paths count from.
    :param inside: makes what each handler is called inside of, as a context of the host's.
    :param authorize: whether whoever asks may see the dashboard; an exception of Werkzeug's that it
        raises is the answer. Without it, `ADMIN_PASSWORD` opens the dashboard, if it is set.
    :param embedded_worker: whether processes that serve requests run handlers as well.
    :param called: how the commands are called, as messages are to name them.
    :param here: tells the address at which this machine reaches the service, the prefix included.
    :param registry: of handlers, if there is one already.
    :raises ConfigError: if a setting is missing or wrong.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        folder: Path,
        inside: Callable[[], AbstractContextManager[object]] | None = None,
        authorize: Callable[[], bool] | None = None,
        embedded_worker: bool = False,
        called: str = "flask zimsend",
        here: Callable[[], str] = lambda: "http://127.0.0.1:5000",
        registry: Registry | None = None,
        now: Callable[[], int] = times.now,
    ) -> None:
        self.registry = Registry() if registry is None else registry
        self.on = self.registry.on
        self._settings = hosted.settings_of(settings, Path(folder))
        self._now = now
        self._host = Host(self.registry, inside or nullcontext, authorize, here)
        self._embedded_worker = embedded_worker
        self._called = called
        #: Guards what follows.
        self._guard: threading.Lock
        renew_in_forks(self, "_guard", threading.Lock)
        self._application: Flask | None = self._make()
        #: The process that has used it, and the one that serves requests.
        self._used_by: int | None = None
        self._served_by: int | None = None
        #: What has not started there yet.
        self._to_start: list[Callable[[], None]] = []
        self._failures = Sparingly()
        #: The process that has said why it cannot serve.
        self._told_by: int | None = None
        #: Those that were used before a fork: closed by this process they would harm the other.
        self._left_alone: list[Flask | None] = []
        self.group: click.Group = _Group(self, self._application.cli.commands, called)
        calling.be_called(called)
        self._is_sqlite = parts(self._application).config.database_url.startswith("sqlite:")
        for warning in self._settings.warnings:
            log.warning("%s", warning)

    def _make(self) -> Flask:
        try:
            return create_app(self._settings.environment, self._now, self._host)
        except ConfigError as error:
            raise self._settings.error(error) from None

    @property
    def application(self) -> Flask:
        """The one of this process. What it opens, it opens at its first use."""
        if self._used_by != os.getpid() or self._application is None:
            with self._guard:
                self._take_over()
        assert self._application is not None
        return self._application

    def _take_over(self) -> None:
        """Needs the guard."""
        if self._used_by not in (None, os.getpid()):  # by the process that this is a fork of
            if self._is_sqlite:
                self._refuse()
            self._left_alone.append(self._application)
            self._application = None
        if self._application is None:
            self._application = self._make()
        if self._used_by != os.getpid():
            self._used_by = os.getpid()
            atexit.register(self.close)

    def _refuse(self) -> NoReturn:
        """SQLite itself keeps in memory who has which lock, new connections included: in a fork,
        that is what it was in the other process. Its log would be taken away under us."""
        if self._told_by != os.getpid():
            self._told_by = os.getpid()
            log.critical("%s", _FORKED)
        raise StoreUnavailable(_FORKED)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """A WSGI application. `SCRIPT_NAME` is the prefix that it is mounted at."""
        root = environ.get("SCRIPT_NAME", "")
        if root.startswith("//"):  # a browser takes what follows for the name of a host
            environ["SCRIPT_NAME"] = "/" + root.lstrip("/")
        if not environ.get("PATH_INFO"):
            return _redirect_to_root(environ, start_response)
        calling.be_called_here(self._called)
        try:
            application = self.application
        except StoreUnavailable as error:
            status, headers, body = refusal(environ["PATH_INFO"], error)
            start_response(f"{status} {HTTP_STATUS_CODES[status]}", headers)
            return [body]
        if self._served_by != os.getpid() or self._to_start:
            self._begin_to_serve(application)
        return application(environ, start_response)

    def _begin_to_serve(self, application: Flask) -> None:
        """Where the system allows no more threads, the next request goes on with this."""
        with self._guard:
            if application is not self._application:
                return  # it was closed meanwhile: the next request begins
            if self._served_by != os.getpid():
                receiver = parts(application)
                starts = [receiver.worker.start, *receiver.starts()]
                self._to_start = starts if self._embedded_worker else []
                self._served_by = os.getpid()
            try:
                while self._to_start:
                    self._to_start[0]()
                    del self._to_start[0]
            except (RuntimeError, MemoryError) as error:
                if self._failures.admit() is not None:
                    log.error("handlers or what runs beside them cannot start yet: %r", error)

    def close(self) -> None:
        """End what works in this process, and close what it has opened; at its end by itself.

        The next request or command begins anew.
        """
        with self._guard:
            if self._used_by != os.getpid() or self._application is None:
                return
            application, self._application = self._application, None
            served, self._served_by = self._served_by == os.getpid(), None
            self._used_by, self._to_start = None, []
        atexit.unregister(self.close)
        if served and self._embedded_worker:
            receiver = parts(application)
            receiver.stop()
            receiver.worker.drain(_DRAIN)
        close(application, flush=served)


def _redirect_to_root(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """From the bare prefix to the page below it: cookies are for what is below."""
    query = environ.get("QUERY_STRING")
    to = (
        quote(environ.get("SCRIPT_NAME", "").encode("latin-1"))
        + "/"
        + (f"?{query}" if query else "")
    )
    start_response("308 Permanent Redirect", [("Location", to), ("Content-Length", "0")])
    return [b""]


class _Group(click.Group):
    """The commands, each in the context of the service's application and not of the host's."""

    def __init__(
        self, embedded: Embedded, commands: MutableMapping[str, click.Command], called: str
    ) -> None:
        super().__init__(
            "zimsend",
            commands=commands,
            help="What became of the SMS: handlers, events and messages of zimsend-receiver.",
        )
        self._embedded = embedded
        self._called = called

    def invoke(self, ctx: click.Context) -> Any:
        try:
            application = self._embedded.application
        except StoreUnavailable as error:
            raise click.ClickException(str(error)) from error
        calling.be_called(self._called)  # of several receivers, it is this one that is meant
        ctx.obj = ScriptInfo(create_app=lambda: application, set_debug_flag=False)
        with application.app_context():
            return super().invoke(ctx)
