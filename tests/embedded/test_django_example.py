"""The example's own tests, run as its readers run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("django", reason="NOT TESTED HERE: there is no Django")

from tests.embedded import djangos
from tests.server import ROOT, free_port

SHOP = ROOT / "examples" / "django_shop"


def test_its_own_tests_pass(tmp_path: Path) -> None:
    settings = dict.fromkeys(
        ("ZIMSEND_WEBHOOK_SECRET", "ZIMSEND_API_KEY", "ZIMSEND_CLIENT_ID"),
        "of-the-example-and-long-enough",
    )
    environ = djangos.environ(
        tmp_path,
        **settings,
        ZIMSEND_API_URL=f"http://127.0.0.1:{free_port()}/v1",
        DJANGO_SETTINGS_MODULE="shop.settings",
        PYTHONDONTWRITEBYTECODE="1",
    )
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:The default value of USE_TZ",
            "manage.py",
            "test",
        ],
        cwd=SHOP,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Ran 1 test" in ran.stderr


def test_it_is_short() -> None:
    assert sum(len(file.read_text().splitlines()) for file in SHOP.rglob("*.py")) < 150
