"""The door into a program written with Flask: see docs/how-to/embed-flask.md.

It is mounted below Flask, at the level of WSGI: no route, error page, hook, session or setting of
either gets into the other, and nothing that the host asks of its own visitors (to be signed in, a
CSRF token) is asked of a webhook.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, request

from receiver.embedded import Embedded
from receiver.registry import Registry

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
#: Of one application: its receivers, by their prefixes.
_EXTENSION = "zimsend_receivers"
#: Where `flask run` serves.
_SERVED_AT = "http://127.0.0.1:5000"


class ZimSendReceiver:
    """zimsend-receiver below a prefix of a Flask application.

    :param app: the application; or none, and `init_app` is called with it later.
    :param prefix: webhooks, `/v1` and the dashboard are below it.
    :param settings: by their names, as in docs/reference/settings.md; `None`: what the environment
        says, where a name may have `ZIMSEND_` in front of it. Relative paths count from
        `app.root_path`.
    :param authorize: whether the visitor may see the dashboard, called in a request context of the
        application; `abort(…)` in it is the answer. Without it, `ADMIN_PASSWORD` opens the
        dashboard, if it is set.
    :param embedded_worker: whether handlers run in the processes that serve, and not in
        `flask zimsend work`.
    :param name: of the group of commands.
    :raises ConfigError: if a setting is missing or wrong.
    :raises ValueError: if the prefix or the name cannot be used.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        prefix: str = "/sms",
        settings: Mapping[str, object] | None = None,
        authorize: Callable[[], bool] | None = None,
        embedded_worker: bool = False,
        name: str = "zimsend",
    ) -> None:
        #: Its handlers, which are called in the application's context.
        self.registry = Registry()
        self.on = self.registry.on
        self._prefix = _usable(prefix)
        self._settings = settings
        self._authorize = authorize
        self._embedded_worker = embedded_worker
        self._name = name
        self._made: list[Embedded] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> Embedded:
        """Mount it in an application; several may have the same handlers."""
        there: dict[str, Embedded] = app.extensions.setdefault(_EXTENSION, {})
        for other in there:
            if f"{other}/".startswith(f"{self._prefix}/") or f"{self._prefix}/".startswith(
                f"{other}/"
            ):
                raise ValueError(
                    f"there is a receiver at {other} already: give this another prefix"
                )
        if self._name in app.cli.commands:
            raise ValueError(f"there is a command {self._name!r} already: give this another name=")
        embedded = Embedded(
            self._settings,
            folder=Path(app.root_path),
            inside=app.app_context,
            authorize=self._authorize and _asked_of(app, self._prefix, self._authorize),
            embedded_worker=self._embedded_worker,
            called=f"flask {self._name}",
            here=lambda: _SERVED_AT + self._prefix,
            registry=self.registry,
        )
        there[self._prefix] = embedded
        self._made.append(embedded)
        app.cli.add_command(embedded.group, self._name)
        app.wsgi_app = mounted(  # type: ignore[assignment,method-assign]
            self._prefix, embedded, app.wsgi_app
        )
        return embedded

    def close(self) -> None:
        """End what works in this process: for tests. A process that ends does so by itself."""
        for embedded in self._made:
            embedded.close()


def _usable(prefix: str) -> str:
    without = prefix.removesuffix("/")
    if not _PREFIX.fullmatch(without):
        raise ValueError(
            f"prefix={prefix!r}: write a path like '/sms'. The root is the application's own, and "
            "a path is of A-Z a-z 0-9 . _ ~ - alone"
        )
    return without


def mounted(prefix: str, inner: WSGIApplication, host: WSGIApplication) -> WSGIApplication:
    """Both: what is below the prefix goes to the one inside, all else to the host."""
    below = re.compile("/+".join(re.escape(part) for part in prefix.split("/")) + r"(?=/|\Z)")

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        found = below.match(path)
        if found is None:
            return host(environ, start_response)
        inside = {
            **environ,
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", "").rstrip("/") + prefix,
            "PATH_INFO": path[found.end() :],
        }
        # With it, a test client of the host's would keep our context for its own.
        inside.pop("werkzeug.debug.preserve_context", None)
        return inner(inside, start_response)

    return call


def _asked_of(app: Flask, prefix: str, authorize: Callable[[], bool]) -> Callable[[], bool]:
    """The same, asked while a request is ours: in a request context of the host's."""

    def ask() -> bool:
        root = request.environ["SCRIPT_NAME"].removesuffix(prefix)
        path = prefix + request.environ["PATH_INFO"]
        environ = {
            **request.environ,
            "SCRIPT_NAME": root,
            "PATH_INFO": path,
            # What is sent is for the dashboard to read.
            "wsgi.input": io.BytesIO(),
            "CONTENT_LENGTH": "0",
        }
        # Apart, or a context that cannot be pushed or popped would be left over for ours.
        return copy_context().run(_authorized, app, environ, authorize)

    return ask


def _authorized(app: Flask, environ: WSGIEnvironment, authorize: Callable[[], bool]) -> bool:
    with app.request_context(environ):
        return authorize()
