"""What strangers cost: thousands of connections that are silent, slow, or never read.

    .venv/bin/python benchmarks/strangers.py [--connections 2000] [--asyncio]

One gunicorn process. Of each kind of stranger so many connections are open, and opened again when
they are closed, while an honest sender posts signed events: on one connection, and on a new one
each time. Told are its 99th percentile, by how much the web process has grown at most, and after
how many seconds the last connection is closed once the strangers have stopped. The goals are
250 ms, 100 MB and 30 s (60 s for those who had sent so much of a body that its time was not over).
Four minutes.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import load, processes
from receiver.providers.zimsend.webhook import sign
from tests.strangers import strangers

#: Connections of each kind; `None`: as many as asked for.
KINDS = {
    "silent": None,
    "half a head": None,
    "half a body": None,
    "large bodies": None,
    "never read": 300,
    "line ends": 300,
}
SECONDS = 12
PAUSE = 0.02
P99_MS, GROWTH_MB, GONE_SECONDS = 250, 100, 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--asyncio", action="store_true", help="without uvloop")
    parser.add_argument("--kind", choices=["nobody", *KINDS], help="only this one")
    arguments = parser.parse_args()
    missed = 0
    print(
        f"{'':>18} {'connections':>12} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'MB':>6} {'s':>6}"
    )
    for kind, count in {"nobody": 0, **KINDS}.items():
        if arguments.kind not in (None, kind):
            continue
        with tempfile.TemporaryDirectory(dir=processes.ROOT, prefix=".benchmark-") as name:
            number = arguments.connections if count is None else count
            seen = _measure(Path(name), kind, number, arguments.asyncio)
        gone = GONE_SECONDS if kind != "large bodies" else 61
        reached = seen.p99 < P99_MS and seen.growth < GROWTH_MB and seen.gone < gone
        missed += not reached
        print(
            f"{kind:>18} {number:12,} {seen.p50:8.1f} {seen.p99:8.1f} {seen.most:8.1f}"
            f" {seen.growth:6.1f} {seen.gone:6.1f}  {'reached' if reached else 'MISSED'}",
            flush=True,
        )
    return 1 if missed else 0


def _measure(folder: Path, kind: str, count: int, without_uvloop: bool) -> SimpleNamespace:
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
        "ZIMSEND_WEBHOOK_SECRET": load.SECRET,
        "HANDLERS": "benchmarks.handlers",
        "WEB_CONCURRENCY": "1",
        "EMBEDDED_WORKER": "0",  # what is measured is the one web process
    }
    if without_uvloop:
        (folder / "uvloop.py").write_text("raise ImportError\n")
        environ["PYTHONPATH"] = f"{folder}:{processes.ROOT}"
    conf = str(processes.ROOT / "gunicorn.conf.py")
    command = [sys.executable, "-m", "gunicorn", "-c", conf, "wsgi:app"]
    with processes.running(command, folder, environ) as master:
        processes.wait_for(lambda: processes.answers(url), master, folder)
        (worker,) = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
        events = load.bodies(kind, 100_000)
        honest = _Honest(port, events)
        honest.post_for(3, pid=int(worker))  # whatever is loaded late
        seen = SimpleNamespace(gone=0.0)
        before = memory_mb(int(worker))
        honest = _Honest(port, events)
        if count:
            with strangers(port, {kind: count}) as crowd:
                honest.post_for(SECONDS, pid=int(worker))
            seen.gone = crowd.gone if crowd.gone is not None else float("inf")
        else:
            honest.post_for(SECONDS, pid=int(worker))
        took = sorted(honest.took)
        seen.p50, seen.p99, seen.most = (took[int(q * (len(took) - 1))] for q in (0.5, 0.99, 1))
        seen.growth = max(honest.memory) - before
    return seen


class _Honest:
    """Sends events one after the other, and sees how long each takes."""

    def __init__(self, port: int, events: object) -> None:
        self._port = port
        self._events = events
        self.took: list[float] = []
        self.memory: list[float] = []

    def post_for(self, seconds: float, pid: int) -> None:
        kept = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._post(kept)
            time.sleep(PAUSE)
            fresh = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            self._post(fresh)
            fresh.close()
            if len(self.took) % 20 == 0:
                self.memory.append(memory_mb(pid))
            time.sleep(PAUSE)
        kept.close()

    def _post(self, connection: http.client.HTTPConnection) -> None:
        body = next(self._events)  # type: ignore[call-overload]
        headers = {"X-Webhook-Signature": sign(load.SECRET.encode(), body)}
        began = time.monotonic()
        connection.request("POST", "/webhooks/zimsend", body, headers)
        answer = connection.getresponse()
        answer.read()
        self.took.append(1_000 * (time.monotonic() - began))
        if answer.status != 200:
            raise SystemExit(f"an honest webhook was answered {answer.status}")


def memory_mb(pid: int) -> float:
    """What a process holds of the machine's memory; of what it shares, its part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise LookupError(f"no Pss of process {pid}")


if __name__ == "__main__":
    sys.exit(main())
