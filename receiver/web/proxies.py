"""What proxies in front say of a request: believed of as many as there are, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def behind(proxies: int, application: WSGIApplication) -> ProxyFix:
    """An application that is told scheme and client address by so many proxies."""
    return ProxyFix(application, x_for=proxies, x_proto=proxies, x_host=0, x_port=0, x_prefix=0)


def as_told(proxies: int, environ: dict[str, Any]) -> dict[str, Any]:
    """A request's environment with what they say of it."""
    if proxies:
        behind(proxies, lambda _environ, _start: ())(environ, lambda *_: lambda _: None)
    return environ
