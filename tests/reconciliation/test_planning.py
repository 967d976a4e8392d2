"""When an account is asked, and what for: whatever happens, nothing is left out."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.providers.contract import History
from receiver.providers.smscx.account import HISTORY as SMSCX
from receiver.providers.zimsend.account import HISTORY as ZIMSEND
from receiver.reconciliation.planning import (
    EVERY,
    WIDER,
    State,
    Window,
    is_covered,
    is_due,
    overlap,
    plan,
)
from receiver.times import DAY, HOUR, MINUTE, SECOND

NOW = 20_777 * DAY + 9 * HOUR
KEPT = 90 * DAY
steady = settings(derandomize=True, deadline=None, max_examples=20)
histories = pytest.mark.parametrize("history", [ZIMSEND, SMSCX], ids=["zimsend", "smscx"])

#: Minutes to the next pass, minutes that it takes, whether it comes to its end, whether there was a
#: gap that was noticed, and whether something was found.
STEPS = st.lists(
    st.tuples(st.integers(0, 600), st.integers(0, 40), st.booleans(), st.booleans(), st.booleans()),
    min_size=1,
    max_size=12,
)


@histories
@steady
@given(STEPS)
def test_each_moment_is_read_when_its_report_can_no_longer_come(
    history: History, steps: list[tuple[int, int, bool, bool, bool]]
) -> None:
    """What changed less than `quiet` before a pass is left to the next complete one."""
    now, state = NOW, State.new(NOW, history)
    sure = state.first  # all that changed before is known
    for pause, took, complete, gap, found in steps:
        now += pause * MINUTE
        state.correct(now, history)
        if gap:
            state.widen(now, history)
        recent, *_ = plan(state, now, history, KEPT)
        assert recent.until is None
        assert max(state.first, now - KEPT) <= recent.since <= max(sure, now - KEPT + HOUR)
        if gap:
            assert recent.since == max(state.first, state.since - WIDER)
        began, now = now, now + took * MINUTE
        if complete:
            state.end(began, now, history, found=found)
            sure = began - history.quiet
        else:
            wait = state.fail(now, "no", 0, history)
            assert MINUTE <= wait <= EVERY
        assert is_due(state, now + EVERY, history, gap=False)


@histories
@steady
@given(st.integers(0, 100), st.integers(0, 23), st.integers(1, 9))
def test_once_a_day_all_that_still_changes_is_read_and_joins(
    history: History, known_for: int, hour: int, at_a_time: int
) -> None:
    """However few parts of it one pass reads."""
    now, retention = NOW + hour * HOUR, 40 * DAY
    state = State(first=now - known_for * DAY, since=now, next_at=now, deep_at=now - DAY)
    read: list[Window] = []
    while old := plan(state, now, history, retention)[1:]:
        state.deep_at = now
        state.deep_day = old[at_a_time].since // DAY if len(old) > at_a_time else None
        read += old[:at_a_time]
    assert read[0].since == max(state.first, (now - history.back) // DAY * DAY)
    assert all(one.until == other.since for one, other in pairwise(read))
    assert (read[-1].until or 0) >= now
    assert not plan(state, now + DAY - 1, history, retention)[1:]
    assert plan(state, now + DAY, history, retention)[1:]


@histories
def test_a_look_back_that_the_retention_has_overtaken_ends(history: History) -> None:
    state = State(first=0, since=NOW, next_at=NOW, deep_at=NOW, deep_day=NOW // DAY - 3)
    (last,) = plan(state, NOW + 99 * DAY, history, KEPT)[1:]
    assert last.since == NOW + 9 * DAY + HOUR


@histories
@steady
@given(st.integers(-400 * DAY, 400 * DAY), st.integers(1, 9), st.integers(0, 10**7))
def test_a_clock_that_was_wrong_stops_nothing(
    history: History, wrong: int, failures: int, asked: int
) -> None:
    """A state of another time: it is due soon, and reads from before this moment."""
    then = NOW + wrong
    state = State.new(then, history)
    state.end(then, then + MINUTE, history, found=True)
    for _ in range(failures):
        state.fail(then + MINUTE, "no", asked * SECOND, history)
    latest = NOW + 2 * max(EVERY, history.longest_wait)
    assert any(is_due(state, at, history, gap=False) for at in (NOW, latest))
    state.correct(NOW, history)
    recent, *_ = plan(state, NOW, history, KEPT)
    assert NOW - KEPT <= recent.since <= max(state.first, NOW - overlap(history)) <= NOW


@histories
def test_a_provider_that_names_a_time_is_left_in_peace_until_then(history: History) -> None:
    state = State.new(NOW, history)
    asked = history.longest_wait - MINUTE
    assert state.fail(NOW, "no", asked, history) == asked
    assert not is_due(state, NOW + asked - 1, history, gap=True)
    assert is_due(state, NOW + asked, history, gap=False)
    state = State.new(NOW, history)
    assert state.fail(NOW, "no", 400 * DAY, history) == history.longest_wait  # nobody's clock
    state.end(NOW, NOW, history, found=False)
    assert not state.peace(NOW, history)


@histories
def test_somebody_who_asks_for_more_gets_it_as_far_as_it_is_kept(history: History) -> None:
    state = State.new(NOW, history)
    before = copy.deepcopy(state)
    assert plan(state, NOW, history, KEPT, NOW - 7 * DAY)[0].since == NOW - 7 * DAY
    assert plan(state, NOW, history, KEPT, 0)[0].since == NOW - KEPT + HOUR
    assert plan(state, NOW, history, KEPT, NOW)[0].since == state.first
    assert state == before  # a plan changes nothing


def test_a_gap_that_a_pass_has_just_covered_needs_no_other() -> None:
    state = State.new(NOW, ZIMSEND)
    assert not is_covered(None, NOW, NOW)
    assert not is_covered(state, NOW, NOW)
    state.end(NOW, NOW, ZIMSEND, found=False)
    assert is_covered(state, NOW + MINUTE, NOW + MINUTE)
    assert not is_covered(state, NOW + MINUTE + SECOND, NOW + 2 * MINUTE)
    assert not is_covered(state, NOW - HOUR, NOW - 1)  # it ended in the future
    assert not is_due(state, NOW + MINUTE, ZIMSEND, gap=False)
    assert is_due(state, NOW + MINUTE, ZIMSEND, gap=True)
    state.fail(NOW, "no", 0, ZIMSEND)
    assert not is_due(state, NOW + SECOND, ZIMSEND, gap=True)
