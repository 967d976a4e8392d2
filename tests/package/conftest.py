"""The wheel, and an environment in which nothing of the clone is found."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.server import ROOT, Server

_NOT_OF_A_CLONE = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "*.egg-info", "*.db", "node_modules"
)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheel` does, but with the setuptools that is here."""
    (built,) = _once(tmp_path_factory, "wheel", _build).glob("*.whl")
    return built


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make wheel` does it first, but with the setuptools that is here."""
    (built,) = _once(tmp_path_factory, "sdist", _build_sdist).glob("*.tar.gz")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and what it needs from the tests' own."""
    return _once(tmp_path_factory, "venv", partial(_install, wheel)) / "bin"


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once for all processes of a run."""
    run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent
    folder, made = run / name, run / f"{name}.made"
    with (run / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


def _build(folder: Path) -> None:
    shutil.copytree(ROOT, folder / "clone", ignore=_NOT_OF_A_CLONE)
    arguments = ("--no-build-isolation", "--wheel-dir", str(folder), str(folder / "clone"))
    _pip("wheel", *arguments)


def _build_sdist(folder: Path) -> None:
    clone = folder / "clone"
    shutil.copytree(ROOT, clone, ignore=_NOT_OF_A_CLONE)
    # What somebody who tries things out leaves behind.
    for name in ("docs/.env", "examples/flask_shop/receiver.db", "examples/receiver.db-wal"):
        (clone / name).touch()
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    told = subprocess.run(
        [sys.executable, "-c", code, folder], cwd=clone, capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr


def _install(wheel: Path, folder: Path) -> None:
    venv.create(folder, symlinks=True)
    _pip("install", "--no-compile", str(wheel), python=str(folder / "bin" / "python"))
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "of_the_tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")


def _pip(command: str, *arguments: str, python: str = sys.executable) -> None:
    told = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", python, command),
            *("--quiet", "--no-deps", "--no-index", *arguments),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr


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
