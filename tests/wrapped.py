"""A receiver inside of what somebody has put around it, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from wsgi import app as receiver


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    return receiver(environ, start)
