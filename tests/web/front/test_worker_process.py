"""The worker's process, from the side of gunicorn's master."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from receiver.pipes import DEATH, LIFE
from receiver.web.front import worker_process
from receiver.web.front.worker_process import WorkerProcess
from tests.forks import in_a_fork
from tests.server import eventually

LIVES = f"""
import os, sys
with open(sys.argv[1], "a") as file:
    print(os.getpid(), file=file)
os.read(int(os.environ["{LIFE}"]), 1)
"""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(worker_process, "LONGEST_PAUSE", 0.01)


@contextmanager
def running(begun: Path) -> Iterator[WorkerProcess]:
    """One that writes its number into a file whenever it begins."""
    process = WorkerProcess([sys.executable, "-c", LIVES, str(begun)], os.environ)
    process.start()
    try:
        next_of(begun, 0)
        yield process
    finally:
        process.stop()
        assert process.wait(20)
        process.forget()


def next_of(begun: Path, before: int) -> int:
    """The number of the one that has begun after so many others."""
    lines: list[str] = eventually(
        lambda: begun.exists() and begun.read_text().split()[before:], within=10
    )
    return int(lines[0])


def test_what_cannot_be_started_for_want_of_files_takes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("no room"), OSError(11, "Again")])
def test_whatever_keeps_it_from_starting_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    failing = iter([error, error])
    really = subprocess.Popen

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        for instead in failing:
            raise instead
        return really(*args, **options)

    with running(tmp_path / "begun") as process:
        monkeypatch.setattr(subprocess, "Popen", start)
        process.renew()
        assert next_of(tmp_path / "begun", 1)


@pytest.mark.parametrize("begins", [False, True])
def test_one_that_hangs_is_ended_by_force(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    begins: bool,
) -> None:
    begun = tmp_path / "begun"
    lines = (
        "import os, sys, time",
        f"os.write(int(os.environ['{DEATH}']), b'b')" if begins else "",
        "with open(sys.argv[1], 'a') as file: print(os.getpid(), file=file)",
        "time.sleep(600)",
    )
    process = WorkerProcess([sys.executable, "-c", "\n".join(lines), str(begun)], os.environ)
    monkeypatch.setattr(worker_process, "ENDS_WITHIN" if begins else "BEGINS_WITHIN", 0.5)
    process.start()
    first = next_of(begun, 0)
    if begins:
        process.renew()
    assert next_of(begun, 1) != first
    assert f"does not {'end' if begins else 'begin'}: it is ended by force" in caplog.text
    process.stop()
    assert not process.wait(0)  # it hangs still
    eventually(lambda: process.wait(0))
    process.forget()


def test_a_fork_while_it_starts_does_not_hide_its_death(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """gunicorn may start a web process at any moment."""
    begun = tmp_path / "begun"
    starting = threading.Event()
    really = subprocess.Popen

    def start_slowly(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        starting.set()
        time.sleep(0.2)  # the fork below would find its time in here
        return really(*args, **options)

    with running(begun) as process:
        monkeypatch.setattr(subprocess, "Popen", start_slowly)
        process.renew()
        assert starting.wait(10)

        def lives_until_it_is_started_again() -> bool:
            process.forget()
            os.kill(next_of(begun, 1), signal.SIGKILL)
            return next_of(begun, 2) > 0

        assert in_a_fork(lives_until_it_is_started_again)
