"""Faults that are planted on purpose: the tests of this room and of every provider notice each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from receiver import times
from receiver.providers.sipgate import events, history, intents, matching, polling, sending
from receiver.providers.sipgate.api import answers, client
from tests.providers import test_every_provider as shared
from tests.providers.callers import SIPGATE
from tests.providers.sipgate import test_polling, test_sending
from tests.providers.sipgate.api import test_client
from tests.providers.sipgate.simulator import test_life

Patch = pytest.MonkeyPatch


def entries_that_serve_twice(patch: Patch) -> None:
    patch.setattr(polling, "sent_id", lambda entry_id: f"other {entry_id}")


def counts_that_may_differ(patch: Patch) -> None:
    patch.setattr(
        matching, "_in_order", lambda sends, entries: list(zip(sends, entries, strict=False))
    )


def texts_that_do_not_matter(patch: Patch) -> None:
    patch.setattr(history, "digest", lambda text: "")
    patch.setattr(intents, "digest", lambda text: "")


def numbers_as_they_are_written(patch: Patch) -> None:
    patch.setattr(history, "number", lambda text: text)
    patch.setattr(intents, "number", lambda text: text)


def a_clock_that_must_be_right(patch: Patch) -> None:
    patch.setattr(matching, "SKEW", 0)


def nobody_is_given_up(patch: Patch) -> None:
    patch.setattr(polling, "GIVE_UP", 10_000 * times.DAY)


def everybody_is_given_up(patch: Patch) -> None:
    patch.setattr(polling, "GIVE_UP", times.SECOND)


def intents_that_are_read_first(patch: Patch) -> None:
    real = polling.look

    def look(sipgate: Any, open_intents: Any, *more: Any, **how: Any) -> Any:
        before = open_intents()
        return real(sipgate, lambda: before, *more, **how)

    patch.setattr(polling, "look", look)


def the_state_first(patch: Patch) -> None:
    def keep(found: Any, learn: Any, drop: Any, write_note: Any) -> None:
        drop(found.settled)
        write_note(polling.NOTE, found.state.text())
        learn(found.events)

    patch.setattr(polling, "keep", keep)


def an_intent_after_its_request(patch: Patch) -> None:
    patch.setattr(intents.Book, "keep", lambda self, kept: None)


def unsure_is_refused(patch: Patch) -> None:
    real = sending.not_taken

    def not_taken(error: Any) -> Any:
        problem = real(error)
        problem.maybe_sent = False
        return problem

    patch.setattr(sending, "not_taken", not_taken)


def the_scheduled_is_sent(patch: Patch) -> None:
    patch.setattr(polling, "_is_ahead", lambda entry, now: False)
    patch.setattr(events, "_state", lambda name, item, now: "sent")


def pages_without_overlap(patch: Patch) -> None:
    patch.setattr(client, "OVERLAP", 0)


def rows_that_count_twice(patch: Patch) -> None:
    real = answers.page

    def page(told: Any) -> answers.Page:
        return dataclasses.replace(real(told), count=len(told["items"]))

    patch.setattr(answers, "page", page)


def texts_that_stay(patch: Patch) -> None:
    patch.setattr(events, "hidden", lambda value, text_mode: value)


PLANTS: dict[Callable[[Patch], None], Callable[[], object]] = {
    entries_that_serve_twice: (
        test_polling.test_an_entry_that_was_known_before_serves_no_later_send
    ),
    counts_that_may_differ: test_polling.test_while_counts_differ_none_becomes_a_message_of_its_own,
    texts_that_do_not_matter: lambda: (
        test_polling.test_a_send_is_found_and_an_unknown_entry_is_a_message_of_its_own()
    ),
    numbers_as_they_are_written: lambda: (
        test_polling.test_a_send_is_found_and_an_unknown_entry_is_a_message_of_its_own()
    ),
    a_clock_that_must_be_right: lambda: (
        test_life.test_where_nothing_is_ambiguous_the_mirror_is_the_truth(1)
    ),
    nobody_is_given_up: test_polling.test_who_is_given_up_keeps_nobody_waiting_any_more,
    everybody_is_given_up: test_polling.test_equal_texts_pair_off_when_all_are_there,
    intents_that_are_read_first: (
        test_polling.test_an_intent_that_comes_while_the_history_is_read_is_seen
    ),
    the_state_first: lambda: test_polling.test_whatever_ends_a_pass_the_next_one_comes_to_the_same(
        2
    ),
    an_intent_after_its_request: test_sending.test_an_intent_is_there_before_its_request_leaves,
    unsure_is_refused: lambda: (
        test_sending.test_what_may_have_been_sent_is_told_with_its_id_and_looked_for(
            test_sending.lost(), 504
        )
    ),
    the_scheduled_is_sent: test_polling.test_what_is_scheduled_in_the_app_is_sent_when_it_has_gone,
    pages_without_overlap: test_client.test_what_goes_meanwhile_lets_nothing_slip_past,
    rows_that_count_twice: lambda: (
        test_client.test_entries_that_are_twice_in_an_answer_hide_no_others(5)
    ),
    texts_that_stay: lambda: shared.test_texts_are_hidden(SIPGATE),
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_it_is_noticed(plant: Callable[[Patch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTS[plant]()
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception, KeyError)):
        PLANTS[plant]()
