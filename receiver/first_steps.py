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


def begin(folder: Path) -> dict[Path, bool]:
    """Write both into a folder, which is made if it is not there.

    The settings come last: where they are missing, the handlers may be somebody's own, or of a
    beginning that was killed.

    :returns: their paths, and whether each was written; else it was there already.
    :raises ConfigError: if there are settings already (then nothing is written), or if something
        cannot be written.
    """
    settings, handlers = folder / FILE, folder / HANDLERS_FILE
    if os.path.lexists(settings):
        raise ConfigError(str(settings), "is there already, and nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(str(folder), f"cannot be made: {error.strerror}") from None
    is_new = not os.path.lexists(handlers)
    if is_new:
        _write(handlers, _FIRST_HANDLER.read_text("utf-8"), 0o666)
    write_settings(settings, {"HANDLERS": f"handlers,{Path(HANDLERS_FILE).stem}"})
    return {handlers: is_new, settings: True}


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
    """All of it, or there is no such file, also if the process is killed on the way."""
    whole = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        try:
            with open(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as opened:
                opened.write(text)
            _name(whole, file)
        finally:
            with suppress(OSError):
                whole.unlink()
    except OSError as error:
        raise ConfigError(str(file), f"cannot be written: {error.strerror}") from None


def _name(whole: Path, file: Path) -> None:
    """Let a file be found by its name, if nothing else has it."""
    try:
        os.link(whole, file)
    except OSError:
        if os.path.lexists(file):
            raise
        os.rename(whole, file)  # on some disks no file has two names


if __name__ == "__main__":
    try:
        write_settings(Path(FILE))
    except ConfigError as error:
        sys.exit(f"zimsend-receiver cannot start. {error}")
