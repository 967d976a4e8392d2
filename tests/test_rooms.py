"""Who may import whom, read from the syntax tree: imports go down, or stay on their level."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.server import ROOT

#: From the top. A module or a package with all that is in it; the longest name that fits counts.
LEVELS = (
    {"wsgi"},
    {"app"},
    {"receiver.flask", "receiver.django"},
    {"receiver.embedded"},
    {"receiver.__main__", "receiver.wsgi", "receiver.gunicorn_conf"},
    {"receiver.starting", "receiver.serving", "receiver.testing"},
    {"receiver.service", "receiver.welcome", "receiver.demo", "receiver.first_steps"},
    {"receiver.handlers"},
    {"receiver.web", "receiver.commands"},
    {"receiver.working", "receiver.checks"},
    {"receiver.parts"},
    {"receiver.alerts", "receiver.heartbeat"},
    {"receiver.readiness"},
    {
        "receiver.worker",
        "receiver.ingest",
        "receiver.receiving",
        "receiver.refusals",
        "receiver.quarantine",
        "receiver.counting",
        "receiver.figures",
        "receiver.upkeep",
        "receiver.backups",
        "receiver.erasing",
        "receiver.reconciliation",
        "receiver.polling",
    },
    {"receiver.providers"},
    {"receiver.turns"},
    {"receiver.store", "receiver.registry", "receiver.threads"},
    {
        "receiver.event",
        "receiver.payloads",
        "receiver.strict_json",
        "receiver.redaction",
        "receiver.causes",
        "receiver.status",
        "receiver.characters",
        "receiver.visible",
        "receiver.sheets",
        "receiver.mirror",
        "receiver.metrics",
        "receiver.phone",
        "receiver.moments",
        "receiver.forgetting",
        "receiver.config",
        "receiver.hosted",
        "receiver.in_effect",
        "receiver.setting_values",
        "receiver.sqlite_file",
        "receiver.environment",
        "receiver.misspelt",
        "receiver.times",
        "receiver.bucket",
        "receiver.logs",
        "receiver.pipes",
        "receiver.outgoing",
    },
    {
        "receiver.errors",
        "receiver.ids",
        "receiver.calling",
        "receiver.forks",
        "receiver.own_process",
        "receiver.version",
    },
)
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (
        ROOT / "app.py",
        ROOT / "wsgi.py",
        *(ROOT / "receiver").rglob("*.py"),
        *(ROOT / "handlers").rglob("*.py"),
    )
}
RECEIVER = sorted(name for name in FILES if name.startswith("receiver."))
HANDLERS = [name for name in RECEIVER if name.startswith("receiver.handlers")]

DRIVERS = {"sqlite3", "sqlite_utils", "psycopg", "psycopg_pool"}
CLOCKS = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime"),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "times.now"),
}


@cache
def imports(name: str) -> set[str]:
    """The modules that a module imports: at its top, in a function, or for its types alone."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: a relative import hides what it means"
            assert node.module
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in FILES else node.module)
    return found


def level(module: str) -> int | None:
    while module not in LEVEL and "." in module:
        module = module.rpartition(".")[0]
    return LEVEL.get(module)


def in_room(module: str, *rooms: str) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


@pytest.mark.parametrize("name", ["app", "wsgi", *RECEIVER])
def test_imports_go_down(name: str) -> None:
    mine = level(name)
    assert mine is not None, f"{name} has no level: give it one in LEVELS, and in why/design.md"
    for imported in imports(name):
        theirs = level(imported)
        assert theirs is None or mine <= theirs, f"{name} imports {imported}, which is above it"


def test_no_two_files_import_each_other() -> None:
    assert circle({name: {m for m in imports(name) if m in FILES} for name in FILES}) is None


@pytest.mark.parametrize("room", ["", *(name for name in FILES if FILES[name].stem == "__init__")])
def test_no_two_rooms_import_each_other(room: str) -> None:
    """What stands side by side in a folder, each folder taken with all that is in it."""
    graph: dict[str, set[str]] = {}
    for name in FILES:
        mine = inside(room, name)
        if mine is not None:
            theirs = {inside(room, imported) for imported in imports(name) if imported in FILES}
            graph.setdefault(mine, set()).update(theirs - {None, mine})
    assert circle(graph) is None


def inside(room: str, module: str) -> str | None:
    """The part of a room that a module is, or is in; the room's own file is one of its parts."""
    if not room:
        return module.partition(".")[0]
    if module == room:
        return f"{room}.__init__"
    below = module.removeprefix(f"{room}.")
    return None if below == module else f"{room}.{below.partition('.')[0]}"


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return None


@pytest.mark.parametrize("name", sorted({*RECEIVER} - {*HANDLERS}))
def test_the_receiver_knows_no_handler_and_not_its_own_front_door(name: str) -> None:
    known = {m for m in imports(name) if in_room(m, "handlers", "receiver.handlers")}
    assert not known
    assert "receiver" not in imports(name)


def test_the_front_door_shows_what_is_pure() -> None:
    assert imports("receiver") - {"__future__", "typing"} <= {
        "receiver.outgoing",  # loaded where it is used
        "receiver.errors",
        "receiver.event",
        "receiver.payloads",
        "receiver.strict_json",
        "receiver.registry",
        "receiver.version",
    }


@pytest.mark.parametrize("name", HANDLERS)
def test_handlers_come_in_by_the_front_door(name: str) -> None:
    behind = {m for m in imports(name) if in_room(m, "receiver", "app", "wsgi")} - {"receiver"}
    assert all(in_room(m, "receiver.handlers") for m in behind)


@pytest.mark.parametrize("name", sorted(FILES))
def test_drivers_and_flask_stay_in_their_rooms(name: str) -> None:
    packages = {module.partition(".")[0] for module in imports(name)}
    if not in_room(name, "receiver.store"):
        assert not packages & DRIVERS
    web = (
        "receiver.embedded",
        "receiver.flask",
        "receiver.testing",
        "receiver.__main__",
        "receiver.starting",
        "receiver.service",
        "receiver.parts",
        "receiver.web",
        "receiver.commands",
        "receiver.providers.simulating",
        "receiver.providers.zimsend.simulator",
        "receiver.providers.smscx.simulator",
        "receiver.providers.sipgate.simulator",
    )
    if not in_room(name, *web):
        assert not packages & {"flask", "werkzeug"}
    if not in_room(name, "receiver.django"):
        assert "django" not in packages


@pytest.mark.parametrize("name", sorted({*RECEIVER} - {"receiver.times", *HANDLERS}))
def test_the_clock_is_read_in_one_place(name: str) -> None:
    tree = ast.parse(FILES[name].read_text())
    called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    named = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    # `now=times.now` as a default is how the clock gets in; to read it there is another thing.
    read = {".".join(n.split(".")[-2:]) for n in called | (named - {"times.now"})} & CLOCKS
    assert not read, f"{name} reads the clock: let it be told the time"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "receiver.times"):
            assert not {alias.name for alias in node.names} & {"time", "time_ns", "now"}


@pytest.mark.parametrize("name", sorted({*FILES} - {"receiver.characters", "receiver.mirror"}))
def test_text_is_normalised_in_one_place(name: str) -> None:
    """Python's own takes seconds for some texts; the mirror takes character by character."""
    assert "unicodedata.normalize" not in FILES[name].read_text()


def test_the_table_of_rooms_has_each() -> None:
    """What lies in `receiver/` itself is named in the table of docs/why/design.md."""
    told = (ROOT / "docs" / "why" / "design.md").read_text().split("## The rooms")[1]
    rows = [line.split(" | ")[0] for line in told.split("\n\n")[2].splitlines()]
    named = {name.removeprefix("receiver/") for name in re.findall("`(.*?)`", "".join(rows))}
    inside = {name.split(".")[1] for name in RECEIVER}
    missing = {name for name in inside if not {f"{name}.py", f"{name}/"} & named}
    assert not missing, f"no row of the table has {sorted(missing)}"


def test_the_list_of_levels_is_of_this_program() -> None:
    missing = [room for room in LEVEL if room not in FILES]
    assert not missing
