"""The application of the installed package, for any WSGI server: `receiver.wsgi:app`."""

from receiver.calling import be_called, installed
from receiver.starting import application

__all__ = ["app"]

be_called(installed())
app = application()
