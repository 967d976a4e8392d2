"""The page on testing handlers: its files are a program, whose tests pass as a user runs them."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from flask import Flask

from receiver.testing import FakeZimSend, Result
from tests.server import ROOT

PAGE = (ROOT / "docs" / "how-to" / "test-handlers.md").read_text()
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def test_its_tests_pass_with_warnings_as_errors(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stdout
    tests = sum(text.count("\ndef test_") for text in FILES.values())
    assert f"{tests} passed" in ran.stdout
    assert len(re.findall(r"^```python", PAGE, re.MULTILINE)) == len(FILES)


def test_it_names_all_there_is() -> None:
    for mark, kind in (("zimsend", FakeZimSend), ("result", Result)):
        table = PAGE.partition(f"| `{mark}.` |")[2].partition("\n\n")[0]
        named = set(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)) - {"---"}
        told = {name for cell in named for name in re.findall(r"`(\w+)", cell)}
        public = {name for name in vars(kind) if not name.startswith("_")}
        public |= {name for name in inspect.get_annotations(kind) if not name.startswith("_")}
        assert told == public - {"close"}, mark


def test_the_command_exists(app: Flask) -> None:
    (line,) = re.findall(r"`(flask trigger sms\.failed [^`]*)`", PAGE)
    _, name, *arguments = shlex.split(line)
    app.cli.commands[name].make_context(name, arguments)


def test_without_pytest_the_rest_works(tmp_path: Path) -> None:
    program = (
        "import sys, tempfile, pathlib; sys.modules['pytest'] = None\n"
        "from receiver.testing import *\n"
        "fake = FakeZimSend(pathlib.Path(sys.argv[1]))\n"
        "fake.handlers(lambda registry: registry.on('*', name='h')(print))\n"
        "assert fake.send().calls == {'h': 'done'}\n"
        "fake.close()\n"
        "assert 'zimsend' not in globals()\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    )
