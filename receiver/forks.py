"""Locks in a fork: the thread that may have had one has not come along, so each is made anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

_made: WeakKeyDictionary[Any, dict[str, Callable[[], object]]] = WeakKeyDictionary()


def renew_in_forks(owner: Any, attribute: str, make: Callable[[], object]) -> None:
    """Give an object a lock, and in each fork of this process another one.

    :param make: makes it.
    """
    setattr(owner, attribute, make())
    _made.setdefault(owner, {})[attribute] = make


def _renew() -> None:
    for owner, made in list(_made.items()):
        for attribute, make in made.items():
            setattr(owner, attribute, make())


os.register_at_fork(after_in_child=_renew)
