"""What the lists' filters say, as they stand in the address."""

from __future__ import annotations

from flask import request

from receiver.moments import moment
from receiver.parts import parts


class Wrong(Exception):
    """A filter cannot be understood: the key of the sentence that says so."""


def given(name: str) -> str | None:
    return request.args.get(name, "").strip() or None


def moment_of(name: str, *, last: bool) -> int | None:
    """
    :param last: whether a day means its last microsecond.
    :raises Wrong: if it is no time.
    """
    text = given(name)
    if text is None:
        return None
    receiver = parts()
    try:
        found = moment(text, receiver.now(), receiver.config.timezone, last=last)
    except OverflowError:
        found = None
    if found is None:
        raise Wrong(f"messages.wrong.{name}")
    return found
