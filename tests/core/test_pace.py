"""How long the worker rests: less where it can keep up, more where it cannot."""

from __future__ import annotations

import pytest

from receiver import times
from receiver.errors import StoreUnavailable
from receiver.store import Claim, Want
from receiver.worker.pace import Pace

WANT = Want("first", 100, times.SECOND, 5, "a")


class Arriving:
    """Stands in for a store into which events come."""

    rests = 3

    def __init__(self) -> None:
        self.clock = 0.0
        #: Seconds for an answer.
        self.takes = 0.0
        self.round = 0
        self.latest = 0
        self.asked = 0
        self.fails = False

    def newest(self) -> int:
        self.asked += 1
        self.clock += self.takes
        if self.fails:
            raise StoreUnavailable("gone")
        return self.latest


@pytest.fixture
def store() -> Arriving:
    return Arriving()


@pytest.fixture
def pace(store: Arriving) -> Pace:
    return Pace(store, lambda: store.clock)  # type: ignore[arg-type]


def claims(seqs: range, handler: str = "first") -> list[Claim]:
    return [
        Claim(seq, handler, 1, 1, f"e{seq}", "sms.sent", None, 0, 0, "webhook", False, False, b"")
        for seq in seqs
    ]


def rounds(pace: Pace, store: Arriving, come: float, number: int = 40, took: float = 0.01) -> float:
    """So many rounds, in each of which a hundred are called; `come` a second are new.

    :returns: the last one's rest.
    """
    rest = 0.0
    for _ in range(number):
        pace.claimed(claims(range(store.round * 100, store.round * 100 + 100)), [WANT])
        rest = pace.rest(took)
        store.round += 1
        store.clock += took + rest
        store.latest += int(come * (took + rest))
    return rest


def test_a_rest_is_as_long_as_the_store_says_within_bounds(pace: Pace, store: Arriving) -> None:
    pace.claimed(claims(range(3)), [WANT])
    assert [pace.rest(took) for took in (0.001, 0.01, 1.0)] == [0.02, 0.03, 0.1]
    assert store.asked == 0  # nobody has fallen behind


@pytest.mark.parametrize(
    ("come", "rest"),
    [(0, 0.03), (2_490, 0.03), (2_625, 0.044), (2_750, 0.058), (3_150, 0.1), (9_000, 0.1)],
)
def test_who_is_outrun_leaves_the_most_to_webhooks(
    pace: Pace, store: Arriving, come: float, rest: float
) -> None:
    """A hundred in 40 ms are 2,500 a second; of 5 percent more it leaves a little more."""
    assert rounds(pace, store, come) == pytest.approx(rest, abs=0.002)


def test_who_keeps_up_with_slow_rounds_is_not_outrun(pace: Pace, store: Arriving) -> None:
    """A hundred in 0.1 s and the longest usual rest are 500 a second."""
    assert rounds(pace, store, 480, took=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(("took", "rest"), [(0.01, 0.1), (0.04, 0.2), (1.0, 0.25)])
def test_the_longer_a_round_takes_the_more_is_left(
    pace: Pace, store: Arriving, took: float, rest: float
) -> None:
    assert rounds(pace, store, 9_000) == 0.1
    assert rounds(pace, store, 9_000, number=1, took=took) == pytest.approx(rest)


def test_a_round_that_claims_nothing_is_not_full(pace: Pace, store: Arriving) -> None:
    assert rounds(pace, store, 9_000) == 0.1
    assert pace.rest(0.01) == pytest.approx(0.03)


def test_it_ends_with_what_comes(pace: Pace, store: Arriving) -> None:
    assert rounds(pace, store, 9_000) == 0.1
    assert rounds(pace, store, 0) == pytest.approx(0.03)


def test_what_has_become_less_in_one_round_is_no_longer_behind(pace: Pace, store: Arriving) -> None:
    assert rounds(pace, store, 9_000) == 0.1
    pace.claimed(claims(range(5_000, 5_099)), [WANT])
    assert pace.rest(0.01) == pytest.approx(0.03)


def test_it_looks_twice_a_second_at_most(pace: Pace, store: Arriving) -> None:
    rounds(pace, store, 0, number=101)  # four seconds
    assert 6 <= store.asked <= 9


def test_it_looks_less_often_where_the_database_is_far_away(pace: Pace, store: Arriving) -> None:
    store.takes = 0.15
    rounds(pace, store, 0, number=101)
    assert 2 <= store.asked <= 3
    assert rounds(pace, store, 9_000, number=400) == 0.1


def test_a_slow_handler_does_not_decide(pace: Pace, store: Arriving) -> None:
    """It has no room for more, however often it is asked."""
    slow = Want("slow", 1, times.SECOND, 5, "a")
    for turn in range(60):
        both = claims(range(turn, turn + 1), "slow") + claims(range(50 * turn, 50 * turn + 50))
        pace.claimed(both, [slow, WANT])
        assert pace.rest(0.01) == pytest.approx(0.03)
        store.clock += 0.04
        store.latest += 50


def test_a_store_that_fails_is_no_reason_to_rest(pace: Pace, store: Arriving) -> None:
    store.fails = True
    assert rounds(pace, store, 9_000) == pytest.approx(0.03)
