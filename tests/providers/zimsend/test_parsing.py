"""From a verified body to an event: its type, its ids, its times."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver import status, times
from receiver.errors import Unusable
from receiver.event import clean_id
from receiver.providers.zimsend.samples import SAMPLES, sample
from tests.providers.zimsend.bodies import (
    CONNECTED,
    DELIVERED,
    DIRTY_IDS,
    DISCONNECTED,
    FAILED,
    NOW,
    PLAIN_IDS,
    RETENTION,
    SENT,
    at,
    digest,
    envelope,
    handed,
    incoming,
    iso,
    steady,
)

# --- the documented payloads, as in PROVIDER.md section 1


@pytest.mark.parametrize(
    ("named", "kind", "data", "message_id", "occurred", "mirrored"),
    [
        ("sms.sent", "sms.sent", SENT, "msg_1", -3, {"sent"}),
        ("sms.delivered", "sms.delivered", DELIVERED, "msg_1", -1, {"sent", "delivered"}),
        ("sms.failed", "sms.failed", FAILED, "msg_1", -2, {"failed", "error"}),
        ("sms.expired", "sms.expired", {"message_id": "m"}, "m", -10, {"failed", "error"}),
        ("device.connected", "device.connected", CONNECTED, None, -4, None),
        ("device.disconnected", "device.disconnected", DISCONNECTED, None, -5, None),
        ("otp.sent", "otp.sent", {"otp_id": "otp_1"}, None, -10, None),
        ("otp.verified", "otp.verified", {"otp_id": "o", "message_id": "m"}, "m", -10, None),
        ("otp.failed", "otp.failed", {}, None, -10, None),
        # As one document calls the events of a per-message webhook.
        ("sent", "sms.sent", SENT, "msg_1", -3, {"sent"}),
        ("delivered", "sms.delivered", DELIVERED, "msg_1", -1, {"sent", "delivered"}),
        ("failed", "sms.failed", FAILED, "msg_1", -2, {"failed", "error"}),
        # A test event may have only some of the fields.
        ("sms.delivered", "sms.delivered", {"message_id": "msg_t"}, "msg_t", -10, {"delivered"}),
    ],
)
def test_documented_payloads(
    named: str,
    kind: str,
    data: dict[str, Any],
    message_id: str | None,
    occurred: int,
    mirrored: set[str] | None,
) -> None:
    body = json.dumps(envelope(named, data), ensure_ascii=False).encode()
    arrived = incoming(body)
    assert arrived.id == "evt_1"
    assert arrived.type == kind
    assert arrived.message_id == message_id
    assert arrived.occurred_at == arrived.reported_at == at(occurred)
    assert arrived.received_at == NOW
    assert arrived.body == body
    assert arrived.redacted is False
    assert arrived.source == "webhook"
    assert arrived.has_error is (kind in ("sms.failed", "sms.expired"))
    if mirrored is None:
        assert arrived.says is None
    else:
        assert arrived.says is not None
        assert arrived.says.keys() & {*status.STATES, "error"} == mirrored
    assert handed(arrived).data == data


@pytest.mark.parametrize("event_type", SAMPLES)
def test_our_own_samples_are_such_payloads(event_type: str) -> None:
    body = sample(event_type, event_id="evt_2", message_id="msg_2", to="+33699999999", now=NOW)
    arrived = incoming(body)
    assert (arrived.id, arrived.type) == ("evt_2", event_type)
    event = handed(arrived)
    if event_type.startswith("sms."):
        assert arrived.message_id == "msg_2"
        assert event.to == "+33699999999"
        assert arrived.says is not None
        assert status.status(arrived.says) == status.STATE_OF_TYPE[event_type]
    else:
        assert arrived.says is None


def test_every_documented_type_has_a_sample() -> None:
    documented = {"sms.sent", "sms.delivered", "sms.failed", "sms.expired"}
    documented |= {"device.connected", "device.disconnected"}
    documented |= {"otp.sent", "otp.verified", "otp.failed"}
    assert documented <= SAMPLES.keys()


def test_an_unknown_type_with_unknown_fields_is_kept_as_it_is() -> None:
    arrived = incoming(envelope("fax.sent", {"pages": [1, {"n": None}]}, extra={"a": True}))
    assert arrived.type == "fax.sent"
    assert arrived.says is None
    assert handed(arrived).data == {"pages": [1, {"n": None}]}


@pytest.mark.parametrize("named", ["Sent", "SMS.SENT", " sms.sent", "sent ", "queued", ""])
def test_only_the_three_documented_short_names_are_aliases(named: str) -> None:
    assert incoming(envelope(named)).type == named


@pytest.mark.parametrize(
    ("named", "kind"),
    [
        ("sms.\x00sent", "sms.\ufffdsent"),
        ("a\nb\x7f\x9f", "a\ufffdb\ufffd\ufffd"),
        ("\ud800x", "\ufffdx"),
        ("t" * 100_000, "t" * 200),
        ("t" * 199 + "\x00t", "t" * 199 + "\ufffd"),
    ],
)
def test_a_type_that_no_log_could_hold_is_cleaned(named: str, kind: str) -> None:
    assert incoming(envelope(named)).type == kind


# --- ids


@pytest.mark.parametrize("value", PLAIN_IDS, ids=lambda value: ascii(value)[:30])
def test_an_id_that_everything_can_hold_stays(value: str) -> None:
    arrived = incoming(envelope(data=SENT | {"message_id": value}, event_id=value))
    assert arrived.id == arrived.message_id == value


@pytest.mark.parametrize("value", DIRTY_IDS, ids=lambda value: ascii(value)[:30])
def test_any_other_is_kept_as_its_digest(value: str) -> None:
    arrived = incoming(envelope(data=SENT | {"message_id": value}, event_id=value))
    assert arrived.id == arrived.message_id == digest(value)
    assert arrived.says is not None
    assert arrived.says["sent"][1] == digest(value)


@steady
@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_cleaning_twice_is_cleaning_once(value: str) -> None:
    cleaned = clean_id(value)
    assert clean_id(cleaned) == cleaned
    assert len(cleaned) <= 200
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in cleaned)


NO_IDS = [None, "", 5.0, 1.5, True, False, [], ["evt_1"], {}]


@pytest.mark.parametrize("value", NO_IDS)
def test_without_a_usable_event_id_the_body_is_the_id(value: Any) -> None:
    body = json.dumps(envelope(event_id=value)).encode()
    assert incoming(body).id == digest(body)
    # To the byte: one blank more is another event.
    assert incoming(body + b" ").id == digest(body + b" ")


@pytest.mark.parametrize("number", [0, 5, -7, 2**63, 10**199])
def test_a_whole_number_as_an_id_is_its_digits(number: int) -> None:
    arrived = incoming(envelope(data=SENT | {"message_id": number}, event_id=number))
    assert arrived.id == arrived.message_id == str(number)
    assert handed(arrived).id == str(number)


@pytest.mark.parametrize("digits", ["9" * 201, "-" + "9" * 4_299, "9" * 100_000])
def test_a_number_too_long_for_an_id_is_kept_as_the_digest_of_its_digits(digits: str) -> None:
    body = b'{"event": "sms.sent", "event_id": %s, "data": {"message_id": %s}}'
    arrived = incoming(body % (digits.encode(), digits.encode()))
    assert arrived.id == arrived.message_id == digest(digits)


@pytest.mark.parametrize("digits", ["1e999", "1" * 400 + ".5"])
def test_a_number_that_is_not_whole_is_no_id(digits: str) -> None:
    body = b'{"event": "sms.sent", "event_id": %s, "data": {"message_id": %s, "to": %s}}'
    arrived = incoming(body % ((digits.encode(),) * 3))
    assert (arrived.id, arrived.message_id) == (digest(arrived.body), None)
    assert handed(arrived).to is None


def test_what_is_read_of_a_number_is_the_same_for_handlers_and_in_the_mirror() -> None:
    data = FAILED | {"to": 33612345678, "device_id": 7, "error": {"code": 30007, "message": None}}
    arrived = incoming(envelope("sms.failed", data | {"metadata": '{"order": 17}'}))
    event = handed(arrived)
    seen = (event.to, event.device_id, event.error_code, event.metadata)
    assert seen == ("33612345678", "7", "30007", {"order": 17})
    assert arrived.says is not None
    view = status.describe(arrived.says)
    assert seen == (view["to"], view["device_id"], view["error"]["code"], view["metadata"])
    assert event.data["metadata"] == '{"order": 17}'  # as it came
    with pytest.raises(TypeError, match="cannot be changed"):
        event.metadata["order"] = 18  # type: ignore[index]


def test_the_envelope_without_event_id() -> None:
    body = b'{"event": "sms.sent", "timestamp": "2026-11-20T08:15:42Z", "data": {}}'
    assert incoming(body).id == digest(body)


@pytest.mark.parametrize("value", NO_IDS)
def test_a_message_id_that_is_neither_a_text_nor_a_whole_number_is_none(value: Any) -> None:
    arrived = incoming(envelope("sms.failed", FAILED | {"message_id": value}))
    assert arrived.message_id is None
    assert arrived.says is None
    assert arrived.has_error is False
    assert handed(arrived).error_code == "NO_CREDIT"


@pytest.mark.parametrize("data", [None, [], [SENT], "x", 5, True])
def test_data_that_is_no_object_says_nothing(data: Any) -> None:
    arrived = incoming(envelope(data=data))
    assert arrived.message_id is None
    assert arrived.says is None
    assert arrived.occurred_at == at(-10)
    assert handed(arrived).data == {}


# --- times


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "occurred_at"),
    [
        pytest.param(iso(-10), iso(-3), at(-3), id="the own time first"),
        pytest.param(iso(-10), None, at(-10), id="else the envelope's"),
        pytest.param(None, iso(-3), at(-3), id="only the own one"),
        pytest.param(None, None, None, id="neither"),
        pytest.param(1_795_162_532, None, at(-10), id="a number"),
        pytest.param("1795162532000", None, at(-10), id="digits"),
        pytest.param(None, 1_795_162_539_000, at(-3), id="a number of milliseconds"),
        pytest.param(20_261_120, None, None, id="a number that looks like a date"),
        pytest.param("20261120", None, None, id="digits that look like a date"),
        pytest.param("Fri, 20 Nov 2026 08:15:32 GMT", None, at(-10), id="as in mail"),
        pytest.param("2026-11-20T09:15:32[Europe/Paris]", None, at(-10), id="a zone by name"),
        pytest.param("0001-01-01T00:00:00Z", iso(-3), at(-3), id="the year 1"),
        pytest.param("1999-12-31T23:59:59Z", None, None, id="before 2000"),
        pytest.param(0, None, None, id="zero"),
        pytest.param("yesterday", None, None, id="words"),
        pytest.param("", None, None, id="empty"),
        pytest.param(["2026-11-20T08:15:42Z"], None, None, id="a list"),
        pytest.param("2026-11-20T08:15:30", None, at(-12), id="no zone is UTC"),
        pytest.param("2026-11-20T09:15:30+01:00", None, at(-12), id="east"),
        pytest.param("2026-11-20T02:45:30-05:30", None, at(-12), id="west"),
        pytest.param(times.iso(NOW + times.DAY), None, NOW + times.DAY, id="a day ahead"),
        pytest.param(times.iso(NOW + times.DAY + 1), None, None, id="more than a day ahead"),
        pytest.param("9999-12-31T23:59:59.999999-23:59", None, None, id="the year 9999"),
        pytest.param(times.iso(NOW - RETENTION), None, NOW - RETENTION, id="just let in"),
        pytest.param(iso(-10), times.iso(NOW - RETENTION - 1), at(-10), id="an own time too old"),
        pytest.param(iso(-10), "0001-01-01T00:00:00+14:00", at(-10), id="own time in the year 1"),
        pytest.param(iso(-10), "9999-12-31T23:59:59-14:00", at(-10), id="and in the year 9999"),
        pytest.param(iso(-10), times.iso(NOW + times.DAY + 1), at(-10), id="own time far ahead"),
    ],
)
def test_when_it_occurred(timestamp: Any, sent_at: Any, occurred_at: int | None) -> None:
    arrived = incoming(envelope(data=SENT | {"sent_at": sent_at}, timestamp=timestamp))
    assert arrived.reported_at == occurred_at
    assert arrived.occurred_at == (NOW if occurred_at is None else occurred_at)
    event = handed(arrived)
    assert times.parse(event.occurred_at.isoformat()) == arrived.occurred_at
    assert times.parse(event.received_at.isoformat()) == NOW


@pytest.mark.parametrize(
    ("timestamp", "order", "register"),
    [
        (iso(-10), at(-10), "sent"),
        (None, at(-3), "sent"),
        ("9999-12-31T23:59:59Z", at(-3), "sent"),
    ],
)
def test_events_are_ordered_by_the_envelope(timestamp: Any, order: int, register: str) -> None:
    arrived = incoming(envelope(timestamp=timestamp))
    assert arrived.says is not None
    assert arrived.says[register] == [order, "evt_1", at(-3)]


@pytest.mark.parametrize(
    "timestamp",
    [
        times.iso(NOW - RETENTION - 1),
        "2000-01-01T00:00:00Z",
        times.iso(NOW - RETENTION - 1).replace("Z", "UTC"),
        (NOW - RETENTION) // times.SECOND - 1,
    ],
)
def test_what_is_older_than_the_retention_is_not_let_in(timestamp: str | int) -> None:
    with pytest.raises(Unusable, match="older than 90 days"):
        incoming(envelope(timestamp=timestamp))
