"""The door to the application; `receiver/service.py` puts it together."""

from receiver.service import create_app

__all__ = ["create_app"]
