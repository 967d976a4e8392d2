"""Faults that are planted on purpose: the tests of this room and of every provider notice each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from receiver import times
from receiver.errors import Unusable
from receiver.providers import exchange
from receiver.providers.errors import Unavailable
from receiver.providers.smscx import sending, webhook
from receiver.providers.smscx.api import client
from tests.canned import Canned, silent
from tests.providers import test_every_provider as shared
from tests.providers.callers import SMSCX
from tests.providers.smscx import test_reports, test_sending, test_webhook
from tests.providers.smscx.api import test_client
from tests.providers.smscx.api.calls import KEY
from tests.providers.smscx.simulator import test_world
from tests.providers.zimsend.api.calls import Naps

Patch = pytest.MonkeyPatch


def everywhere(patch: Patch, real: Any, planted: Any) -> None:
    """Put something in another's place, in each module that has it by name."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("receiver.providers.smscx", "tests.providers.smscx")):
            for attribute, value in list(vars(module).items()):
                if value is real:
                    patch.setattr(module, attribute, planted)


# --- what is planted


def a_wrong_map(patch: Patch) -> None:
    patch.setitem(webhook.STATES, "NO COVERAGE", "sent")


def a_status_forgotten(patch: Patch) -> None:
    patch.delitem(webhook.STATES, "SCHEDULED")


def a_token_compared_byte_by_byte(patch: Patch) -> None:
    everywhere(patch, webhook.authenticate, lambda tokens, claimed: claimed.encode(
        "utf-8", "surrogatepass") in tokens)  # fmt: skip


def a_token_that_ends_the_search(patch: Patch) -> None:
    def authenticate(tokens: Any, claimed: str) -> bool:
        return any(webhook_authenticate([token], claimed) for token in tokens)

    webhook_authenticate = webhook.authenticate
    everywhere(patch, webhook.authenticate, authenticate)


def a_digest_over_the_batch(patch: Patch) -> None:
    real = webhook.parse

    def parse(body: bytes, **how: Any) -> Any:
        found = real(body, **how)
        batch = str(len(found))
        return [
            item._replace(id=item.id + batch) if hasattr(item, "id") and len(found) > 1 else item
            for item in found
        ]

    everywhere(patch, real, parse)


def a_digest_of_the_spelling(patch: Patch) -> None:
    patch.setattr(webhook, "canonical", lambda value: webhook.json.dumps(value).encode())


def one_bad_item_loses_the_batch(patch: Patch) -> None:
    def take(self: Any, name: str, item: Any, test: bool) -> Any:
        if not isinstance(item, dict):
            raise Unusable("an item is no object")
        return real(self, name, item, test)

    real = webhook._How.take
    patch.setattr(webhook._How, "take", take)


def a_failure_without_a_code(patch: Patch) -> None:
    patch.setattr(webhook, "_error", lambda item: {"code": str(item.get("errorCode"))})


def a_refusal_by_its_number(patch: Patch) -> None:
    patch.setattr(webhook, "_REFUSALS", {})


def times_of_another_zone(patch: Patch) -> None:
    real = webhook.time_of
    patch.setattr(webhook, "time_of", lambda *item: real(*item) and real(*item) + times.HOUR)


def what_may_be_a_replay_is_let_in(patch: Patch) -> None:
    patch.setattr(webhook, "time_of", lambda *item: None)


def texts_that_stay(patch: Patch) -> None:
    patch.setattr(webhook, "hidden", lambda value, text_mode: value)


def reports_that_undo_metadata(patch: Patch) -> None:
    real = webhook._ours
    patch.setattr(webhook, "_ours", lambda *item: {"metadata": {}, **real(*item)})


def ids_of_how_a_report_is_written(patch: Patch) -> None:
    patch.setattr(webhook, "_LEARNT", {})


def a_cursor_lost(patch: Patch) -> None:
    real = client.SmsCx.reports
    patch.setattr(client.SmsCx, "reports", lambda self, cursor=None, **more: real(self, **more))


def a_filter_lost_behind_the_cursor(patch: Patch) -> None:
    def reports(self: Any, *, cursor: str | None = None, **more: Any) -> Any:
        return real(self, cursor=cursor, **({} if cursor else more))

    real = client.SmsCx.reports
    patch.setattr(client.SmsCx, "reports", reports)


def a_repeat_after_a_time_out(patch: Patch) -> None:
    patch.setattr(exchange, "_never_left", lambda error: isinstance(error, Unavailable))


def a_reset_that_nobody_heeds(patch: Patch) -> None:
    patch.setattr(client._Resets, "wait", lambda self, seconds: None)


def braces_that_pass(patch: Patch) -> None:
    patch.setattr(sending, "_text", lambda value: value)


# --- who notices it


def the_map(named: str, state: str, error: str | None) -> Callable[[Any], None]:
    return lambda _: test_webhook.test_the_map(named, None, state, error)


class Beside:
    """A client beside a server that answers as a test says."""

    def __init__(self, server: Canned, patch: Patch) -> None:
        self.server, self.patch, self.naps = server, patch, Naps()
        self.client = client.SmsCx(
            KEY,
            sender="Default",
            base_url=server.url,
            sleep=self.naps.sleep,
            clock=self.naps.clock,
            now=lambda: test_client.NOW * times.SECOND,
        )


def not_repeated(beside: Beside) -> None:
    beside.server.answers(silent)
    short = beside.client.within(timeout=0.5)
    with pytest.raises(Unavailable):
        short.send("+33612345678", "x")
    assert len(beside.server.seen) == 1


PLANTS: dict[Callable[[Patch], None], Callable[[Beside], None]] = {
    a_wrong_map: the_map("NO COVERAGE", "failed", "NO_COVERAGE"),
    a_status_forgotten: the_map("SCHEDULED", "queued", None),
    a_token_compared_byte_by_byte: lambda b: (
        test_webhook.test_every_token_is_compared_whatever_matched(b.patch)
    ),
    a_token_that_ends_the_search: lambda b: (
        test_webhook.test_every_token_is_compared_whatever_matched(b.patch)
    ),
    a_digest_over_the_batch: lambda _: test_world.test_a_bad_day_with_reports(0),
    a_digest_of_the_spelling: lambda _: (
        test_webhook.test_ids_are_of_the_item_whatever_its_batch_and_spelling()
    ),
    one_bad_item_loses_the_batch: lambda _: (
        test_webhook.test_one_broken_item_is_alone_in_quarantine(None)
    ),
    a_failure_without_a_code: the_map("FAILED", "failed", "FAILED"),
    a_refusal_by_its_number: the_map("REJECTED", "failed", "REJECTED"),
    times_of_another_zone: lambda _: shared.test_times(SMSCX, *shared.TIMES[1]),
    what_may_be_a_replay_is_let_in: lambda _: shared.test_what_may_be_a_replay_is_not_let_in(
        SMSCX, shared.TOO_OLD[0]
    ),
    texts_that_stay: lambda _: shared.test_texts_are_hidden(SMSCX),
    reports_that_undo_metadata: lambda _: (
        test_webhook.test_a_report_says_nothing_of_what_was_given_with_the_request()
    ),
    ids_of_how_a_report_is_written: lambda _: (
        test_reports.test_ids_are_of_the_fact_and_not_of_how_it_is_told()
    ),
    a_cursor_lost: lambda b: test_client.test_pages_follow_the_cursor_with_the_same_filter(
        b.client, b.server, "report_pages"
    ),
    a_filter_lost_behind_the_cursor: lambda b: (
        test_client.test_pages_follow_the_cursor_with_the_same_filter(
            b.client, b.server, "report_pages"
        )
    ),
    a_repeat_after_a_time_out: not_repeated,
    a_reset_that_nobody_heeds: lambda b: test_client.test_the_reset_is_obeyed(
        b.client, b.server, b.naps
    ),
    braces_that_pass: lambda _: test_sending.test_braces_are_told_of_in_words_that_help(),
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_noticed(plant: Callable[[Patch], None], fresh_canned: Canned) -> None:
    notices = PLANTS[plant]

    def look(planted: bool) -> None:
        with pytest.MonkeyPatch.context() as patch:
            beside = Beside(fresh_canned, patch)
            if planted:
                plant(patch)
            try:
                notices(beside)
            finally:
                beside.client.close()
                fresh_canned.released.set()
        fresh_canned.released.clear()

    look(False)
    with pytest.raises((AssertionError, pytest.fail.Exception, Unusable, KeyError)):
        look(True)
