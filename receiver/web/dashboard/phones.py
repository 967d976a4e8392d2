"""Phones: when each was last heard of, and whether it is connected. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from receiver.event import clean_id
from receiver.providers import provider_of
from receiver.store.views import OfPhone
from receiver.strict_json import text_of

_CONNECTED = {"device.connected": True, "device.disconnected": False}


@dataclass(slots=True)
class Phone:
    """
    :param connected: `None` if it has told nothing of that.
    :param since: when it last told.
    :param reason: why it is disconnected, in its own words.
    :param heard: when anything was last known of it; microseconds.
    """

    device_id: str
    name: str | None = None
    connected: bool | None = None
    since: int | None = None
    reason: str | None = None
    heard: int | None = None


def phones_of(told: Iterable[OfPhone]) -> dict[str, Phone]:
    """By their ids: what phones have told of themselves.

    :param told: in any order; of each phone the latest counts.
    """
    found: dict[str, Phone] = {}
    for event in told:
        _, fields = provider_of(event.key).read(event.body)
        device_id = clean_id(text_of(fields.get("device_id")) or "")
        connected = _CONNECTED.get(event.type)
        if not device_id or connected is None:
            continue
        phone = found.setdefault(device_id, Phone(device_id))
        phone.name = phone.name or text_of(fields.get("device_name"))
        if phone.since is None or event.occurred_at > phone.since:
            phone.since = phone.heard = event.occurred_at
            phone.connected = connected
            phone.reason = None if connected else text_of(fields.get("reason"))
    return found
