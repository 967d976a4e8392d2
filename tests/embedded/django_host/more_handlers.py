from __future__ import annotations

from typing import Any


def register(registry: Any) -> None:
    @registry.on("device.*", name="devices")
    def see(event: Any) -> None:
        pass
