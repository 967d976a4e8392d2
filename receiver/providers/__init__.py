"""The providers that this service knows: `contract` says what is asked of each, a room has each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from receiver import ids
from receiver.config import Config
from receiver.errors import ConfigError
from receiver.providers import sipgate, smscx, zimsend
from receiver.providers.contract import Asked, Door, Item, Provider, Sender, Sending, Told

__all__ = [
    "PROVIDERS",
    "SENDING",
    "TYPES",
    "Asked",
    "Door",
    "Item",
    "Provider",
    "Sender",
    "Sending",
    "Told",
    "by_report",
    "provider_of",
    "send_with",
]

#: By name; the first one is asked first.
PROVIDERS: Mapping[str, Provider] = {
    each.name: each for each in (zimsend.PROVIDER, smscx.PROVIDER, sipgate.PROVIDER)
}

#: The types of events that any of them documents.
TYPES = frozenset(kind for each in PROVIDERS.values() for kind in each.samples)

#: Those that can be sent through, in the same order.
SENDING: Mapping[str, Sending] = {
    name: each.sending for name, each in PROVIDERS.items() if each.sending is not None
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


def send_with(config: Config) -> tuple[str, ...]:
    """Whom to send through: as `SEND_WITH` says, else the first that can.

    :raises ConfigError: if `SEND_WITH` names one that nothing can be sent through.
    """
    for name in config.send_with:
        if name not in SENDING:
            raise ConfigError("SEND_WITH", f"{name!r} is none of {', '.join(SENDING)}")
        if not SENDING[name].is_set_up(config):
            missing = " and ".join(SENDING[name].settings)
            raise ConfigError("SEND_WITH", f"nothing can be sent with {name}: set {missing}")
    able = [name for name, sending in SENDING.items() if sending.is_set_up(config)]
    return config.send_with or tuple(able[:1])
