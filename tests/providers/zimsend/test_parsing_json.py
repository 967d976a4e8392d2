"""What counts as JSON, and what is refused, with the reason."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from receiver.errors import Unusable
from receiver.strict_json import read_json
from tests.providers.zimsend.bodies import SENT, envelope, handed, incoming


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
        (b'{"event": "sms.sent", "x": \xff}', "not UTF-8"),
        (b'{"event": "sms.sent" "x": "\xff"}', "not UTF-8"),
        (b'["\xff"]', "not an object"),
        (b"\xff" * 100_000, "not UTF-8"),
        (b'{"x": "\xff", "event": ' + b"[" * 300, "not UTF-8"),
        (b'{"x": "\xff", "event": ' + b"[" * 300 + b"]" * 300 + b"}", "200 levels"),
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


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        (b"caf\xe9", "caf\ufffd"),
        (b"a\xff\xfeb", "a\ufffd\ufffdb"),
        (b"\xc3", "\ufffd"),
        (b"\xc0\x80", "\ufffd\ufffd"),
        (b"\xed\xa0\xbd\xed\xb1\x8b", "\U0001f44b"),  # two surrogates, as some programs write one
        (b"\xed\xa0\xbd \xff \xf0\x9f\x91\x8b", "\ufffd\ufffd\ufffd \ufffd \U0001f44b"),
    ],
)
@pytest.mark.parametrize("text_mode", ["full", "masked"])
def test_bytes_that_are_no_utf_8_do_not_lose_the_rest(
    raw: bytes, read: str, text_mode: str
) -> None:
    body = json.dumps(envelope(data=SENT | {"message": "TEXT"})).encode().replace(b"TEXT", raw)
    arrived = incoming(body, text_mode=text_mode)
    assert (arrived.id, arrived.message_id) == ("evt_1", "msg_1")
    event = handed(arrived)
    assert event.data["message"] == read
    assert arrived.says is not None
    assert arrived.says["message"][2] == read
    if text_mode == "full":
        assert arrived.body == event.raw == body
    with pytest.raises(Unusable, match="not UTF-8"):
        read_json(body)  # what is not signed is read strictly


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "x\udfff", "\u2028", "\x1b[31m"])
def test_a_string_may_hold_anything(text: str) -> None:
    data = SENT | {"to": text, "message": text, "device_id": text, "metadata": {text: [text]}}
    arrived = incoming(envelope(data=data))
    event = handed(arrived)
    assert (event.to, event.device_id, event.metadata) == (text, text, {text: [text]})
    assert json.loads(json.dumps(arrived.says)) == arrived.says
