"""How log lines look: text for people, or one JSON object a line for programs."""

from __future__ import annotations

import threading
import time
from typing import Any


def logging_config(log_format: str, log_level: str) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`, for gunicorn's loggers as well.

    Everything goes to standard error, where hosts collect it.
    """
    formatters: dict[str, Any] = {
        "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s",
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        },
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {log_format: formatters[log_format]},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": log_format,
            }
        },
        "root": {"level": log_level.upper(), "handlers": ["stderr"]},
        "loggers": {
            "gunicorn.error": {"level": log_level.upper(), "propagate": True, "handlers": []},
            # Off by default: the sender's requests are in the store, and a line each costs more
            # than the rest of a request. `--access-logfile -` turns it on.
            "gunicorn.access": {"level": "INFO", "propagate": True, "handlers": []},
            # Its lines at `info` name whole URLs.
            "httpx": {"level": "WARNING"},
        },
    }


class Sparingly:
    """For lines whose number somebody outside decides: lets one through each minute."""

    EVERY = 60.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0
        self._held_back = 0

    def admit(self) -> int | None:
        """Ask for one line.

        :returns: how many were held back since the last one; `None`: this one is, too.
        """
        with self._lock:
            if time.monotonic() < self._next:
                self._held_back += 1
                return None
            self._next = time.monotonic() + self.EVERY
            held_back, self._held_back = self._held_back, 0
            return held_back
