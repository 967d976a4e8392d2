"""The database's files: made for nobody else to read, and told from each other."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from receiver.errors import CopyRefused, StoreUnavailable

log = logging.getLogger(__name__)

#: Device and inode; `None` where there is no file.
File = tuple[int, int] | None

#: What SQLite keeps beside the database's file.
BESIDE = ("-wal", "-shm")

_making = threading.Lock()


def _renew() -> None:
    """In a fork, where the thread that may have had it has not come along."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_renew)


def identity(path: str) -> File:
    """Which file lies there. The number of one that is open is never given to another.

    :raises StoreUnavailable: if that cannot be seen at this moment.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):  # also where a folder on the way is gone
        return None
    except OSError as error:
        raise StoreUnavailable(f"DATABASE_URL: {path}: {error.strerror}") from error
    return found.st_dev, found.st_ino


def prepare(path: str, *, create: bool) -> File:
    """Which file will be opened.

    :param create: make an empty one where there is none, 0600; what SQLite puts beside it gets the
        same mode.
    :raises OSError: if there is none.
    """
    if create:
        # Only one that is new is opened and closed here: closing a file takes away the locks that
        # SQLite has on it in this process.
        with _making, suppress(FileExistsError):
            os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    found = os.stat(path)
    return found.st_dev, found.st_ino


def make_private(path: str) -> None:
    """Nobody else may read a file that was open to everybody, as earlier states made it. One that
    is open to a group alone was meant to be."""
    path = os.path.realpath(path)
    for name in (path, *(path + ending for ending in BESIDE)):
        with suppress(FileNotFoundError):
            if stat.S_IMODE(os.stat(name).st_mode) & 0o007:
                try:
                    os.chmod(name, 0o600)
                except OSError as error:
                    log.warning("%s is open to all users of this machine: %s", name, error.strerror)
                else:
                    log.warning("%s was open to all users of this machine: it is 0600 now", name)


def copy_checked(file: Path, new: Path, progress: Callable[[float], None]) -> None:
    """Copy a database, with what its `-wal` holds where one is beside it. It is not changed.

    :param progress: told which part is done, from 0 to 1.
    :raises CopyRefused: if it is none, is damaged, or is of something else.
    """
    if not file.is_file():
        raise CopyRefused(f"there is no file {file}")
    prepare(str(new), create=True)
    # Without a log nobody has it open: it is read as it lies there. SQLite would make a log beside
    # it, and refuse it as a whole in a folder where it cannot.
    how = "mode=ro" if identity(f"{file}-wal") else "mode=ro&immutable=1"
    source = sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True)
    target = sqlite3.connect(new)
    try:
        source.backup(
            target, pages=1_000, progress=lambda _, left, all: progress(1 - left / max(all, 1))
        )
        (found,) = target.execute("PRAGMA integrity_check(1)").fetchone()
        known = target.execute("SELECT 1 FROM sqlite_master WHERE name = 'deliveries'").fetchone()
    except sqlite3.DatabaseError as error:
        raise CopyRefused(f"{file} is no sound backup: {error}") from error
    finally:
        source.close()
        target.close()
    if found != "ok" or not known:
        raise CopyRefused(f"{file} is no sound backup: {found if known else 'of something else'}")
