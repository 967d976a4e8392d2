"""`flask tail`: what comes in is shown once, by whichever process it came; and it ends cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from receiver.commands import tail
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.parts import Receiver
from tests.conftest import Provider
from tests.payloads import envelope, sms
from tests.server import ROOT


@pytest.fixture
def shown(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What it shows while things happen: each of them at one of its waits, and then Ctrl-C."""

    def run(*happen: Any, arguments: tuple[str, ...] = ("--format", "jsonl")) -> Any:
        left = list(happen)

        def wait(_: float) -> None:
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        monkeypatch.setattr(tail, "wait_while_read", wait)
        return FlaskCliRunner(app).invoke(args=["tail", *arguments])

    return run


def ids(output: str) -> list[str]:
    return [json.loads(line)["event_id"] for line in output.splitlines()]


@pytest.mark.each_engine
def test_what_comes_in_from_then_on(shown: Any, provider: Provider) -> None:
    def post(name: str, kind: str = "sent") -> None:
        event = envelope(f"sms.{kind}", sms(kind, f"m{name}"), event_id=name)
        assert provider.post(event).status_code == 200

    post("before")
    result = shown(
        lambda: post("e1"), lambda: [post("e2"), post("e3", "failed")], lambda: post("e2")
    )
    assert result.exit_code == 0
    assert ids(result.stdout) == ["e1", "e2", "e3"]
    both = ("--type", "failed", "--format", "jsonl"), ("--type", "sms.*", "--format", "jsonl")
    result = shown(lambda: [post("e4"), post("e5", "failed")], arguments=both[0])
    assert ids(result.stdout) == ["e5"]
    result = shown(lambda: [post("e6"), post("e7", "failed")], arguments=both[1])
    assert ids(result.stdout) == ["e6", "e7"]
    many = [f"n{number}" for number in range(tail._AT_ONCE + 1)]
    result = shown(lambda: [post(name) for name in many])
    assert ids(result.stdout) == many
    table = shown(lambda: post("e8"), arguments=()).stdout.splitlines()
    assert table[0].split()[:2] == ["RECEIVED", "TYPE"]
    assert "e8" in table[1]


def test_a_database_that_is_away_for_a_while(
    shown: Any, provider: Provider, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrivals = receiver.store.arrivals

    def break_with(error: Exception) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(receiver.store, "arrivals", fail)

    def mend() -> None:
        monkeypatch.setattr(receiver.store, "arrivals", arrivals)
        assert provider.post(envelope("sms.sent", sms("sent"), event_id="e1")).status_code == 200

    result = shown(lambda: break_with(StoreUnavailable("away")), lambda: None, mend, lambda: None)
    assert ids(result.stdout) == ["e1"]
    assert result.stderr.count("away") == 1
    assert shown(lambda: break_with(SchemaMismatch("run `flask migrate`"))).exit_code == 1


@contextmanager
def process(environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    flask = [sys.executable, "-m", "flask", "--app", "wsgi", "tail"]
    with subprocess.Popen(
        flask,
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("RECEIVED")
        yield running
        running.kill()


def test_it_ends_at_a_signal_and_where_nobody_reads(receiver: Receiver, environ: Any) -> None:
    with process(environ) as running:
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
        assert (running.returncode, errors) == (0, "")
    with process(environ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()  # and nothing comes in
        assert running.wait(30) == 0
        assert running.stderr.read() == ""
