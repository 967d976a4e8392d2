"""How log lines look: text for people, or one JSON object a line for programs.

They are written by a thread, so that nothing waits for whoever reads them.
"""

from __future__ import annotations

import logging
import os
import re
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

from receiver.visible import visible

log = logging.getLogger(__name__)

#: In the environment of a process whose parent has told the warnings.
_TOLD = "RECEIVER_WARNINGS_TOLD"


#: Webhooks whose path ends in a secret (receiver/providers/contract.py: `Door`).
_SECRET_PATHS = "ebhooks"
_SECRET_PATH = re.compile(
    r"""((?:/|%2f)webhooks(?:/|%2f)+[^/%\s"']+(?:/|%2f)+)[^\s"'?#,]+""", re.IGNORECASE
)


class Patient(logging.Handler):
    """Writes lines in a thread of its own, and drops some where nobody reads them.

    Whoever logs never waits: a pipe that is full would stop an event loop, and gunicorn's master
    on its way to the stop. The thread starts with the first line of each process, also after a
    fork. At the exit `logging` flushes, which gives what waits a second.

    :param stream: where the lines go; standard error by default.
    :param hidden: secrets that may stand in an address, and so in whatever is logged of one.
    """

    #: Lines that may wait.
    MOST = 1_000
    #: Seconds for what waits at the exit.
    FLUSH_WITHIN = 1.0

    def __init__(self, stream: TextIO | None = None, hidden: Iterable[str] = ()) -> None:
        super().__init__()
        self._stream = stream or sys.stderr
        self._hidden = sorted(hidden, key=len, reverse=True)
        self._process: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._writing = self._closed_here = False
        self._change = threading.Condition(threading.Lock())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        for secret in self._hidden:  # in whatever path it is, a wrong one as well
            if secret in line:
                line = line.replace(secret, "***")
        if _SECRET_PATHS in line:
            line = _SECRET_PATH.sub(r"\1***", line)
        if not line.isprintable():  # an id may hold what a terminal obeys
            line = "\n".join(map(visible, line.split("\n")))
        if self._process != os.getpid():  # `logging` holds its lock here
            self._begin()
            # A daemon: a write that nobody reads must not keep the process from its exit.
            thread = threading.Thread(target=self._write_all, name="log", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # no room for one; the next line tries again
                self._write_what_fits(line)
                return
            self._process = os.getpid()
        with self._change:
            if len(self._lines) < self.MOST:
                self._lines.append(line)
                self._change.notify_all()
            else:
                self._dropped += 1

    def flush(self) -> None:
        """Wait until all is written, but not for ever."""
        if self._process == os.getpid():
            with self._change:
                self._change.wait_for(
                    lambda: not self._lines and not self._writing, self.FLUSH_WITHIN
                )

    def close(self) -> None:
        """Write what waits, and no more after it."""
        if self._process == os.getpid():
            self._process = None
            with self._change:
                self._closed_here = True
                self._change.notify_all()
        super().close()

    def _write_all(self) -> None:
        change = self._change
        while True:
            with change:
                self._writing = False
                change.notify_all()
                change.wait_for(lambda: self._lines or self._closed_here)
                if not self._lines:
                    return
                self._writing = True
                line = self._lines.popleft()
                dropped = 0
                if not self._lines:
                    dropped, self._dropped = self._dropped, 0
            self._write(line)
            if dropped:
                told = f"{dropped} log lines were dropped before this one: nobody read them"
                record = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
                self._write(self.format(logging.makeLogRecord({**record, "msg": told})))

    def _write_what_fits(self, line: str) -> None:
        """As much as is written without waiting: a pipe that is ready takes `PIPE_BUF` bytes."""
        data = (line + "\n").encode("utf-8", "backslashreplace")
        if len(data) > select.PIPE_BUF:
            data = data[: select.PIPE_BUF - 1] + b"\n"
        with suppress(OSError, ValueError):
            if select.select([], [self._stream], [], 0)[1]:
                os.write(self._stream.fileno(), data)

    def _write(self, line: str) -> None:
        # Past the stream's buffer: its lock, held while nobody reads, would be the end of an exit.
        data = (line + "\n").encode("utf-8", "backslashreplace")
        try:
            file = self._stream.fileno()
            while data:
                try:
                    data = data[os.write(file, data) :]
                except BlockingIOError:
                    select.select([], [file], [], 1.0)
        except (OSError, ValueError):
            pass  # whoever read has gone


class _Json(JsonFormatter):
    """One object a line, with the time in UTC."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        at = datetime.fromtimestamp(record.created, UTC)
        return at.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def logging_config(
    log_format: str,
    log_level: str,
    handlers: Iterable[str] = (),
    hidden: Iterable[str] = (),
) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`, for gunicorn's loggers as well.

    Everything goes to standard error, where hosts collect it. What libraries have to say for
    their own debugging is kept out.

    :param handlers: the modules with handlers, whose lines are as ours.
    :param hidden: see `Patient`.
    """
    level = log_level.upper()
    ours = {"receiver", *(name.partition(".")[0] for name in handlers)}
    formatters: dict[str, Any] = {
        "text": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"},
        "json": {
            "()": _Json,
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
                "()": Patient,
                "formatter": log_format,
                "hidden": tuple(hidden),
            }
        },
        "root": {"level": "INFO" if level == "DEBUG" else level, "handlers": ["stderr"]},
        "loggers": {
            **{name: {"level": level} for name in ours},
            "gunicorn.error": {"level": level, "propagate": True, "handlers": []},
            # Off by default: the sender's requests are in the store, and a line each costs more
            # than the rest of a request. `--access-logfile -` turns it on.
            "gunicorn.access": {"level": "INFO", "propagate": True, "handlers": []},
            # Its lines at `info` name whole URLs.
            "httpx": {"level": "WARNING"},
        },
    }


def tell_at_the_start(warnings: Iterable[str]) -> None:
    """Log what the settings are warned of, once for a service and all its processes."""
    if _TOLD not in os.environ:
        os.environ[_TOLD] = "1"
        tell(warnings)


def tell(warnings: Iterable[str]) -> None:
    for warning in warnings:
        log.warning("%s", warning)


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
