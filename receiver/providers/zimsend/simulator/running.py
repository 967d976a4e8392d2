"""Runs a simulated ZimSend: lets its account in, and limits its requests."""

from __future__ import annotations

from collections.abc import Mapping

from receiver.providers.simulating.running import Running
from receiver.providers.zimsend.simulator.refusal import ApiRefusal
from receiver.providers.zimsend.simulator.world import World

#: Requests a minute for the account.
RATE_LIMIT = 100


class Simulator(Running[World]):
    """Runs a world in real time, or faster.

    :param credentials: the API key and the client id that are let in.
    """

    def __init__(self, world: World, *, speed: float = 1.0, credentials: tuple[str, str]) -> None:
        super().__init__(world, speed=speed)
        self.credentials = credentials

    def admit(self, headers: Mapping[str, str]) -> None:
        """ZimSend's authentication, and its limit of requests.

        :raises ApiRefusal: as documented.
        """
        key, client = headers.get("X-Api-Key"), headers.get("X-Client-Id")
        if not key or not client:
            raise ApiRefusal(400, "MISSING_AUTH_HEADERS", "X-API-Key and X-Client-ID are required")
        if key != self.credentials[0]:
            raise ApiRefusal(401, "INVALID_API_KEY", "The API key is not valid")
        if client != self.credentials[1]:
            raise ApiRefusal(401, "INVALID_CLIENT_ID", "The client id is not valid")
        if self.count(RATE_LIMIT):
            raise ApiRefusal(429, "RATE_LIMIT_EXCEEDED", "More than 100 requests in a minute")
