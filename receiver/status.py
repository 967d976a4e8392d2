"""What an event says of its message, how sayings merge, and the status that follows.

Everything here is pure. A message's row is a map of registers, and so is what one event says:

    {"sent": [order, event id, value], "to": [order, event id, value], ...}

Merging keeps, register by register, the greatest stamp `(order, event id)`. That is a join:
commutative, associative, idempotent, so the row is a function of the *set* of events, whatever
the order and however often they came.

A state's register holds the time to show. A state whose only time is that of its receipt goes
into a register of its own (`sent~`): such a time may be shown and may say that the state was
reached, but never that it was reached after a failure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from receiver import times
from receiver.errors import Unusable
from receiver.strict_json import read_text, text_of

#: The states of a message, in the order in which the provider walks through them.
STATES = ("queued", "processing", "sent", "delivered", "failed", "cancelled")

#: Event type to the state that it reports. An expired message is a failed one.
STATE_OF_TYPE = {f"sms.{state}": state for state in STATES} | {"sms.expired": "failed"}

_TIME_OF_STATE = {state: f"{state}_at" for state in STATES}
_FURTHEST_FIRST = ("sent", "processing", "queued")
_RECEIPT = "~"
#: The register of a row that only test events have told of.
_TEST = "test"

Register = list[Any]
Row = dict[str, Register]


def read_metadata(value: object) -> dict[str, Any] | None:
    """The object that was given when the message was sent, also where it comes as JSON in a string;
    `None` if it is neither."""
    if type(value) is str:
        try:
            value = read_text(value)
        except Unusable:
            return None
    return value if isinstance(value, dict) else None


def _message(value: object) -> str | None:
    return value if type(value) is str else None  # a number too big for Python is a subclass of it


def _priority(value: object) -> str | int | None:
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


#: What a row keeps of `data` beside states and error, each with what reads it.
FIELDS: dict[str, Callable[[object], Any]] = {
    "to": text_of,
    "message": _message,
    "device_id": text_of,
    "metadata": read_metadata,
    "priority": _priority,
}

#: An `error` that is a text may be a code, or words.
ERROR_CODE = re.compile(r"[A-Z][A-Z0-9_]*|-?\d+", re.ASCII)


def usable_time(value: object, received_at: int, retention: int) -> int | None:
    """A time that an event carries, if it can be believed.

    :returns: `None` where there is none, and where it lies outside
        [receipt - retention, receipt + 1 day], without the latter if the clock was not trusted.
    """
    moment = times.read(value)
    if moment is None or not received_at - retention <= moment <= times.latest_from(received_at):
        return None
    return moment


def read_error(event_type: str, data: Mapping[str, Any]) -> dict[str, str | None] | None:
    """The failure's `code` and `message`, in each of the shapes that the provider prints.

    :returns: `None` if the event is no failure, or does not say why.
    """
    if STATE_OF_TYPE.get(event_type) != "failed":
        return None
    error = data.get("error")
    if not isinstance(error, dict):
        text = text_of(error)
        error = _error_from_text(text) if text is not None else None
    code = message = None
    if isinstance(error, dict):
        code, message = text_of(error.get("code")) or None, text_of(error.get("message")) or None
    if event_type == "sms.expired":
        code = "EXPIRED"
    return {"code": code, "message": message} if code or message else None


def _error_from_text(error: str) -> object:
    if error.startswith("{"):
        with suppress(Unusable):
            return read_text(error)
    return {"code" if ERROR_CODE.fullmatch(error) else "message": error}


def project(
    event_type: str,
    data: Mapping[str, Any],
    *,
    event_id: str,
    timestamp: int | None,
    received_at: int,
    retention: int,
) -> Row | None:
    """What one event says of its message, as a row of its own.

    :param timestamp: the envelope's time, already checked by `usable_time`.
    :param received_at: when the event was first received.
    :param retention: microseconds that a time may lie in the past.
    :returns: `None` for types that do not touch the mirror.
    """
    own = STATE_OF_TYPE.get(event_type)
    if own is None:
        return None
    own_time = usable_time(data.get(_TIME_OF_STATE[own]), received_at, retention)
    order = timestamp if timestamp is not None else own_time
    suffix = ""
    if order is None:
        order, suffix = received_at, _RECEIPT
    row: Row = {own + suffix: [order, event_id, own_time if own_time is not None else order]}
    for state, key in _TIME_OF_STATE.items():
        if key in data and state != own:
            carried = usable_time(data[key], received_at, retention)
            if carried is not None:
                row[state + suffix] = [order, event_id, carried]
    for name, read in FIELDS.items():
        value = data.get(name)
        if value is not None and (value := read(value)) is not None:
            row[name] = [order, event_id, value]
    error = read_error(event_type, data)
    if error is not None:
        row["error"] = [order, event_id, error]
    return row


def merge(one: Mapping[str, Register], other: Mapping[str, Register]) -> Row:
    """The join of two rows: of each register the one with the greater stamp."""
    joined = dict(one)
    for name, register in other.items():
        mine = joined.get(name)
        if mine is None or (mine[0], mine[1]) < (register[0], register[1]):
            joined[name] = register
    # A test stays one only while nothing else tells of it. An empty row tells of nothing.
    if _TEST in joined and one and other and not (_TEST in one and _TEST in other):
        del joined[_TEST]
    return joined


def mark_test(row: Row, order: int, event_id: str) -> None:
    """Say in what an event says that the event is a test."""
    row[_TEST] = [order, event_id, True]


def is_test(row: Mapping[str, Register]) -> bool:
    """Whether test events alone have told of a message; then it counts in no statistics."""
    return _TEST in row


def status(row: Mapping[str, Register]) -> str | None:
    """The message's status, from the states' order times; `None` for a row without any state."""
    for final in ("delivered", "cancelled"):
        if final in row or final + _RECEIPT in row:
            return final
    failure = latest(row, "failed")
    if failure is None:
        for state in _FURTHEST_FIRST:
            if state in row or state + _RECEIPT in row:
                return state
        return None
    for state in _FURTHEST_FIRST:
        if state in row and row[state][0] > failure[0]:
            return state
    return "failed"


def is_late(before: Mapping[str, Register], after: Mapping[str, Register], state: str) -> bool:
    """Whether a message was already further than the state that an event reports.

    :param before: the row as it was; empty if the message is new, and then nothing is late.
    :param after: the row with the event merged in.
    """
    return bool(before) and status(before) == status(after) != state


def describe(row: Mapping[str, Register]) -> dict[str, Any]:
    """The row as a reader wants it: `status`, each `<state>_at`, each field; `None` = unknown.

    Times are microseconds. `error` is there only while the message is failed; `test` is true while
    only tests have told of it.
    """
    current = status(row)
    view: dict[str, Any] = {"status": current}
    for state in STATES:
        register = latest(row, state)
        view[f"{state}_at"] = None if register is None else register[2]
    for name in FIELDS:
        view[name] = row[name][2] if name in row else None
    view["error"] = row["error"][2] if current == "failed" and "error" in row else None
    view["test"] = is_test(row)
    return view


def error_code(row: Mapping[str, Register], current: str | None) -> str:
    """Why a message is failed; empty if it is not, or if nobody has said why."""
    if current != "failed" or "error" not in row:
        return ""
    return row["error"][2]["code"] or ""


def latest(row: Mapping[str, Register], state: str) -> Register | None:
    """The state's register with the greatest stamp, whether it rests on a receipt or not."""
    told, received = row.get(state), row.get(state + _RECEIPT)
    if told is None or received is None:
        return received if told is None else told
    return max(told, received, key=lambda register: (register[0], register[1]))
