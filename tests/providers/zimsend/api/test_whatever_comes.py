"""Whatever is answered: a result, or an error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.providers.zimsend.api import ZimSend
from receiver.providers.zimsend.api.errors import (
    NotUnderstood,
    Unavailable,
    ZimSendError,
)
from tests.canned import Canned, ok, raw, status
from tests.providers.zimsend.api.calls import CALLS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        *("success", "error", "code", "message", "details", "message_id", "status", "to", "data"),
        *("messages", "message_ids", "batch_id", "pagination", "stats", "by_day", "period"),
        *("delivery_rate", "otp_id", "valid", "webhook_id", "webhooks", "events", "logs"),
        *("sent_at", "timestamp", "metadata", "attempts_remaining", "current_page", "total"),
    ]
)
LIKELY = st.sampled_from([True, False, "msg_1", "2026-11-20T08:15:42Z", 3, {}, [], "INVALID_OTP"])
LIKE_AN_ANSWER = st.recursive(
    LIKELY | JSON,
    lambda inner: st.dictionaries(NAMES, inner, max_size=8) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(sorted(CALLS)), LIKE_AN_ANSWER | JSON, st.sampled_from([200, 202, 400, 503]))
@example("webhooks", {"webhooks": {}, "data": 5}, 200)
@example("verify_otp", {"code": "INVALID_OTP", "error": 5}, 400)
@example("cancel", {"error": " "}, 400)
@example("stats", {"stats": {"delivery_rate": float("inf"), "by_day": 5}}, 200)
def test_any_answer_is_a_result_or_an_error(
    once: ZimSend, canned: Canned, name: str, document: Any, http_status: int
) -> None:
    canned.answers(ok(document, http_status))
    error = None
    try:
        result = CALLS[name][0](once)
    except ZimSendError as raised:
        error = raised
    if error is None:
        assert repr(result)
        assert http_status < 300 or result.valid is False
    else:
        assert error.message
        assert str(error).isprintable()


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_result_or_an_error(once: ZimSend, canned: Canned, data: bytes) -> None:
    for step in (raw(data), status(200, data)):
        canned.answers(step)
        with pytest.raises((NotUnderstood, Unavailable)):
            once.status("msg_1")
