"""What a person is shown of strangers' text."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.visible import visible, visible_json

steady = settings(derandomize=True, deadline=None, max_examples=150)
any_text = st.text(st.characters(exclude_categories=()), max_size=30)

CASES = {
    "evt_1 é ٤ 事件 👋 \\ '": "evt_1 é ٤ 事件 👋 \\ '",
    "\x1b[31mred": "\\x1b[31mred",
    "\x9b31m": "\\x9b31m",
    "a\r\nb\tc\x00": "a\\r\\nb\\tc\\x00",
    "\u202eevil\u202c": "\\u202eevil\\u202c",
    "\u2066x\u2069": "\\u2066x\\u2069",
    "evt\u200b_1\ufeff": "evt\\u200b_1\\ufeff",
    "\u2028\u2029\u00a0\u3000": "\\u2028\\u2029\\xa0\\u3000",
    "\u3164\uffa0\u115f\u2800": "\\u3164\\uffa0\\u115f\\u2800",
    "a\ufe0f\U000e0100\U000e0041": "a\\ufe0f\\U000e0100\\U000e0041",
    "\ud800": "\\ud800",
    "\ue000\U0010ffff": "\\ue000\\U0010ffff",
}


@pytest.mark.parametrize(("text", "shown"), CASES.items(), ids=ascii)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@steady
@given(any_text)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    shown.encode()
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@steady
@given(st.recursive(any_text, lambda inner: st.lists(inner) | st.dictionaries(any_text, inner)))
def test_json_stays_the_same_document(value: Any) -> None:
    for indent in (None, 2):
        shown = visible_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert json.loads(shown) == value
        assert shown.replace("\n", "").isprintable()
