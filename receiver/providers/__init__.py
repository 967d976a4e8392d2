"""The providers that this service knows: `contract` says what is asked of each, a room has each."""

from __future__ import annotations

from collections.abc import Mapping

from receiver import ids
from receiver.providers import sipgate, smscx, zimsend
from receiver.providers.contract import Door, Item, Provider

__all__ = ["PROVIDERS", "Door", "Item", "Provider", "provider_of"]

#: By name; the first one is asked first.
PROVIDERS: Mapping[str, Provider] = {
    each.name: each for each in (zimsend.PROVIDER, smscx.PROVIDER, sipgate.PROVIDER)
}


def provider_of(key: str) -> Provider:
    """The provider of an event, a message or a body in quarantine, by its key.

    :raises KeyError: if a newer release has stored it for a provider that this one does not know.
    """
    return PROVIDERS[ids.split(key)[0]]
