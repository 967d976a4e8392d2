"""gunicorn's settings for the installed package: `zimsend-receiver serve` gives it this file."""

from receiver.calling import be_called
from receiver.serving import settings

be_called("zimsend-receiver")
globals().update(settings("receiver.wsgi:app"))
