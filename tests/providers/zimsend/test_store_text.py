"""STORE_TEXT: what of a text is kept in an event and in quarantine."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.event import reject
from tests.providers.zimsend.bodies import (
    NOW,
    SENT,
    any_text,
    digest,
    envelope,
    handed,
    incoming,
    steady,
)

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
