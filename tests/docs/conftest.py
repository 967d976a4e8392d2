"""A copy of the documents, in which a test may plant a fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app import create_app
from tests.conftest import SECRET
from tests.docs.known import Known, known
from tests.docs.markdown import pages
from tests.server import ROOT

#: `planted(page, old, new)` returns the copy's folder, in which the page says `new` for `old`.
Planted = Callable[[str, str, str], Path]


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    def plant(page: str, old: str, new: str) -> Path:
        copy = tmp_path / "copy"
        if not copy.exists():
            _copy(copy)
        text = (copy / page).read_text("utf-8")
        assert old in text, f"{page} does not say {old!r} any more: plant something else"
        (copy / page).write_text(text.replace(old, new, 1), "utf-8")
        return copy

    return plant


def _copy(copy: Path) -> None:
    """All pages, and the files that they link to."""
    shutil.copytree(ROOT / "docs", copy / "docs", copy_function=shutil.copyfile)
    for page in pages(ROOT):
        for file in (page.path, *_linked(page.path.parent, page.links)):
            target = copy / file.relative_to(ROOT)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)


def _linked(folder: Path, links: list[str]) -> list[Path]:
    files = ((folder / link.partition("#")[0]).resolve() for link in links if ":" not in link)
    return [file for file in files if file.is_file()]


@pytest.fixture(scope="session")
def names() -> Known:
    """What the documents may name."""
    return known(ROOT, create_app({"ZIMSEND_WEBHOOK_SECRET": SECRET}).cli)
