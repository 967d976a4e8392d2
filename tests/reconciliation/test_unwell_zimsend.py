"""When ZimSend is not well: passes that cannot end."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from receiver import status
from receiver.times import MINUTE
from tests.conftest import row_of
from tests.providers.zimsend.reports import NUMBER
from tests.reconciliation.life import ID, KEY, Fault, Life, compare, raising, refused_with

LIMITED = {"success": False, "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "Too many"}}
BAD_DAYS: dict[str, tuple[Fault, str]] = {
    "slow": (raising(httpx.ReadTimeout), "ReadTimeout"),
    "resetting": (raising(httpx.ReadError), "ReadError"),
    "a page of a proxy": (refused_with(502, html="<h1>Bad gateway</h1>"), "502"),
    "limiting": (refused_with(429, json=LIMITED), "RATE_LIMIT_EXCEEDED"),
    "not letting in": (
        refused_with(401, json={"error": "no", "code": "INVALID_API_KEY"}),
        "API key",
    ),
    "not itself": (refused_with(200, html="<h1>Welcome</h1>"), "cannot be understood"),
}


@pytest.mark.parametrize(("fault", "reason"), BAD_DAYS.values(), ids=BAD_DAYS.keys())
@pytest.mark.parametrize("begins", ["at once", "in the middle"])
def test_a_pass_that_cannot_end(
    live: Callable[..., Life],
    fault: Fault,
    reason: str,
    begins: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    life = live(devices=9)
    life.look(MINUTE)
    before = life.state()
    life.up = False
    for number in range(20):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})
    life.wait(30 * MINUTE)
    calls = len(life.wire.calls) + (0 if begins == "at once" else 10)
    life.wire.fault = lambda request: fault(request) if len(life.wire.calls) > calls else None
    [made] = life.look(MINUTE, MINUTE)
    assert made.problem is not None
    assert reason in made.problem
    assert f"reconciliation stopped, next try in 60 s: {made.problem}" in caplog.text
    after = life.state()
    assert (after.since, after.ended_at) == (before.since, before.ended_at)
    assert (after.problem, after.failures) == (made.problem, 1)
    # Ever more seldom, but within 10 minutes.
    begun = life.clock.time
    passes = [(life.clock.time - begun, made) for _ in range(60) for made in life.look(MINUTE)]
    assert all(made.problem for _, made in passes)
    assert 8 <= len(passes) <= 12
    life.wire.fault = lambda request: None
    [made, *_] = [made for made in life.look(11 * MINUTE) if made]
    assert made.problem is None
    assert life.state().failures == 0
    assert life.missed().messages == 20  # type: ignore[union-attr]
    compare(life)


def test_zimsend_limits_for_a_minute(live: Callable[..., Life]) -> None:
    life = live(devices=9)
    life.look(MINUTE)
    life.up = False
    for number in range(100):
        life.world.send(NUMBER, f"Bonjour {number}", metadata={"n": number})
    life.wait(30 * MINUTE)
    others = [life.simulated]
    for _ in range(100):  # another program of this account
        others[0].admit({"X-Api-Key": KEY, "X-Client-Id": ID})
    limited_before = life.simulated.limited
    passes = life.look(15 * MINUTE)
    assert passes[-1].problem is None
    assert life.simulated.limited - limited_before <= 6
    assert life.missed().messages == 100  # type: ignore[union-attr]


def test_one_message_that_zimsend_cannot_tell_of_holds_up_no_other(
    live: Callable[..., Life],
) -> None:
    life = live(devices=9)
    life.look(MINUTE)
    life.up = False
    ids = [life.world.send(NUMBER, "Bonjour", metadata={"n": 1}).id for _ in range(20)]
    life.wait(30 * MINUTE)
    life.wire.fault = lambda request: (
        httpx.Response(500) if request.url.path.endswith(("status/" + ids[3], ids[7])) else None
    )
    [made, *_] = life.look(5 * MINUTE)
    assert made.problem is None
    # The history tells enough of them, if need be.
    assert life.missed().messages == 20  # type: ignore[union-attr]
    assert status.describe(row_of(life.store, ids[3]))["metadata"] is None
