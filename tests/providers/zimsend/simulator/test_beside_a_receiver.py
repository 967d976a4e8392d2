"""The simulator beside a real receiver, its command, and `make demo`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from flask.testing import FlaskCliRunner

from receiver.providers.zimsend.simulator import api as simulator
from tests.handlers import seen
from tests.providers.zimsend.simulator.network import Hook, rested
from tests.server import ROOT, Server, eventually, free_port, simulating

KEYS = {"ZIMSEND_API_KEY": "zs_test_real", "ZIMSEND_CLIENT_ID": "client_real"}
HEADERS = {"X-API-Key": "zs_test_real", "X-Client-ID": "client_real"}


@pytest.fixture(scope="module")
def demo() -> Iterator[subprocess.Popen[str]]:
    """`make demo`. It takes its time, so it starts before the test that looks at its end."""
    with subprocess.Popen(
        [sys.executable, "-m", "receiver.demo"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with its receiver and its simulator


@pytest.mark.usefixtures("demo")
def test_a_receiver_knows_the_truth(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(**KEYS, SEEN=str(tmp_path))
    bad = "--duplicates 0.2 --reorder 0.3 --failed 0.1 --lost-answers 0.1"
    good = "--seed 1 --count 60 --devices 3 --rate 10 --speed 60 --keep"
    with (
        simulating(server, *good.split(), *bad.split()) as ran,
        httpx.Client(base_url=ran.url, headers=HEADERS) as zimsend,
    ):
        told = rested(zimsend)
        stats = zimsend.get("/v1/sms/stats").json()["stats"]
    assert ran.status == 0, ran.output
    assert "SIMULATOR, not ZimSend" in ran.output
    assert "lost:" not in ran.output

    states = Counter(message["status"] for message in told["messages"])
    assert set(states) == {"delivered", "failed"}
    assert states.total() == 60
    asked = ("status", "sent_at", "delivered_at", "failed_at", "error", "to", "device_id")
    for message in told["messages"]:
        path = f"/v1/sms/status/{message['message_id']}"
        answer = server.client.get(path, headers=HEADERS).json()
        for name in (*asked, "metadata", "message"):
            assert answer[name] == message[name], message
    mine = server.client.get("/v1/sms/stats", headers=HEADERS).json()["stats"]
    reasons = Counter(message["error"]["code"] for message in told["messages"] if message["error"])
    assert {one["code"]: one["failed"] for one in mine.pop("by_error")} == reasons
    assert mine == stats
    assert (mine["delivered"], mine["failed"]) == (states["delivered"], states["failed"])

    arrived = {event["event_id"] for event in told["events"]}
    assert all(event["arrived"] for event in told["events"])
    stored = server.events()
    assert len(stored) == len(arrived)
    assert {event["event_id"] for event in stored} == arrived
    tries = sum(len(event["tries"]) for event in told["events"])
    assert sum(event["receipts"] for event in stored) == tries > len(arrived)
    eventually(lambda: all(len(seen(tmp_path, h)) >= len(arrived) for h in ("first", "second")))
    for handler in ("first", "second"):
        # A call that a busy machine held up past its time-out is made again: another attempt.
        first = [str(e["id"]) for e in seen(tmp_path, handler) if e["attempt"] == 1]
        assert sorted(first) == sorted(arrived)
        assert len(seen(tmp_path, handler)) - len(first) <= 3


@pytest.mark.usefixtures("demo")
def test_the_events_that_it_names_as_lost_are_those_that_are_missing(
    serve: Callable[..., Server],
) -> None:
    server = serve(**KEYS)
    options = "--seed 0 --count 40 --devices 4 --rate 10 --speed 100 --drop 0.4 --lost-answers 0.2"
    ran = server.flask("simulate", "--port", str(free_port()), *options.split())
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.search(r"^40 messages: 40 delivered$", ran.stdout, re.MULTILINE)
    total = re.search(r"^(\d+) events: (\d+) dropped, (\d+) received$", ran.stdout, re.MULTILINE)
    assert total
    assert int(total[1]) == 80
    lost = re.findall(r"^lost: (evt_\S+) sms\.\S+ msg_\S+ \((.*)\)$", ran.stdout, re.MULTILINE)
    assert {outcomes for _, outcomes in lost} == {", ".join(["lost on the way"] * 3)}
    assert 0 < len(lost) < int(total[2])  # of others, only the answers were lost
    stored = {event["event_id"] for event in server.events()}
    everything = {f"evt_0_{number}" for number in range(1, 81)}
    assert {event_id for event_id, _ in lost} == everything - stored
    assert stored <= everything


def test_the_demo(demo: subprocess.Popen[str]) -> None:
    output, errors = demo.communicate(timeout=120)
    assert demo.returncode == 0, output + errors
    assert output.count("\nThey are equal.\n") == 2
    # The second act: what nobody took has come back.
    _, act = output.split("\n2. The receiver is stopped")
    assert "tried each of 16 reports three times" in act
    assert len(re.findall(r"  sms\.(?:sent|delivered) +msg_43_\d +came back$", act, re.M)) == 16
    busy = ("the worker cannot use the store", "the store is stuck", "not ready:")  # a slow disk
    told = errors.splitlines()
    assert [line for line in told if not any(b in line for b in busy)] == []
    assert len(told) <= 3


def test_a_port_that_is_taken(environ: dict[str, str], tmp_path: Path, hook: Hook) -> None:
    taken = str(hook.server.server_port)
    ran = Server(environ, tmp_path, "x").flask("simulate", "--port", taken)
    assert (ran.returncode, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert line.startswith(f"Error: cannot listen on 127.0.0.1:{taken}: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_a_host_that_others_can_reach_is_refused(runner: FlaskCliRunner, host: str) -> None:
    ran = runner.invoke(args=["simulate", "--for", "0", "--host", host])
    assert ran.exit_code == 2
    assert "--expose" in ran.output


@pytest.mark.parametrize(
    "options",
    [
        ["--outage", "60"],
        ["--outage", "600..60"],
        ["--port", "0"],
        ["--port", "65536"],
        ["--failed", "1.1"],
        ["--devices", "0"],
        ["--speed", "0"],
        ["--speed", "nan"],
        ["--failed", "nan"],
        ["--for", "nan"],
        ["--for", "inf"],
        ["--count", "100001"],
    ],
)
def test_options_that_make_no_sense(runner: FlaskCliRunner, options: list[str]) -> None:
    assert runner.invoke(args=["simulate", "--for", "0", *options]).exit_code == 2


def test_an_ipv6_address_stands_in_brackets(
    runner: FlaskCliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(simulator, "serve", lambda *_: lambda: None)  # not every machine has one
    ran = runner.invoke(args=["simulate", "--for", "0", "--host", "::1"])
    assert ran.exit_code == 0
    assert "API on http://[::1]:5040/v1" in ran.output
    assert "the truth is on http://[::1]:5040/truth" in ran.output


def test_it_stops_after_so_many_seconds(environ: dict[str, str], tmp_path: Path) -> None:
    server = Server(environ, tmp_path, "x")
    began = time.monotonic()
    ran = server.flask("simulate", "--port", str(free_port()), "--for", "0.1", "--outage", "0..60")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-2:] == ["0 messages: none", "0 events: none"]
    assert time.monotonic() - began < 30
    server.close()
