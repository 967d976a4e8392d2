"""`make demo`: a receiver, a simulated ZimSend, 50 SMS, and what became of each."""

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
from receiver.store import Selection, open_store

_ROOT = Path(__file__).parent.parent
_COUNT = 50
_CAMPAIGN = ["--count", str(_COUNT), "--devices", "2", "--rate", "10", "--speed", "10"]
_BAD_WORLD = ["--failed", "0.1", "--duplicates", "0.2", "--reorder", "0.3", "--seed", "42"]
#: Seconds that all of it may take.
_PATIENCE = 110


def main() -> int:
    deadline = time.monotonic() + _PATIENCE
    with tempfile.TemporaryDirectory(prefix="zimsend-demo-") as folder:
        port, api_port = _free_port(), _free_port()
        environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(_ROOT),
            "FLASK_SKIP_DOTENV": "1",
            "ZIMSEND_WEBHOOK_SECRET": secrets.token_hex(16),
            "ZIMSEND_API_KEY": "zs_test_demo",
            "ZIMSEND_CLIENT_ID": "client_demo",
            "ZIMSEND_API_URL": f"http://127.0.0.1:{api_port}/v1",
            "DATABASE_URL": f"sqlite:///{folder}/demo.db",
            "PORT": str(port),
            "LOG_LEVEL": "error",
        }
        headers = {"X-API-Key": "zs_test_demo", "X-Client-ID": "client_demo"}
        print(f"{_COUNT} SMS over two simulated phones, ten times as fast as real ones.")
        print("Some fail, some reports come twice, and some come late. No SMS is sent.\n")
        with _running(environ, "gunicorn", "-c", str(_ROOT / "gunicorn.conf.py"), "wsgi:app"):
            api = http_client(timeout=5, headers=headers)
            _wait_for(api, f"http://127.0.0.1:{port}/readyz", deadline)
            simulate = ["flask", "--app", str(_ROOT / "wsgi.py"), "simulate"]
            options = ["--port", str(api_port), *_CAMPAIGN, *_BAD_WORLD, "--keep"]
            with _running(environ, *simulate, *options):
                truth = _watch(api, f"http://127.0.0.1:{api_port}/truth", environ, deadline)
            answer = api.get(f"http://127.0.0.1:{port}/v1/sms/stats").json()
            return _compare(answer["stats"], truth)


def _watch(
    api: httpx.Client, url: str, environ: Mapping[str, str], deadline: float
) -> dict[str, Any]:
    """Print what comes in, until the simulated world has come to rest."""
    _wait_for(api, url, deadline)
    store = open_store(environ["DATABASE_URL"])
    seen = 0
    while time.monotonic() < deadline:
        truth: dict[str, Any] = api.get(url).json()
        events = list(store.events(Selection()))
        for event in events[seen:]:
            remarks = [name for name in ("late", "repeat") if event[name]]
            at = times.to_datetime(times.parse(event["received_at"]) or 0)
            line = f"{at:%H:%M:%S}  {event['type']:<14} {event['message_id']:<12}"
            print(line, *remarks, flush=True)
        seen = len(events)
        if truth["at_rest"]:
            again = sum(event["receipts"] - 1 for event in store.events(Selection()))
            print(f"\n{seen} events came in, {again} of them came once more and were dropped.")
            store.close()
            return truth
        time.sleep(0.2)
    raise SystemExit("the simulated world did not come to rest in time")


def _compare(stats: Mapping[str, Any], truth: Mapping[str, Any]) -> int:
    """The receiver's statistics beside the simulator's truth."""
    states = [message["status"] for message in truth["messages"]]
    real = {
        "delivered": states.count("delivered"),
        "failed": states.count("failed"),
        "pending": sum(state in ("queued", "processing", "sent") for state in states),
    }
    print(f"\n{'':<12}{'receiver':>10}{'truth':>10}")
    for name, count in real.items():
        print(f"{name:<12}{stats[name]:>10}{count:>10}")
    if all(stats[name] == count for name, count in real.items()):
        print("\nThey are equal.")
        return 0
    print("\nTHEY DIFFER.")
    return 1


@contextmanager
def _running(
    environ: Mapping[str, str], module: str, *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", module, *arguments],
        env=environ,
        cwd=_ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_for(api: httpx.Client, url: str, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            if api.get(url).status_code == 200:
                return
        except (httpx.HTTPError, json.JSONDecodeError):
            pass
        time.sleep(0.1)
    raise SystemExit(f"nothing answers on {url}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
