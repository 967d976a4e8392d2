"""Where settings come from: the process's environment, and for local work the file `.env`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from dotenv import dotenv_values

from receiver.errors import ConfigError

FILE = ".env"


class Environment(Mapping[str, str]):
    """Variables as they are given, and what relative paths count from.

    :param folder: the folder that relative paths count from.
    :param file: the `.env` that was read, if there is one.
    :param looked_from: the folder from which upwards there was none.
    :param filed: the names of those variables that came from it.
    :param source: where the others came from.
    :param defaults: what holds instead of a setting's own default, by its name.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        folder: Path = Path(),
        file: Path | None = None,
        filed: Collection[str] = (),
        source: str = "environment",
        defaults: Mapping[str, str] = MappingProxyType({}),
        looked_from: Path | None = None,
    ) -> None:
        self._variables = dict(variables)
        self.folder = folder
        self.file = file
        self.filed = frozenset(filed)
        self.source = source
        self.defaults = defaults
        self.looked_from = looked_from

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Environment:
        return variables if isinstance(variables, cls) else cls(variables)

    def __getitem__(self, name: str) -> str:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def value(self, name: str) -> str:
        """What a variable counts as; one that is empty is as one that is not set."""
        return clean(self.get(name, ""))


def clean(text: str) -> str:
    """A value without blanks and line ends around it, and without a pair of quotes.

    `docker --env-file` and others hand quotes on. Where the same quote is inside as well, as in a
    list of quoted parts, they are no pair.
    """
    text = text.strip()
    while len(text) > 1 and text[0] in "'\"" and text.find(text[0], 1) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def load(beside: Path | None, names: Collection[str] = ()) -> Environment:
    """Read `.env` into the process's environment, for handlers as well; what was set before wins.

    It is looked for from the current folder upwards, then beside `wsgi.py`.

    :param beside: the folder of `wsgi.py`, if the program was started by it.
    :param names: variables whose values are cleaned where handlers look for them.
    :raises ConfigError: if the file cannot be read.
    """
    try:
        here = Path.cwd()
    except OSError:  # the folder was removed
        here = beside or Path("/")
    folders = [here, *here.parents] + ([] if beside is None else [beside])
    file = next((f / FILE for f in folders if os.path.isfile(f / FILE)), None)
    filed = set() if file is None else _take_over(_text_of(file))
    for name in names:
        if name in os.environ:
            os.environ[name] = clean(os.environ[name])
    if file is None:
        return Environment(os.environ, beside or here, looked_from=here)
    return Environment(os.environ, file.parent, file, filed)


def find_modules_in(folder: Path) -> None:
    """Let a user's handlers be imported from there, also where it is not the current folder.

    Last: a file that is called queue.py, say, must not stand in for Python's own.
    """
    place = str(folder.absolute())
    if place not in sys.path:
        sys.path.append(place)


def _text_of(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
        wrong = text.find("\0")  # as UTF-16 without a mark has them
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        line = data.count(b"\n", 0, wrong) + 1
        raise ConfigError(str(file), f"is not UTF-8 (line {line}); save it as UTF-8")
    return text


def _take_over(text: str) -> set[str]:
    """Put what a file says into the process's environment; returns the names that came from it."""
    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    # The `flask` command has read the file before us, and has put other variables in for `${…}`.
    expanded = dotenv_values(stream=io.StringIO(text)) if "FLASK_RUN_FROM_CLI" in os.environ else {}
    filed = set()
    for name, value in values.items():
        if not clean(value or ""):
            continue
        given = os.environ.get(name, "")
        if not clean(given) or given in (value, expanded.get(name)):
            os.environ[name] = str(value)
            filed.add(name)
    return filed
