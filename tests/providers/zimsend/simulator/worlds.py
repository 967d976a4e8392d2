"""Simulated worlds, and ways to live through them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from receiver.providers.zimsend.simulator.world import (
    REPORTS,
    Post,
    SimulatedMessage,
    Weather,
    Webhook,
    World,
)
from receiver.times import DAY, HOUR

BEGAN = 20_000 * DAY + 9 * HOUR
NUMBER = "+33612345678"
HOOK = "http://127.0.0.1:9/hook"
SECRET = b"whsec_of_the_first_webhook"
BAD = Weather(failed=0.2, duplicates=0.3, reorder=0.4, drop=0.3, lost_answers=0.2)


def hooked(**settings: Any) -> World:
    """A world with one webhook that gets all reports."""
    world = World(began=BEGAN, **settings)
    world.secret = b"whsec_for_urls_of_messages"
    world.webhooks["wh_1"] = Webhook("wh_1", HOOK, REPORTS, SECRET)
    return world


def play(
    world: World,
    answer: Callable[[Post], str] = lambda post: "200",
    *,
    until: int | None = None,
    after: int = 0,
) -> list[tuple[int, Post]]:
    """Live through everything, moment by moment; each request is answered by `answer`.

    :param after: how long an answer takes; microseconds.
    :returns: each request, and when it was sent.
    """
    posts = []
    while (at := world.next_at) is not None and (until is None or at <= until):
        for post in world.advance(at):
            posts.append((at, post))
            world.pass_time(at + after)
            world.answered(post, answer(post))
    if until is not None:
        assert not world.advance(until)
    return posts


def truth(world: World) -> bytes:
    return json.dumps(world.truth()).encode()


def only(world: World) -> SimulatedMessage:
    [message] = world.messages.values()
    return message
