"""What is in the wheel and in the sdist, and what the wheel says of itself."""

from __future__ import annotations

import re
import tarfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

import receiver
from tests.server import ROOT, requirements

LISTS = ROOT / "requirements"


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with ZipFile(wheel) as opened:
        return set(opened.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(opened.read(name).decode())


def files(folder: str) -> set[str]:
    """Of a folder of the clone."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.suffix not in (".db", ".db-wal", ".db-shm")
        and path.name != ".env"
    }


def test_the_sdist_holds_what_whoever_packages_it_needs(sdist: Path) -> None:
    """The package, what the wheel is built from, and what tells people of both. Without the tests,
    which want a whole clone."""
    with tarfile.open(sdist) as opened:
        found = {m.name.partition("/")[2] for m in opened.getmembers() if m.isfile()}
    texts = {"README.md", "README.fr.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    wanted = texts | {"pyproject.toml", "MANIFEST.in"}
    for folder in ("receiver", "requirements", "docs", "deploy", "examples"):
        wanted |= files(folder)
    made = {"PKG-INFO", "setup.cfg"}
    assert {n for n in found - made if not n.startswith("zimsend_receiver.egg-info/")} == wanted
    for name in texts - {"CONTRIBUTING.md"}:
        links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
        assert {link.rstrip("/") for link in links} <= found, name


def test_it_holds_the_package_and_nothing_else(names: set[str]) -> None:
    package = files("receiver")
    assert {name for name in names if ".dist-info/" not in name} == package
    assert {"receiver/py.typed", "receiver/web/dashboard/strings/en.json"} < package
    # What is read as a file, and not imported: each kind is named in pyproject.toml.
    kinds = {Path(name).suffix for name in package}
    assert kinds == {".py", ".typed", ".json", ".html", ".css", ".js", ".svg"}


def test_it_has_one_top_level_name(names: set[str]) -> None:
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"receiver"}


def test_its_version_is_that_of_the_code(wheel: Path, metadata: Message) -> None:
    assert metadata["Version"] == receiver.__version__
    assert wheel.name == f"zimsend_receiver-{receiver.__version__}-py3-none-any.whl"


def test_it_requires_what_sqlite_needs_and_the_rest_by_extras(metadata: Message) -> None:
    required: dict[str, set[str]] = {}
    for line in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        marker = str(requirement.marker or "")
        extra = marker.rpartition("extra == ")[2].strip('"') if "extra == " in marker else ""
        required.setdefault(extra, set()).add(requirement.name.lower())
    listed = {
        "" if file.stem == "core" else file.stem: {r.name.lower() for r in requirements(file)}
        for file in LISTS.glob("*.txt")
    }
    assert required == listed
    assert set(metadata.get_all("Provides-Extra", [])) == {"postgres", "alerts", "django"}
    assert not {"psycopg", "apprise", "django"} & required[""]


def test_a_clone_installs_postgres_too() -> None:
    """Heroku installs requirements.txt, and has PostgreSQL."""
    names = {requirement.name for requirement in requirements()}
    assert names == {r.name for f in ("core", "postgres") for r in requirements(LISTS / f"{f}.txt")}
