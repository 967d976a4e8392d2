"""`flask simulate` for each provider."""

from __future__ import annotations

import signal
import socket
from typing import Any

import httpx
import pytest
from flask.testing import FlaskCliRunner

from app import create_app
from receiver.commands.simulated import KINDS
from receiver.providers import PROVIDERS
from tests.server import free_port

TOKEN = "token_0123456789_0123456789"


@pytest.fixture(autouse=True)
def no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"SMSCX_WEBHOOK_TOKEN": TOKEN}


def run(runner: FlaskCliRunner, *arguments: str) -> Any:
    port = str(free_port())
    return runner.invoke(args=["simulate", "--port", port, "--for", "0", *arguments])


def test_every_provider_can_be_simulated() -> None:
    assert KINDS.keys() == PROVIDERS.keys()
    assert len({kind.port for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_it_says_what_it_is(runner: FlaskCliRunner, name: str) -> None:
    ran = run(runner, "--provider", name, "--seed", "7", "--speed", "10")
    assert (ran.exit_code, ran.stderr) == (0, "")
    said, clock, seed, *report = ran.stdout.splitlines()
    assert said.startswith(f"SIMULATOR, not {KINDS[name].title}: no SMS is sent. API on http://")
    assert f"{KINDS[name].setting}=http://" in clock
    goes = f"webhooks go to http://127.0.0.1:3000/webhooks/{name}"
    assert seed.startswith(f"seed 7; {goes if KINDS[name].reports else 'it sends no reports'}")
    assert report[0] == "0 messages: none"
    assert TOKEN not in ran.output


@pytest.mark.parametrize("name", KINDS)
def test_it_tells_its_time_and_the_truth(
    runner: FlaskCliRunner, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, Any] = {}
    kind, port = KINDS[name], free_port()
    serve = kind.api.serve

    def serving(simulated: Any, host: str, port: int) -> Any:
        close = serve(simulated, host, port)
        for path in ("clock", "truth"):
            answer = httpx.get(f"http://{host}:{port}/{path}", trust_env=False)
            told[path] = answer.json()
        return close

    monkeypatch.setattr(kind.api, "serve", serving)
    options = ("--provider", name, "--speed", "1000", "--count", "3", "--rate", "100")
    ran = runner.invoke(args=["simulate", "--port", str(port), *options])
    assert ran.exit_code == 0
    assert told["clock"]["speed"] == 1000
    assert told["clock"]["simulator"].startswith("not ")
    assert set(told["truth"]) >= {"messages", "at_rest", "api", "seed"}
    assert "3 messages: 3 " in ran.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--provider", "twilio"),
        ("--provider", "sipgate", "--url", "http://127.0.0.1:3000/webhooks/sipgate"),
        ("--provider", "sipgate", "--failed", "0.1"),
    ],
)
def test_what_makes_no_sense(runner: FlaskCliRunner, options: tuple[str, ...]) -> None:
    assert run(runner, *options).exit_code == 2


def test_sms_cx_needs_an_address(environ: dict[str, str]) -> None:
    del environ["SMSCX_WEBHOOK_TOKEN"]
    runner = create_app(environ).test_cli_runner()
    ran = run(runner, "--provider", "smscx")
    assert ran.exit_code == 1
    assert "SMSCX_WEBHOOK_TOKEN: not set" in ran.stderr
    url = f"http://127.0.0.1:9/webhooks/smscx/{TOKEN}"
    ran = run(runner, "--provider", "smscx", "--url", url)
    assert ran.exit_code == 0
    assert TOKEN not in ran.output


def test_a_port_that_is_taken(runner: FlaskCliRunner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = runner.invoke(args=["simulate", "--port", port, "--for", "0"])
    assert refused.exit_code == 1
    assert refused.output.endswith("; take another --port\n")
