"""A machine for which there are no wheels: 32-bit ARM. SQLite alone must do there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import ROOT, requirements

#: With parts in C, and without wheels for 32-bit ARM.
MISSING = ("httptools", "uvloop", "psycopg_binary", "psycopg_c")

PROGRAM = """
import ctypes.util, sys
for name in (*{missing}, {more}):
    sys.modules[name] = None
ctypes.util.find_library = lambda name: None  # nor is libpq there
from receiver.errors import ConfigError
from receiver.service import create_app
from receiver.parts import parts
settings = {{"ZIMSEND_WEBHOOK_SECRET": "whsec_0123456789abcdef", "DATABASE_URL": {url!r}}}
try:
    store = parts(create_app(settings)).store
    store.migrate()
    store.prove_writable()
    print("stored")
except ConfigError as error:
    print(error)
"""


def run(folder: Path, url: str, more: str = "") -> str:
    program = PROGRAM.format(missing=MISSING, more=more, url=url)
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_sqlite_works_without_any_of_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/receiver.db"
    assert run(tmp_path, url, '"psycopg", "psycopg_pool"') == "stored"


def test_postgres_says_what_to_install(tmp_path: Path) -> None:
    line = run(tmp_path, "postgres://u:hunter2@127.0.0.1:9/d")
    assert line.startswith("DATABASE_URL: PostgreSQL's library is not here")
    assert "pip install -r requirements.txt` again, after `apt install libpq5`" in line
    assert "hunter2" not in line
    assert len(line.splitlines()) == 1


def test_without_psycopg_it_says_what_to_install(tmp_path: Path) -> None:
    line = run(tmp_path, "postgres://u:hunter2@127.0.0.1:9/d", '"psycopg", "psycopg_pool"')
    assert line.startswith("DATABASE_URL: PostgreSQL's library is not here")
    assert line.endswith("run `pip install -r requirements.txt`")


@pytest.mark.parametrize("machine", ["armv6l", "armv7l", "armv8l"])
def test_none_of_them_is_asked_for_there(machine: str) -> None:
    """What pip makes of requirements.txt on such a machine."""
    wanted = [
        f"{name.name}-{extra}"
        for name in requirements()
        if name.marker is None or name.marker.evaluate({"platform_machine": machine})
        for extra in ("", *name.extras)
    ]
    assert "psycopg-" in wanted
    assert not {"httptools-", "uvloop-", "psycopg-binary"} & set(wanted)
