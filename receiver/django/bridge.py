"""From Django's requests to the receiver's WSGI application, and back.

Django reads requests from WSGI and from ASGI servers alike, and keeps what it knows of them in
`META`, which is WSGI's environment. So the way back is short.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any
from urllib.parse import unquote_to_bytes

from asgiref.sync import sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import get_script_prefix
from django.utils.cache import patch_cache_control
from django.utils.encoding import repercent_broken_unicode

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: Of WSGI's environment, what Django has not from an ASGI server.
_DEFAULTS = {
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.version": (1, 0),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


def call(application: Application, request: HttpRequest, rest: str) -> HttpResponseBase:
    """What the application answers.

    :param rest: the part of the path that is below the application's prefix.
    :raises Http404: if the path only begins like the prefix, as `/smsx`.
    """
    told: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        told[:] = status, headers

    body = application(environ_of(request, rest), start)
    status, headers = told
    return _response(status, headers, body, asynchronous=hasattr(request, "scope"))


# --- there


def environ_of(request: HttpRequest, rest: str) -> dict[str, Any]:
    """WSGI's environment of a request, as if nobody but the server had seen it."""
    prefix = request.path_info[: len(request.path_info) - len(rest)]
    if rest and not prefix.endswith("/") and not rest.startswith("/"):
        raise Http404
    path = _as_sent(request, rest)
    environ = {
        **_DEFAULTS,
        "wsgi.errors": sys.stderr,
        **request.META,
        "wsgi.url_scheme": request.scheme,  # SECURE_PROXY_SSL_HEADER says which
        "SCRIPT_NAME": _wsgi(get_script_prefix().rstrip("/") + prefix.rstrip("/")),
        "PATH_INFO": "/" + path if prefix.endswith("/") else path,
    }
    environ.pop("wsgi.file_wrapper", None)  # what it makes is for the server alone
    if environ.get("CONTENT_LENGTH") or not environ.get("wsgi.input_terminated"):
        # What a middleware has read is read from the request once more.
        environ["wsgi.input"] = request
        environ["wsgi.input_terminated"] = True
    # Else the server tells where a chunked body ends, of which Django reads nothing.
    return environ


def _as_sent(request: HttpRequest, rest: str) -> str:
    """A path's end in bytes, as WSGI writes them.

    Django writes a byte that is not UTF-8 as `%FF`, which could also be what was sent as `%25FF`,
    and ASGI loses it. Most servers tell the path as it came.
    """
    if "%" not in rest and "\N{REPLACEMENT CHARACTER}" not in rest:
        return _wsgi(rest)
    came = request.META.get("RAW_URI") or request.META.get("REQUEST_URI") or ""
    if scope := getattr(request, "scope", None):
        came = (scope.get("raw_path") or b"").decode("latin-1")
    whole = unquote_to_bytes(came.partition("?")[0])
    for path in (request.path, request.path_info):
        end = whole[len(path[: len(path) - len(rest)].encode()) :]
        if rest in (repercent_broken_unicode(end).decode(), end.decode(errors="replace")):
            return end.decode("latin-1")
    return _wsgi(rest)


def _wsgi(text: str) -> str:
    return text.encode(errors="replace").decode("latin-1")


# --- and back


def _response(
    status: str, headers: list[tuple[str, str]], body: Iterable[bytes], *, asynchronous: bool
) -> HttpResponseBase:
    """Django's response; one whose length is not known is sent piece by piece."""
    code, _, reason = status.partition(" ")
    about = {"status": int(code), "reason": reason}
    response: HttpResponseBase
    if any(name.lower() == "content-length" for name, _ in headers):
        try:
            response = HttpResponse(b"".join(body), **about)
        finally:
            _close(body)
    else:
        response = StreamingHttpResponse(_InTurn(body) if asynchronous else body, **about)
    del response.headers["Content-Type"]  # its own default
    for name, value in headers:
        if name.lower() == "set-cookie":
            response.cookies.load(value)
        elif name in response.headers:
            response.headers[name] += f", {value}"
        else:
            response.headers[name] = value
    if "public" not in response.get("Cache-Control", ""):
        # A cache of the whole project would show to all what one was let in to see.
        patch_cache_control(response, private=True)
    # Django would log the path of each refusal, which may hold a number or a secret, and send a
    # mail for each 503. What is worth a line, the receiver has logged.
    response._has_been_logged = True
    return response


class _InTurn:
    """A body for an asynchronous server: its parts are made in a thread, and in one context.

    Django would read it whole before it sent the first part.
    """

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body
        self._rest = iter(body)
        self._context = copy_context()

    def __aiter__(self) -> _InTurn:
        return self

    async def __anext__(self) -> bytes:
        part: bytes | None = await sync_to_async(self._context.run)(next, self._rest, None)
        if part is None:
            raise StopAsyncIteration
        return part

    def close(self) -> None:
        """Django calls it when the answer is sent, or its reader has left."""
        self._context.run(_close, self._body)


def _close(body: Iterable[bytes]) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
