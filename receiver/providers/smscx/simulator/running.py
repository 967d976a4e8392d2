"""Runs a simulated SMS.CX: lets its account in, and limits its requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from receiver import times
from receiver.providers.simulating.running import Running
from receiver.providers.smscx.simulator.reading import ApiRefusal
from receiver.providers.smscx.simulator.world import World

#: Requests a minute for the account. SMS.CX does not publish its number.
RATE_LIMIT = 600


class Simulator(Running[World]):
    """Runs a world in real time, or faster.

    :param api_key: the one that is let in.
    :param wall: the clock on the wall, in microseconds.
    """

    def __init__(
        self,
        world: World,
        *,
        speed: float = 1.0,
        api_key: str,
        wall: Callable[[], int] = times.now,
    ) -> None:
        super().__init__(world, speed=speed)
        self.api_key = api_key
        self._wall = wall

    def admit(self, headers: Mapping[str, str]) -> None:
        """SMS.CX's authentication, and its limit of requests.

        :raises ApiRefusal: as documented.
        """
        bearer = headers.get("Authorization", "").removeprefix("Bearer ")
        if self.api_key not in (headers.get("X-Api-Key"), bearer):
            raise ApiRefusal(401, "invalid_api_key", None, "The API key is not valid")
        if self.count(RATE_LIMIT):
            wait = (self.free_at - self.now()) / self.speed
            reset = int((self._wall() + wait) // times.SECOND) + 1
            raise ApiRefusal(
                429,
                "rate_limit",
                None,
                "Too many requests",
                headers={"X-Rate-Limit-Limit": str(RATE_LIMIT), "X-Rate-Limit-Reset": str(reset)},
            )
