"""What a request to send and its answer tell together; and the request's `webhook_url`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.providers.zimsend import sending
from receiver.strict_json import read_json

URL = "https://sms.example.com/webhooks/zimsend"
HERE = b'"webhook_url": "https://sms.example.com/webhooks/zimsend"'
ONE, TWO = "+33611111111", "+33622222222"


# --- the webhook's address


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b"{}", b"{" + HERE + b"}"),
        (b" {\n} ", b" {" + HERE + b"\n} "),
        (b'{"to": 1}', b"{" + HERE + b', "to": 1}'),
        # What a program cannot hold, what stands there twice, and how it is written: as it came.
        (b'{"n":1.10,"n":1E400,"m":9e0}', b"{" + HERE + b', "n":1.10,"n":1E400,"m":9e0}'),
        (b'{"n":' + b"1" * 5_000 + b"}", b"{" + HERE + b', "n":' + b"1" * 5_000 + b"}"),
        (b'{"a": "\\ud83d\xc3\xa9\\u00e9"}', b"{" + HERE + b', "a": "\\ud83d\xc3\xa9\\u00e9"}'),
        (b"\xef\xbb\xbf{}", b"\xef\xbb\xbf{" + HERE + b"}"),
        # That of another object is another thing.
        (
            b'{"metadata": {"webhook_url": "x"}}',
            b"{" + HERE + b', "metadata": {"webhook_url": "x"}}',
        ),
        # Some programs write null for what they do not have.
        (b'{"webhook_url": null}', b"{" + HERE + b"}"),
        (
            b'{"a": {"webhook_url" :null}, "webhook\\u005furl" : null , "b": [1]}',
            b'{"a": {"webhook_url" :null}, "webhook\\u005furl" : ' + HERE[15:] + b' , "b": [1]}',
        ),
        (
            b'{"webhook_url": "x", "webhook_url": null}',
            b'{"webhook_url": "x", ' + HERE + b"}",
        ),
    ],
)
def test_a_webhook_is_filled_in(body: bytes, sent: bytes) -> None:
    assert sending.with_webhook(body, URL) == sent


@pytest.mark.parametrize(
    "body",
    [
        b'{"webhook_url": "https://example.com/mine"}',
        b'{"webhook_url": ""}',
        b'{"webhook_url": 5}',
        b'{"webhook_url": null, "webhook_url": "https://example.com/mine"}',
        *(b"", b"[]", b"null", b'"{}"', b"{", b"{'a': 1}", b'{"a": NaN}', b"\xff{}", b"to=1"),
        b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
def test_everything_else_stays_as_it_is(body: bytes) -> None:
    assert sending.with_webhook(body, URL) == body


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # With what a bracket, a quote and a backslash may do.
    | st.text()
    | st.text('"\\{}[],: '),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["to", "webhook_url", 'a"', "b\\", "metadata"])


@given(st.dictionaries(NAMES, JSON, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_any_object_is_the_same_but_for_that(
    fields: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(fields, indent=indent, ensure_ascii=ascii_only)
    sent = read_json(sending.with_webhook(body.encode("utf-8", "replace"), URL))
    given_url = fields.get("webhook_url")
    expected = read_json(body.encode("utf-8", "replace"))
    assert sent == {**expected, "webhook_url": expected.get("webhook_url", None) or URL} or (
        given_url is not None and sent == expected
    )


# --- what is learnt of an answer


def told(body: Any, answer: Any, device_id: str | None = None) -> list[dict[str, Any]]:
    return sending.queued(json.dumps(body).encode(), json.dumps(answer).encode(), device_id, True)


SEND = {"to": ONE, "message": "Bonjour", "metadata": {"n": 1}, "priority": 1, "retry_attempts": 2}
QUEUED_AT = "2026-11-20T08:15:42Z"


def test_one_message() -> None:
    answer = {"success": True, "message_id": "a", "status": "queued", "queued_at": QUEUED_AT}
    known = {name: SEND[name] for name in ("to", "message", "metadata", "priority")}
    expected = {**known, "message_id": "a", "queued_at": QUEUED_AT}
    assert told(SEND, answer) == [expected]
    assert told(SEND, answer, "dev_1") == [{**expected, "device_id": "dev_1"}]
    more = {**answer, "to": TWO, "device_id": "dev_2"}
    assert told(SEND, more, "dev_1") == [{**expected, "to": TWO, "device_id": "dev_2"}]
    assert told(5, answer) == [{"message_id": "a", "queued_at": QUEUED_AT}]


BULK = {"recipients": [ONE, TWO], "message": "Bonjour", "priority": "high"}
ALL = {"message": "Bonjour", "priority": "high"}
#: The other document's request, and that of the personalised call.
EACH = {"messages": [{"to": ONE, "message": "Un"}, {"to": TWO, "message": "Deux"}], **ALL}


def row(message_id: str, to: str | None = None, **more: Any) -> dict[str, Any]:
    return {"message_id": message_id, **({"to": to} if to else {}), **more}


@pytest.mark.parametrize(
    ("body", "answer", "messages"),
    [
        (
            BULK,
            {"messages": [row("a", ONE, status="queued"), row("b", TWO)], "queued_at": QUEUED_AT},
            [
                {**ALL, **row("a", ONE), "queued_at": QUEUED_AT},
                {**ALL, **row("b", TWO), "queued_at": QUEUED_AT},
            ],
        ),
        (BULK, {"message_ids": ["a", "b"]}, [{**ALL, **row("a", ONE)}, {**ALL, **row("b", TWO)}]),
        # By their places only if none is missing; the text is the same for all.
        (BULK, {"message_ids": ["a"]}, [{**ALL, **row("a")}]),
        (BULK, {"message_ids": ["a", None]}, [{**ALL, **row("a", ONE)}]),
        (
            EACH,
            {"messages": [row("a"), row("b")]},
            [{**ALL, **row("a", ONE, message="Un")}, {**ALL, **row("b", TWO, message="Deux")}],
        ),
        # In another order, or not all of them: by their numbers.
        (
            EACH,
            {"messages": [row("b", "0033 6 22 22 22 22"), row("a", ONE)]},
            [
                {**ALL, **row("b", "0033 6 22 22 22 22", message="Deux")},
                {**ALL, **row("a", ONE, message="Un")},
            ],
        ),
        (EACH, {"messages": [row("b", TWO)]}, [{**ALL, **row("b", TWO, message="Deux")}]),
        (
            EACH,
            {"messages": [row("a", ONE), {"to": TWO, "status": "failed"}]},
            [{**ALL, **row("a", ONE, message="Un")}],
        ),
        (
            EACH,
            {"messages": [row("a", ONE, status="failed"), row("b", TWO)]},
            [{**ALL, **row("b", TWO, message="Deux")}],
        ),
        # One number twice, and one message missing: nobody knows which.
        (
            {"messages": [{"to": ONE, "message": "Un"}] * 2 + [{"to": TWO, "message": "Deux"}]},
            {"messages": [row("a", ONE), row("b", TWO)]},
            [row("a", ONE), row("b", TWO, message="Deux")],
        ),
        (EACH, {"message_ids": ["a"]}, [row("a", priority="high")]),
        ({"messages": [5, {"to": 5}]}, {"messages": [row("a"), 5]}, [row("a")]),
        (5, {"messages": [row("a", ONE)]}, [row("a", ONE)]),
        (BULK, {"batch_id": "batch_1"}, []),
        (BULK, {"success": False, "messages": [row("a", ONE)]}, []),
        (BULK, {"messages": [row("")]}, []),
        (BULK, [], []),
    ],
)
def test_many_messages(body: Any, answer: Any, messages: list[dict[str, Any]]) -> None:
    assert told(body, answer) == messages


@given(JSON, JSON)
def test_any_request_and_any_answer(body: Any, answer: Any) -> None:
    for message in told(body, answer):
        assert message["message_id"]
