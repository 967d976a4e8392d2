"""Two handlers that want every event and do nothing: what is measured is the way to them."""

from receiver import Event, Registry


def register(registry: Registry) -> None:
    registry.on("*", name="first")(nothing)
    registry.on("*", name="second")(nothing)


def nothing(event: Event) -> None:
    pass
