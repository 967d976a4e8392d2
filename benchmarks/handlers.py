"""Two handlers that want every event and do nothing: what is measured is the way to them."""

from receiver import Event, Registry

NAMES = ("first", "second")


def register(registry: Registry) -> None:
    for name in NAMES:
        registry.on("*", name=name)(nothing)


def nothing(event: Event) -> None:
    pass
