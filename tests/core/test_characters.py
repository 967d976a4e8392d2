"""Unicode's normal forms, of text that somebody has made to take long."""

from __future__ import annotations

import unicodedata
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.characters import MOST_MARKS, normalised

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: tuple[Form, ...] = ("NFC", "NFD", "NFKC", "NFKD")

#: Of several classes, so that they are put in order; and what is none until it is taken apart.
MARKS = ("\u0315\u0300\u0316", "\u0f73\u0f71", "\uff9e\u0300", "\u0344\u0327")
few_marks = st.text(st.sampled_from("aé가각ｶ\ufdfaשׁ" + "".join(MARKS)), max_size=MOST_MARKS)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(FORMS), few_marks | st.text())
def test_it_is_unicodes(form: Form, text: str) -> None:
    assert normalised(form, text) == unicodedata.normalize(form, text)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("marks", MARKS, ids=ascii)
def test_what_would_take_seconds_stays_as_it_is(form: Form, marks: str) -> None:
    text = "a" + marks * 15_000
    assert normalised(form, text) is text
