"""zimsend-receiver: what the author of a handler imports, and nothing that has side effects."""

from receiver.errors import ConfigError, HandlerError
from receiver.event import Event
from receiver.registry import Registry

__all__ = ["ConfigError", "Event", "HandlerError", "Registry"]
