"""Messages on their way: a short-lived process sends them, through apprise.

apprise takes some 50 MB once it is imported, and a target may take as long as it likes. So it is
never imported here, and the process has a time limit. It gets the targets, which hold secrets, on
its standard input, and of this process's environment only what HTTP needs.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from receiver import own_process
from receiver.calling import install
from receiver.errors import ConfigError

log = logging.getLogger(__name__)

#: Seconds in which a target must have taken all messages, and in which the process must have ended.
WITHIN = 15.0
_ENDED_WITHIN = WITHIN + 5.0

_SEND = "from receiver.alerts import courier; courier.main()"
_KEPT = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV"})
_OF_HTTP = frozenset(
    {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)


class Parcel(NamedTuple):
    """One message for one target."""

    target: int
    title: str
    text: str
    bad: bool


def refuse_without_apprise() -> None:
    """
    :raises ConfigError: if it is not installed.
    """
    if importlib.util.find_spec("apprise") is None:
        raise ConfigError(
            "ALERT_URLS",
            "set, but apprise, which sends alerts, is not installed: run "
            f"`{install('alerts', 'requirements-alerts.txt')}`",
        )


def name_of(targets: Sequence[str], target: int) -> str:
    """A target as people are told of it: its number and its kind, and nothing that is secret."""
    return f"target {target + 1} of ALERT_URLS ({targets[target].partition('://')[0]})"


def send(
    targets: Sequence[str], parcels: Sequence[Parcel], within: float = WITHIN
) -> list[str | None]:
    """Send all, to all targets at the same time.

    :param within: seconds; what has not been taken by then has failed.
    :returns: for each parcel why it failed, in a few words; `None` if it was taken.
    """
    ends: list[str | None] = [f"it did not answer within {within:g} s" for _ in parcels]
    asked = json.dumps({"targets": list(targets), "parcels": parcels, "within": within})
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            own_process.command(_SEND),
            input=asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries may name addresses
            text=True,
            env=_environment(),
            timeout=within + _ENDED_WITHIN - WITHIN,
            check=False,
        )
        told = done.stdout
    except subprocess.TimeoutExpired as error:
        told = (error.stdout or b"").decode() if isinstance(error.stdout, bytes) else ""
    except OSError as error:
        return [f"no process could be started ({type(error).__name__})" for _ in parcels]
    for line in told.splitlines():
        try:
            number, end = json.loads(line)
            ends[number] = end
        except (ValueError, TypeError, IndexError):  # the process was ended amid a line
            break
    return ends


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.upper() in _OF_HTTP
    }
