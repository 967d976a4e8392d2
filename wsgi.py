"""The application, for gunicorn and for the `flask` command."""

from pathlib import Path

from receiver.starting import application

__all__ = ["app"]

app = application(Path(__file__).parent)
