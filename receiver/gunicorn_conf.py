"""gunicorn's settings for the installed package: `zimsend-receiver serve` gives it this file."""

from receiver.calling import be_called, installed
from receiver.serving import settings
from receiver.web.front.worker_process import INSTALLED

be_called(installed())
globals().update(settings(INSTALLED))
