"""Both languages have all strings, and no template has words of its own."""

from __future__ import annotations

import json
import re
from datetime import UTC
from pathlib import Path
from string import Formatter
from zoneinfo import ZoneInfo

import pytest

from receiver import times
from receiver.web import dashboard
from receiver.web.dashboard.languages import CODES, Language, catalogue

FOLDER = Path(dashboard.__file__).parent
TEMPLATES = sorted((FOLDER / "templates").glob("*.html"))
SOURCES = [*TEMPLATES, *sorted(FOLDER.glob("*.py"))]
EN, FR = Language("en", UTC), Language("fr", ZoneInfo("Europe/Paris"))


@pytest.mark.parametrize("code", CODES)
def test_a_catalogue_is_flat_sorted_and_has_every_key_once(code: str) -> None:
    text = (FOLDER / "strings" / f"{code}.json").read_text("utf-8")
    pairs = json.loads(text, object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    assert keys == sorted(set(keys))
    assert all(isinstance(value, str) and value.strip() for _, value in pairs)


def test_both_languages_have_the_same_keys_with_the_same_values() -> None:
    assert catalogue("en").keys() == catalogue("fr").keys()
    for key, text in catalogue("en").items():
        assert fields(text) == fields(catalogue("fr")[key]), key


def fields(text: str) -> set[str]:
    found = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    assert "" not in found, text
    return found | {f"`{code}`" for code in re.findall(r"`([^`]+)`", text)}


def test_numbers_decide_between_two_keys() -> None:
    for key in catalogue("en"):
        stem, _, form = key.rpartition(".")
        if form in ("one", "many"):
            assert f"{stem}.{'many' if form == 'one' else 'one'}" in catalogue("en"), key


#: Keys that are put together from a value, by how they begin.
COMPUTED = re.compile(r"""["']([a-z_]+(?:\.[a-z_]+)*\.)["'] ~|f["']([a-z_]+(?:\.[a-z_]+)*\.)\{""")


def test_every_key_is_used_and_every_used_key_is_there() -> None:
    text = "\n".join(path.read_text("utf-8") for path in SOURCES)
    families = {one or other for one, other in COMPUTED.findall(text)}
    for key in catalogue("en"):
        stem = re.sub(r"\.(one|many)$", "", key)
        told = f'"{stem}"' in text or f"'{stem}'" in text
        assert told or any(key.startswith(family) for family in families), f"{key} is not used"
    for key in re.findall(r"""\bt\(["']([\w.]+)["'][,)]""", text):
        assert key in catalogue("en"), key
    for key in re.findall(r"""\bcount\(["']([\w.]+)["']""", text):
        assert f"{key}.one" in catalogue("en"), key


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_words_of_its_own(path: Path) -> None:
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", path.read_text("utf-8"), flags=re.DOTALL)
    text = re.sub(r"<pre><code>.*?</code></pre>", " ", text, flags=re.DOTALL)  # what one types
    for attribute in ("title", "alt", "placeholder", "aria-label", "aria-description"):
        assert not re.search(rf'{attribute}="[^"]*[^\W\d_]', text), attribute
    bare = re.sub(r"<[^>]*>", " ", text)
    bare = re.sub(r' data-[a-z]+(="[^"]*")?', " ", bare)  # what a block adds to a tag
    assert not re.findall(r"[^\W\d_]+", bare)


# --- numbers and times


def test_numbers_are_written_as_the_language_writes_them() -> None:
    assert (EN.number(1234567), FR.number(1234567)) == ("1,234,567", "1\u202f234\u202f567")
    assert (EN.number(1234.5, 1), FR.number(1234.5, 1)) == ("1,234.5", "1\u202f234,5")
    assert (EN.percent(97.25), FR.percent(97.25)) == ("97.2%", "97,2\u202f%")
    assert [EN.percent(value) for value in (0, 0.001, 99.999, 100)] == [
        "0%",
        "0.1%",
        "99.9%",
        "100%",
    ]
    assert (EN.bytes(12_345), FR.bytes(12_345)) == ("12\u00a0kB", "12\u00a0ko")
    assert (EN.bytes(900), EN.bytes(7_600_000)) == ("900\u00a0bytes", "8\u00a0MB")


def test_one_and_many() -> None:
    counts = [str(EN.plural("overview.days", n)) for n in (1, 2)]
    assert counts == ["Today", "2 days"]
    assert [EN.span(n * times.SECOND) for n in (-1, 0, 1)] == [
        *("less than a second", "less than a second", "1 second")
    ]
    assert [FR.span(n * times.SECOND) for n in (0, 1, 2)] == [
        "moins d’une seconde",
        "1 seconde",
        "2 secondes",
    ]


def test_times_are_those_of_the_zone() -> None:
    moment = times.parse("2026-07-31T23:05:09.5Z")
    assert moment is not None
    assert EN.time(moment) == "31\u00a0Jul\u00a02026, 23:05:09"
    assert FR.time(moment) == "1\u00a0août\u00a02026, 01:05:09"
    assert FR.time(moment, seconds=False) == "1\u00a0août, 01:05"
    assert FR.date(moment // times.DAY) == "31\u00a0juil.\u00a02026"
    assert FR.time(-62_135_596_800 * times.SECOND).startswith("1\u00a0janv.\u00a0")


def test_how_long_ago() -> None:
    now = 10 * times.DAY
    spans = {0: "now", 30: "30 seconds ago", 100: "2 minutes ago", 7_000: "2 hours ago",
             3 * 3_600: "3 hours ago", 3 * 86_400: "3 days ago"}  # fmt: skip
    assert {s: str(EN.ago(now - s * times.SECOND, now)) for s in spans} == spans


def test_what_strangers_wrote_is_text_in_every_string() -> None:
    told = EN.text("trouble.store.told", warning="<b>{0.__class__}</b> `x`")
    assert str(told) == "&lt;b&gt;{0.__class__}&lt;/b&gt; `x`"
    assert str(FR.text("settings.file", file="<x>")).startswith("<code>.env</code> est &lt;x&gt;.")
