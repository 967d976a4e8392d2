"""gunicorn's settings. It reads this file by itself: `gunicorn wsgi:app`."""

from pathlib import Path

from receiver.serving import settings

globals().update(settings("wsgi:app", Path(__file__).parent))
