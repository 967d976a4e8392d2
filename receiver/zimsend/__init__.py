"""All that knows how ZimSend itself speaks: `ZimSend` is the client of its API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from receiver.zimsend.client import ZimSend

__all__ = ["ZimSend"]


def __getattr__(name: str) -> Any:
    # The samples live in this package too, and need no HTTP client.
    if name == "ZimSend":
        from receiver.zimsend.client import ZimSend

        return ZimSend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
