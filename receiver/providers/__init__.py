"""The providers that this service knows: `contract` says what is asked of each, a room has each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from receiver import ids
from receiver.providers import sipgate, smscx, zimsend
from receiver.providers.contract import Door, Item, Provider

__all__ = ["PROVIDERS", "Door", "Item", "Provider", "by_report", "provider_of"]

#: By name; the first one is asked first.
PROVIDERS: Mapping[str, Provider] = {
    each.name: each for each in (zimsend.PROVIDER, smscx.PROVIDER, sipgate.PROVIDER)
}


def provider_of(key: str) -> Provider:
    """The provider of an event, a message or a body in quarantine, by its key.

    :raises KeyError: if a newer release has stored it for a provider that this one does not know.
    """
    return PROVIDERS[ids.split(key)[0]]


def by_report(
    counts: Iterable[tuple[Any, ...]],
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Numbers of messages, apart: those whose provider reports deliveries, and the others.

    :param counts: the second of each is the provider's name; one that is not known here reports.
    """
    silent = {name for name, provider in PROVIDERS.items() if not provider.reports_delivery}
    found = list(counts)
    return [c for c in found if c[1] not in silent], [c for c in found if c[1] in silent]
