"""Which texts hold a number, however it is written, and which hold somebody else's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver import phone
from receiver.forgetting import FORGOTTEN_ID, INSTEAD, Entry, Forgotten, entries

KEY, OTHER_KEY = "01" * 32, "02" * 32


def _entries(text: str, key: str, country: str | None = None) -> list[Entry]:
    number = phone.number(text, country)
    assert number is not None
    return entries(number, key)


def whom(text: str, key: str = KEY, country: str | None = None) -> Forgotten:
    return Forgotten(1, _entries(text, key, country))


FRENCH = whom("+33699888777")
BETWEEN = st.text(" .-\u00a0\u202f\u2011/()", max_size=3)
BESIDE = st.text(st.characters(exclude_categories=["Nd", "Cs"]), max_size=12).filter(
    lambda text: not text.rstrip(" .-\u00a0\u202f\u2011/()").endswith("+")
)


@settings(max_examples=50)
@given(
    st.sampled_from(["+33", "33", "0033", "+33(0)", "0033 (0)", "0"]),
    st.lists(BETWEEN, min_size=9, max_size=9),
    BESIDE,
    BESIDE,
    st.sampled_from([0, 0x660, 0xFF10, 0x966]),
)
def test_every_spelling_is_found_in_any_text(
    prefix: str, between: list[str], before: str, after: str, zero: int
) -> None:
    written = prefix + "".join(gap + digit for gap, digit in zip(between, "699888777", strict=True))
    if zero:
        written = "".join(chr(zero + int(c)) if c.isdecimal() else c for c in written)
    text = f"{before}{written}{after}"
    shown = FRENCH.text(text)
    assert INSTEAD in shown
    assert not any(c.isdecimal() for c in shown)
    assert shown.endswith(after)
    # As JSON, too, whatever of it is escaped.
    for ascii_only in (True, False):
        body = json.dumps({"x": [text], text: 1}, ensure_ascii=ascii_only).encode(
            "utf-8", "surrogatepass"
        )
        told = json.loads(FRENCH.body(body))
        assert told == {"x": [shown], shown: 1}


@settings(max_examples=50)
@given(st.integers(10**8, 10**9 - 1), st.sampled_from(["+33 ", "0", "+336", "+1", "00336", "x"]))
def test_others_stay(digits: int, prefix: str) -> None:
    text = f"call {prefix}{digits}, or 2026-11-20 08:15 today"
    if "699888777" not in text:
        assert FRENCH.text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "+20699888777",
        "+31 6 99888777",
        "0031 6 99 88 87 77",
        "+336998887770",
        "+1 699 888 7770",
        "16998887771",
        "2026-11-20T08:15:42.699888+00:00",
    ],
)
def test_a_part_of_another_number_is_no_number(text: str) -> None:
    assert FRENCH.text(text) == text


def test_a_number_without_its_country_is_another_ones_elsewhere() -> None:
    at_home, abroad = whom("+33699888777", country="FR"), whom("+33699888777", country="NL")
    assert at_home.text("0699888777") == INSTEAD
    assert abroad.text("0699888777") == "0699888777"
    assert abroad.text("+33 (0)699888777") == INSTEAD


@pytest.mark.parametrize(
    ("number", "spellings"),
    [
        ("+14155550100", ["(415) 555-0100", "1-415-555-0100", "+1 415.555.0100", "4155550100"]),
        ("+79123456789", ["8 (912) 345-67-89", "+7 912 345 67 89", "9123456789"]),
        ("+390612345678", ["06 1234 5678", "+39 06 12345678", "0039 0612345678"]),
        ("+4915799000002", ["01579 9000002", "0157/99000002", "+49 (0) 1579 9000002"]),
        ("+442079460018", ["020 7946 0018", "(020) 7946 0018", "+44 (0)20 7946 0018"]),
    ],
)
def test_spellings_of_other_countries(number: str, spellings: list[str]) -> None:
    forgotten = whom(number)
    for text in (number, *spellings):
        assert forgotten.holds(text), text
        assert not forgotten.holds(forgotten.text(f"a {text}, b"))


def test_json_stays_json_and_ids_stay_apart() -> None:
    body = json.dumps(
        {
            "event_id": "evt-33699888777-1",
            "data": {
                "to": 33699888777,
                "order_id": "A-0699888777",
                "metadata": '{"phone": 33699888777, "n": 1}',
                "at": 1732000000.5,
                "n": [True, None, 17],
            },
        }
    ).encode()
    told: Any = json.loads(FRENCH.body(body))
    data = told["data"]
    assert told["event_id"] == FRENCH.id("evt-33699888777-1")
    assert told["event_id"].startswith(FORGOTTEN_ID)
    assert data["order_id"] == FRENCH.id("A-0699888777") != FRENCH.id("B-0699888777")
    assert json.loads(data["metadata"]) == {"phone": INSTEAD, "n": 1}
    assert (data["to"], data["at"], data["n"]) == (INSTEAD, 1732000000.5, [True, None, 17])
    untouched = b'{ "to" :"+33611223344" }'
    assert FRENCH.body(untouched) is untouched
    assert FRENCH.body(b'{"to": "+33699888777"') == b'{"to": "[forgotten]"'
    assert FRENCH.body(b"\xff +33699888777") == b"\xff [forgotten]"


def test_an_id_of_another_provider_keeps_its_provider() -> None:
    assert FRENCH.id("smscx\x1fm-33699888777").startswith(f"smscx\x1f{FORGOTTEN_ID}")
    assert FRENCH.id("msg_1732699888777000") == "msg_1732699888777000"
    assert FRENCH.id("evt_33699888777001").startswith(FORGOTTEN_ID), "inside of an id"


def test_each_database_has_its_own_key() -> None:
    text = "x-33699888777"
    theirs = whom("+33699888777", key=OTHER_KEY)
    assert FRENCH.id(text) != theirs.id(text)
    listed = [*_entries("+33699888777", KEY), *_entries("+33611223344", OTHER_KEY)]
    both = Forgotten(1, listed)
    assert both.text("+33699888777 +33611223344") == f"{INSTEAD} {INSTEAD}"
    assert both.id(text) == FRENCH.id(text)


@pytest.mark.parametrize(
    "text", ["", "hello", "12", "+999123456789", "0699888777", "+33", "1" * 70]
)
def test_what_is_no_number(text: str) -> None:
    assert phone.number(text, None) is None
