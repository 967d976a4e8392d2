"""Events as ZimSend documents them, for trying the receiver out without an account."""

from __future__ import annotations

from typing import Unpack

from receiver.payloads import SAMPLES, Said, data_of, envelope, written
from receiver.times import SECOND

__all__ = ["SAMPLES", "sample"]


def sample(
    event_type: str,
    *,
    event_id: str,
    message_id: str,
    to: str,
    now: int,
    test: bool = False,
    **said: Unpack[Said],
) -> bytes:
    """A body as ZimSend would send it at this moment.

    :param test: whether it says that it is a test.
    :param said: what it says beside that.
    :raises KeyError: for a type that is not documented.
    :raises ValueError: if events of this type say no such thing.
    """
    if event_type not in SAMPLES:
        raise KeyError(event_type)
    now -= now % SECOND
    data = data_of(event_type, message_id=message_id, to=to, now=now, said=said)
    whole = envelope(event_type, data, event_id=event_id, now=now)
    if test:
        whole["test"] = True
    return written(whole)
