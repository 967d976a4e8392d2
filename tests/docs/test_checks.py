"""The documents are right; and each check names a fault that is planted."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.docs import checks
from tests.docs.conftest import Planted
from tests.docs.known import Known
from tests.server import ROOT

Check = Callable[[Path], list[str]]

HOW_TO = "docs/how-to/backup.md"
#: Check, page, what it says, what is planted instead, what must be told.
FAULTS: list[tuple[Check, str, str, str, str]] = [
    (checks.dead_links, "README.md", "(docs/why/promises.md)", "(docs/promises.md)", "promises.md"),
    (checks.dead_links, HOW_TO, "#what-is-out-of-reach", "#out-of-reach", "#out-of-reach"),
    (checks.dead_links, "README.md", "screenshots/overview", "screenshots/over", "over-en-light"),
    (checks.dead_links, "docs/why/design.md", "../../tests/test_rooms.py", "../../../x", "../x"),
    (checks.not_in_the_index, "docs/README.md", "(how-to/backup.md)", "(how-to/ask.md)", HOW_TO),
    (checks.blocks_of_no_language, HOW_TO, "```sh", "```", "no language"),
    (checks.blocks_of_no_language, HOW_TO, "```sh", "```bash", "bash"),
    (
        checks.unknown_files,
        "docs/why/providers.md",
        "providers/contract.py",
        "providers/x.py",
        "x.py",
    ),
    (
        checks.unknown_pages,
        "deploy/nginx.conf",
        "# In .env",
        "# See docs/x.md. In .env",
        "docs/x.md",
    ),
    (checks.wrongly_indented_blocks, HOW_TO, "    ```sh", "   ```sh", "by 3 blanks"),
    (checks.broken_shell, HOW_TO, "flask backup /", "flask backup '/", "backup.md:5"),
    (checks.too_long, "README.md", "\n## Figures", "\n" * 250 + "## Figures", "may have 250"),
    (checks.broken_spans, HOW_TO, "`receiver.db.", "`receiver.db\n", "receiver.db"),
    (
        checks.repeated_sentences,
        "docs/why/performance.md",
        "# Performance\n",
        "# Performance\n\nPut the backup **into the place** of\nthe [database](../README.md):\n",
        "performance.md",
    ),
]


@cache
def before(check: Check) -> list[str]:
    """What is told of the pages as they are: nothing, or one test fails and not all."""
    return check(ROOT)


@pytest.mark.parametrize("check", dict.fromkeys(fault[0] for fault in FAULTS))
def test_the_documents_are_right(check: Check) -> None:
    assert before(check) == []


@pytest.mark.parametrize(("check", "page", "old", "new", "told"), FAULTS)
def test_a_planted_fault_is_told(
    planted: Planted, check: Check, page: str, old: str, new: str, told: str
) -> None:
    found = [fault for fault in check(planted(page, old, new)) if fault not in before(check)]
    assert len(found) == 1, found
    assert told in found[0]


def test_what_they_name_exists(names: Known) -> None:
    assert checks.unknown_settings(ROOT, names) == []
    assert checks.unknown_commands(ROOT, names) == []


#: What a page says, and what must be told.
NAMES = [
    ("`RETENTION_HOURS=3`", "RETENTION_HOURS"),
    ("`RETENTION_HOURS`", "RETENTION_HOURS"),
    ("```env\nSTORE_TEXTS=none\n```", "STORE_TEXTS"),
    ("`flask replays`", "flask: replays is no command"),
    ("`flask events lists`", "flask: events lists is no command"),
    ("`.venv/bin/flask replay --deads`", "no option --deads"),
    ("```sh\nTZ=UTC .venv/bin/flask backup /x --fast\n```", "no option --fast"),
    ("```sh\nheroku run flask migrated\n```", "flask: migrated is no command"),
    ("`zimsend-receiver events show ID --text`", "no option --text"),
    ("`flask serve`", "flask: serve is no command"),
    ("`venv/bin/zimsend-receiver served`", "zimsend-receiver: served is no command"),
    ("`make demos`", "make demos"),
    ("`--dry-runs`", "--dry-runs"),
]


@pytest.mark.parametrize(("text", "told"), NAMES)
def test_a_planted_name_is_told(tmp_path: Path, names: Known, text: str, told: str) -> None:
    (tmp_path / "README.md").write_text(f"# Page\n\n{text}\n")
    found = checks.unknown_settings(tmp_path, names) + checks.unknown_commands(tmp_path, names)
    assert len(found) == 1, found
    assert told in found[0]


def test_python_compiles_and_has_its_types(planted: Planted, tmp_path: Path) -> None:
    """One run of mypy: it tells of what is planted, and of nothing else."""
    planted("README.md", "\n## Figures", '\n```python\nx: int = "text"\n```\n\n## Figures')
    planted("docs/start/handler.md", "event.error_code}", "event.error}")
    copy = planted("docs/how-to/dead-work.md", "@registry.on_dead", "@registry.on_dead(")
    (tmp_path / "blocks").mkdir()
    found = checks.broken_python(copy, tmp_path / "blocks")
    assert len(found) == 3, found
    assert "dead-work.md" in found[0]
    assert any("README.md" in told and "Incompatible types" in told for told in found)
    assert any("handler.md" in told and '"Event" has no attribute' in told for told in found)
