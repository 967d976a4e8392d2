"""Whose turn it is: several processes, and those that end."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from receiver.reconciliation.passes import (
    LEASE,
    NotOurTurn,
    Pass,
)
from receiver.times import MINUTE, SECOND
from tests.reconciliation.life import Life


@pytest.mark.each_engine
def test_one_process_at_a_time(live: Callable[..., Life]) -> None:
    life = live()
    one, other = life.reconciliation, life.start()
    refused: list[str] = []

    def meanwhile(request: httpx.Request) -> None:
        assert other.step(life.clock.time) is None
        with pytest.raises(NotOurTurn) as error:
            other.run()
        refused.append(str(error.value))
        # A look at what would be learnt needs no turn.
        if len(refused) == 1:
            assert other.run(dry_run=True).problem is None

    life.wire.fault = meanwhile
    made = one.step(life.clock.time)
    assert made is not None
    assert made.problem is None
    assert refused
    life.wire.fault = lambda request: None
    # There was one just now: that will do for the other process as well.
    life.wait(30 * SECOND)
    assert other.step(life.clock.time) is None
    life.wait(5 * MINUTE)
    assert other.step(life.clock.time) is None
    life.wait(5 * MINUTE)
    assert other.step(life.clock.time) is not None
    assert one.step(life.clock.time) is None


def test_the_turn_of_a_killed_process_runs_out(live: Callable[..., Life]) -> None:
    life = live()
    one, other = life.reconciliation, life.start()

    class Killed(BaseException):
        pass

    def kill(request: httpx.Request) -> None:
        raise Killed

    life.wire.fault = kill
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one, "_release", lambda: None)
        with pytest.raises(Killed):
            one.step(life.clock.time)
    life.wire.fault = lambda request: None
    assert other.step(life.clock.time + LEASE - SECOND) is None
    life.wait(LEASE)
    made = other.step(life.clock.time)
    assert made is not None
    assert made.problem is None


def test_who_was_too_slow_stops_at_once(live: Callable[..., Life]) -> None:
    life = live()
    one, other = life.reconciliation, life.start()
    taken_over: list[Pass | None] = []

    def hang(request: httpx.Request) -> None:
        if not taken_over:
            taken_over.append(None)
            life.wait(LEASE + SECOND)
            taken_over[0] = other.step(life.clock.time)

    life.wire.fault = hang
    life.world.campaign(150, rate=10)
    made = one.step(life.clock.time)
    assert made is not None
    assert made.problem == "another process has taken over"
    assert taken_over[0] is not None
    assert taken_over[0].problem is None
    assert life.state().ended_at == life.clock.time


def test_a_process_that_is_about_to_end_makes_no_other_call(live: Callable[..., Life]) -> None:
    life = live()
    life.wire.fault = lambda request: life.reconciliation.stop()
    life.world.campaign(150, rate=100)
    life.wait(MINUTE)
    made = life.reconciliation.step(life.clock.time)
    assert made is not None
    assert made.problem == "this process is about to end"
    assert len(life.wire.calls) == 1
    other = life.start()  # and holds nobody up
    life.wire.fault = lambda request: None
    assert other.step(life.clock.time).problem is None  # type: ignore[union-attr]
