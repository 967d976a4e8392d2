"""Intents, passes and their events in a real store, on both engines."""

from __future__ import annotations

import pytest

from receiver import ids
from receiver.providers.sipgate import polling
from receiver.providers.sipgate.events import sent_id
from receiver.providers.sipgate.intents import Book, Intent, intent, queued
from receiver.providers.sipgate.polling import InStore
from receiver.store import Store
from receiver.times import HOUR, MINUTE, SECOND
from tests.providers.sipgate.past import NOON, NUMBER, RETENTION, Account


def ask(own_id: str, number: str = NUMBER, **how: object) -> Intent:
    told = {"sms_id": "s0", "to": number, "text": f"Guten Tag {own_id}", "now": NOON} | how
    return intent(own_id, **told)  # type: ignore[arg-type]


def test_intents_outlive_the_process(store: Store) -> None:
    kept = [ask("a", metadata={"n": [1, None, "é\u2028"]}), ask("b", send_at=NOON + HOUR)]
    Book(store).keep(kept)
    assert Book(store).open() == kept
    Book(store).drop(["a", "none"])
    assert Book(store).open() == kept[1:]
    Book(store).drop([])


def test_a_pass_beside_the_store(store: Store) -> None:
    account, book = Account(), Book(store)
    book.keep([ask(f"own-{n}") for n in range(600)])
    for n in range(600):
        account.add(f"e{n}", NOON + SECOND, smsContent=f"Guten Tag own-{n}")
    account.add("app", NOON)
    asked = queued(ask("own-1"), now=NOON, retention=RETENTION, text_mode="full", source="gateway")
    store.ingest(asked, lambda _: (), 5)

    def once() -> polling.Found:
        state = polling.state(store.note(polling.NOTE), NOON)
        found = polling.look(
            account,  # type: ignore[arg-type]
            book.open,
            InStore(store),
            state,
            lambda: NOON + MINUTE,
            retention=RETENTION,
        )

        def learn(events: object) -> None:
            told = store.ingest(found.events, lambda _: (), 5)
            assert set(told) == {"accepted"}

        polling.keep(found, learn, book.drop, store.write_note)
        return found

    assert len(once().events) == 599 + 600 + 1
    assert book.open() == []
    assert once().events == []
    known = InStore(store)
    assert known.stored([sent_id("e1"), sent_id("e599"), sent_id("x")]) == {
        sent_id("e1"),
        sent_id("e599"),
    }
    key = ids.key("sipgate", "own-7")
    assert {report.type for report in known.reports([key])[key]} == {"sms.queued", "sms.sent"}
    row, _, _ = store.evidence(key, 10) or pytest.fail("there is no such message")
    assert row["sent"][0] == NOON + SECOND
    assert store.missed(["sms.sent", "sms.queued"], HOUR, 5) == (None, 0, [])  # it is no loss
