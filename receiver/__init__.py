"""zimsend-receiver: what the author of a handler imports, and nothing that has side effects."""

from typing import TYPE_CHECKING, Any

from receiver.errors import ConfigError, HandlerError
from receiver.event import Event
from receiver.registry import Registry
from receiver.version import __version__

if TYPE_CHECKING:
    from receiver.outgoing import http_client, read_at_most, time_limit

__all__ = [
    "ConfigError",
    "Event",
    "HandlerError",
    "Registry",
    "__version__",
    "http_client",
    "read_at_most",
    "time_limit",
]


def __getattr__(name: str) -> Any:
    """HTTP is loaded where somebody asks for it: gunicorn's master does not."""
    if name in ("http_client", "read_at_most", "time_limit"):
        from receiver import outgoing

        return getattr(outgoing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
