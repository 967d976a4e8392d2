"""Over many seeds: nothing is sent twice, and each SMS ends where its history lets it."""

from __future__ import annotations

import os

import pytest

from receiver.providers.simulating.world import Weather
from receiver.providers.sipgate.simulator.world import Habits
from receiver.times import HOUR, SECOND
from tests.providers.sipgate.simulator.life import life

SEEDS = range(int(os.environ.get("SEEDS", "5")))


@pytest.mark.parametrize("seed", SEEDS)
def test_where_nothing_is_ambiguous_the_mirror_is_the_truth(seed: int) -> None:
    """Answers are lost, entries late, archived, twice, with national numbers, by a clock that is
    behind; texts are equal, others write in the app, the process dies at any line."""
    habits = Habits(
        late=0.3,
        lag=3 * HOUR,
        archived=0.3,
        national=0.5,
        twice=0.3,
        behind=50 * SECOND,
        in_app=0.3,
        same_text=0.0,
    )
    mine = life(seed, habits, Weather(lost_answers=0.3))
    mine.live(40)
    mine.check()
    states = mine.memory.states
    for own_id, entry in mine.own.items():
        if entry is None:  # the process died before it was its turn, or sipgate did not answer
            assert states.get(own_id) in ("queued", None)
        else:
            assert states[own_id] == "sent", own_id
            assert entry not in states
    for sms in mine.world.sent.values():
        assert (sms.id in states) is (sms.source == "app")


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_nothing_is_sent_twice_or_told_twice(seed: int) -> None:
    """Also: requests that never arrive, equal texts from the app, entries without a text."""
    habits = Habits(
        late=0.5,
        lag=5 * HOUR,
        archived=0.5,
        national=0.5,
        twice=0.5,
        silent=0.2,
        in_app=0.5,
    )
    mine = life(seed, habits, Weather(lost_answers=0.3, drop=0.2), dies=0.2, dies_unsent=True)
    mine.live(40)
    mine.check()
