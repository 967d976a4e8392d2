"""From a verified body to an event, and to what a handler gets of it."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
import threading
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import Event, status, times
from receiver.errors import Unusable
from receiver.event import Incoming, clean_id, reject
from receiver.providers.zimsend.samples import SAMPLES, sample
from receiver.providers.zimsend.webhook import parse
from receiver.store import Claim
from receiver.strict_json import read_json
from receiver.worker import event_of

steady = settings(derandomize=True, deadline=None, max_examples=150)

RETENTION = 90 * times.DAY
NOW = 1_795_162_542 * times.SECOND  # 2026-11-20T08:15:42Z


def at(seconds: float) -> int:
    return NOW + int(seconds * times.SECOND)


def iso(seconds: float) -> str:
    return times.iso(at(seconds))


def incoming(body: Any, *, text_mode: str = "full") -> Incoming:
    """Parse a body, or the JSON of an object, as if it were received NOW."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return parse(body, received_at=NOW, retention=RETENTION, text_mode=text_mode)


def handed(arrived: Incoming, **changes: Any) -> Event:
    """The event as a handler gets it."""
    return event_of(
        Claim(
            **{
                "event_seq": 1,
                "handler": "h",
                "fence": 1,
                "attempt": 3,
                "event_id": arrived.id,
                "event_type": arrived.type,
                "message_id": arrived.message_id,
                "occurred_at": arrived.occurred_at,
                "received_at": arrived.received_at,
                "source": arrived.source,
                "late": False,
                "redacted": arrived.redacted,
                "body": arrived.body,
                **changes,
            }
        )
    )


def digest(text: str | bytes) -> str:
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    return "sha256:" + hashlib.sha256(text).hexdigest()


# --- the documented payloads, as in PROVIDER.md section 1

SENT = {
    "message_id": "msg_1",
    "status": "sent",
    "to": "+33612345678",
    "message": "Bonjour 👋 مرحبا, code 4829",
    "device_id": "dev_1",
    "sent_at": iso(-3),
    "metadata": {"order": 17, "tags": ["a", "b"]},
}
DELIVERED = SENT | {"status": "delivered", "delivered_at": iso(-1)}
FAILED = {name: value for name, value in SENT.items() if name != "sent_at"} | {
    "status": "failed",
    "error": {"code": "NO_CREDIT", "message": "No credit left"},
    "failed_at": iso(-2),
}
CONNECTED = {
    "device_id": "dev_1",
    "device_name": "Pixel 8",
    "phone_number": "+33600000000",
    "android_version": "14",
    "app_version": "1.2.0",
    "connected_at": iso(-4),
    "ip_address": "192.0.2.1",
}
DISCONNECTED = {
    "device_id": "dev_1",
    "device_name": "Pixel 8",
    "phone_number": "+33600000000",
    "disconnected_at": iso(-5),
    "reason": "BATTERY_SAVER",
    "last_seen": iso(-60),
}


def envelope(event: Any = "sms.sent", data: Any = SENT, **changes: Any) -> dict[str, Any]:
    return {"event": event, "event_id": "evt_1", "timestamp": iso(-10), "data": data, **changes}


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

PLAIN_IDS = [
    "evt_7f3k2",
    "e",
    " ",
    "e" * 200,
    "😀" * 200,
    "évt-ñ-事件",
    "'; DROP TABLE events; --",
    "%2C",
    "sha256:x",
]
DIRTY_IDS = [
    "e" * 201,
    "😀" * 201,
    "e" * 100_000,
    "e\x00",
    "\n",
    "e\r\nx: y",
    "e\x1b[31m",
    "e\x7f",
    "e\x85",
    "\ud800",
    "e\udfff",
]


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


NO_IDS = [None, "", 0, 5, 1.5, True, [], ["evt_1"], {}]


@pytest.mark.parametrize("value", NO_IDS)
def test_without_a_usable_event_id_the_body_is_the_id(value: Any) -> None:
    body = json.dumps(envelope(event_id=value)).encode()
    assert incoming(body).id == digest(body)
    # To the byte: one blank more is another event.
    assert incoming(body + b" ").id == digest(body + b" ")


def test_the_envelope_without_event_id() -> None:
    body = b'{"event": "sms.sent", "timestamp": "2026-11-20T08:15:42Z", "data": {}}'
    assert incoming(body).id == digest(body)


@pytest.mark.parametrize("value", NO_IDS)
def test_a_message_id_that_is_not_a_non_empty_string_is_none(value: Any) -> None:
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
        pytest.param(1_795_162_542, None, None, id="a number"),
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
        "1970-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
    ],
)
def test_what_is_older_than_the_retention_is_not_let_in(timestamp: str) -> None:
    with pytest.raises(Unusable, match="older than 90 days"):
        incoming(envelope(timestamp=timestamp))


# --- JSON


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"\x00", "not JSON"),
        (b"event=sms.sent", "not JSON"),
        (b'{"event": "sms.sent"', "not JSON"),
        (b'{"event": "sms.sent",}', "not JSON"),
        (b"{'event': 'sms.sent'}", "not JSON"),
        (b'{"event": "sms.sent"} {}', "not JSON"),
        (b'{"event": "sms.sent", "x": "\x00"}', "not JSON"),
        (b'{"event": "sms.sent", "x": "\n"}', "not JSON"),
        (b'{"event": "sms.sent", "x": NaN}', "NaN"),
        (b'{"event": "sms.sent", "x": [Infinity]}', "Infinity"),
        (b'{"event": "sms.sent", "data": {"n": -Infinity}}', "-Infinity"),
        (b'{"event": "sms.sent", "x": "\xff"}', "not UTF-8"),
        (b'{"event": "sms.sent", "x": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"event": "sms.sent", "x": "\xc0\x80"}', "not UTF-8"),
        ('{"event": "sms.sent"}'.encode("utf-16"), "not UTF-8"),
        ("{}".encode("utf-16-le"), "not JSON"),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"event": "sms.sent"}', "not JSON"),
        (b"null", "not an object"),
        (b"17", "not an object"),
        (b'"sms.sent"', "not an object"),
        (b'[{"event": "sms.sent"}]', "not an object"),
        (b"{}", "no string `event`"),
        (b'{"event": null}', "no string `event`"),
        (b'{"event": 5}', "no string `event`"),
        (b'{"event": ["sms.sent"]}', "no string `event`"),
        (b'{"Event": "sms.sent"}', "no string `event`"),
        (b'{"event": "sms.sent", "event": null}', "no string `event`"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_event_is_unusable_and_says_why(body: bytes, reason: str) -> None:
    with pytest.raises(Unusable, match=reason) as caught:
        incoming(body)
    assert caught.value.reason == str(caught.value)


def test_the_reason_names_the_place() -> None:
    with pytest.raises(Unusable, match="line 2, column 9"):
        incoming(b'{"event": "sms.sent",\n"data": oops}')


@pytest.mark.parametrize("secret", ["oops4829", '"4829" "4829"', '{"a": 4829 4829}'])
def test_the_reason_holds_nothing_of_the_body(secret: str) -> None:
    with pytest.raises(Unusable) as caught:
        incoming(b'{"event": "sms.sent", "data": %s}' % secret.encode())
    assert "4829" not in caught.value.reason


def nested(levels: int, bracket: str = "[") -> bytes:
    """An event nested this deep; the envelope is the first level."""
    opened, closed = {"[": (b"[", b"]"), "{": (b'{"a":', b"}")}[bracket]
    inner = levels - 3 if bracket == "{" else levels - 2
    core = b"{}" if bracket == "{" else b""
    return b'{"event":"x","data":{"n":%s},"m":[[],[]]}' % (opened * inner + core + closed * inner)


@pytest.mark.parametrize("bracket", ["[", "{"])
@pytest.mark.parametrize("levels", [201, 300, 30_000, 100_000])
def test_deeper_than_200_levels_is_refused(levels: int, bracket: str) -> None:
    with pytest.raises(Unusable, match="200 levels deep"):
        incoming(nested(levels, bracket))


@pytest.mark.parametrize("text_mode", ["full", "masked", "none"])
@pytest.mark.parametrize("bracket", ["[", "{"])
def test_200_levels_are_accepted_and_can_be_handled(bracket: str, text_mode: str) -> None:
    body = nested(200, bracket)
    arrived = incoming(body, text_mode=text_mode)
    event = handed(arrived)
    expected = json.loads(body)["data"]
    assert expected["n"]

    def under(frames: int, call: Callable[[], Any]) -> Any:
        """As deep in Python's stack as a handler's libraries may be."""
        return under(frames - 1, call) if frames else call()

    for call in (lambda: copy.deepcopy(event.data), lambda: json.loads(json.dumps(event.data))):
        assert under(250, call) == expected


def test_brackets_in_strings_are_no_nesting() -> None:
    text = "[{" * 5_000
    arrived = incoming(envelope(data=SENT | {"message": text}))
    assert handed(arrived).data["message"] == text


def test_many_brackets_side_by_side_are_no_nesting() -> None:
    arrived = incoming(envelope(data=SENT | {"metadata": {"l": [[]] * 5_000}}))
    assert handed(arrived).metadata == {"l": [[]] * 5_000}


def test_of_duplicate_keys_the_last_one_counts() -> None:
    arrived = incoming(
        b'{"event": "sms.failed", "event_id": "no", "data": 5, "event": "sms.sent",'
        b' "event_id": "yes", "data": {"message_id": "no", "message_id": "m", "to": 1, "to": "2"}}'
    )
    assert (arrived.id, arrived.type, arrived.message_id) == ("yes", "sms.sent", "m")
    assert handed(arrived).to == "2"


@pytest.mark.parametrize(
    "digits",
    ["1e999", "-1e999", "9" * 5_000, "-" + "9" * 5_000, "1" * 400 + ".5", "1e" + "9" * 5_000],
    ids=lambda value: value[:10],
)
def test_a_number_beyond_python_comes_as_its_digits(digits: str) -> None:
    arrived = incoming(
        b'{"event": "sms.sent", "data": {"message_id": "m", "metadata": {"n": %s}}}'
        % digits.encode()
    )
    assert handed(arrived).metadata == {"n": digits}
    assert json.loads(json.dumps(arrived.says))["metadata"][2] == {"n": digits}
    redacted = incoming(arrived.body, text_mode="masked")
    assert handed(redacted).metadata == {"n": digits}


@pytest.mark.parametrize("number", [0, -1, 2**63, -(2**64), 10**400, 10**4_299, 0.1, 1e308, -0.0])
def test_any_other_number_stays_one(number: float) -> None:
    assert read_json(json.dumps(number).encode()) == number
    for text_mode in ("full", "none"):
        event = handed(incoming(envelope(data={"n": number}), text_mode=text_mode))
        assert event.data["n"] == number
        assert isinstance(event.data["n"], type(number))


def test_a_byte_order_mark_is_passed_over_and_kept() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(envelope()).encode()
    arrived = incoming(body)
    assert arrived.body == body
    assert handed(arrived).raw == body
    assert handed(arrived).data == SENT


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "x\udfff", "\u2028", "\x1b[31m"])
def test_a_string_may_hold_anything(text: str) -> None:
    data = SENT | {"to": text, "message": text, "device_id": text, "metadata": {text: [text]}}
    arrived = incoming(envelope(data=data))
    event = handed(arrived)
    assert (event.to, event.device_id, event.metadata) == (text, text, {text: [text]})
    assert json.loads(json.dumps(arrived.says)) == arrived.says


# --- properties: whatever comes, an event or Unusable

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**64), 10**400])
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=10,
)
likely_times = st.sampled_from(
    [
        *(iso(0), iso(-3), iso(5), "2026-11-20", "0000-00-00T00:00:00Z"),
        *(iso(-90 * 86_400), iso(-91 * 86_400), iso(86_401)),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
    ]
)
any_value = any_json | likely_times
any_data = st.fixed_dictionaries(
    {},
    optional={
        "message_id": any_value | st.sampled_from(["msg_1", *DIRTY_IDS]),
        "error": any_value | st.fixed_dictionaries({"code": any_json, "message": any_json}),
        **dict.fromkeys(["to", "message", "device_id", "status", "metadata"], any_value),
        **dict.fromkeys([f"{state}_at" for state in status.STATES], any_value),
        **dict.fromkeys(["connected_at", "disconnected_at", "priority"], any_value),
    },
)
any_envelope = st.fixed_dictionaries(
    {"event": st.sampled_from([*SAMPLES, "sent", "delivered", "failed"]) | any_json},
    optional={
        "event_id": any_value | st.sampled_from([*PLAIN_IDS, *DIRTY_IDS]),
        "timestamp": any_value,
        "data": any_data | any_json,
        "message": any_json,
    },
)
text_modes = st.sampled_from(["full", "masked", "none"])
VALID = json.dumps(envelope("sms.failed", FAILED), ensure_ascii=False).encode()


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good body, of which a piece is replaced by any bytes."""
    start, end = sorted((draw(st.integers(0, len(VALID))), draw(st.integers(0, len(VALID)))))
    middle = draw(st.binary(max_size=8) | st.sampled_from([b"", b'"', b"}", b"\\", b"null", b"9"]))
    return VALID[:start] + middle + VALID[max(end, start) :]


def check(body: bytes, text_mode: str) -> None:
    """Whatever the body: an event that everything else can work with, or `Unusable`."""
    reason = None
    try:
        arrived = incoming(body, text_mode=text_mode)
    except Unusable as unusable:
        reason = unusable.reason
    if reason is not None:
        assert 0 < len(reason) < 200
        assert reason.isprintable()
        return
    for text in (arrived.id, arrived.type, arrived.message_id or "none"):
        text.encode("utf-8")
        assert len(text) <= 200
        assert not any(unicodedata.category(c) == "Cc" for c in text)
    assert arrived.id
    assert arrived.message_id != ""
    assert NOW - RETENTION <= arrived.occurred_at <= NOW + times.DAY
    assert arrived.occurred_at == (NOW if arrived.reported_at is None else arrived.reported_at)
    assert json.loads(json.dumps(arrived.says)) == arrived.says
    assert arrived.redacted is (text_mode != "full")
    if text_mode == "full":
        assert arrived.body == body
    event = handed(arrived)
    assert json.loads(json.dumps(event.data)) == event.data
    for value in (event.to, event.status, event.device_id, event.error_code, event.error_message):
        assert value is None or isinstance(value, str)
    assert isinstance(event.metadata, dict)
    if arrived.says is not None:
        assert arrived.message_id is not None
        assert status.status(arrived.says) in status.STATES
        assert arrived.has_error is (
            event.error_code is not None or event.error_message is not None
        )


@steady
@given(st.binary(max_size=200), text_modes)
def test_any_bytes(body: bytes, text_mode: str) -> None:
    check(body, text_mode)


@steady
@given(spoilt(), text_modes)
def test_any_bytes_within_a_good_body(body: bytes, text_mode: str) -> None:
    check(body, text_mode)


@steady
@given(any_json, text_modes)
def test_any_json(value: Any, text_mode: str) -> None:
    check(json.dumps(value).encode(), text_mode)


@settings(steady, max_examples=300)
@given(any_envelope, text_modes)
def test_any_json_in_any_known_field(value: Any, text_mode: str) -> None:
    check(json.dumps(value).encode(), text_mode)


@steady
@given(any_json)
def test_what_is_read_is_what_was_written(value: Any) -> None:
    body = json.dumps(value).encode()
    assert read_json(body) == value


# --- STORE_TEXT

CODE = "482913"
WITH_CODE = SENT | {"message": f"Votre code: {CODE}, ٤٨٢٩١٣", "to": "+33600000000"}


def test_masked_hides_the_digits_and_nothing_else() -> None:
    arrived = incoming(envelope(data=WITH_CODE), text_mode="masked")
    hidden = "Votre code: ******, ******"
    assert arrived.redacted is True
    assert json.loads(arrived.body) == envelope(data=WITH_CODE | {"message": hidden})
    assert arrived.says is not None
    assert arrived.says["message"][2] == hidden
    event = handed(arrived)
    assert event.redacted is True
    assert event.raw == arrived.body
    assert event.data["message"] == hidden


def test_none_keeps_no_text() -> None:
    arrived = incoming(envelope(data=WITH_CODE), text_mode="none")
    assert arrived.redacted is True
    assert json.loads(arrived.body) == envelope(data=WITH_CODE | {"message": None})
    assert arrived.says is not None
    assert "message" not in arrived.says
    assert handed(arrived).data["message"] is None


def test_full_keeps_the_bytes() -> None:
    body = json.dumps(envelope(data=WITH_CODE), indent=3).encode()
    arrived = incoming(body)
    assert (arrived.body, arrived.redacted) == (body, False)


@pytest.mark.parametrize("text_mode", ["masked", "none"])
@pytest.mark.parametrize(
    "body",
    {
        "where it belongs": envelope(data=WITH_CODE),
        "in the envelope": envelope(data=SENT, message=f"code {CODE}"),
        "without data": {"event": "sms.sent", "message": f"code {CODE}"},
        "in both": envelope(data=WITH_CODE, message=CODE),
        "as a number": envelope(data=SENT | {"message": int(CODE)}),
        "as a float": envelope(data=SENT | {"message": float(CODE)}),
        "in a list": envelope(data=SENT | {"message": [CODE]}),
        "in an object": envelope(data=SENT | {"message": {"text": CODE}}),
        "data is a list": envelope(data=[WITH_CODE]),
        "data is a string": envelope(data=json.dumps(WITH_CODE)),
        "data is a number": envelope(data=int(CODE)),
        "escaped": b'{"event": "sms.sent", "data": {"message": "\\u0034\\u0038\\u00329\\u00313"}}',
        "duplicate keys": (
            b'{"event": "sms.sent", "data": {"message": "482913"},'
            b' "data": {"message": "482913", "message": "code 482913"}}'
        ),
        "of another type": envelope("fax.sent", {"message": CODE}),
    }.items(),
    ids=lambda case: case[0],
)
def test_wherever_the_text_stands_it_is_hidden(body: tuple[str, Any], text_mode: str) -> None:
    arrived = incoming(body[1], text_mode=text_mode)
    assert arrived.redacted is True
    assert CODE.encode() not in arrived.body
    assert CODE not in json.dumps(json.loads(arrived.body), ensure_ascii=False)
    assert CODE not in json.dumps(arrived.says)
    if text_mode == "none":
        assert b"code" not in arrived.body


@pytest.mark.parametrize("text_mode", ["masked", "none"])
def test_the_id_of_an_envelope_without_one_is_that_of_the_stored_body(text_mode: str) -> None:
    arrived = incoming(envelope(data=WITH_CODE, event_id=None), text_mode=text_mode)
    assert arrived.id == digest(arrived.body)
    again = incoming(envelope(data=WITH_CODE, event_id=None), text_mode=text_mode)
    assert (again.id, again.body) == (arrived.id, arrived.body)


@steady
@given(any_text | st.text("0123456789٠٩०９ ab", max_size=40))
def test_no_digit_of_any_text_is_stored(text: str) -> None:
    arrived = incoming(envelope(data={"message_id": "m", "message": text}), text_mode="masked")
    expected = "".join("*" if unicodedata.category(c) == "Nd" else c for c in text)
    assert json.loads(arrived.body)["data"]["message"] == expected


@pytest.mark.parametrize("text_mode", ["full", "masked", "none"])
def test_quarantine_keeps_the_body_only_if_texts_are_kept(text_mode: str) -> None:
    body = b'{"event": 5, "data": {"message": "482913"}}'
    rejected = reject(body, "why", received_at=NOW, text_mode=text_mode)
    assert rejected.digest == hashlib.sha256(body).hexdigest()
    assert (rejected.length, rejected.reason, rejected.received_at) == (len(body), "why", NOW)
    assert rejected.body == (body if text_mode == "full" else None)


# --- what a handler gets

PROPERTIES = ("to", "status", "device_id", "error_code", "error_message", "metadata")


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (
            "sms.sent",
            SENT,
            ("+33612345678", "sent", "dev_1", None, None, {"order": 17, "tags": ["a", "b"]}),
        ),
        (
            "sms.failed",
            FAILED | {"metadata": None},
            ("+33612345678", "failed", "dev_1", "NO_CREDIT", "No credit left", {}),
        ),
        (
            "failed",
            {"error": "INVALID_NUMBER"},
            (None, "failed", None, "INVALID_NUMBER", None, {}),
        ),
        (
            "sms.failed",
            {"error": "The number does not exist"},
            (None, "failed", None, None, "The number does not exist", {}),
        ),
        ("sms.expired", {}, (None, "failed", None, "EXPIRED", None, {})),
        # The type says what happened, also if `status` says something else.
        ("sms.sent", {"status": "delivered"}, (None, "sent", None, None, None, {})),
        ("otp.sent", {"status": "sent", "to": "+331"}, ("+331", "sent", None, None, None, {})),
        ("otp.failed", {"error": "X"}, (None, None, None, None, None, {})),
        ("device.connected", CONNECTED, (None, None, "dev_1", None, None, {})),
        (
            "sms.failed",
            dict.fromkeys(FAILED, 5),
            (None, "failed", None, None, None, {}),
        ),
        ("fax.sent", {name: [1] for name in FAILED}, (None, None, None, None, None, {})),
        ("sms.failed", None, (None, "failed", None, None, None, {})),
    ],
)
def test_properties(kind: str, data: Any, expected: tuple[Any, ...]) -> None:
    event = handed(incoming(envelope(kind, data)))
    assert tuple(getattr(event, name) for name in PROPERTIES) == expected


def test_what_the_store_knows_is_handed_on() -> None:
    event = handed(incoming(envelope()), late=1, redacted=0, source="reconciliation", attempt=7)
    assert (event.id, event.type, event.message_id) == ("evt_1", "sms.sent", "msg_1")
    assert (event.late, event.redacted) == (True, False)
    assert (event.source, event.attempt) == ("reconciliation", 7)
    assert event.occurred_at.isoformat() == "2026-11-20T08:15:39+00:00"
    assert event.received_at.isoformat() == "2026-11-20T08:15:42+00:00"


@pytest.fixture
def event() -> Event:
    return handed(incoming(envelope("sms.failed", FAILED)))


@pytest.mark.parametrize(
    "name", [*(field.name for field in dataclasses.fields(Event)), "data", *PROPERTIES, "more"]
)
def test_no_attribute_can_be_set_or_deleted(event: Event, name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        delattr(event, name)


DICT_CHANGES: dict[str, Callable[[Any], object]] = {
    "d[k] =": lambda d: d.__setitem__("k", 1),
    "del d[k]": lambda d: d.__delitem__("k"),
    "|=": lambda d: d.__ior__({"k": 1}),
    "clear": lambda d: d.clear(),
    "pop": lambda d: d.pop("k"),
    "pop with default": lambda d: d.pop("k", None),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("k", 1),
    "update": lambda d: d.update(k=1),
}
LIST_CHANGES: dict[str, Callable[[Any], object]] = {
    "l[0] =": lambda li: li.__setitem__(0, 1),
    "l[:] =": lambda li: li.__setitem__(slice(None), []),
    "del l[0]": lambda li: li.__delitem__(0),
    "+=": lambda li: li.__iadd__([1]),
    "*=": lambda li: li.__imul__(2),
    "append": lambda li: li.append(1),
    "extend": lambda li: li.extend([1]),
    "insert": lambda li: li.insert(0, 1),
    "remove": lambda li: li.remove("a"),
    "pop": lambda li: li.pop(),
    "clear": lambda li: li.clear(),
    "reverse": lambda li: li.reverse(),
    "sort": lambda li: li.sort(),
}


@pytest.mark.parametrize("name", DICT_CHANGES)
def test_no_object_in_it_can_be_changed(event: Event, name: str) -> None:
    for target in (event.data, event.metadata, event.data["error"], handed_empty().data):
        before = json.dumps(target)
        with pytest.raises(TypeError, match="cannot be changed"):
            DICT_CHANGES[name](target)
        assert json.dumps(target) == before


@pytest.mark.parametrize("name", LIST_CHANGES)
def test_no_list_in_it_can_be_changed(event: Event, name: str) -> None:
    for target in (event.metadata["tags"], event.data["metadata"]["tags"]):
        with pytest.raises(TypeError, match="cannot be changed"):
            LIST_CHANGES[name](target)
        assert target == ["a", "b"]


def handed_empty() -> Event:
    return handed(incoming(envelope(data=None)))


def test_nothing_can_be_hung_on_it(event: Event) -> None:
    for target in (event.data, event.metadata, event.metadata["tags"]):
        with pytest.raises(AttributeError):
            target.note = 1  # type: ignore[attr-defined]


def test_it_looks_like_ordinary_json(event: Event) -> None:
    assert isinstance(event.data, dict)
    assert isinstance(event.metadata["tags"], list)
    assert event.data == FAILED
    assert json.loads(json.dumps(event.data)) == FAILED


def change(copied: Any) -> None:
    copied["metadata"]["tags"].append("c")
    copied["metadata"]["new"] = {}
    copied["error"].clear()
    del copied["to"]


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))]
)
def test_a_copy_is_ordinary_all_the_way_down(event: Event, duplicate: Callable[[Any], Any]) -> None:
    copied = duplicate(event.data)
    assert copied == FAILED
    assert type(copied) is type(copied["metadata"]) is dict
    assert type(copied["metadata"]["tags"]) is list
    change(copied)
    assert event.data == FAILED


def test_a_shallow_copy_is_ordinary_too(event: Event) -> None:
    for copied in (copy.copy(event.data), dict(event.data), event.data | {}):
        assert type(copied) is dict
        copied["to"] = None
    tags = copy.copy(event.metadata["tags"])
    assert type(tags) is list
    tags.append("c")
    assert event.data == FAILED


def test_threads_may_share_it(event: Event) -> None:
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(event.data)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [FAILED] * 8


def test_a_number_too_big_for_python_is_no_text() -> None:
    """It stays exact in `data`, but it is neither a type nor an id."""
    huge = "9" * 5_000
    with pytest.raises(Unusable, match="no string `event`"):
        parse(b'{"event": 1e999}', received_at=times.now(), retention=90 * times.DAY)
    body = f'{{"event": "sms.sent", "event_id": 1e999, "data": {{"message_id": {huge}}}}}'.encode()
    item = parse(body, received_at=times.now(), retention=90 * times.DAY)
    assert item.id.startswith("sha256:")
    assert item.message_id is None
