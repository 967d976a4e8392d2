"""The built-in handlers, one module each. They come in by the same door as yours."""

from receiver import Registry
from receiver.handlers import email, forward, log


def register(registry: Registry) -> None:
    """Register all of them: what `HANDLERS` is by default."""
    for module in (log, forward, email):
        module.register(registry)
