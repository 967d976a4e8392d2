"""Memory of a web process from its 10,000th event on: it must not grow with what is stored.

    .venv/bin/python benchmarks/memory.py [--events 1000000]

One gunicorn process with two handlers and its embedded worker gets distinct events as fast as it
answers. After each slice its resident memory is printed, and at the end the growth since the first
10,000 events. The goal is 20 MB at most at 1,000,000 events; a quarter of an hour.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import load, processes

FIRST = 10_000
SLICE_SECONDS = 10
#: More than the receiver takes in a slice, so that the prepared requests last.
PREPARED = SLICE_SECONDS * 15_000
MOST_GROWTH_MB = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=processes.ROOT, prefix=".benchmark-") as name:
        folder = Path(name)
        port = processes.free_port()
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "gunicorn", "-c", str(processes.ROOT / "gunicorn.conf.py")]
        environ = {
            "PORT": str(port),
            "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
            "ZIMSEND_WEBHOOK_SECRET": load.SECRET,
            "HANDLERS": "benchmarks.handlers",
            "WEB_CONCURRENCY": "1",
        }
        with processes.running([*command, "wsgi:app"], folder, environ) as master:
            processes.wait_for(lambda: processes.answers(url), master, folder)
            grown = _feed(url, folder, master.pid, arguments.events)
    print(f"growth after the first {FIRST:,} events: {grown:.1f} MB (goal: {MOST_GROWTH_MB})")
    return 0 if grown <= MOST_GROWTH_MB else 1


def _feed(url: str, folder: Path, master: int, events: int) -> float:
    """Send events slice by slice; returns the growth in MB since the first ones."""
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    # The other one runs the handlers.
    (worker,) = (c for c in children if b"gunicorn" in Path(f"/proc/{c}/cmdline").read_bytes())
    sent, number = 0, 0
    first = None
    while sent < events:
        requests = load.write_requests(folder / "requests", f"slice{number}", PREPARED)
        result = load.send(
            f"{url}/webhooks/zimsend", requests, seconds=SLICE_SECONDS, connections=32
        )
        if result.problems:
            sys.exit(f"not a clean run: {', '.join(result.problems)}")
        sent, number = sent + result.accepted, number + 1
        megabytes = _resident(int(worker))
        if first is None and sent >= FIRST:
            first = megabytes
        print(f"{sent:>9,} events: {megabytes:6.1f} MB", flush=True)
    return megabytes - (first or megabytes)


def _resident(process: int) -> float:
    """Resident memory in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("Linux tells the resident memory of a process; this system does not")


if __name__ == "__main__":
    sys.exit(main())
