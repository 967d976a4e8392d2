"""The French pages follow the English ones; and what has gone stale is named."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.docs import translations
from tests.docs.conftest import Planted
from tests.docs.markdown import Page
from tests.server import ROOT

#: Pages that nobody has translated yet. The list may only become shorter.
TO_COME: set[str] = set()
ENGLISH, FRENCH = "README.md", "README.fr.md"


@cache
def before() -> list[str]:
    """What is told of the pages as they are: nothing, or one test fails and not all."""
    return translations.faults(ROOT)


def told(copy: Path) -> list[str]:
    """What is told of a copy, and not of the pages as they are."""
    return [fault for fault in translations.faults(copy) if fault not in before()]


def test_no_page_is_stale() -> None:
    assert before() == []


def test_no_page_is_missing() -> None:
    assert set(translations.missing(ROOT)) <= TO_COME


def test_a_missing_page_is_told(planted: Planted) -> None:
    copy = planted(FRENCH, "#", "#")
    (copy / FRENCH).unlink()
    assert set(translations.missing(copy)) - {*translations.missing(ROOT)} == {ENGLISH}


#: Page, what it says, what is planted instead, what must be told.
FAULTS = [
    (ENGLISH, "Nothing outside this folder", "Little outside this folder", "'Two commands' has ch"),
    (ENGLISH, "## Figures", "## Our figures", "'Our figures' has changed in English"),
    (FRENCH, "Un téléphone produit", "Un mobile produit", "'Chiffres' was edited after its stamp"),
    (FRENCH, "make demo`", "make test`", "'Un premier événement en une minute' was edited"),
    (ENGLISH, "## Figures", "## Prices\n\nNone.\n\n## Figures", "'Prices' of README.md is missing"),
    (FRENCH, "## Chiffres", "## Prix\n\nRien.\n\n## Chiffres", "'Prix' follows none of README.md"),
]


@pytest.mark.parametrize(("page", "old", "new", "fault"), FAULTS)
def test_a_planted_fault_is_told(
    planted: Planted, page: str, old: str, new: str, fault: str
) -> None:
    found = told(planted(page, old, new))
    assert len(found) == 1, found
    assert found[0].startswith(FRENCH)
    assert fault in found[0]


def test_last_years_command_is_told(planted: Planted) -> None:
    """A block that was changed in English alone, or in French alone."""
    command = "flask trigger sms.delivered"
    found = told(planted(ENGLISH, command, "flask send sms.delivered"))
    assert "README.fr.md: the block at line" in found[1]
    assert len(found) == 2  # the section, and its block


def test_a_section_without_a_stamp_is_told(planted: Planted) -> None:
    stamp = next(line for line in (ROOT / FRENCH).read_text().splitlines() if "<!-- en:" in line)
    found = told(planted(FRENCH, f"{stamp}\n", ""))
    assert found == ["README.fr.md: 'zimsend-receiver' has no stamp"]


def test_a_page_that_follows_none_is_told(planted: Planted) -> None:
    copy = planted(FRENCH, "#", "#")
    (copy / "docs/fr/nobody.md").write_text("# Personne\n")
    assert told(copy) == ["docs/fr/nobody.md follows no English page"]


def test_a_link_to_english_is_told_where_there_is_french(planted: Planted) -> None:
    copy = planted(FRENCH, "(docs/fr/README.md)", "(docs/README.md)")
    translations.stamp(copy, copy / FRENCH)
    assert told(copy) == ["README.fr.md: links to docs/README.md, and there is docs/fr/README.md"]


def test_stamping_makes_a_page_right_and_changes_nothing_else(planted: Planted) -> None:
    copy = planted(FRENCH, "Un téléphone produit", "Un mobile produit")
    said = words(copy / FRENCH)
    translations.stamp(copy, copy / FRENCH)
    assert told(copy) == []
    assert words(copy / FRENCH) == said
    once = (copy / FRENCH).read_text()
    translations.stamp(copy, copy / FRENCH)
    assert (copy / FRENCH).read_text() == once


def words(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return " ".join(line for line in lines if "<!-- en:" not in line).split()


def test_other_sections_cannot_be_stamped(planted: Planted) -> None:
    copy = planted(FRENCH, "## Chiffres", "## Prix\n\n## Chiffres")
    with pytest.raises(ValueError, match=r"README\.fr\.md has \d+ sections"):
        translations.stamp(copy, copy / FRENCH)
    with pytest.raises(ValueError, match="follows no English page"):
        translations.stamp(copy, copy / "docs/why/design.md")


def test_how_lines_are_broken_is_no_change(planted: Planted) -> None:
    copy = planted(
        ENGLISH,
        "Start the service and leave it running:",
        "Start the service\nand leave it running:",
    )
    assert told(copy) == []


def test_the_glossary_has_each_word_once_and_in_both_languages() -> None:
    rows = Page(ROOT, ROOT / "docs" / "glossary.md").table()
    assert len(rows) >= 20
    assert all(len(row) == 3 and all(row) for row in rows)
    for column in (0, 1):
        assert len({row[column] for row in rows}) == len(rows)
