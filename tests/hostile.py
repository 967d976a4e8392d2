"""Handlers that harm the process they run in, each as the event's metadata says; and a good one."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from receiver import Event, Registry
from tests.handlers import SEEN

#: Read once: a handler may forget the environment, or go to another folder.
FOLDER = os.environ.get(SEEN, ".")


def saw(name: str, event: Event) -> None:
    line = json.dumps({"id": event.id, "at": time.time(), "attempt": event.attempt}) + "\n"
    with (Path(FOLDER) / name).open("ab", buffering=0) as file:
        file.write(line.encode())


class Wordy(Exception):
    """Its text takes longer than anybody waits."""

    def __str__(self) -> str:
        time.sleep(30)
        return "at last"


def exits(status: str) -> None:
    os._exit(int(status))


def crashes(_: str) -> None:
    ctypes.string_at(0)


def is_killed(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory runs out


def forks(_: str) -> None:
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)


def goes_elsewhere(_: str) -> None:
    os.chdir("/")


def closes_stderr(_: str) -> None:
    sys.stderr.close()
    os.close(2)


def forgets_everything(_: str) -> None:
    os.environ.clear()


def keeps_the_lock(seconds: str) -> None:
    """A regular expression in C, which gives Python's lock away only at its end."""
    ends = time.monotonic() + float(seconds)
    while time.monotonic() < ends:
        re.match(r"(a+)+b", "a" * 24)


def computes(seconds: str) -> None:
    ends = time.monotonic() + float(seconds)
    while time.monotonic() < ends:
        pass


def fails_wordily(_: str) -> None:
    raise Wordy


def ends_the_committer(_: str) -> None:
    from tests.fatal import end_the_committer  # needs the application, which has us

    end_the_committer()


HARMS = {
    "committer": ends_the_committer,
    "exit": exits,
    "crash": crashes,
    "killed": is_killed,
    "fork": forks,
    "chdir": goes_elsewhere,
    "stderr": closes_stderr,
    "environ": forgets_everything,
    "lock": keeps_the_lock,
    "compute": computes,
    "wordy": fails_wordily,
}


def register(registry: Registry) -> None:
    @registry.on("sms.sent", name="hostile", max_attempts=2, timeout=10)
    def hostile(event: Event) -> None:
        harm, _, how = str(event.metadata.get("harm", "")).partition(" ")
        if harm:
            saw("hostile", event)
            HARMS[harm](how)

    @registry.on("sms.sent", name="good")
    def good(event: Event) -> None:
        saw("good", event)
