"""A receiver whose clock is wrong, for tests: `CLOCK_OFF` seconds ahead, or behind."""

import os

from app import create_app
from receiver import times

_OFF = int(os.environ["CLOCK_OFF"]) * times.SECOND

app = create_app(now=lambda: times.now() + _OFF)
