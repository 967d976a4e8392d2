"""Phone numbers as people type them."""

from __future__ import annotations

import pytest

from receiver import phone


@pytest.mark.parametrize(
    ("typed", "needs"),
    [
        ("0612345678", True),
        ("06 12 34 56 78", True),
        ("(06) 12-34-56-78", True),
        ("\uff10\uff16\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18", True),
        ("33612345678", False),  # it is found
        ("2015550123", False),
        ("+33612345678", False),
        (" +33 (0)6 12 34 56 78", False),
        ("(+33) 6 12 34 56 78", False),
        ("\uff0b33612345678", False),
        ("0033612345678", False),
        ("\uff10\uff1033612345678", False),
        ("+12", False),
        ("Shop", False),
        ("", False),
        ("+", False),
    ],
)
def test_a_number_that_may_be_anybodys(typed: str, needs: bool) -> None:
    assert phone.needs_country(typed, None) is needs
    assert phone.needs_country(typed, "FR") is False
    if phone.number(typed, None) is not None:  # whose it is, is known
        assert not needs
