"""The description of a request that brings events, driven by hand: no socket, no thread."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest

from receiver import metrics, times
from receiver.config import Config
from receiver.counting import Uncounted
from receiver.errors import Refused, StoreUnavailable
from receiver.event import EXPIRED, Incoming, Rejected
from receiver.providers.zimsend import PROVIDER as ZIMSEND
from receiver.providers.zimsend.webhook import sign
from receiver.receiving import ELSEWHERE, LARGE, Item, Receiving, Steps, blocking
from receiver.refusals import STORE
from tests.conftest import SECRET
from tests.payloads import envelope, sms

NOW = times.now()


@pytest.fixture(scope="module")
def receiving() -> Receiving:
    return Receiving(Config.from_env({"ZIMSEND_WEBHOOK_SECRET": SECRET}), [ZIMSEND], lambda: NOW)


def event(**changes: Any) -> bytes:
    return json.dumps(envelope("sms.sent", sms("sent"), event_id="evt_1") | changes).encode()


def begin(receiving: Receiving, body: bytes) -> Steps:
    return receiving.receive(ZIMSEND, body, sign(SECRET.encode(), body))


def the_item(asked: Sequence[Item] | None) -> Item:
    assert asked is not ELSEWHERE
    (item,) = asked
    return item


@pytest.mark.parametrize("outcome", ["accepted", "duplicate"])
def test_what_is_stored_is_told(receiving: Receiving, outcome: Any) -> None:
    body = event()
    steps = begin(receiving, body)
    item = the_item(next(steps))
    assert isinstance(item, Incoming)
    assert (item.id, item.body, item.received_at) == ("evt_1", body, NOW)
    with pytest.raises(StopIteration) as end:
        steps.send([outcome])
    assert json.loads(end.value.value) == {"status": outcome, "event_id": "evt_1"}


@pytest.mark.parametrize("outcome", ["accepted apart", "duplicate apart"])
def test_an_id_that_is_another_events_is_told_and_not_answered(
    outcome: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiving = Receiving(
        Config.from_env({"ZIMSEND_WEBHOOK_SECRET": SECRET}), [ZIMSEND], lambda: NOW
    )
    body = event()
    own = "sha256:" + hashlib.sha256(body).hexdigest()
    for _ in range(3):
        steps = begin(receiving, body)
        next(steps)
        with pytest.raises(StopIteration) as end:
            steps.send([outcome])
        assert json.loads(end.value.value) == {"status": outcome.split()[0], "event_id": own}
    (line,) = [r.getMessage() for r in caplog.records if "collide" in r.getMessage()]
    assert "evt_1 " in line
    assert own in line


def test_what_is_no_shortage_is_kept(receiving: Receiving) -> None:
    def fails(*_: Any, **__: Any) -> list[Item]:
        raise FileNotFoundError(2, "No such file")

    body = event()
    provider = dataclasses.replace(ZIMSEND, parse=fails)
    steps = receiving.receive(provider, body, sign(SECRET.encode(), body))
    assert isinstance(the_item(next(steps)), Rejected)


@pytest.mark.parametrize("shortage", [OSError(24, "Too many open files"), MemoryError()])
def test_what_cannot_be_read_for_want_of_files_or_memory_is_to_be_sent_again(
    shortage: Exception,
) -> None:
    def fails(*_: Any, **__: Any) -> list[Item]:
        raise shortage

    class Counted(Uncounted):
        def count(self, *key: str, by: int = 1) -> None:
            counted.append(key)

    counted: list[tuple[str, ...]] = []
    config = Config.from_env({"ZIMSEND_WEBHOOK_SECRET": SECRET})
    receiving = Receiving(config, [ZIMSEND], lambda: NOW, Counted())
    body = event()
    steps = receiving.receive(
        dataclasses.replace(ZIMSEND, parse=fails), body, sign(SECRET.encode(), body)
    )
    with pytest.raises(StoreUnavailable):
        next(steps)
    assert counted == [(metrics.REFUSED, STORE)]


@pytest.mark.parametrize("shortage", [OSError(24, "Too many open files"), MemoryError()])
@pytest.mark.parametrize("defects", [0, 1, 2])
def test_what_cannot_be_stored_for_such_a_want_is_to_be_sent_again_too(
    receiving: Receiving, shortage: Exception, defects: int
) -> None:
    """Of two items: at the first try, one by one, and where one goes into quarantine."""

    def two(*arguments: Any, **more: Any) -> list[Item]:
        return 2 * ZIMSEND.parse(*arguments, **more)

    body = event()
    steps = receiving.receive(
        dataclasses.replace(ZIMSEND, parse=two), body, sign(SECRET.encode(), body)
    )
    next(steps)
    for _ in range(defects):
        steps.throw(OverflowError("no column holds this"))
    with pytest.raises(StoreUnavailable):
        steps.throw(shortage)


def test_what_this_program_cannot_read_by_a_defect_is_kept_and_refused(
    receiving: Receiving, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> list[Item]:
        raise RecursionError("Bonjour 4829")

    body = event()
    provider = dataclasses.replace(ZIMSEND, parse=fails)
    steps = receiving.receive(provider, body, sign(SECRET.encode(), body))
    item = the_item(next(steps))
    assert isinstance(item, Rejected)
    assert item.body == body
    with pytest.raises(Refused) as refused:
        steps.send(["quarantined"])
    assert refused.value.status == 400
    assert "RecursionError" in caplog.text
    assert "Bonjour" not in caplog.text


def test_an_id_of_any_letters_leaves_json(receiving: Receiving) -> None:
    steps = begin(receiving, event(event_id='é"\\ 👋'))
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(["accepted"])
    assert json.loads(end.value.value)["event_id"] == 'é"\\ 👋'


def test_what_the_store_puts_into_quarantine_is_refused(receiving: Receiving) -> None:
    steps = begin(receiving, event())
    next(steps)
    with pytest.raises(Refused) as refused:
        steps.send(["quarantined"])
    assert (refused.value.status, refused.value.detail) == (400, EXPIRED)


def test_what_cannot_be_used_is_kept_and_then_refused(receiving: Receiving) -> None:
    steps = begin(receiving, b"no json")
    item = the_item(next(steps))
    assert isinstance(item, Rejected)
    assert item.body == b"no json"
    with pytest.raises(Refused) as refused:
        steps.send(["quarantined"])
    assert (refused.value.status, refused.value.detail) == (400, item.reason)


@pytest.mark.parametrize("claimed", [None, "", "x", "0" * 64, "é" * 64, "sha256=" + "0" * 64])
@pytest.mark.parametrize("size", [2, LARGE + 1])
def test_without_a_signature_nothing_is_asked_for(
    receiving: Receiving, claimed: str | None, size: int
) -> None:
    with pytest.raises(Refused) as refused:
        next(receiving.receive(ZIMSEND, b"x" * size, claimed))
    assert refused.value.status == 401


def test_a_large_body_is_parsed_elsewhere(receiving: Receiving) -> None:
    begun, end = event(pad="")[:-2], b'"}'  # once: its times are written in as few digits as do
    small = begun.ljust(LARGE - len(end), b"x") + end
    large = begun.ljust(LARGE + 1 - len(end), b"x") + end
    assert (len(small), len(large)) == (LARGE, LARGE + 1)
    assert next(begin(receiving, small)) is not ELSEWHERE
    steps = begin(receiving, large)
    assert next(steps) is ELSEWHERE
    item = the_item(steps.send(None))
    assert isinstance(item, Incoming)
    assert item.body == large


def test_a_store_that_is_away_is_told_as_it_is(receiving: Receiving) -> None:
    """Nothing else is tried: the sender comes again."""
    for body in event(), b"no json":
        steps = begin(receiving, body)
        next(steps)
        away = StoreUnavailable("x")
        with pytest.raises(StoreUnavailable) as raised:
            steps.throw(away)
        assert raised.value is away


def test_what_the_store_cannot_hold_goes_into_quarantine(receiving: Receiving) -> None:
    body = event()
    steps = begin(receiving, body)
    next(steps)
    item = the_item(steps.throw(OverflowError("with a text in it")))
    assert isinstance(item, Rejected)
    assert item.body == body
    assert "text in it" not in item.reason
    with pytest.raises(Refused) as refused:
        steps.send(["quarantined"])
    assert (refused.value.status, refused.value.detail) == (400, item.reason)


@pytest.mark.parametrize("error", [OverflowError("x"), StoreUnavailable("x")])
def test_what_quarantine_cannot_hold_either_is_an_error(
    receiving: Receiving, error: Exception
) -> None:
    steps = begin(receiving, event())
    next(steps)
    steps.throw(OverflowError("y"))
    with pytest.raises(type(error)) as raised:
        steps.throw(error)
    assert raised.value is error


def test_hidden_texts_are_in_nothing_that_is_stored() -> None:
    settings = {"ZIMSEND_WEBHOOK_SECRET": SECRET, "STORE_TEXT": "none"}
    receiving = Receiving(Config.from_env(settings), [ZIMSEND], lambda: NOW)
    for body in event(), b'{"data": {"message": "Bonjour"}}':
        item = the_item(next(begin(receiving, body)))
        assert b"Bonjour" not in (item.body or b"")


# --- the driver that blocks


def test_the_blocking_driver_goes_all_steps(receiving: Receiving) -> None:
    asked: list[Item] = []

    def store(items: Sequence[Item]) -> list[Any]:
        asked.extend(items)
        if len(asked) == 1:
            raise OverflowError("x")
        return ["quarantined"]

    with pytest.raises(Refused) as refused:
        blocking(begin(receiving, event(pad="x" * LARGE)), store)
    assert refused.value.status == 400
    assert [type(item) for item in asked] == [Incoming, Rejected]
    text = blocking(begin(receiving, event()), lambda items: ["accepted"])
    assert json.loads(text)["status"] == "accepted"
