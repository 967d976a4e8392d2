"""The figures that documents tell of the tests are those of the tests."""

from __future__ import annotations

import re

from receiver.config import SETTINGS
from tests.docs.markdown import Page
from tests.plants import PLANTS
from tests.reconciliation.test_plants import PLANTS as PLANTS_OF_RECONCILIATION
from tests.server import ROOT
from tests.service.test_crash import KILLS
from tests.service.test_simulation import SEEDS

IN_WORDS = {11: "eleven", 12: "twelve", 13: "thirteen", 14: "fourteen"}


def text_of(name: str) -> str:
    """A page's text, each blank or end of a line as one blank."""
    return " ".join(Page(ROOT, ROOT / "docs" / name).text.split())


def test_how_the_promises_are_tried() -> None:
    told = text_of("why/reliability.md")
    kills, days, plants = KILLS["sqlite"], SEEDS["sqlite"], len(PLANTS)
    for sentence in (
        f"{kills} times on SQLite and {KILLS['postgres']} times on PostgreSQL",
        f"runs {days:,} such days on SQLite and {SEEDS['postgres']} on PostgreSQL",
        f"So {IN_WORDS[plants]} bugs are planted",
        f"{plants} of {plants} found",
        f"{IN_WORDS[len(PLANTS_OF_RECONCILIATION)]} planted faults",
    ):
        assert sentence in told, f"docs/why/reliability.md should say: {sentence}"


def test_settings_that_may_not_be_misspelt() -> None:
    told = text_of("reference/settings.md")
    found = re.search(r"is a warning\. ([^.]*), misspelt, stop the start", told)
    assert found
    named = set(re.findall(r"`([A-Z_]+)`", found[1]))
    assert named == {setting.name for setting in SETTINGS if setting.careful}
