"""Ids of several providers that never meet: the key that the database has, and how people write it.

A key is one text. ZimSend's ids are their own keys, so that what earlier releases have stored stays
what it is. Another provider's key is its name, a separator that no id can hold (`clean_id` sees to
that), and its id. For people a key is written `smscx:ID`. Pure.
"""

from __future__ import annotations

#: The provider whose ids are written as they are.
FIRST = "zimsend"
#: Names that may stand before the first colon of a written id. A name that is added changes how
#: some of ZimSend's ids are written, so the list grows by a note in CHANGELOG alone.
NAMES = frozenset({FIRST, "smscx", "sipgate", "smsgate", "twilio", "textbee", "httpsms"})

_SEPARATOR = "\x1f"


def key(provider: str, own_id: str) -> str:
    """The key of a provider's id.

    :param own_id: clean (see `receiver.event.clean_id`).
    """
    return own_id if provider == FIRST else f"{provider}{_SEPARATOR}{own_id}"


def of(provider: str, name: str) -> str:
    """What the service itself keeps under a name (a mark, a note, a turn), for one provider.

    ZimSend's has the bare name, as earlier releases have written it.
    """
    return name if provider == FIRST else f"{name}:{provider}"


def prefix(provider: str) -> str:
    """What the keys of a provider begin with; those of ZimSend have no such beginning."""
    return key(provider, "")


def split(key: str) -> tuple[str, str]:
    """The provider's name, and the id that the provider itself knows."""
    provider, separator, own_id = key.partition(_SEPARATOR)
    return (provider, own_id) if separator else (FIRST, key)


def provider(key: str) -> str:
    """The name of the provider whose key it is."""
    return key.partition(_SEPARATOR)[0] if _SEPARATOR in key else FIRST


def written(key: str) -> str:
    """A key as people and programs see it.

    ZimSend's ids are written as they are, but for those that would be read as another provider's:
    they get `zimsend:` in front.
    """
    provider, own_id = split(key)
    if provider == FIRST and not _is_named(own_id):
        return own_id
    return f"{provider}:{own_id}"


def read(text: str) -> str:
    """The key that a written id means.

    :param text: an id as `written` gives it, or an id of ZimSend's as it is.
    """
    name, colon, own_id = text.partition(":")
    if colon and name in NAMES:
        return key(name, own_id)
    return text


def _is_named(own_id: str) -> bool:
    name, colon, _ = own_id.partition(":")
    return bool(colon) and name.lower() in NAMES
