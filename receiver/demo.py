"""`make demo`: a receiver, a simulated ZimSend, and what became of each SMS; also of those that
were sent while the receiver was down."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from receiver import times
from receiver.outgoing import http_client
from receiver.store import Selection, Store, open_store

_ROOT = Path(__file__).parent.parent
#: The first act: a receiver that is there, in a world in which much goes wrong.
_COUNT = 50
_SPEED = 30
_CAMPAIGN = f"--count {_COUNT} --devices 2 --rate 10 --speed {_SPEED} --seed 42"
_BAD_WORLD = "--failed 0.1 --duplicates 0.2 --reorder 0.3"
#: The second act: ZimSend's three tries take 6 minutes, and what was missed is asked for 10 minutes
#: after it happened.
_MISSED = 8
_QUICKLY = 300
_OUTAGE = f"--count {_MISSED} --devices 2 --rate 1 --speed {_QUICKLY} --seed 43"
#: Seconds that all of it may take.
_PATIENCE = 110


class _Demo:
    """The programs that take part, and what is asked of them."""

    def __init__(self, folder: str) -> None:
        self.deadline = time.monotonic() + _PATIENCE
        port, api_port = _free_port(), _free_port()
        self.receiver, self.zimsend = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{api_port}"
        self.environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "FLASK_SKIP_DOTENV": "1",
            "ZIMSEND_WEBHOOK_SECRET": secrets.token_hex(16),
            "ZIMSEND_API_KEY": "zs_test_demo",
            "ZIMSEND_CLIENT_ID": "client_demo",
            "ZIMSEND_API_URL": f"{self.zimsend}/v1",
            "DATABASE_URL": f"sqlite:///{folder}/demo.db",
            "PORT": str(port),
            "LOG_LEVEL": "error",
        }
        self.api = http_client(
            timeout=5,
            headers={"X-API-Key": "zs_test_demo", "X-Client-ID": "client_demo"},
        )
        self._simulate = [
            *("flask", "--app", str(_ROOT / "wsgi.py")),
            *("simulate", "--port", str(api_port), "--keep"),
        ]
        self._shown = 0

    @contextmanager
    def receiving(self) -> Iterator[None]:
        gunicorn = ("gunicorn", "-c", str(_ROOT / "gunicorn.conf.py"), "wsgi:app")
        with _running(self.environ, *gunicorn):
            self._wait_for(f"{self.receiver}/readyz")
            yield

    @contextmanager
    def simulating(self, options: str) -> Iterator[None]:
        with _running(self.environ, *self._simulate, *options.split()):
            self._wait_for(f"{self.zimsend}/truth")
            yield

    def rest(self, store: Store | None = None) -> dict[str, Any]:
        """Wait until the simulated world has come to rest, and print what comes in; the truth."""
        while True:
            truth: dict[str, Any] = self.api.get(f"{self.zimsend}/truth").json()
            if store is not None:
                self.show(store)
            if truth["at_rest"]:
                return truth
            self._pause("the simulated world did not come to rest in time")

    def show(self, store: Store) -> int:
        """Print the events that have come in since; returns how many there are in all."""
        events = list(store.events(Selection()))
        for event in events[self._shown :]:
            remarks = [name for name in ("late", "repeat") if event[name]]
            if event["source"] == "reconciliation":
                remarks.append("came back")
            at = times.to_datetime(times.parse(event["received_at"]) or 0)
            line = f"{at:%H:%M:%S}  {event['type']:<14} {event['message_id']:<12}"
            print(line, *remarks, flush=True)
        self._shown = len(events)
        return self._shown

    def show_until(self, store: Store, count: int) -> None:
        while self.show(store) < count:
            self._pause("what was missed did not come back in time")

    def wait_for_a_pass(self) -> None:
        """Until the receiver has asked ZimSend once: of what was before that, it asks nothing."""
        url = f"{self.receiver}/v1/reconciliation"
        while self.api.get(url).json()["last_complete_at"] is None:
            self._pause("the receiver has not asked the simulated ZimSend")

    def _pause(self, too_late: str) -> None:
        if time.monotonic() > self.deadline:
            raise SystemExit(too_late)
        time.sleep(0.2)

    def _wait_for(self, url: str) -> None:
        while True:
            try:
                if self.api.get(url).status_code == 200:
                    return
            except (httpx.HTTPError, json.JSONDecodeError):
                pass
            self._pause(f"nothing answers on {url}")

    def compare(self, *truths: Mapping[str, Any]) -> bool:
        stats = self.api.get(f"{self.receiver}/v1/sms/stats").json()["stats"]
        return _compare(stats, [message for truth in truths for message in truth["messages"]])


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="zimsend-demo-") as folder:
        demo = _Demo(folder)
        print(f"1. {_COUNT} SMS over two simulated phones, {_SPEED} times as fast as real ones.")
        print("Some fail, some reports come twice, and some come late. No SMS is sent.\n")
        with demo.receiving():
            store = open_store(demo.environ["DATABASE_URL"])
            with demo.simulating(_CAMPAIGN + " " + _BAD_WORLD):
                first = demo.rest(store)
                demo.wait_for_a_pass()
            events = list(store.events(Selection()))
            again = sum(event["receipts"] - 1 for event in events)
            print(
                f"\n{len(events)} events came in, {again} of them came once more and were dropped."
            )
            equal = demo.compare(first)
        print(f"\n2. The receiver is stopped, and the phones send {_MISSED} more SMS. Nobody takes")
        print(f"the reports. (From here on, {_QUICKLY // 60} minutes pass in a second.)\n")
        with demo.simulating(_OUTAGE):
            second = demo.rest()
            lost = sum(event["state"] == "dropped" for event in second["events"])
            print(
                f"ZimSend has tried each of {lost} reports three times, and has given up for good."
            )
            print("The receiver is started again, and asks ZimSend's API what it has missed:\n")
            with demo.receiving():
                demo.show_until(store, len(events) + lost)
                equal &= demo.compare(first, second)
                store.close()
        return 0 if equal else 1


def _compare(stats: Mapping[str, Any], messages: list[Mapping[str, Any]]) -> bool:
    """Print the receiver's statistics beside the simulators' truth."""
    states = [message["status"] for message in messages]
    real = {
        "delivered": states.count("delivered"),
        "failed": states.count("failed"),
        "pending": sum(state in ("queued", "processing", "sent") for state in states),
    }
    print(f"\n{'':<12}{'receiver':>10}{'truth':>10}")
    for name, count in real.items():
        print(f"{name:<12}{stats[name]:>10}{count:>10}")
    equal = all(stats[name] == count for name, count in real.items())
    print("\nThey are equal." if equal else "\nTHEY DIFFER.", flush=True)
    return equal


@contextmanager
def _running(
    environ: Mapping[str, str], module: str, *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    # -P: as where it is served; gunicorn and flask find the clone by themselves.
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-m", module, *arguments],
        env=environ,
        cwd=_ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
