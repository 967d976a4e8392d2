"""When a pass is made, and how far back it reads."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from receiver.reconciliation.passes import Reconciliation
from receiver.reconciliation.planning import EVERY
from receiver.times import DAY, HOUR, MINUTE, SECOND
from tests.providers.zimsend.reports import BEGAN, NUMBER
from tests.reconciliation.life import Life, learnt, quiet_hours


def test_passes_are_made_every_ten_minutes_and_after_a_gap(live: Callable[..., Life]) -> None:
    life = live()
    life.world.campaign(1, 1)
    assert len(life.look(HOUR)) == 6
    assert life.reconciliation.step(life.clock.time) is not None
    assert life.state().next_at == life.clock.time + EVERY
    life.wait(MINUTE + SECOND)
    life.reconciliation.notice_gap()
    made = life.reconciliation.step(life.clock.time)
    assert made is not None
    assert made.since == BEGAN - 15 * MINUTE  # a day back, but not before the beginning
    life.wait(50 * SECOND)
    life.start()
    assert life.reconciliation.step(life.clock.time + 50 * SECOND) is None
    life.wait(2 * MINUTE)
    life.start()
    assert life.reconciliation.step(life.clock.time) is not None


def test_a_pass_that_somebody_wants_is_made_soon_by_whichever_process_makes_them(
    live: Callable[..., Life],
) -> None:
    life = live()
    life.look(MINUTE)
    life.wait(2 * MINUTE)
    asked = life.reconciliation
    life.start()  # another process, as far as this one knows
    assert asked is not life.reconciliation
    life.wait(MINUTE)
    asked.want()
    assert asked.is_wanted()
    life.wait(SECOND)
    assert life.reconciliation.step(life.clock.time) is not None
    assert not asked.is_wanted()
    assert life.reconciliation.step(life.clock.time) is None


def test_after_a_gap_and_after_a_loss_more_is_read(live: Callable[..., Life]) -> None:
    life = live()
    life.look(3 * DAY, 10 * MINUTE)
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    life.reach.clear()
    quiet_hours(life, 70 * MINUTE)
    usual, wide = 25, 25 + 24 * 60
    assert [reach // MINUTE for reach in life.reach] == [
        usual,
        usual,
        usual,
        wide,
        usual,
        usual,
        usual,
    ]
    life.start()
    life.reach.clear()
    life.look(40 * MINUTE)
    assert [reach // MINUTE for reach in life.reach] == [wide, wide, usual, usual]


@pytest.mark.parametrize("wrong", [-30 * DAY, -HOUR, HOUR, 400 * DAY])
def test_a_clock_that_was_wrong_stops_nothing(live: Callable[..., Life], wrong: int) -> None:
    life = live()
    life.look(MINUTE)
    life.clock.time += wrong
    life.world.pass_time(life.clock.time)
    life.look(HOUR)
    life.clock.time = life.world.now = BEGAN + 10 * MINUTE
    life.reconciliation.notice_gap()
    life.world._free_at = dict.fromkeys(life.world.devices, life.clock.time)
    life.world.send(NUMBER, "Bonjour", metadata={"n": 1})
    quiet_hours(life, 2 * DAY)
    assert learnt(life) == ["1 sms.sent", "1 sms.delivered"]


def test_the_thread_notices_that_it_was_asleep(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    life = live()
    monkeypatch.setattr(life.reconciliation, "LOOK", 0.01)
    looks: list[int] = []
    step = life.reconciliation.step
    monkeypatch.setattr(life.reconciliation, "step", lambda now: (step(now), looks.append(now)))
    life.reconciliation.start()
    try:
        wait_for(lambda: life.wire.calls)
        wait_for(lambda: life.reconciliation.state() is not None)
        life.clock.time += 50 * SECOND
        wait_for(lambda: looks and looks[-1] == life.clock.time)
        count = len(looks)
        wait_for(lambda: len(looks) > count)  # it looked, and waited, at the new time
        assert len(life.wire.calls) == 1
        life.clock.time += 8 * MINUTE
        wait_for(lambda: len(life.wire.calls) == 2)
        assert "the clock went on by 479 s at once: this process was asleep" in caplog.text
    finally:
        end(life.reconciliation)


def end(reconciliation: Reconciliation) -> None:
    reconciliation.stop()
    assert reconciliation._thread is not None
    reconciliation._thread.join(30)


def test_the_thread_survives_what_it_meets(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life = live()
    monkeypatch.setattr(life.reconciliation, "LOOK", 0.001)
    note, failures = life.store.note, iter([RuntimeError("a defect")])

    def failing(name: str) -> str | None:
        for failure in failures:
            raise failure
        found: str | None = note(name)
        return found

    monkeypatch.setattr(life.store, "note", failing)
    life.reconciliation.start()
    wait_for(lambda: life.wire.calls)
    end(life.reconciliation)
    assert "reconciliation failed and goes on: a defect" in caplog.text


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
