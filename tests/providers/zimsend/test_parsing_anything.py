"""Whatever comes: an event, or `Unusable`."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import status, times
from receiver.errors import Unusable
from receiver.providers.zimsend.samples import SAMPLES
from receiver.strict_json import read_json
from tests.providers.zimsend.bodies import (
    DIRTY_IDS,
    FAILED,
    NOW,
    PLAIN_IDS,
    RETENTION,
    any_text,
    envelope,
    handed,
    incoming,
    iso,
    steady,
)

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
        *("2026-11-20T24:00Z", "2026-11-20T08:15:60[Europe/Paris]", "Fri, 20 Nov 2026 08:15 GMT"),
        *(1_795_162_542, 1_795_162_542_123.5, "1795162542123", "20261120", -1, 10**300, 1e308),
    ]
)
any_value = any_json | likely_times
any_data = st.fixed_dictionaries(
    {},
    optional={
        "message_id": any_value | st.sampled_from(["msg_1", *DIRTY_IDS]),
        "error": any_value | st.fixed_dictionaries({"code": any_json, "message": any_json}),
        **dict.fromkeys(["to", "message", "device_id", "status"], any_value),
        "metadata": any_value | any_json.map(json.dumps),
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
        view = status.describe(arrived.says)
        seen = (event.to, event.device_id, event.metadata)
        assert seen == (view["to"], view["device_id"], view["metadata"] or {})
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
