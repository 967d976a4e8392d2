"""What handlers cost that compute without end: the webhook beside two of them, and without.

    .venv/bin/python benchmarks/computing.py [--rounds 3] [--database postgresql://…]

One web process of gunicorn, senders at full speed on 32 connections, two handlers that want every
event; in every second run two more that compute for as long as it lasts. Told are answers a second
and the 99th percentile, in turns. The goals are 0.7 of the throughput without, and 100 ms. A run
takes a quarter of a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import handlers, load, processes
from receiver import Event, Registry
from receiver.providers.zimsend.webhook import sign

CONNECTIONS = 32
SECONDS = 6
#: More than can be sent in that time.
MOST_A_SECOND = 12_000
SHARE, P99_MS = 0.7, 100
NAMES = ("first computing", "second computing")


def register(registry: Registry) -> None:
    """The service's `HANDLERS`."""
    handlers.register(registry)
    for name in NAMES:
        registry.on("sms.computing", name=name, timeout=3_000)(compute)


def compute(event: Event) -> None:
    """Until the service is gone, so that the next measurement has the processors for itself."""
    master = os.getppid()
    while os.getppid() == master:
        sum(range(10_000))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", help="empty; by default a new file of SQLite")
    arguments = parser.parse_args()
    shares, latencies = [], []
    for _ in range(arguments.rounds):
        calm = _measure(arguments.database, computing=False)
        computing = _measure(arguments.database, computing=True)
        for name, result in (("without", calm), ("beside two", computing)):
            rate = result.accepted / result.seconds
            print(f"{name:>12} {rate:8.0f}/s  p50 {result.p50:6.1f}  p99 {result.p99:6.1f} ms")
        shares.append((computing.accepted / computing.seconds) / (calm.accepted / calm.seconds))
        latencies.append(computing.p99)
    share, p99 = statistics.median(shares), statistics.median(latencies)
    print(f"share {share:.2f} (goal {SHARE}), p99 {p99:.0f} ms (goal {P99_MS})")
    return int(share < SHARE or p99 > P99_MS)


def _measure(database: str | None, *, computing: bool) -> load.Load:
    with tempfile.TemporaryDirectory(dir=processes.ROOT, prefix=".benchmark-") as name:
        folder = Path(name)
        environ = {
            "ZIMSEND_WEBHOOK_SECRET": load.SECRET,
            "DATABASE_URL": database or f"sqlite:///{folder / 'receiver.db'}",
            "WEB_CONCURRENCY": "1",
            "LOG_LEVEL": "warning",
            "HANDLERS": "benchmarks.computing",
        }
        warming = load.write_requests(folder / "warming", "warming", 2 * MOST_A_SECOND)
        requests = load.write_requests(folder / "requests", "run", SECONDS * MOST_A_SECOND)
        with processes.gunicorn("wsgi:app", folder, environ) as url:
            if computing:
                _start(url)
            load.send(url, warming, seconds=2, connections=CONNECTIONS)
            return load.send(url, requests, seconds=SECONDS, connections=CONNECTIONS)


def _start(url: str) -> None:
    """One event, for which each of the two is called once."""
    body = json.dumps({"event": "sms.computing", "event_id": f"computing{time.time()}"}).encode()
    headers = {"X-Webhook-Signature": sign(load.SECRET.encode(), body)}
    httpx.post(f"{url}/webhooks/zimsend", content=body, headers=headers).raise_for_status()


if __name__ == "__main__":
    sys.exit(main())
