"""How fast workers on one PostgreSQL empty a backlog, and whether more of them are faster.

    .venv/bin/python benchmarks/drain.py [--events N] [--workers N ...]

The same backlog is made anew for each number of `flask work` processes. Its handler waits 5 ms for
each event, as one does that calls somebody else, in 4 threads: what one process can do is bounded,
and what more of them do is bounded by the claims. The time counts from the first end of a work item
to the last one, so that starting Python is not in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import load, processes
from benchmarks.filling import groups
from benchmarks.steps import parsed
from receiver import Event, Registry
from receiver.store import open_store

_GROUP = 64


def register(registry: Registry) -> None:
    @registry.on("*", name="waiting")
    def waiting(event: Event) -> None:
        time.sleep(0.005)


def drain(folder: Path, events: int, workers: int) -> float:
    """Work items that are done in a second."""
    with ExitStack() as stack:
        url = stack.enter_context(processes.postgres())
        store = open_store(url)
        store.migrate()
        for group in groups(parsed(load.bodies("drain", events)), _GROUP):
            store.ingest(group, lambda _: ("waiting",), 30)
        store.close()
        environ = {
            "ZIMSEND_WEBHOOK_SECRET": load.SECRET,
            "DATABASE_URL": url,
            "HANDLERS": "benchmarks.drain",
            "LOG_LEVEL": "warning",
            "FLASK_SKIP_DOTENV": "1",
            "FLASK_APP": str(processes.ROOT / "wsgi.py"),
        }
        for _ in range(workers):
            command = [sys.executable, "-m", "flask", "work"]
            stack.enter_context(processes.running(command, folder, environ))
        with psycopg.connect(url, autocommit=True) as connection:
            while (done := _done(connection)) == 0:
                time.sleep(0.01)
            began, first = time.monotonic(), done
            while (done := _done(connection)) < events:
                time.sleep(0.05)
            return (done - first) / (time.monotonic() - began)


def _done(connection: psycopg.Connection) -> int:
    found = connection.execute("SELECT count(*) FROM deliveries WHERE state = 'done'").fetchone()
    return int(found[0]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], metavar="N")
    options = parser.parse_args()
    print("| workers | work items/s | of one |\n|--:|--:|--:|")
    one = None
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as folder:
            rate = drain(Path(folder), options.events, workers)
        one = one or rate
        print(f"| {workers} | {rate:,.0f} | {rate / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
