"""Where settings come from: the process's environment, and for local work the file `.env`."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from receiver.errors import ConfigError

FILE = ".env"
#: In the environment of a process whose settings gunicorn's master has read: see `handed_on`.
_READ = "RECEIVER_SETTINGS_READ"
_NAME_ALONE = re.compile(r"[\w.-]+")
#: By name: the value that `take_over` has put into the process's environment from `.env`, and the
#: one that stood there before.
_put: dict[str, tuple[str, str | None]] = {}


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
    """The settings of this process, also in its environment, where handlers look.

    :param beside: the folder of `wsgi.py`, if the program was started by it.
    :param names: variables whose values are cleaned where handlers look for them.
    :raises ConfigError: if `.env` cannot be read.
    """
    given = os.environ.pop(_READ, None)
    if given is not None:
        read = json.loads(given)
        file = read["file"] and Path(read["file"])
        return Environment(os.environ, Path(read["folder"]), file, read["filed"])
    environment = read_anew(beside, names)
    take_over(environment)
    return environment


def read_anew(beside: Path | None, names: Collection[str] = ()) -> Environment:
    """What the process's environment and `.env` say now; what was set before `.env` wins.

    It is looked for from the current folder upwards, then beside `wsgi.py`. Parameters and errors:
    see `load`.
    """
    try:
        here = Path.cwd()
    except OSError:  # the folder was removed
        here = beside or Path("/")
    folders = [here, *here.parents] + ([] if beside is None else [beside])
    file = next((f / FILE for f in folders if os.path.isfile(f / FILE)), None)
    variables = without_file()
    filed = set() if file is None else _fill(variables, _text_of(file), file)
    for name in names:
        if name in variables:
            variables[name] = clean(variables[name])
    if file is None:
        return Environment(variables, beside or here, looked_from=here)
    return Environment(variables, file.parent, file, filed)


def take_over(environment: Environment) -> None:
    """Put what was read into the process's environment, and take out what an earlier `.env` has put
    there and this one does not say."""
    given = without_file()
    for name in _put.keys() - environment.keys():
        os.environ.pop(name, None)
    os.environ.update(environment)
    _put.clear()
    _put.update({name: (environment[name], given.get(name)) for name in environment.filed})


def without_file() -> dict[str, str]:
    """The process's environment as it was before `.env`."""
    variables = dict(os.environ)
    for name, (value, before) in _put.items():
        if variables.get(name) == value:
            del variables[name]
            if before is not None:
                variables[name] = before
    return variables


def handed_on(environment: Environment) -> dict[str, str]:
    """What gunicorn's master adds to its children's environment, for `load`: they then read no
    `.env`, which may have changed since, so all have the same settings."""
    file = environment.file and str(environment.file)
    read = {"folder": str(environment.folder), "file": file, "filed": sorted(environment.filed)}
    return {_READ: json.dumps(read)}


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


def _fill(variables: dict[str, str], text: str, file: Path) -> set[str]:
    """Put what a file says where nothing is set; returns the names that came from it."""
    values = _values_in(text, file)
    # The `flask` command has read the file before us, and has put other variables in for `${…}`.
    expanded = dotenv_values(stream=io.StringIO(text)) if "FLASK_RUN_FROM_CLI" in os.environ else {}
    filed = set()
    for name, value in values.items():
        given = variables.get(name, "")
        if clean(value) and (not clean(given) or given in (value, expanded.get(name))):
            variables[name] = value
            filed.add(name)
    return filed


def _values_in(text: str, file: Path) -> dict[str, str]:
    """What each name has; the last line counts. A name alone says nothing, as in Docker's files.

    :raises ConfigError: at a line that is not understood, which would be passed over in silence.
    """
    values = {}
    for line in parse_stream(io.StringIO(text)):
        if line.error or not _is_understood(line.key, line.value):
            whole = line.original.string
            blank = whole[: len(whole) - len(whole.lstrip())]
            number = line.original.line + blank.count("\n")
            raise ConfigError(str(file), f"line {number} is no NAME=value, or has an open quote")
        if line.key is not None and line.value is not None:
            values[line.key] = line.value
    return values


def _is_understood(name: str | None, value: str | None) -> bool:
    if name is None:  # a comment
        return True
    if value is None:
        return _NAME_ALONE.fullmatch(name) is not None
    return not set(name) & set("=\"'")
