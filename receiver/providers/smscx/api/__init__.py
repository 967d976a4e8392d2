"""`SmsCx` is the client of its API, which can be used by itself."""

from receiver.providers.smscx.api.client import SmsCx

__all__ = ["SmsCx"]
