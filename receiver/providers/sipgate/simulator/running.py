"""Runs a simulated sipgate: lets its account in, and limits its requests if it is told to."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from receiver.providers.simulating.running import Running
from receiver.providers.sipgate.simulator.reading import ApiRefusal
from receiver.providers.sipgate.simulator.world import World


class Simulator(Running[World]):
    """Runs a world in real time, or faster.

    :param token_id: of the personal access token that is let in, with its token.
    :param rate_limit: requests a minute; `None`: as many as one likes. None is documented.
    """

    def __init__(
        self,
        world: World,
        *,
        speed: float = 1.0,
        token_id: str,
        token: str,
        rate_limit: int | None = None,
    ) -> None:
        super().__init__(world, speed=speed)
        self._credentials = f"{token_id}:{token}"
        self._rate_limit = rate_limit

    def admit(self, headers: Mapping[str, str]) -> None:
        """sipgate's authentication.

        :raises ApiRefusal: 401 without it.
        """
        scheme, _, told = headers.get("Authorization", "").partition(" ")
        try:
            credentials = base64.b64decode(told, validate=True).decode()
        except (binascii.Error, ValueError):
            credentials = ""
        if scheme.lower() != "basic" or credentials != self._credentials:
            raise ApiRefusal(401, "")
        if self._rate_limit is None:
            self.requests += 1
        elif self.count(self._rate_limit):
            wait = (self.free_at - self.now()) / self.speed / 1_000_000
            raise ApiRefusal(429, "too many requests", {"Retry-After": str(int(wait) + 1)})
