"""What every provider's parsing must do: one suite of cases, run for each of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import ids, status, times
from receiver.errors import Unusable
from receiver.event import Incoming, Rejected
from tests.providers.callers import CALLERS, NOW, RETENTION, Caller
from tests.providers.zimsend.bodies import DIRTY_IDS, PLAIN_IDS, steady
from tests.providers.zimsend.test_parsing_anything import any_json

pytestmark = pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.name)

EVERY = st.sampled_from(["full", "masked", "none"])
AT = "2026-11-20T08:15:32Z"

#: What a report says of its time, and what of it counts: microseconds after NOW, `None`: nothing.
TIMES: list[tuple[Any, int | None]] = [
    (AT, -10 * times.SECOND),
    ("2026-11-20 08:15:32", -10 * times.SECOND),
    ("2026-11-20T09:15:32+01:00", -10 * times.SECOND),
    ("2026-11-20T08:15:32.5Z", -10 * times.SECOND + 500_000),
    ("2026-11-21T08:15:42Z", times.DAY),
    ("2026-11-21T08:15:43Z", None),
    ("9999-12-31T23:59:59-14:00", None),
    *[(value, None) for value in ("", "soon", "0000-00-00 00:00:00", True, [], {}, None)],
]
TOO_OLD = [times.iso(NOW - RETENTION - times.SECOND), "2003-01-01 00:00:00"]

HOSTILE = {
    "nothing": b"",
    "blanks": b" \n",
    "no JSON": b"{",
    "a text": b'"dlr_update"',
    "a list": b"[]",
    "null": b"null",
    "NaN": b'{"event": "dlr_update", "data": [{"errorCode": NaN}]}',
    "nested too deep": b'{"event": "sms.sent", "data": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "nested a little too deep": b'{"event": "e", "data": [' + b"[" * 199 + b"]" * 199 + b"]}",
    "a form": b"event=dlr_update&data=1",
    "XML": b"<event>dlr_update</event>",
}


def one(items: Sequence[Any]) -> Incoming:
    (item,) = items
    assert isinstance(item, Incoming)
    return item


def test_samples_of_every_type(caller: Caller) -> None:
    for kind in caller.samples:
        body = caller.sample(kind, event_id="evt_1", message_id="m-1", to="+33612345678", now=NOW)
        event = one(caller.take(body))
        assert event.type == kind
        assert event.occurred_at == NOW
        touches = kind in status.STATE_OF_TYPE
        assert (event.says is not None) is touches
        if touches:
            assert event.message_id == ids.key(caller.name, "m-1")
            assert event.says is not None
            assert status.status(event.says) == status.STATE_OF_TYPE[kind]


def test_samples_with_other_ids_are_other_events(caller: Caller) -> None:
    def event_id(number: str) -> str:
        body = caller.sample("sms.sent", event_id=number, message_id="m", to="+336", now=NOW)
        return one(caller.take(body)).id

    assert event_id("evt_1") == event_id("evt_1") != event_id("evt_2")


def test_what_this_provider_never_sends_is_of_no_use(caller: Caller) -> None:
    for body in caller.useless:
        with pytest.raises(Unusable):
            caller.take(body)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_what_is_of_no_use_is_told_so(caller: Caller, hostile: bytes) -> None:
    with pytest.raises(Unusable) as caught:
        caller.take(hostile)
    assert 0 < len(caught.value.reason) < 200


@pytest.mark.parametrize("own_id", [*PLAIN_IDS, "a/b", "zimsend:m", "smscx:m", "M", "m"])
def test_ids_are_kept_as_they_are(caller: Caller, own_id: str) -> None:
    event = one(caller.take(caller.report("sent", own_id)))
    assert event.message_id is not None
    assert ids.split(event.message_id) == (caller.name, own_id)
    assert ids.read(ids.written(event.message_id)) == event.message_id
    assert ids.split(event.id)[0] == caller.name


@pytest.mark.parametrize("own_id", DIRTY_IDS, ids=range(len(DIRTY_IDS)))
def test_ids_that_no_database_holds_become_their_digest(caller: Caller, own_id: str) -> None:
    event = one(caller.take(caller.report("sent", own_id)))
    assert event.message_id is not None
    digest = hashlib.sha256(own_id.encode("utf-8", "surrogatepass")).hexdigest()
    assert ids.split(event.message_id) == (caller.name, f"sha256:{digest}")


@pytest.mark.parametrize("own_id", [None, "", True, [], {}, 1.5])
def test_without_an_id_the_mirror_is_left_alone(caller: Caller, own_id: Any) -> None:
    event = one(caller.take(caller.report("sent", own_id)))
    assert (event.message_id, event.says) == (None, None)


@pytest.mark.parametrize("state", ["queued", "sent", "delivered", "failed"])
def test_states(caller: Caller, state: str) -> None:
    if state not in caller.states:
        assert f"sms.{state}" not in caller.samples
        return
    event = one(caller.take(caller.report(state, "m", AT)))
    assert event.type == f"sms.{state}"
    assert event.says is not None
    assert event.says[state][0] == event.timestamp == NOW - 10 * times.SECOND
    error = status.describe(event.says)["error"]
    assert (error and error["code"]) == ("27" if state == "failed" else None)
    assert event.has_error is (state == "failed")


def test_an_unknown_state_is_kept_and_leaves_the_mirror_alone(caller: Caller) -> None:
    event = one(caller.take(caller.unknown))
    assert event.type not in status.STATE_OF_TYPE
    assert event.says is None
    assert b"m" in event.body


@pytest.mark.parametrize(("time", "counts"), TIMES)
def test_times(caller: Caller, time: Any, counts: int | None) -> None:
    event = one(caller.take(caller.report("sent", "m", time)))
    assert event.timestamp == (None if counts is None else NOW + counts)
    assert event.occurred_at == NOW + (counts or 0)


@pytest.mark.parametrize("time", TOO_OLD)
def test_what_may_be_a_replay_is_not_let_in(caller: Caller, time: str) -> None:
    try:
        (item,) = caller.take(caller.report("sent", "m", time))
    except Unusable:
        return
    assert isinstance(item, Rejected)


@pytest.mark.parametrize("text_mode", ["full", "masked", "none"])
def test_a_stored_body_is_the_same_event_again(caller: Caller, text_mode: str) -> None:
    first = one(caller.take(caller.report("sent", "m", AT, "Code 482913"), text_mode=text_mode))
    again = one(caller.take(first.body))
    for name in ("id", "type", "message_id", "timestamp", "says", "body"):
        assert getattr(again, name) == getattr(first, name)


def test_texts_are_hidden(caller: Caller) -> None:
    body = caller.report("sent", "m", AT, "Code 482913")
    for text_mode, shown in (("full", "Code 482913"), ("masked", "Code ******"), ("none", None)):
        event = one(caller.take(body, text_mode=text_mode))
        assert event.redacted is (text_mode != "full")
        assert (b"482913" in event.body) is (text_mode == "full")
        assert caller.read(event.body)[1].get("message") == shown
        assert event.says is not None
        assert status.describe(event.says)["message"] == shown
        if text_mode != "full":
            assert event.original is not None
            assert len(event.original[0]) == 64


@steady
@given(data=st.data(), text_mode=EVERY)
def test_whatever_comes(caller: Caller, data: st.DataObject, text_mode: str) -> None:
    """Any JSON in any known place: events that all else can work with, or `Unusable`."""
    report = json.loads(caller.report(caller.states[-1], "m", AT, "x"))
    holder = data.draw(st.sampled_from(["envelope", "item"]))
    inner = report.get("data", report)
    inner = inner[0] if isinstance(inner, list) else inner
    target = report if holder == "envelope" else inner
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(any_json)
    try:
        items = caller.take(json.dumps(report).encode(), text_mode=text_mode)
    except Unusable:
        return
    for item in items:
        if isinstance(item, Rejected):
            assert (item.body is None) is (text_mode != "full")
            continue
        for key in (item.id, item.message_id or "none", item.type):
            ids.split(key)[1].encode()
            assert 0 < len(ids.split(key)[1]) <= 200
        assert NOW - RETENTION <= item.occurred_at <= NOW + times.DAY
        assert json.loads(json.dumps(item.says)) == item.says
        if isinstance(json.loads(item.body).get("data", {}), dict | list):
            for told in caller.read(item.body):
                json.dumps(told)
