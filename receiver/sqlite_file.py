"""Where SQLite's file lies: what relative paths count from, and on which disks none may lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from receiver.errors import ConfigError

#: Variables that a host sets by itself, and the hosts. There, a disk begins empty with each
#: release or restart, except where a volume is mounted.
EPHEMERAL_HOSTS = {
    "DYNO": "Heroku or Dokku",
    "RENDER": "Render",
    "RAILWAY_ENVIRONMENT_NAME": "Railway",
    "FLY_APP_NAME": "Fly",
    "K_SERVICE": "Cloud Run",
    "SCALINGO_APPLICATION_ID": "Scalingo",
    "CC_DEPLOYMENT_ID": "Clever Cloud",
}

#: Often mount points, and never volumes.
_NO_VOLUMES = (Path("/"), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - only compared

_SCHEME = "sqlite:///"


def placed(url: str, folder: Path) -> str:
    """A `DATABASE_URL` whose path no longer depends on the current folder.

    :param folder: what a relative path counts from.
    :raises ConfigError: if it would have been another file, from the current folder, that exists.
    """
    path = url.removeprefix(_SCHEME)
    if path in (url, "", ":memory:") or "?" in path or path.startswith(("/", "file:")):
        return url  # no relative path, or none at all, as the store will say
    file = folder / path
    if os.path.exists(path) and not (os.path.exists(file) and os.path.samefile(path, file)):
        raise ConfigError(
            "DATABASE_URL",
            f"{path} counts from {folder}, and in the current folder there is an older "
            f"{os.path.abspath(path)}, which would not be used; move it to {file}, or set "
            f"DATABASE_URL={_SCHEME}{os.path.abspath(path)}",
        )
    return f"{_SCHEME}{file}"


def refuse_ephemeral(
    url: str, environ: Mapping[str, str], ismount: Callable[[Path], bool] = os.path.ismount
) -> None:
    """
    :raises ConfigError: if a host would delete the file.
    """
    mark = next((mark for mark in EPHEMERAL_HOSTS if environ.get(mark)), None)
    if mark is None or not url.startswith("sqlite:"):
        return
    # A volume is a mount point of its own: neither that of the root, nor the one that the program
    # lies on, which comes and goes with a release.
    mount = _mount_point(url.removeprefix(_SCHEME), ismount)
    if mount in (*_NO_VOLUMES, _mount_point(__file__, ismount)):
        raise ConfigError(
            "DATABASE_URL",
            f"{EPHEMERAL_HOSTS[mark]} ({mark} is set) empties the disk of this SQLite file "
            "at a release or restart, and every event is lost; use PostgreSQL, or a path on "
            "a volume, or set ALLOW_EPHEMERAL_SQLITE=1 if all may be lost",
        )


def _mount_point(file: str, ismount: Callable[[Path], bool]) -> Path:
    """Where the file system begins that holds a file, or would hold it."""
    folders = Path(os.path.realpath(file)).parents
    return next((folder for folder in folders if ismount(folder)), Path("/"))
