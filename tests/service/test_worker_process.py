"""Handlers run in a process of their own: whatever they do to it, webhooks do not notice."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.server import Server, eventually, quick


def worker_of(server: Server) -> int:
    """The worker's process; a moment after its start it shows no command."""
    found: int = eventually(lambda: _or_none(server))
    return found


def _or_none(server: Server) -> int | None:
    for pid in server.processes():
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"work\0"):
                return pid
    return None


def event(**metadata: str) -> dict[str, Any]:
    return envelope("sms.sent", sms("sent") | {"metadata": metadata})


def handled(folder: Path, name: str) -> set[str]:
    return {str(entry["id"]) for entry in seen(folder, name)}


HARMS = (
    *("exit 0", "exit 3", "exit 4", "exit 255", "crash", "killed"),
    *("fork", "chdir", "stderr", "environ", "lock 3", "compute 3", "wordy"),
)


@pytest.mark.parametrize("harm", HARMS)
def test_no_webhook_notices_and_other_handlers_go_on(
    serve: Callable[..., Server], tmp_path: Path, harm: str
) -> None:
    server = serve(HANDLERS="tests.hostile", SEEN=str(tmp_path))
    assert server.process is not None
    for _ in range(3):
        assert server.post(event()).status_code == 200
    assert server.post(event(harm=harm)).status_code == 200
    eventually(lambda: handled(tmp_path, "hostile"))

    wanted = set()

    def slowest_of_most() -> float:
        took = []
        for _ in range(30):
            sent = event()
            wanted.add(sent["event_id"])
            began = time.monotonic()
            assert server.post(sent).status_code == 200
            took.append(time.monotonic() - began)
            time.sleep(0.02)
        return sorted(took)[len(took) * 9 // 10]

    assert quick(slowest_of_most, 0.25)
    eventually(lambda: wanted <= handled(tmp_path, "good"))

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(29) == 0  # hosts leave 30
    eventually(lambda: not server.processes(), within=20)


def test_nothing_is_left_where_the_master_is_killed(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(HANDLERS="tests.hostile", SEEN=str(tmp_path), WEB_CONCURRENCY="2")
    assert server.process is not None
    assert server.post(event(harm="fork")).status_code == 200
    eventually(lambda: handled(tmp_path, "hostile"))
    eventually(lambda: len(server.processes()) == 6)  # with what was forked, and who writes
    server.process.kill()
    eventually(lambda: not server.processes())


def test_a_worker_that_dies_is_started_again(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(HANDLERS="tests.hostile", SEEN=str(tmp_path))
    first = worker_of(server)
    os.kill(first, signal.SIGKILL)
    second = eventually(lambda: [pid for pid in [_or_none(server)] if pid not in (None, first)])
    assert second
    sent = event()
    assert server.post(sent).status_code == 200
    eventually(lambda: sent["event_id"] in handled(tmp_path, "good"))


def test_of_what_is_in_flight_at_a_death_only_the_killer_is_counted(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(HANDLERS="tests.hostile", SEEN=str(tmp_path))
    beside = [event(harm="compute 0.5") for _ in range(2)]
    killer = event(harm="exit 0")
    for each in (*beside, killer):
        assert server.post(each).status_code == 200
    called = lambda: [e["id"] for e in seen(tmp_path, "hostile")]  # noqa: E731
    # Beside the others, alone, and after its wait once more.
    eventually(lambda: called().count(killer["event_id"]) >= 3)
    ends = {
        row["event_id"]: (delivery["state"], delivery["attempts"])
        for row in server.events()
        for delivery in row["deliveries"]
        if delivery["handler"] == "hostile"
    }
    assert {ends[each["event_id"]] for each in beside} == {("done", 1)}
    assert ends[killer["event_id"]][1] in (1, 2)


def test_a_reload_renews_it(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(HANDLERS="tests.hostile", SEEN=str(tmp_path))
    assert server.process is not None
    first = worker_of(server)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: _or_none(server) not in (None, first))
    sent = event()
    assert eventually(lambda: server.post(sent).status_code == 200)
    eventually(lambda: sent["event_id"] in handled(tmp_path, "good"))


@pytest.mark.each_engine
def test_from_the_200_to_the_handler(serve: Callable[..., Server], tmp_path: Path) -> None:
    """A commit wakes the worker's process: it need not look for work."""
    server = serve(HANDLERS="tests.hostile", SEEN=str(tmp_path))

    def median() -> float:
        answered = {}
        for _ in range(40):
            sent = event()
            assert server.post(sent).status_code == 200
            answered[sent["event_id"]] = time.time()
            time.sleep(0.05)
        eventually(lambda: set(answered) <= handled(tmp_path, "good"))
        ran = {e["id"]: e["at"] for e in seen(tmp_path, "good")}
        return statistics.median(ran[name] - at for name, at in answered.items())

    assert quick(median, 0.05)


def test_an_idle_service_ends_at_once(serve: Callable[..., Server]) -> None:
    server = serve()
    assert server.process is not None
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    eventually(lambda: not server.processes(), within=20)
