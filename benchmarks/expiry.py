"""What an expiry costs the webhook: events come in while a large mirror is forgotten.

    .venv/bin/python benchmarks/expiry.py [--messages 1000000] [--rate 300] [--at-most SECONDS]

A SQLite database is filled with messages that are older than the retention, and a tenth as many
that are not. Then one gunicorn process with two handlers, its embedded worker and its own upkeep is
started on it, which begins to delete them at once, and gets events at a steady rate until all that
is old is gone and the space has been given back. Two more slices of the load follow, to compare
with. The latencies are those that the sender sees.

An answer other than 200, statistics of the old days that are not the same afterwards to the last
byte, a message that should have stayed and went, and an expiry that does not end in time make the
exit status 1; a missed goal is only reported. Latencies depend on the machine and on what else it
does at the time: another program that writes to the same disk is in them.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import filling, load, processes
from benchmarks.filling import RETENTION, Traffic
from benchmarks.load import Load
from receiver import times

SLICE_SECONDS = 10
SLICES_AFTERWARDS = 2
CONNECTIONS = 32
P99_GOAL = 100.0  # milliseconds
#: The old messages' days end so long before the retention does: none of them is young by accident.
MARGIN = 2 * times.DAY
OLD_DAYS, YOUNG_DAYS = 30, 60
#: One young message for so many old ones.
YOUNG_ONE_IN = 10
#: Some free pages are kept for what comes next, so this many are as good as none.
FREE_PAGES = 512


@dataclass(frozen=True)
class State:
    """The database as another process sees it, at one moment."""

    old: int
    free_pages: int

    @property
    def finished(self) -> bool:
        return not self.old and self.free_pages <= FREE_PAGES


class Mirror:
    """The database of the benchmark.

    :param now: its messages' ages count from here.
    """

    def __init__(self, folder: Path, messages: int, now: int) -> None:
        self.path = folder / "receiver.db"
        self.young = messages // YOUNG_ONE_IN
        self._old_until = now - RETENTION - MARGIN
        self._old_since = self._old_until - OLD_DAYS * times.DAY
        self._young_since = now - YOUNG_DAYS * times.DAY
        traffic = Traffic()
        for count, since, until, days in (
            (messages, self._old_since, self._old_until, OLD_DAYS),
            (self.young, self._young_since, now - times.HOUR, YOUNG_DAYS),
        ):
            filling.fill(self.path, traffic, count, since=since, until=until, days=days)
        if (found := self.state().old) != messages:
            raise SystemExit(f"{found:,} old messages are in the statistics, not {messages:,}")

    def state(self) -> State:
        # By the statistics: to count the messages themselves would read them, again and again.
        with closing(self._connect()) as connection:
            (old,) = connection.execute(
                "SELECT coalesce(sum(live), 0) FROM statistics WHERE day <= ?",
                (self._old_until // times.DAY,),
            ).fetchone()
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        return State(old, free)

    def statistics(self) -> list[bytes]:
        """The old days as `/v1/sms/stats` tells them, of all devices and of each."""
        client = filling.client(self.path)
        bounds = {"from_date": self._old_since, "to_date": self._old_until}
        period = {name: times.iso(moment)[:10] for name, moment in bounds.items()}
        answers = []
        for device in (None, *filling.DEVICES):
            arguments = period if device is None else {**period, "device_id": device}
            response = client.get(f"/v1/sms/stats?{urlencode(arguments)}")
            if response.status_code != 200:
                raise SystemExit(f"/v1/sms/stats: {response.status_code} {response.text}")
            answers.append(response.get_data())
        client.application.extensions["receiver"].store.close()
        return answers

    def left_and_lost(self) -> list[str]:
        """What is wrong with the rows themselves, now that the expiry is over."""
        found = {}
        with closing(self._connect()) as connection:
            for what, query in _ROWS.items():
                found[what] = connection.execute(
                    query, {"old_until": self._old_until, "young": self._young_since}
                ).fetchone()[0]
        problems = [
            f"{count:,} {what}" for what, count in found.items() if what != "young" and count
        ]
        if found["young"] < self.young:
            problems.append(f"{self.young - found['young']:,} young messages are lost")
        return problems

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)


_ROWS = {
    "old messages are left": "SELECT count(*) FROM messages WHERE at <= :old_until",
    # A little later than the last message: its end came after it.
    "old events are left": (
        f"SELECT count(*) FROM events WHERE received_at <= :old_until + {times.HOUR}"
    ),
    "events have lost their message": (
        "SELECT count(*) FROM events AS e"
        " WHERE NOT EXISTS (SELECT 1 FROM messages WHERE id = e.message_id)"
    ),
    "texts in the search index have lost their message": (
        "SELECT count(*) FROM search WHERE rowid NOT IN (SELECT key FROM messages)"
    ),
    "young": "SELECT count(*) FROM messages WHERE at >= :young",
}


@dataclass
class Results:
    """One `Load` for each slice. Seconds count from the start of the process."""

    during: list[Load]
    afterwards: list[Load]
    #: When the last old message was gone, and when the space was given back, too.
    deleted: float | None = None
    finished: float | None = None

    @property
    def refused(self) -> list[str]:
        return [problem for run in (*self.during, *self.afterwards) for problem in run.problems]


class Bench:
    def __init__(self, folder: Path, mirror: Mirror, options: argparse.Namespace) -> None:
        self._folder = folder
        self._mirror = mirror
        self._options = options
        self._slices = 0

    def run(self) -> Results:
        environ = {
            "ZIMSEND_WEBHOOK_SECRET": load.SECRET,
            "DATABASE_URL": f"sqlite:///{self._mirror.path}",
            "WEB_CONCURRENCY": "1",
            "EMBEDDED_WORKER": "1",
            "HANDLERS": "benchmarks.handlers",
        }
        results = Results([], [])
        began = time.monotonic()
        print("\n| second | events/s | p50 ms | p99 ms | old messages | free pages | MB |")
        print("|--:|--:|--:|--:|--:|--:|--:|")
        with processes.gunicorn("wsgi:app", self._folder, environ) as url:
            while results.finished is None:
                if time.monotonic() - began > self._options.at_most:
                    break
                results.during.append(self._slice(url, began, results))
            for _ in range(SLICES_AFTERWARDS):
                results.afterwards.append(self._slice(url, began, results))
        return results

    def _slice(self, url: str, began: float, results: Results) -> Load:
        """Send for a while, and watch the database meanwhile."""
        self._slices += 1
        requests = load.write_requests(
            self._folder / "requests",
            f"slice{self._slices}",
            int(self._options.rate * SLICE_SECONDS * 1.2) + CONNECTIONS,
        )
        with ThreadPoolExecutor() as executor:
            sender = executor.submit(
                load.send,
                f"{url}/webhooks/zimsend",
                requests,
                seconds=SLICE_SECONDS,
                connections=CONNECTIONS,
                rate=self._options.rate,
            )
            while wait([sender], timeout=1).not_done:
                self._watch(began, results)
            sent = sender.result()
        state = self._watch(began, results)
        print(
            f"| {time.monotonic() - began:.0f} | {sent.accepted / sent.seconds:,.0f}"
            f" | {sent.p50:.1f} | {sent.p99:.1f} | {state.old:,} | {state.free_pages:,}"
            f" | {filling.megabytes(self._mirror.path):,.0f} |",
            flush=True,
        )
        return sent

    def _watch(self, began: float, results: Results) -> State:
        state = self._mirror.state()
        now = time.monotonic() - began
        if not state.old and results.deleted is None:
            results.deleted = now
        if state.finished and results.finished is None:
            results.finished = now
        return state


def report(results: Results, messages: int) -> None:
    print()
    if results.deleted is not None:
        rate = messages / results.deleted
        print(f"- {messages:,} messages deleted in {results.deleted:.0f} s: {rate:,.0f} a second")
    if results.finished is not None:
        print(f"- finished, with the space given back, after {results.finished:.0f} s")
    for name, runs in (("during", results.during), ("afterwards", results.afterwards)):
        worst = max(run.p99 for run in runs)
        print(
            f"- {name}: {sum(run.accepted for run in runs):,} events accepted; p99 of the slices:"
            f" median {median(run.p99 for run in runs):.1f} ms, worst {worst:.1f} ms"
        )
    # No more than one event in a hundred of any slice took longer, so none of all did either.
    worst = max(run.p99 for run in results.during)
    over = sum(run.p99 >= P99_GOAL for run in results.during)
    verdict = "MISSED" if over else "reached"
    print(
        f"- {verdict}: p99 of all events during the expiry is at most {worst:.1f} ms"
        f" (under {P99_GOAL:.0f}; {over} of {len(results.during)} slices are not)"
    )


# --- the command


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is ended
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=processes.ROOT) as created:
        folder = Path(created)
        mirror = Mirror(folder, options.messages, times.now())
        before, size = mirror.statistics(), filling.megabytes(mirror.path)
        results = Bench(folder, mirror, options).run()
        report(results, options.messages)
        print(f"- the file: {size:,.0f} MB before, {filling.megabytes(mirror.path):,.0f} MB after")
        problems = results.refused
        if results.finished is None:
            problems.append(f"not finished after {options.at_most} s")
        else:
            problems += mirror.left_and_lost()
        if mirror.statistics() != before:
            problems.append("/v1/sms/stats of the old days has changed")
        else:
            print("- /v1/sms/stats of the old days is the same, of all devices and of each")
        for problem in problems:
            print(f"- WRONG: {problem}")
    return 1 if problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000, help="that are old")
    parser.add_argument("--rate", type=float, default=300, help="events a second")
    parser.add_argument("--at-most", type=int, default=1500, help="seconds that it may take")
    options = parser.parse_args()
    if options.messages < 1_000:
        parser.error("with less than 1,000 messages there is nothing to measure")
    if not shutil.which("wrk"):
        parser.error("wrk is not installed (Debian: apt install wrk)")
    return options


if __name__ == "__main__":
    sys.exit(main())
