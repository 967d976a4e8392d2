"""What people at the dashboard and the webhook cost each other.

    .venv/bin/python benchmarks/dashboard_beside.py [--database FILE] [--postgres] [--seconds 20]
                                                    [--rate 300] [--readers 6]

One gunicorn as `make run` starts it, with its worker. Events come in at a steady rate, in turns
with nobody at the dashboard and with so many open `/live` pages, each of which reads as its script
does; told is the webhook's 99th percentile, of all turns. The goal is that it grows by less than a
tenth. Then each page is asked for again and again while events come in; told is the 99th
percentile of its first byte, whose goal is 150 ms.

`--database` is a file that `benchmarks/dashboard.py` has filled; it is written into. By default the
database is empty. With `--postgres` it is copied into a PostgreSQL of its own. Each needs `wrk`.
"""

from __future__ import annotations

import argparse
import http.client
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from app import create_app
from benchmarks import load, processes
from receiver.store import open_store
from receiver.store.copying import copy

PAGES = (
    *("/", "/messages", "/messages?status=failed", "/messages?q=commande"),
    *("/events", "/events?state=dead", "/events?type=device.*", "/failures", "/live", "/losses"),
    *("/quarantine", "/settings"),
)
#: As the script of the page has it: seconds between two looks, and the part of its time that a
#: server spends on one page.
LOOK, SHARE = 1.5, 20
ROUNDS = 3
FIRST_BYTE_MS, GROWTH = 150, 1.1


class Person:
    """A browser that has signed in, on one connection."""

    def __init__(self, url: str, session: str) -> None:
        self._host = url.removeprefix("http://")
        self._headers = {"Cookie": f"zimsend_session={session}"}
        self._connection = http.client.HTTPConnection(self._host, timeout=30)

    def get(self, path: str) -> tuple[float, str]:
        """Milliseconds until the first byte, and the page."""
        began = time.monotonic()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        first_byte = 1_000 * (time.monotonic() - began)
        text = answer.read().decode()
        if answer.status != 200:
            raise SystemExit(f"{path} was answered {answer.status}")
        return first_byte, text


@contextmanager
def reading_live(url: str, session: str, count: int) -> Iterator[list[int]]:
    """So many open pages; gives the numbers of events that each has seen."""
    seen = [0] * count
    over = threading.Event()

    def read(number: int) -> None:
        person = Person(url, session)
        path, wait = "/live", 0.0
        while not over.wait(wait):
            began = time.monotonic()
            _, text = person.get(path)
            took = time.monotonic() - began
            (found,) = re.findall(r'data-live="([^"]+)"', text)
            path = unescape(found)
            seen[number] += text.count('<li id="event-')
            wait = max(0 if "data-full" in text else LOOK, SHARE * took)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--database", type=Path)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--seconds", type=int, default=20, help="of each turn")
    parser.add_argument("--rate", type=int, default=300, help="events a second")
    parser.add_argument("--readers", type=int, default=6)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=processes.ROOT, prefix=".benchmark-") as name:
        folder = Path(name)
        database = asked.database or folder / "receiver.db"
        source = f"sqlite:///{database.absolute()}"
        with on_postgres(source) if asked.postgres else as_it_is(source) as url:
            return measure(folder, url, asked)


def measure(folder: Path, database_url: str, asked: argparse.Namespace) -> int:
    environ = {
        "DATABASE_URL": database_url,
        "ZIMSEND_WEBHOOK_SECRET": load.SECRET,
        "HANDLERS": "benchmarks.handlers",
        "ADMIN_PASSWORD": "benchmark",
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    }
    app = create_app(environ)
    app.extensions["receiver"].store.migrate()
    session = app.extensions["receiver.dashboard"].tokens.session()
    app.extensions["receiver"].store.close()
    turn = iter(range(1_000))

    def send(seconds: int) -> load.Load:
        count = int(1.2 * seconds * asked.rate) + 100
        requests = load.write_requests(folder / "requests", f"{time.time()} {next(turn)}", count)
        made = load.send(url, requests, seconds=seconds, connections=8, rate=asked.rate)
        if made.problems:
            raise SystemExit("; ".join(made.problems))
        return made

    with processes.gunicorn("wsgi:app", folder, environ) as url:
        send(3)  # whatever is loaded late
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone.append(send(asked.seconds).p99)
            with reading_live(url, session, asked.readers) as seen:
                beside.append(send(asked.seconds).p99)
            shown = sum(seen) // max(1, len(seen))
        reached = median(beside) < GROWTH * median(alone)
        print(
            f"webhook's p99 at {asked.rate}/s: {median(alone):.1f} ms with nobody"
            f" ({', '.join(f'{p99:.1f}' for p99 in alone)}), {median(beside):.1f} ms beside"
            f" {asked.readers} open /live pages ({', '.join(f'{p99:.1f}' for p99 in beside)});"
            f" each showed {shown:,} events in the last turn"
            f"  {'reached' if reached else 'MISSED'}",
            flush=True,
        )
        pages = first_bytes(url, session, lambda: send(2 * asked.seconds))
    for path, took in pages.items():
        took.sort()
        p99 = took[int(0.99 * (len(took) - 1))]
        reached = reached and p99 < FIRST_BYTE_MS
        told = "reached" if p99 < FIRST_BYTE_MS else "MISSED"
        print(f"{path:>30}  first byte p50 {median(took):6.1f} ms, p99 {p99:6.1f} ms  {told}")
    return 0 if reached else 1


def first_bytes(url: str, session: str, send: object) -> dict[str, list[float]]:
    """Of each page, in turns, as long as events are sent."""
    sending = threading.Thread(target=send)  # type: ignore[arg-type]
    sending.start()
    person = Person(url, session)
    took: dict[str, list[float]] = {path: [] for path in PAGES}
    while sending.is_alive():
        for path in PAGES:
            took[path].append(person.get(path)[0])
            time.sleep(0.02)  # a person reads
    sending.join()
    return took


@contextmanager
def as_it_is(url: str) -> Iterator[str]:
    yield url


@contextmanager
def on_postgres(source_url: str) -> Iterator[str]:
    """A copy in a PostgreSQL as it comes."""
    with processes.postgres() as url:
        source, target = open_store(source_url), open_store(url)
        for store in (source, target):
            store.migrate()
        copy(source, target, lambda *_: None)
        source.close()
        target.close()
        yield url


if __name__ == "__main__":
    sys.exit(main())
