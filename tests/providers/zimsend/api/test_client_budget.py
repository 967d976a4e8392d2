"""A budget from which each try takes."""

from __future__ import annotations

import pytest

from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.errors import (
    TryLater,
)
from tests.canned import Canned, ok, status
from tests.providers.zimsend.api.calls import CALLS, ID, KEY, Naps, call


class Tokens:
    """Gives what the list says, then always lets go."""

    def __init__(self, *waits: float) -> None:
        self.waits = list(waits)
        self.asked = 0

    def take(self) -> float:
        self.asked += 1
        return self.waits.pop(0) if self.waits else 0.0


@pytest.mark.parametrize("name", CALLS)
def test_every_call_takes_from_the_budget(server: Canned, naps: Naps, name: str) -> None:
    tokens = Tokens(2.0, 0.5)
    server.answers(ok(CALLS[name][4]))
    with ZimSend(
        KEY, ID, base_url=server.url, budget=tokens, sleep=naps.sleep, clock=naps.clock
    ) as zimsend:
        CALLS[name][0](zimsend)
        assert (tokens.asked, naps.taken) == (3, [2.0, 0.5])
        zimsend.forward("GET", "/x")
        assert tokens.asked == 4


def test_every_try_takes_from_the_budget(server: Canned, naps: Naps) -> None:
    tokens = Tokens()
    server.answers(status(502))
    with ZimSend(
        KEY, ID, base_url=server.url, budget=tokens, sleep=naps.sleep, clock=naps.clock, tries=3
    ) as zimsend:
        call(zimsend, "status")
        assert tokens.asked == 3
        tokens.waits = [0.0, 60.0]
        assert call(zimsend, "status").status == 502  # rather than what the budget says


def test_one_account_within_other_bounds(server: Canned, patient: ZimSend, naps: Naps) -> None:
    tokens = Tokens()
    hurried = patient.within(tries=2, budget=tokens)
    server.answers(status(502))
    call(hurried, "status")
    assert (len(server.seen), tokens.asked, len(naps.taken)) == (2, 2, 1)
    call(patient, "status")
    assert (len(server.seen), tokens.asked) == (6, 2)
    with pytest.raises(ValueError, match="timeout"):
        patient.within(timeout=0)


@pytest.mark.parametrize("waits", [[31.0], [20.0, 11.0], [float("inf")]])
def test_a_budget_that_is_used_up(server: Canned, naps: Naps, waits: list[float]) -> None:
    with ZimSend(
        KEY, ID, base_url=server.url, budget=Tokens(*waits), sleep=naps.sleep, clock=naps.clock
    ) as zimsend:
        error = call(zimsend, "send")
    assert (type(error), error.status, error.maybe_sent) == (TryLater, None, False)
    assert error.retry_after == waits[-1]
    assert sum(naps.taken) == sum(waits[:-1])
    assert server.seen == []
