"""A text tells what one can type: the commands are not called `flask …` everywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC

import pytest

from app import create_app
from receiver import calling
from receiver.commands import commands
from receiver.parts import parts
from receiver.web.dashboard.languages import CODES, Language
from tests.server import ROOT

#: Constants, which `as_called` is asked about where they are told; and the table of settings.
_CONSTANTS = {"RULES", "_RUNS", "_HINTS", "SETTINGS"}


@pytest.fixture
def name() -> Iterator[str]:
    """Another one, for this process."""
    calling.be_called("manage.py zimsend")
    yield "manage.py zimsend"
    calling.be_called("flask")


def test_in_a_clone() -> None:
    assert calling.call("events list") == "flask events list"
    assert calling.as_called("run `flask work`") == "run `flask work`"


def test_by_another_name(name: str) -> None:
    assert calling.call("events list") == f"{name} events list"
    assert calling.as_called("run `flask work`; flask is not") == f"run `{name} work`; flask is not"


def test_pages_and_errors_ask_when_they_tell(name: str, without_database: dict[str, str]) -> None:
    for code in CODES:
        assert f"<code>{name} work</code>" in Language(code, UTC).text("trouble.worker_gone.told")
    app = create_app(without_database)
    told = app.test_client().get("/readyz").get_json()["failing"]["store"]
    parts(app).store.close()
    assert told.endswith(f"run `{name} migrate`")


def test_no_text_has_a_name_of_its_own() -> None:
    names = {f"flask {command.name}" for command in commands()}
    for path in (ROOT / "receiver").rglob("*.py"):
        tree = ast.parse(path.read_text())
        apart = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for statement in tree.body:
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                written = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
                apart |= set(ast.walk(statement)) if written & _CONSTANTS else set()
        for node in set(ast.walk(tree)) - apart:
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str):
                assert not any(n in text for n in names), f"{path}: ask receiver.calling: {text}"
    for command in commands():
        helps = [command, *getattr(command, "commands", {}).values()]
        for helped in helps:
            assert not any(n in " ".join((helped.help or "").split()) for n in names), helped.name
    for path in (ROOT / "receiver").rglob("*.html"):
        assert not any(n in path.read_text() for n in names), path
