"""The wheel, and an environment in which nothing of the clone is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.server import ROOT, Server

_NOT_OF_A_CLONE = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "*.egg-info", "*.db", "node_modules", "screenshots"
)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheel` does, but with the setuptools that is here."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "clone", ignore=_NOT_OF_A_CLONE)
    told = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(folder / "clone")),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and what it needs from the tests' own."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, symlinks=True)
    programs = home / "bin"
    told = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"),
            *("--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "of_the_tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return programs


class Shop(Server):
    """A user's folder, with `zimsend-receiver` and without a clone."""

    def __init__(self, programs: Path, folder: Path, secret: str = "") -> None:
        super().__init__({}, folder, secret)
        del self.environ["PYTHONPATH"]
        self.program = programs / "zimsend-receiver"
        self.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"

    def spawn(self, arguments: list[str]) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.program), *arguments],
                cwd=self.folder,
                env=self.environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(
        self, *arguments: str, cwd: Path | None = None, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """One of its commands."""
        return subprocess.run(
            [str(self.program), *arguments],
            cwd=cwd or self.folder,
            env={**self.environ, **settings},
            capture_output=True,
            text=True,
            timeout=60,
        )
