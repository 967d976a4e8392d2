"""The Django project `django_host` in this process, asked as servers ask it.

Another Django than the one in `.venv` is tried like this:

    pip install --target /tmp/django42 'django~=4.2.0'
    PYTHONPATH=/tmp/django42 python -m pytest tests/embedded -k django
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

import django
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

from tests.server import ROOT

SETTINGS = "tests.embedded.django_host.settings"


@cache
def set_up() -> None:
    """Once for each process of tests: Django has one project in a process."""
    folder = tempfile.TemporaryDirectory(prefix="django-host-")
    set_up.folder = folder  # type: ignore[attr-defined]  # it stays until the process ends
    os.environ["HOST_FOLDER"] = folder.name
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    before = os.environ.get("TZ")
    django.setup()
    if before is None:  # Django has set the zone of the whole process
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def environ(folder: Path, **more: str) -> dict[str, str]:
    """Of a process of the project's; of what the tests' own has, only what it needs to run.

    :param folder: the project's, in which its data are.
    """
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    another = os.environ.get("PYTHONPATH")  # it may have another Django
    return {
        **{name: value for name, value in os.environ.items() if name in kept},
        "PYTHONPATH": f"{another}:{ROOT}" if another else str(ROOT),
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "HOST_FOLDER": str(folder),
        **more,
    }


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    #: The body in the parts in which it was sent.
    parts: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    def one(self, name: str) -> str | None:
        found = self.all(name)
        assert len(found) < 2, found
        return found[0] if found else None


#: Of method, target, body, and headers by name: see `over_wsgi`.
Ask = Callable[..., Answer]


def project(server: str) -> Ask:
    """Ask the whole project, as it is set up now, by one kind of server: `wsgi` or `asgi`."""
    if server == "wsgi":
        return partial(over_wsgi, get_wsgi_application())
    return partial(over_asgi, get_asgi_application())


def over_wsgi(
    application: Any, method: str, target: str, body: bytes = b"", **headers: str
) -> Answer:
    """Ask as gunicorn does.

    :param target: path and query as they are on the wire.
    :param headers: with `_` for each `-`.
    """
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "RAW_URI": target,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "testserver",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    if "transfer_encoding" not in headers:
        environ["CONTENT_LENGTH"] = str(len(body)) if body else ""
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    told: list[Any] = []
    answer = application(environ, lambda *started: told.extend(started))
    try:
        parts = list(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return Answer(int(told[0][:3]), told[1], parts)


def over_asgi(
    application: Any, method: str, target: str, body: bytes = b"", **headers: str
) -> Answer:
    """Ask as uvicorn does."""
    path, _, query = target.partition("?")
    told = {"host": "testserver", **{k.replace("_", "-"): v for k, v in headers.items()}}
    if body and "transfer-encoding" not in told:
        told["content-length"] = str(len(body))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
    }
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not given:
                await asyncio.Event().wait()  # it stays, until it has its answer
            return given.pop()

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await application(scope, receive, send)

    asyncio.run(ask())
    start, *rest = sent
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    return Answer(start["status"], pairs, [part["body"] for part in rest if part.get("body")])
