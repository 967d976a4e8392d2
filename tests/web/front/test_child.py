"""The worker's process, from the side of gunicorn's master."""

from __future__ import annotations

import os
import sys

import pytest

from receiver.pipes import LIFE
from receiver.web.front import child
from receiver.web.front.child import WorkerProcess
from tests.server import eventually


def test_what_cannot_be_started_for_want_of_files_takes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(child, "LONGEST_PAUSE", 0.01)
    really = os.pipe
    asked = []

    def every_second_time() -> tuple[int, int]:
        asked.append(1)
        if len(asked) % 2 == 0:
            raise OSError(24, "Too many open files")
        return really()

    lives = f"import os; os.read(int(os.environ['{LIFE}']), 1)"
    process = WorkerProcess([sys.executable, "-c", lives], os.environ)
    process.start()
    with monkeypatch.context() as short:
        before = len(os.listdir("/proc/self/fd"))
        short.setattr(os, "pipe", every_second_time)
        process.renew()
        eventually(lambda: len(asked) >= 20)
        assert len(os.listdir("/proc/self/fd")) <= before + 4
        process.stop()
        assert process.wait(20)
    process.forget()
