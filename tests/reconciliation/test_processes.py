"""For real: a simulator, receivers and passes in processes of their own."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from receiver import status
from receiver.reconciliation.passes import LEASE
from receiver.reconciliation.planning import EVERY, State
from receiver.store import Selection, open_store
from receiver.times import SECOND, iso
from tests.conftest import SECRET, row_of
from tests.handlers import seen
from tests.providers.zimsend.reports import BEGAN
from tests.reconciliation.life import HEADERS, KEYS, missed_reports
from tests.server import ROOT, Server, eventually, free_port, simulating


@pytest.fixture
def quick(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A receiver that is not started, and whose time goes faster; see tests/quick_clock.py."""
    servers: list[Server] = []

    def make(speed: float) -> Server:
        settings = {
            "CLOCK_BEGAN": str(BEGAN),
            "CLOCK_STARTED": str(time.monotonic()),
            "CLOCK_SPEED": str(speed),
            "FLASK_APP": "tests.quick_clock",
            "HANDLERS": "tests.quick_clock",
            "SEEN": str(tmp_path),
            **KEYS,
        }
        server = Server(environ | settings, tmp_path, SECRET)
        servers.append(server)
        open_store(environ["DATABASE_URL"]).migrate()
        return server

    yield make
    for server in servers:
        server.close()


def truth_of(url: str) -> dict[str, Any]:
    told: dict[str, Any] = httpx.get(f"{url}/truth", timeout=30).json()
    return told


def lost_for(store: Any, truth: dict[str, Any]) -> Counter[tuple[str, str]]:
    """What no webhook has brought. What is stored may lack its 200: the kill came before it."""
    stored = {e["event_id"] for e in store.events(Selection(event_type="sms.*"))}
    assert stored >= {e["event_id"] for e in truth["events"] if e["arrived"]}
    return Counter(
        (e["message_id"], e["type"]) for e in truth["events"] if e["event_id"] not in stored
    )


def check_against(truth: dict[str, Any], store: Any, folder: Path) -> None:
    """The end of every run: mirror, handlers, what counts as missed, and the limit of requests."""
    expected: Counter[tuple[str, str]] = Counter()
    for message in truth["messages"]:
        row = row_of(store, message["message_id"])
        assert row is not None
        view = status.describe(row)
        assert (view["status"], view["metadata"]) == (message["status"], message["metadata"])
        assert (view["sent_at"] and iso(view["sent_at"])) == message["sent_at"]
        kinds = {"delivered": ("sent", "delivered"), "failed": ("failed",)}[message["status"]]
        expected.update((message["message_id"], f"sms.{kind}") for kind in kinds)
    gone = lost_for(store, truth)
    found = Counter(
        (message_id, kind) for message_id, kind in missed_reports(store) if kind != "sms.queued"
    )
    assert found == gone
    events = {e["event_id"]: e for e in store.events(Selection(event_type="sms.*"))}
    dispatched = Counter(
        (e["message_id"], e["type"])
        for e in events.values()
        if e["deliveries"] and e["type"] != "sms.queued"
    )
    assert dispatched == expected
    states = {d["state"] for e in events.values() for d in e["deliveries"]}
    assert states <= {"done"}
    # No handler was called for what was done: a call of its own for each attempt, and not more.
    calls = Counter(str(line["id"]) for line in seen(folder, "all"))
    attempts = {e["event_id"]: sum(d["attempts"] for d in e["deliveries"]) for e in events.values()}
    assert all(1 <= calls[name] <= count for name, count in attempts.items() if count)
    assert truth["api"]["limited"] == 0


@contextmanager
def passing(server: Server) -> Iterator[Callable[[str], SimpleNamespace]]:
    """Passes in processes of their own: `begin("one")` makes one, `begin("ever")` one after the
    other. It returns what waits for the process and returns its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.quick_clock"],
        cwd=ROOT,
        env=server.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    line = process.stdout.readline

    def begin(what: str) -> SimpleNamespace:
        print(what, file=process.stdin, flush=True)
        return SimpleNamespace(pid=int(line()), wait=lambda: int(line()))

    with process:
        yield begin
        process.stdin.close()
        assert process.wait(60) == 0


def test_killed_at_random_moments(quick: Callable[..., Server], tmp_path: Path) -> None:
    """kill -9 of 20 passes."""
    chance = random.Random(20_261_121)
    server = quick(600)
    store = open_store(server.environ["DATABASE_URL"])
    # A pass has been made at the beginning of the world.
    state = State(first=BEGAN, since=BEGAN, next_at=BEGAN, ended_at=BEGAN, deep_at=BEGAN)
    store.write_note("reconciliation", json.dumps(dataclasses.asdict(state)))
    options = ["--count", "150", "--rate", "1", "--devices", "5", "--failed", "0.1", "--drop", "1"]
    with simulating(server, "--speed", "600", "--seed", "3", "--keep", *options) as ran:
        server.environ["ZIMSEND_API_URL"] = f"{ran.url}/v1"
        eventually(lambda: truth_of(ran.url)["at_rest"])
        learnt_by: list[int] = []
        states = Counter(message["status"] for message in truth_of(ran.url)["messages"])
        everything = 2 * states["delivered"] + states["failed"]
        lease = LEASE / SECOND / 600  # for so long the dead one has the turn
        longest = 0.25
        with passing(server) as begin:
            # At least 20, and until many of them have died in the middle of it.
            while len(learnt_by) < 20 or (
                len(set(learnt_by)) < 9 and learnt_by[-1] < everything  # else there is no middle
            ):
                assert len(learnt_by) < 60
                made = begin("ever")
                time.sleep(lease + chance.uniform(0, longest))
                os.kill(made.pid, signal.SIGKILL)
                assert made.wait() == -signal.SIGKILL
                learnt_by.append(len(missed_reports(store)))
                if learnt_by[-1] == [0, *learnt_by][-2]:  # a busy machine
                    longest = min(1.2 * longest, 1.0)
            # One looks at the failures for the first time, and the next one is sure of them.
            for _ in range(2):
                time.sleep(EVERY / SECOND / 600)
                assert begin("one").wait() == 0
        server.spawn([*GUNICORN])
        eventually(server.ready)
        eventually(lambda: store.next_due("all", 0) is None)
        server.terminate()
        check_against(truth_of(ran.url), store, tmp_path)
    store.close()


GUNICORN = ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "tests.quick_clock:app"]


def test_a_service_that_was_down_catches_up_by_itself(
    quick: Callable[..., Server], tmp_path: Path
) -> None:
    """Two processes, killed in the middle of a campaign, and back when ZimSend has given up."""
    speed = 200
    server = quick(speed)
    server.environ["WEB_CONCURRENCY"] = "2"
    port = free_port()
    server.environ["ZIMSEND_API_URL"] = f"http://127.0.0.1:{port}/v1"
    store = open_store(server.environ["DATABASE_URL"])
    # Before the campaign: of what was before its first pass it asks for 15 minutes only.
    server.spawn([*GUNICORN])
    eventually(server.ready)
    eventually(lambda: store.note("reconciliation"))
    options = "--count 200 --rate 0.1 --devices 3 --failed 0.1 --seed 3 --keep"
    with simulating(server, "--speed", str(speed), *options.split(), port=port) as ran:
        eventually(lambda: len(list(store.events(Selection(event_type="sms.*")))) > 20)
        server.kill()
        # Half an hour later. Before it, a last try could wait at the door while a pass is made.
        eventually(lambda: truth_of(ran.url)["at_rest"])
        server.spawn([*GUNICORN])
        eventually(server.ready)
        gone = {message_id for message_id, _ in lost_for(store, truth_of(ran.url))}
        assert len(gone) > 50

        def caught_up() -> bool:
            told = server.client.get("/v1/reconciliation", headers=HEADERS).json()
            return bool(told["missed"]) and told["missed"]["messages"] == len(gone)

        eventually(caught_up, 60)
        eventually(lambda: store.next_due("all", 0) is None)
        told = server.client.get("/v1/reconciliation", headers=HEADERS)
        assert told.json()["gaps_total"] == 1
        assert server.terminate() == 0
        check_against(truth_of(ran.url), store, tmp_path)
    store.close()
