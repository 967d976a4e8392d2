"""A service beside sipgate, which reports nothing by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient, FlaskCliRunner

from receiver import welcome

ALONE = {"SIPGATE_TOKEN_ID": "token-ABC123", "SIPGATE_TOKEN": "secret"}


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    del environ["ZIMSEND_WEBHOOK_SECRET"]
    return environ | ALONE


def test_it_starts_alone_and_has_no_door(client: FlaskClient) -> None:
    assert client.get("/healthz").status_code == 200
    # Nothing runs the handlers here.
    assert client.get("/readyz").json["failing"].keys() <= {"worker"}
    for path in ("/webhooks/sipgate", "/webhooks/sipgate/x", "/webhooks/zimsend"):
        assert client.post(path, data=b"{}").status_code == 404


def test_nothing_can_be_triggered(runner: FlaskCliRunner) -> None:
    told = runner.invoke(args=["trigger", "sms.sent"])
    assert told.exit_code == 1
    assert "no provider that reports is set up" in told.output
    assert runner.invoke(args=["trigger", "sms.sent", "--provider", "sipgate"]).exit_code == 2
    assert runner.invoke(args=["webhooks", "url", "sipgate"]).exit_code == 2


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({}, "history is asked every 5 minutes"),
        ({"SMSCX_WEBHOOK_TOKEN": "token_0123456789_0123456789"}, "flask webhooks url smscx"),
        ({"ZIMSEND_WEBHOOK_SECRET": "x" * 16}, "/webhooks/zimsend"),
    ],
)
def test_the_welcome_names_only_addresses_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    others: dict[str, str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").touch()  # the nearest one counts
    for name in ("ZIMSEND_WEBHOOK_SECRET", "SMSCX_WEBHOOK_TOKEN", "PORT", "BIND"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**ALONE, **others}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(welcome, "obstacle", lambda places: None)
    welcome.tell()
    printed = capsys.readouterr().out
    assert told in printed
    assert ("flask trigger" in printed) is bool(others)
