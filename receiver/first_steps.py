"""The files that a new service begins with: `.env` with fresh secrets, and a first handler."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from receiver.environment import FILE
from receiver.errors import ConfigError

HANDLERS_FILE = "my_handlers.py"
_FIRST_HANDLER = Path(__file__).parent / "handlers" / "first.py"


def begin(folder: Path) -> list[Path]:
    """Write both into a folder, which is made if it is not there; returns their paths.

    :raises ConfigError: if one of them is there already (then nothing is written), or cannot be
        written.
    """
    settings, handlers = folder / FILE, folder / HANDLERS_FILE
    for file in (settings, handlers):
        if os.path.lexists(file):
            raise ConfigError(str(file), "is there already, and nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(str(folder), f"cannot be made: {error.strerror}") from None
    _write(handlers, _FIRST_HANDLER.read_text("utf-8"), 0o666)
    write_settings(settings, {"HANDLERS": f"handlers,{Path(HANDLERS_FILE).stem}"})
    return [settings, handlers]


def write_settings(file: Path, further: dict[str, str] | None = None) -> None:
    """A new `.env` with secrets of its own, readable by nobody else.

    :raises ConfigError: if it is there already, or cannot be written.
    """
    settings = {
        "ZIMSEND_WEBHOOK_SECRET": f"whsec_{secrets.token_hex(32)}",
        "ADMIN_PASSWORD": secrets.token_urlsafe(12),
        "SECRET_KEY": secrets.token_hex(32),
        "METRICS_TOKEN": secrets.token_hex(24),
        **(further or {}),
    }
    _write(file, "".join(f"{name}={value}\n" for name, value in settings.items()), 0o600)


def _write(file: Path, text: str, mode: int) -> None:
    """All of it, or there is no such file."""
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as opened:
            try:
                opened.write(text)
                opened.flush()
            except OSError:
                with suppress(OSError):
                    file.unlink()
                raise
    except OSError as error:
        raise ConfigError(str(file), f"cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    try:
        write_settings(Path(FILE))
    except ConfigError as error:
        sys.exit(f"zimsend-receiver cannot start. {error}")
