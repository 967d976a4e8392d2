"""Faults that are planted on purpose: the tests of this room notice each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from receiver import ids
from receiver.providers.contract import History
from receiver.providers.smscx import account as smscx_account
from receiver.providers.smscx import reports
from receiver.providers.smscx.api import client as smscx_client
from receiver.providers.zimsend import account as zimsend_account
from receiver.reconciliation import catching_up, planning
from receiver.reconciliation.planning import State
from tests.reconciliation import test_every_account as days
from tests.reconciliation import test_side_by_side as beside

Patch = pytest.MonkeyPatch


# --- what is planted


def a_cursor_lost(patch: Patch) -> None:
    def pages(fetch: Any, cursor: Any) -> Any:
        yield fetch(cursor)

    patch.setattr(smscx_client, "_pages", pages)


def an_end_that_nobody_said(patch: Patch) -> None:
    patch.setattr(smscx_account, "_check_that_it_ends", lambda page: None)


def a_window_without_overlap(patch: Patch) -> None:
    patch.setattr(planning, "overlap", lambda history: 0)


def a_failed_pass_that_moves_on(patch: Patch) -> None:
    fail = State.fail

    def moved(self: State, now: int, problem: str, retry_after: int, history: History) -> int:
        self.since = now - planning.overlap(history)
        return fail(self, now, problem, retry_after, history)

    patch.setattr(State, "fail", moved)


def a_budget_that_is_shared(patch: Patch) -> None:
    real = smscx_account.Tokens

    def shared(store: Any, name: str, *more: Any, **how: Any) -> Any:
        return real(store, "tokens:all", *more, **how)

    patch.setattr(smscx_account, "Tokens", shared)


def a_note_that_is_shared(patch: Patch) -> None:
    patch.setattr(ids, "of", lambda provider, name: name)


def messages_of_another(patch: Patch) -> None:
    real = catching_up.Search
    patch.setattr(catching_up, "Search", lambda provider, **how: real(**how))


def a_reset_that_nobody_heeds(patch: Patch) -> None:
    patch.setattr(State, "peace", lambda *_: 0)


def what_was_before(patch: Patch) -> None:
    patch.setattr(reports, "latest", lambda message: None)


def a_loss_that_is_not_counted(patch: Patch) -> None:
    real = reports.facts
    patch.setattr(reports, "facts", lambda message, **how: real(message, source="poll", **how))


def a_page_of_zimsends_passed_over(patch: Patch) -> None:
    real = zimsend_account.ZimSend.history_pages

    def pages(self: Any, **how: Any) -> Any:
        for number, page in enumerate(real(self, **how)):
            if number != 1:
                yield page

    patch.setattr(zimsend_account.ZimSend, "history_pages", pages)


# --- who notices


def day(name: str, provider: str) -> Callable[[Any], None]:
    return lambda request: days.test_a_bad_day(
        request.getfixturevalue("live"),
        provider,
        days.DAYS[name],
        request.getfixturevalue("monkeypatch"),
    )


def in_a_life(test: Callable[..., None], *more: Any) -> Callable[[Any], None]:
    return lambda request: test(request.getfixturevalue("live"), *more)


def of_both(test: Callable[..., None]) -> Callable[[Any], None]:
    return lambda request: test(request.getfixturevalue("both"))


PLANTS: dict[Callable[[Patch], None], Callable[[Any], None]] = {
    a_cursor_lost: day("down in the middle", "smscx"),
    an_end_that_nobody_said: lambda request: (
        days.test_a_full_page_without_a_word_of_the_next_is_no_end(
            request.getfixturevalue("live"), request.getfixturevalue("monkeypatch")
        )
    ),
    a_window_without_overlap: in_a_life(days.test_the_only_loss_of_a_day, "smscx", False),
    a_failed_pass_that_moves_on: in_a_life(days.test_the_only_loss_of_a_day, "smscx", True),
    a_budget_that_is_shared: of_both(beside.test_each_has_a_budget_and_a_turn_of_its_own),
    a_note_that_is_shared: of_both(beside.test_one_that_fails_does_not_hold_up_the_other),
    messages_of_another: in_a_life(beside.test_nobody_is_asked_about_the_messages_of_another),
    a_reset_that_nobody_heeds: in_a_life(days.test_a_time_that_is_named_is_obeyed, "smscx"),
    what_was_before: in_a_life(days.test_rows_before_the_account_was_known_are_passed_over),
    a_loss_that_is_not_counted: day("down in the middle", "smscx"),
    a_page_of_zimsends_passed_over: day("down in the middle", "zimsend"),
}
both = beside.both


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_noticed(plant: Callable[[Patch], None], request: pytest.FixtureRequest) -> None:
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        with pytest.raises(AssertionError):
            PLANTS[plant](request)
