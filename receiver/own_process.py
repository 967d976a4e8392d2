"""Another process of this service's own, in which this very package does one thing.

It finds libraries where this process does, but its Python's own and those that are installed first:
no file of the current folder or of a clone, whatever its name, stands in for one of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The package is taken from its place, and that folder is not searched before the others: beside a
# clone's `receiver/` are a user's own modules, and another release may be installed as well.
_BEGIN = """\
import os, sys
from importlib.util import module_from_spec, spec_from_file_location
ours = spec_from_file_location("receiver", sys.argv.pop(1))
package = sys.modules["receiver"] = module_from_spec(ours)
sys.path += [p for p in sys.argv.pop(1).split(os.pathsep) if p not in sys.path]
ours.loader.exec_module(package)
"""
_PACKAGE = Path(__file__).with_name("__init__.py").absolute()


def command(code: str, *arguments: str) -> list[str]:
    """What starts it.

    :param code: what it does, in Python; it has `sys`.
    :param arguments: its `sys.argv[1:]`.
    """
    paths = os.pathsep.join(filter(None, sys.path))
    # -P: the current folder is not searched.
    return [sys.executable, "-P", "-c", _BEGIN + code, str(_PACKAGE), paths, *arguments]
