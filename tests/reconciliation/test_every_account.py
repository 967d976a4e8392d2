"""The same bad days for each account: what was missed comes back, once, and is counted as what it
is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from receiver.providers.simulating.world import Weather
from receiver.providers.smscx import account as smscx_account
from receiver.providers.smscx.api import client as smscx_client
from receiver.providers.zimsend import account as zimsend_account
from receiver.reconciliation.losses import KINDS
from receiver.store import Selection
from receiver.times import HOUR, MINUTE, SECOND
from tests.reconciliation.life import Fault, Life, handled, missed_reports, refused_with

ACCOUNTS = ("zimsend", "smscx")
#: Shares of tries that never arrive: ZimSend tries three times, SMS.CX once.
DROP = {"zimsend": 0.6, "smscx": 0.2}
COUNT = 30
FAIR = Weather(failed=0.2)


@dataclass(frozen=True)
class Day:
    """One bad day.

    :param weather: of the world, beside what it drops.
    :param fault: what the API does from the first call on until `ends`, after the campaign began.
    :param jump: the clock is so much wrong for as long.
    """

    weather: Weather = FAIR
    fault: Callable[[Life], Fault] = lambda life: lambda request: None
    ends: int = 0
    jump: int = 0
    down: tuple[int, int] = (0, 0)


def once(life: Life, of_which: Callable[[httpx.Request], bool], answer: httpx.Response) -> Fault:
    """A fault that one call of a kind meets."""
    met: list[httpx.Request] = []

    def fault(request: httpx.Request) -> httpx.Response | None:
        if met or not of_which(request):
            return None
        met.append(request)
        return answer

    return fault


def on_a_later_page(request: httpx.Request) -> bool:
    query = request.url.params
    return "next" in query or query.get("page", "1") not in ("1", None)


def cursor_lost(life: Life) -> Fault:
    error = {"type": "invalid_param", "message": "next is no cursor", "code": 1827}
    return once(life, on_a_later_page, httpx.Response(400, json={"error": error}))


def limited(life: Life) -> Fault:
    """Too many requests until 25 minutes after the beginning; each in its provider's words."""
    until = life.clock.time + 25 * MINUTE

    def fault(request: httpx.Request) -> httpx.Response | None:
        left = (until - life.clock.time) // SECOND
        if left <= 0:
            return None
        headers = {"Retry-After": str(left)}
        if life.provider == "smscx":
            headers = {"X-Rate-Limit-Reset": str(until // SECOND)}
        error = {"type": "rate_limit", "code": "RATE_LIMIT_EXCEEDED", "message": "Too many"}
        return httpx.Response(429, json={"success": False, "error": error}, headers=headers)

    return fault


BAD = Weather(failed=0.3, duplicates=0.3, reorder=0.4, lost_answers=0.1)
DAYS = {
    "down in the middle": Day(down=(MINUTE, 20 * MINUTE)),
    "the API is away": Day(fault=lambda life: refused_with(503), ends=30 * MINUTE),
    "a cursor is lost": Day(fault=cursor_lost, ends=HOUR),
    "limited": Day(fault=limited, ends=40 * MINUTE),
    "the clock goes back": Day(jump=-HOUR),
    "the clock goes ahead": Day(jump=HOUR),
}


def live_through(live: Callable[..., Life], provider: str, day: Day) -> Life:
    weather = replace(day.weather, drop=DROP[provider])
    life = live(provider, weather=weather, seed=3)
    life.look(MINUTE)
    life.world.campaign(COUNT, rate=COUNT / 300)
    life.wire.fault = day.fault(life)
    began = life.clock.time
    if day.jump:
        life.look(7 * MINUTE)
        life.simulated.now = lambda: life.world.now  # the provider's clock is right
        life.clock.time += day.jump
        assert life.reconciliation.step(life.clock.time) is not None
        life.clock.time -= day.jump
        del life.simulated.now
    if any(day.down):
        life.look(day.down[0])
        life.up = False
        life.wait(day.down[1])
        life.up = True
        life.start()
    life.look(max(0, began + day.ends - life.clock.time), 2 * MINUTE)
    life.wire.fault = lambda request: None
    life.look(HOUR - 10 * MINUTE, 5 * MINUTE)
    return life


def check(life: Life) -> None:
    gone = life.lost()
    assert len(gone) >= 4
    assert set(missed_reports(life.store)) == set(gone)
    whole, _, _ = life.gaps()
    assert whole is not None
    counted = tuple(sum(kind == f"sms.{each}" for _, kind in gone) for each in KINDS)
    assert (whole.messages, whole.counts) == (len({key for key, _ in gone}), counted)
    life.compare()
    sources = {event["source"] for event in life.store.events(Selection())}
    assert sources == {"webhook", "reconciliation"}
    assert life.simulated.limited == 0


@pytest.mark.parametrize("provider", ACCOUNTS)
@pytest.mark.parametrize("day", DAYS.values(), ids=DAYS.keys())
def test_a_bad_day(
    live: Callable[..., Life], provider: str, day: Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pages(monkeypatch)
    check(live_through(live, provider, day))


@pytest.mark.each_engine
@pytest.mark.parametrize("provider", ACCOUNTS)
def test_a_bad_world(live: Callable[..., Life], provider: str) -> None:
    """Reports are dropped, come twice and out of order: what was missed is handled once."""
    life = live_through(live, provider, Day(BAD))
    check(life)
    seen = handled(life)
    assert set(seen.values()) <= {1, 2}  # a failure's reason that came later is news
    gone = {(message_id.rpartition("\x1f")[2], kind) for message_id, kind in life.lost()}
    assert gone <= seen.keys()


@pytest.mark.parametrize("away", [False, True], ids=["there", "away for half an hour"])
@pytest.mark.parametrize("provider", ACCOUNTS)
def test_the_only_loss_of_a_day(live: Callable[..., Life], provider: str, away: bool) -> None:
    """Nothing is known of the message, nobody noticed a gap, and the next pass comes too soon."""
    life = live(provider)
    life.look(23 * MINUTE)
    life.up = False
    life.world.campaign(1, rate=1)
    life.wire.fault = refused_with(503) if away else life.wire.fault
    life.look(30 * MINUTE)
    life.wire.fault = lambda request: None
    life.look(20 * MINUTE)
    missed = life.missed()
    assert missed is not None
    assert missed.messages == 1


@pytest.mark.parametrize("provider", ACCOUNTS)
def test_a_time_that_is_named_is_obeyed(live: Callable[..., Life], provider: str) -> None:
    """Also by whoever asks by hand meanwhile, and after a restart."""
    life = live(provider)
    life.wire.fault = limited(life)
    life.look(MINUTE)
    refused = len(life.wire.calls)
    peace = min(25 * MINUTE, life.reconciliation.account.history.longest_wait)
    told = life.start().run(dry_run=True)
    assert told.problem is not None
    assert "may be asked again in" in told.problem
    life.look(life.wire.calls[0][0] + peace - life.clock.time - SECOND)
    assert len(life.wire.calls) == refused
    life.look(2 * MINUTE)
    assert len(life.wire.calls) > refused


def test_rows_before_the_account_was_known_are_passed_over(live: Callable[..., Life]) -> None:
    """SMS.CX is asked by whole days, and one more on each side."""
    life = live("smscx")
    life.up = False
    life.world.campaign(5, rate=1)
    life.wait(3 * HOUR)
    assert all(made.problem is None for made in life.look(25 * HOUR, 30 * MINUTE))
    assert life.missed() is None
    made = life.reconciliation.run(life.world.began)
    assert len(made.learnt) == 5


def test_a_full_page_without_a_word_of_the_next_is_no_end(
    live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pages(monkeypatch)
    life = live("smscx")
    life.look(MINUTE)
    life.world.campaign(12, rate=1)
    life.wait(HOUR)

    def cut(request: httpx.Request) -> httpx.Response:
        told = json.loads(life.wire.plain.handle_request(request).read())
        del told["paging"]
        return httpx.Response(200, json=told)

    since = life.state().since
    life.wire.fault = cut
    (made,) = life.look(MINUTE)
    assert made.problem is not None
    assert "do not say whether there are more" in made.problem
    assert life.state().since == since


def small_pages(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(zimsend_account, "_PAGE", 10)
    patch.setattr(smscx_account, "MOST_ROWS", 10)
    real: Any = smscx_client.SmsCx.report_pages
    patch.setattr(
        smscx_client.SmsCx, "report_pages", lambda self, **how: real(self, limit=10, **how)
    )
