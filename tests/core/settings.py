"""Settings as the tests of them read them, and what all of their errors must be like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from receiver import ConfigError
from receiver.config import SETTINGS, Config

SECRET = "whsec_0123456789abcdef"
OTHER = "whsec_fedcba9876543210"
NAME = "ZIMSEND_WEBHOOK_SECRET"


#: What a setting needs beside it.
NEEDS = {
    setting.name: {other: "needed" * 6}
    for setting in SETTINGS
    if (other := setting.needs or setting.only_with) is not None
}


def read(**environ: str) -> Config:
    return Config.from_env({NAME: SECRET, **environ})


def mounts(*folders: str) -> Callable[[Path], bool]:
    """A machine on which these are mount points, in place of `os.path.ismount`."""
    return lambda folder: str(folder) in ("/", *folders)


def refused(**environ: str) -> ConfigError:
    """The error that these settings give; it always names one variable, in one line."""
    with pytest.raises(ConfigError) as caught:
        read(**environ)
    error = caught.value
    assert str(error) == f"{error.name}: {error.problem}"
    assert len(str(error).splitlines()) == 1
    assert error.problem
    assert error.__suppress_context__ or error.__context__ is None  # no second traceback
    return error
