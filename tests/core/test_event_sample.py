"""`Event.sample`: an event for a user's own tests is what the webhook would make of its body."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import Event, times
from receiver.payloads import SAMPLES
from receiver.strict_json import read_json
from receiver.testing import FakeZimSend
from tests.providers.zimsend.bodies import DIRTY_IDS, PLAIN_IDS, any_text

#: When what the samples tell is received; a moment at which the clock is trusted.
NOW = times.RELEASED + 40 * times.DAY + 123_456
ATTRIBUTES = (
    *(each.name for each in fields(Event) if not each.name.startswith("_")),
    *("data", "to", "status", "device_id", "error_code", "error_message", "metadata", "test"),
)


@pytest.fixture(scope="module", params=["full", "masked"])
def door(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FakeZimSend, bool]]:
    """A receiver whose clock stands still, and whether it hides texts."""
    fake = FakeZimSend(tmp_path_factory.mktemp(request.param), lambda: NOW)
    fake.handlers(STORE_TEXT=request.param)
    yield fake, request.param == "masked"
    fake.close()


def told(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in ATTRIBUTES}


some_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
wanted = st.fixed_dictionaries(
    {},
    optional={
        "to": texts,
        "text": st.none() | any_text,
        "device_id": texts,
        "metadata": st.none() | st.dictionaries(any_text, some_json, max_size=3),
        "error_code": st.none() | st.from_regex(r"[A-Z]{3,12}", fullmatch=True),
        "error_message": texts,
        "occurred_at": st.integers(-(10**12), 10**10).map(lambda us: times.to_datetime(NOW + us)),
        "test": st.booleans(),
        "data": st.dictionaries(st.sampled_from(["new", "priority", "otp"]), some_json, max_size=2),
    },
)
numbers = itertools.count()


@settings(max_examples=60)
@given(
    kind=st.sampled_from([*SAMPLES, "sent", "failed", "fax.received", "x\x00" * 150]),
    attributes=wanted,
    own_id=st.sampled_from([*PLAIN_IDS, *DIRTY_IDS, "zimsend:e", "smscx:e"]),
)
def test_a_sample_is_what_comes_in_by_the_door(
    door: tuple[FakeZimSend, bool], kind: str, attributes: dict[str, Any], own_id: str
) -> None:
    """Signed, parsed, stored, claimed: whatever can be asked for."""
    fake, redacted = door
    whole = times.to_datetime(NOW)
    attributes |= {"received_at": whole, "id": f"{next(numbers)}{own_id}"}
    attributes["message_id"] = f"m{attributes['id']}"
    if kind not in ("failed", "sms.failed"):
        attributes = {k: v for k, v in attributes.items() if not k.startswith("error_")}
    if kind.startswith(("device.", "otp.")):
        attributes = {k: v for k, v in attributes.items() if k not in ("text", "metadata")}
    if kind.startswith("otp."):
        attributes.pop("device_id", None)
    plain = Event.sample(kind, **attributes)
    result = fake.post(plain.raw)
    assert result.status_code == 200, result.answer
    asked = Event.sample(kind, **attributes, redacted=True) if redacted else plain
    assert told(result.event) == told(asked)


@pytest.mark.parametrize("event_type", SAMPLES)
def test_a_sample_says_what_its_type_says(event_type: str) -> None:
    event = Event.sample(event_type)
    assert (event.type, event.source, event.attempt) == (event_type, "webhook", 1)
    assert json.loads(event.raw)["data"] == event.data
    assert not event.test
    if event_type.startswith("sms."):
        assert event.message_id == event.data["message_id"] == "msg_sample"
        assert event.status == event_type.removeprefix("sms.").replace("expired", "failed")
        assert event.to
        assert event.metadata
        assert bool(event.error_code) == (event.status == "failed")


def test_a_sample_has_what_it_is_given() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    given: dict[str, Any] = {
        "id": "e1", "message_id": "m1", "to": "+33700000000", "device_id": "d1",
        "error_code": "NO_CREDIT", "error_message": "Plus de crédit", "metadata": {"a": [1]},
        "occurred_at": moment, "received_at": moment, "late": True, "test": True,
        "attempt": 3, "source": "reconciliation", "status": "failed",
    }  # fmt: skip
    event = Event.sample("failed", text="Bonjour", **given)
    assert event.type == "sms.failed"
    assert {name: getattr(event, name) for name in given} == given
    assert event.data["failed_at"] == "2026-01-02T03:04:05Z"
    assert event.data["message"] == "Bonjour"
    assert read_json(event.raw)["event_id"] == "e1"


def test_times() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5)))
    event = Event.sample("sms.sent", received_at=moment)
    assert event.occurred_at == event.received_at == moment
    assert event.received_at.tzinfo is UTC
    assert Event.sample("sms.sent", occurred_at=datetime(2026, 1, 2)).occurred_at == datetime(
        2026, 1, 2, tzinfo=UTC
    )


def test_without_an_id_it_is_the_digest_of_the_body() -> None:
    event = Event.sample("sms.sent", id=None)
    assert event.id.startswith("sha256:")
    assert "event_id" not in read_json(event.raw)


def test_another_provider_is_a_name() -> None:
    event = Event.sample("sms.sent", provider="smscx", id="e1")
    assert (event.provider, event.id, event.message_id) == ("smscx", "smscx:e1", "msg_sample")


def test_a_redacted_sample_hides_the_text() -> None:
    event = Event.sample("sms.sent", text="Code 4829", redacted=True)
    assert (event.redacted, event.data["message"]) == (True, "Code ****")
    assert b"4829" not in event.raw


def test_a_sample_without_and_with_other_data() -> None:
    event = Event.sample("sms.failed", to=None, data={"error": None, "message": "Autre", "new": 1})
    assert (event.to, event.error_code, event.data["message"]) == (None, None, "Autre")
    assert event.data["new"] == 1
    assert "to" not in event.data
    assert Event.sample("fax.received", to="+33700000000").to == "+33700000000"


def test_another_reason_has_no_words_of_the_usual_one() -> None:
    event = Event.sample("sms.failed", error_code="NO_CREDIT")
    assert (event.error_code, event.error_message) == ("NO_CREDIT", None)


def test_a_sample_has_nothing_that_an_event_has_not() -> None:
    with pytest.raises(TypeError, match=r"error_kode.* it can be given attempt, data, device_id"):
        Event.sample("sms.failed", error_kode="NO_CREDIT")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "attributes", "why"),
    [
        ("sms.sent", {"error_code": "NO_CREDIT"}, "sms.sent has no error: only sms.failed"),
        ("device.connected", {"error_message": "x"}, "has no error"),
        ("sms.expired", {"error_code": "NO_CREDIT"}, "always EXPIRED"),
        ("sms.sent", {"status": "delivered"}, "status='delivered'.* it has 'sent'"),
        ("device.connected", {"text": "x"}, "device.connected has no text"),
        ("otp.sent", {"metadata": {}}, "otp.sent has no metadata"),
        ("otp.sent", {"device_id": "d1"}, "otp.sent has no device_id"),
        ("sms.sent", {"to": 5.5}, "to=5.5"),
        ("sms.sent", {"to": "+331", "data": {"to": "+332"}}, r"to='\+331'.* it has '\+332'"),
        ("sms.sent", {"source": "fax"}, "source='fax' is none of webhook"),
        ("sms.sent", {"provider": "fax"}, "provider='fax' is none of"),
        ("sms.sent", {"attempt": 0}, "from 1 on"),
        ("sms.sent", {"metadata": {"n": math.inf}}, "not JSON compliant"),
        ("sms.sent", {"data": {"n": [math.nan]}, "redacted": True}, "not JSON compliant"),
    ],
)
def test_a_sample_that_no_event_can_be(kind: str, attributes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Event.sample(kind, **attributes)
