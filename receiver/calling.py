"""How a person calls the commands: `flask …` in a clone, another name from elsewhere.

The name is the process's, and the door that one came in by sets it. In a program with several
receivers each has its own. Texts that tell what to type ask for it when they are told.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from contextvars import ContextVar
from pathlib import Path

#: The command of the installed package.
PROGRAM = "zimsend-receiver"
_name = "flask"
#: What goes before it, while a request or a command is answered.
_here: ContextVar[str] = ContextVar("zimsend_called")


def be_called(name: str) -> None:
    """Say what stands before a command's name, like `zimsend-receiver` or `manage.py zimsend`."""
    global _name
    _name = name
    be_called_here(name)


def be_called_here(name: str) -> None:
    """The same, for what is told in this request alone."""
    _here.set(name)


def installed() -> str:
    """What to type for the package's command: its name, or its path where a shell would not find
    it, as in an environment that is not activated."""
    program = Path(sys.executable).with_name(PROGRAM)
    found = shutil.which(PROGRAM)
    if not program.is_file() or (found is not None and os.path.samefile(found, program)):
        return PROGRAM
    return shlex.quote(str(program))


def call(command: str) -> str:
    """A command as one types it: `call("events list")` is `flask events list` in a clone."""
    return f"{_here.get(_name)} {command}"


def as_called(text: str) -> str:
    """A text of ours that was written for a clone, with its commands as one types them here."""
    return text.replace("`flask ", f"`{_here.get(_name)} ")


def install(extra: str, listed: str) -> str:
    """What installs that which only some services need.

    :param extra: its name among the package's extras.
    :param listed: the file of a clone that lists it.
    """
    in_clone = (Path(__file__).parent.parent / listed).is_file()
    return f"pip install -r {listed}" if in_clone else f'pip install "zimsend-receiver[{extra}]"'
