"""`ZimSend` is the client of its API, which can be used by itself."""

from receiver.providers.zimsend.api.client import ZimSend

__all__ = ["ZimSend"]
