"""`Sipgate` is the client of its API, which can be used by itself."""

from receiver.providers.sipgate.api.client import Sipgate

__all__ = ["Sipgate"]
