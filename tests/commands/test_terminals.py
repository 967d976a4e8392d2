"""What commands print where the terminal is none of today's, and what they keep to themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from flask import Flask

from tests.conftest import Provider
from tests.server import ROOT

EVENT = "evt_👋_é"


@pytest.fixture
def stored(app: Flask) -> None:
    event = {"event": "device.tick", "event_id": EVENT}
    assert Provider(app.test_client()).post(event).status_code == 200


def run(
    environ: dict[str, str], *arguments: str, **settings: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "flask", *arguments],
        cwd=ROOT,
        env={**environ, "PYTHONIOENCODING": "latin-1", "FLASK_SKIP_DOTENV": "1", **settings},
        capture_output=True,
        timeout=60,
    )


@pytest.mark.usefixtures("stored")
def test_an_emoji_on_a_latin_1_terminal(environ: dict[str, str]) -> None:
    """One command for each kind of output, with what each is for: people, and programs."""
    table = run(environ, "events", "list")
    assert table.returncode == 0, table.stderr
    assert r"evt_\U0001f44b_é".encode("latin-1") in table.stdout
    lines = run(environ, "events", "list", "--format", "jsonl")
    assert json.loads(lines.stdout.decode("latin-1"))["event_id"] == EVENT
    refused = run(environ, "events", "show", "no_👋")
    assert refused.returncode == 1
    assert refused.stderr.startswith(rb"Error: there is no event 'no_\U0001f44b'")


def test_debugging_does_not_bury_what_a_command_says(environ: dict[str, str]) -> None:
    """Lines of our own, in JSON, with the time in UTC; none of libraries' debugging."""
    ran = run(
        environ,
        *("trigger", "sms.sent", "--url", "http://127.0.0.1:9/webhooks/zimsend"),
        LOG_LEVEL="debug",
        LOG_FORMAT="json",
        LOG_LEVELS="debug",  # a warning at the start
        TZ="Asia/Tokyo",
    )
    assert ran.returncode == 1
    *logged, told = ran.stderr.decode().splitlines()
    assert told.startswith("Error: ")
    records = [json.loads(line) for line in logged]
    assert [record["logger"].partition(".")[0] for record in records] == ["receiver"]
    assert records[0]["message"].startswith("LOG_LEVELS: ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", records[0]["time"])
    assert b"{" not in ran.stdout
