"""HTTP to others: bounded in time and bytes, whoever answers; and which proxy, if any.

httpx bounds the wait for each piece of an answer, so one that drips lasts as long as it likes. Here
a call has one deadline for all of it. The environment's proxies and certificates are read here
alone: where they make no sense they are left out, with a warning, and never stop a start.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import httpcore
import httpx

from receiver.setting_values import is_loopback

log = logging.getLogger(__name__)

#: Bytes that are written between two looks at the clock.
_SLICE = 16 * 1024
_until = threading.local()


def http_client(
    *,
    timeout: float | httpx.Timeout = 10.0,
    headers: Mapping[str, str] | None = None,
    most_connections: int = 16,
) -> httpx.Client:
    """A client whose calls keep to `time_limit`, and which follows no redirects.

    :param timeout: seconds for each step of a call, as httpx has it.
    """
    return _Client(
        timeout=timeout,
        headers=headers,
        transport=_Transport(httpx.Limits(max_connections=most_connections)),
        trust_env=False,
        follow_redirects=False,
    )


class _Client(httpx.Client):
    """httpx logs each address at `info`, and one of ours may hold a secret or a number: where the
    logs are a host's, too, our calls are left out of them."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        _HTTPX.addFilter(_is_of_others)  # once, however often it is said
        calling, _ours.calling = getattr(_ours, "calling", False), True
        try:
            return super().send(request, **options)
        finally:
            _ours.calling = calling


_HTTPX = logging.getLogger("httpx")
_ours = threading.local()


def _is_of_others(_: logging.LogRecord) -> bool:
    return not getattr(_ours, "calling", False)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """So long all calls of this thread may take within the block, their answers included. They end
    in an `httpx.TimeoutException`. Only what the resolver takes comes on top."""
    earlier = getattr(_until, "moment", None)
    moment = time.monotonic() + seconds
    _until.moment = moment if earlier is None else min(moment, earlier)
    try:
        yield
    finally:
        _until.moment = earlier


def read_at_most(answer: httpx.Response, limit: int) -> bytes:
    """The beginning of a streamed answer; the rest of it is not read."""
    body = bytearray()
    for piece in answer.iter_raw(_SLICE):
        body += piece
        if len(body) >= limit:
            break
    return bytes(body[:limit])


# --- the deadline


def _left(timeout: float | None, timed_out: type[Exception]) -> float | None:
    until = getattr(_until, "moment", None)
    if until is None:
        return timeout
    left: float = until - time.monotonic()
    if left <= 0:
        raise timed_out("it took longer than it may")
    return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for at in range(0, len(buffer), _SLICE):
            left = _left(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[at : at + _SLICE], left)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(super().connect_tcp(host, port, left, local_address, socket_options))


# --- proxies and certificates


class _Transport(httpx.BaseTransport):
    """Directly, or through the proxy that the environment names for an address."""

    def __init__(self, limits: httpx.Limits) -> None:
        self._direct = _bounded(limits, None)
        self._named = getproxies_environment()
        self._proxied: dict[str, httpx.HTTPTransport] = {}
        for scheme in ("http", "https"):
            named = self._named.get(scheme) or self._named.get("all")
            if named:
                address = named if "://" in named else f"http://{named}"
                try:
                    self._proxied[scheme] = _bounded(limits, address)
                except (ValueError, ImportError, httpx.InvalidURL) as error:
                    _warn(
                        f"{scheme.upper()}_PROXY or ALL_PROXY is left out, requests go without it: "
                        f"only http:// and https:// proxies can be used ({type(error).__name__})"
                    )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        proxied = self._proxied.get(request.url.scheme)
        if proxied is None or is_loopback(host.rstrip(".")) or self._is_excepted(host):
            return self._direct.handle_request(request)
        return proxied.handle_request(request)

    def _is_excepted(self, host: str) -> bool:
        bare = {**self._named, "no": self._named.get("no", "").replace("[", "").replace("]", "")}
        return bool(proxy_bypass_environment(host, bare))

    def close(self) -> None:
        for transport in (self._direct, *self._proxied.values()):
            transport.close()


def _bounded(limits: httpx.Limits, proxy: str | None) -> httpx.HTTPTransport:
    certificates = _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    transport = httpx.HTTPTransport(
        verify=certificates, trust_env=False, limits=limits, proxy=proxy
    )
    # httpx has no parameter for what httpcore documents; a test with a dripping answer holds it.
    transport._pool._network_backend = _Backend()
    return transport


@cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Whom to trust: who the environment says, else who is generally known."""
    if file or folder:
        try:
            if folder and not os.path.isdir(folder):
                raise NotADirectoryError
            return ssl.create_default_context(cafile=file or None, capath=folder or None)
        except OSError as error:  # ssl.SSLError is one
            _warn(
                "SSL_CERT_FILE or SSL_CERT_DIR is left out, the usual authorities are trusted: "
                f"it cannot be read ({type(error).__name__})"
            )
    return httpx.create_ssl_context(trust_env=False)


def _warn(line: str) -> None:
    log.warning("%s", line)
