"""How long `/v1` takes to answer from a large mirror, and what its size costs the webhook.

    .venv/bin/python benchmarks/mirror.py [--sizes 100000 1000000 3000000]

One SQLite database grows from size to size: messages of 90 days with their events, about two each.
At each size every question is asked many times, each time with other arguments where it has any,
and the median of the time inside the server is reported (Flask's answer without a network). The
database is in the system's cache, as that of a busy service is; the first answer does not count.

Then the whole service (one gunicorn process, two handlers, `wrk` with 32 connections) takes events
into a copy of this database and into one that has just been made, in turns.

The goals are for 1,000,000 messages; above that, twice the time is allowed. A missed goal is only
reported. An answer that is wrong (a total, the length or the order of a page) makes the exit
status 1. Times depend on the machine and on what else it does: compare those of one run, and take
a goal that is missed by little as not measured. 1,000,000 messages need 2 GB of disk; filling takes
most of the time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parent.parent))

from flask.testing import FlaskClient

from benchmarks import filling, load, processes
from benchmarks.filling import Message, Traffic
from receiver import times

DAYS = 90
REPETITIONS = 25
#: For so many messages the goals are. Beyond, `SLACK` times as long is allowed.
GOALS_FOR, SLACK = 1_000_000, 2
#: Milliseconds.
STATUS, HISTORY, SEARCH, STATISTICS = 2, 50, 150, 20
LIMIT = 50

#: Ingestion: the rate into the full database, of that into the empty one.
LEAST_RATIO = 0.9
TURNS, SECONDS = 4, 6
MOST_PER_SECOND = 4_000


@dataclass(frozen=True)
class Asked:
    """One request.

    :param total: how many messages the answer must tell of; `None` where nobody counted them.
    """

    path: str
    total: int | None = None


@dataclass(frozen=True)
class Question:
    """Requests of one kind.

    :param goal: milliseconds; `None`: there is none.
    """

    name: str
    goal: float | None
    asked: list[Asked]


class Wrong(Exception):
    """An answer is not what it must be."""


# --- the questions


class Questions:
    """What is asked of the database that this traffic has filled.

    :param until: the end of the period that the messages are spread over.
    """

    def __init__(self, traffic: Traffic, until: int) -> None:
        self._tally = traffic.tally
        self._all = traffic.made
        self._random = traffic.random
        self._remembered = traffic.remembered
        self._until = until

    def __iter__(self) -> Iterator[Question]:
        yield Question("status of one message", STATUS, self._repeat(self._status))
        yield from self._pages("history", HISTORY, lambda: ({}, self._all))
        yield from self._pages("history, 100 a page", HISTORY, lambda: ({"limit": 100}, self._all))
        for state in ("delivered", "failed", "sent"):
            yield from self._pages(f"history, status={state}", HISTORY, self._by_state(state))
        yield from self._pages("history, to", HISTORY, self._by_number)
        yield from self._pages("history, to (one in a hundred)", HISTORY, self._by_own_number)
        yield from self._pages("history, device_id", HISTORY, self._by_device)
        yield from self._pages("history, a week", HISTORY, self._by_week)
        yield from self._pages("history, days to the second", HISTORY, self._by_seconds)
        yield from self._pages("history, status=failed and device_id", None, self._by_failed_device)
        yield from self._pages("history, status=failed and a week", None, self._by_failed_week)
        yield from self._pages("history, device_id and a week", None, self._by_device_week)
        searches: dict[str, Callable[[], tuple[str, int | None]]] = {
            "an order number": self._order,
            "a name, 1 %": self._name,
            "no match": self._unknown,
            "2 characters": self._two,
            "2 characters, no match": lambda: (self._random.choice(("%%", "$$", "@@")), 0),
        }
        for name, make in searches.items():
            yield Question(f"search: {name}", SEARCH, self._repeat(self._search(make)))
        yield from self._pages(
            "search: a word, 50 %",
            SEARCH,
            lambda: ({"search": filling.WORD}, self._tally["word", filling.WORD]),
        )
        yield Question("statistics, 90 days", STATISTICS, self._repeat(self._statistics(None)))
        yield Question(
            "statistics, 90 days, one device",
            STATISTICS,
            self._repeat(self._statistics(filling.DEVICES[0])),
        )

    def _repeat(self, make: Callable[[], Asked]) -> list[Asked]:
        return [make() for _ in range(REPETITIONS + 1)]

    def _status(self) -> Asked:
        return Asked(f"/v1/sms/status/{self._message().id}")

    def _pages(
        self,
        name: str,
        goal: float | None,
        make: Callable[[], tuple[dict[str, object], int | None]],
    ) -> Iterator[Question]:
        """The first page; and the hundredth, or one of its neighbours, so that they differ."""
        for shown, first, last in (("page 1", 1, 1), ("page 100", 95, 105)):
            asked = []
            for _ in range(REPETITIONS + 1):
                arguments, total = make()
                page = self._random.randint(first, last)
                asked.append(_history(total, {"limit": LIMIT, **arguments, "page": page}))
            yield Question(f"{name}, {shown}", goal, asked)

    def _by_state(self, state: str) -> Callable[[], tuple[dict[str, object], int]]:
        return lambda: ({"status": state}, self._tally["state", state])

    def _by_number(self) -> tuple[dict[str, object], int]:
        number = filling.OWN_NUMBER
        while number == filling.OWN_NUMBER:
            number = self._message().to
        return {"to": number}, self._tally["to", number]

    def _by_own_number(self) -> tuple[dict[str, object], int]:
        return {"to": filling.OWN_NUMBER}, self._tally["to", filling.OWN_NUMBER]

    def _by_device(self) -> tuple[dict[str, object], int]:
        device = self._random.choice(filling.DEVICES)
        return {"device_id": device}, self._tally["device", device]

    def _by_failed_device(self) -> tuple[dict[str, object], int]:
        device = self._random.choice(filling.DEVICES)
        total = self._tally["state and device", "failed", device]
        return {"status": "failed", "device_id": device}, total

    def _by_week(self, kind: str = "day", *of: str) -> tuple[dict[str, object], int]:
        first = self._until - self._random.randrange(7, DAYS) * times.DAY
        days = [times.iso(first + day * times.DAY)[:10] for day in range(7)]
        total = sum(self._tally[kind, day, *of] for day in days)
        return {"from_date": days[0], "to_date": days[-1]}, total

    def _by_failed_week(self) -> tuple[dict[str, object], int]:
        arguments, total = self._by_week("day and state", "failed")
        return {"status": "failed", **arguments}, total

    def _by_device_week(self) -> tuple[dict[str, object], int]:
        device = self._random.choice(filling.DEVICES)
        arguments, total = self._by_week("day and device", device)
        return {"device_id": device, **arguments}, total

    def _by_seconds(self) -> tuple[dict[str, object], None]:
        """From within a day to within another, or within the same."""
        since = self._until - self._random.randrange(5 * times.DAY, DAYS * times.DAY)
        until = since + self._random.randrange(times.HOUR, 5 * times.DAY)
        bounds = {"from_date": since, "to_date": until}
        return {name: times.iso(at - at % times.SECOND) for name, at in bounds.items()}, None

    def _search(self, make: Callable[[], tuple[str, int | None]]) -> Callable[[], Asked]:
        def asked() -> Asked:
            text, total = make()
            return _history(total, {"search": text, "limit": LIMIT})

        return asked

    def _order(self) -> tuple[str, int]:
        order = None
        while order is None:
            order = self._message().order
        return order, 1

    def _name(self) -> tuple[str, int]:
        name = self._random.choice(filling.NAMES)
        return name, self._tally["name", name]

    def _unknown(self) -> tuple[str, int]:
        return f"Wolfgang{self._random.randrange(1000)}", 0

    def _two(self) -> tuple[str, None]:
        """In many messages or in few."""
        return f"{self._random.randrange(100):02}", None

    def _statistics(self, device: str | None) -> Callable[[], Asked]:
        kind, of = ("day", ()) if device is None else ("day and device", (device,))
        days = {key[1] for key in self._tally if key[0] == "day"}

        def asked() -> Asked:
            # Some days more than there are: each request differs, and all are answered alike.
            first = self._until - (DAYS + self._random.randrange(9)) * times.DAY
            arguments = {"from_date": times.iso(first)[:10], "to_date": times.iso(times.now())[:10]}
            if device is not None:
                arguments["device_id"] = device
            total = sum(self._tally[kind, day, *of] for day in days)
            return Asked(f"/v1/sms/stats?{urlencode(arguments)}", total)

        return asked

    def _message(self) -> Message:
        return self._random.choice(self._remembered)


def _history(total: int | None, arguments: dict[str, object]) -> Asked:
    return Asked(f"/v1/sms/history?{urlencode(arguments)}", total)


# --- the answers


def measure(client: FlaskClient, question: Question) -> float:
    """The median in milliseconds.

    :raises Wrong: if an answer is not right.
    """
    taken = []
    for asked in question.asked:
        began = time.perf_counter()
        response = client.get(asked.path)
        body = response.get_data()
        taken.append(1000 * (time.perf_counter() - began))
        if response.status_code != 200:
            raise Wrong(f"{asked.path}: {response.status_code} {body.decode()[:200]}")
        _check(asked, json.loads(body))
    return median(taken[1:])


def _check(asked: Asked, answer: dict[str, Any]) -> None:
    problem = None
    if "stats" in answer:
        stats = answer["stats"]
        total = stats["total_sent"] + stats["pending"]
        if sum(day["sent"] for day in stats["by_day"]) != stats["total_sent"]:
            problem = "its days do not add up"
    elif "pagination" in answer:
        pagination = answer["pagination"]
        total = pagination["total"]
        skipped = (pagination["page"] - 1) * pagination["limit"]
        moments = [message["sent_at"] for message in answer["data"]]
        if len(moments) != max(0, min(pagination["limit"], total - skipped)):
            problem = f"{len(moments)} messages on this page of {total} in all"
        elif moments != sorted(moments, reverse=True):
            problem = "not the newest first"
    else:
        total = None
        if not asked.path.endswith(answer["message_id"]) or not answer["events_total"]:
            problem = "not the message that was asked for"
    if asked.total is not None and asked.total != total:
        problem = f"{total} messages instead of {asked.total}"
    if problem:
        raise Wrong(f"{asked.path}: {problem}")


# --- ingestion


@dataclass(frozen=True)
class Ingestion:
    """Events a second, and the slowest 1 % of the answers in milliseconds."""

    full: float
    empty: float
    p99: float
    #: The one rate divided by the other, turn by turn, and the median of that.
    ratio: float


def measure_ingestion(folder: Path, database: Path) -> Ingestion:
    """The whole service under full load, in turns: with a copy of the database, and a new one."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = folder / "copy.db"
    shutil.copyfile(database, copy)
    full, empty = [], []
    for turn in range(TURNS):
        new = folder / f"new-{turn}.db"
        # Whoever is first would gain or lose by it, if it were always the same.
        for which in (turn % 2, 1 - turn % 2):
            runs, path = ((full, copy), (empty, new))[which]
            runs.append(_one_turn(folder, path, f"{turn} {which}"))
        for left in folder.glob(f"{new.name}*"):
            left.unlink()
    for left in folder.glob(f"{copy.name}*"):
        left.unlink()
    return Ingestion(
        median(run.rate for run in full),
        median(run.rate for run in empty),
        median(run.p99 for run in full),
        median(a.rate / b.rate for a, b in zip(full, empty, strict=True)),
    )


@dataclass(frozen=True)
class _Run:
    rate: float
    p99: float


def _one_turn(folder: Path, database: Path, name: str) -> _Run:
    warm_up = load.write_requests(folder / "warm-up", f"warm-up {name}", 2 * MOST_PER_SECOND)
    measured = load.write_requests(folder / "measured", name, SECONDS * MOST_PER_SECOND)
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": load.SECRET,
        "DATABASE_URL": f"sqlite:///{database}",
        "HANDLERS": "benchmarks.handlers",
        "LOG_LEVEL": "warning",
    }
    with processes.gunicorn("wsgi:app", folder, environ) as url:
        load.send(url, warm_up, seconds=2, connections=32)
        run = load.send(url, measured, seconds=SECONDS, connections=32)
    if run.problems:
        raise Wrong(f"ingestion: {', '.join(run.problems)}")
    return _Run(run.accepted / run.seconds, run.p99)


# --- the report


class Table:
    """One row for each question, one column for each size."""

    def __init__(self) -> None:
        self._rows: dict[str, list[str]] = {}
        self._goals: dict[str, str] = {}

    def add(self, name: str, goal: str, cell: str) -> None:
        self._rows.setdefault(name, []).append(cell)
        self._goals[name] = goal

    def print(self, sizes: Sequence[int]) -> None:
        print("\n| median, ms |", *(f"{size:,} |" for size in sizes), "goal |")
        print("|---|", "--:|" * (len(sizes) + 1), sep="")
        for name, cells in self._rows.items():
            print(f"| {name} |", *(f"{cell} |" for cell in cells), f"{self._goals[name]} |")


def _marked(text: str, missed: bool) -> str:
    return f"{text} MISSED" if missed else text


def report(folder: Path, sizes: Sequence[int]) -> None:
    """:raises Wrong: if an answer is not right."""
    database = folder / "receiver.db"
    traffic, table = Traffic(), Table()
    until = times.now() - times.MINUTE
    measured = []
    try:
        for size in sizes:
            missing = max(size - traffic.made, 0)
            filling.fill(database, traffic, missing, since=until - DAYS * times.DAY, until=until)
            measured.append(size)
            _ask_all(filling.client(database), Questions(traffic, until), size, table)
            _ingest(measure_ingestion(folder, database), table)
            table.add("the file, MB", "", f"{filling.megabytes(database):,.0f}")
    finally:
        table.print(measured)  # what there is, also where an answer was wrong


def _ask_all(client: FlaskClient, questions: Questions, size: int, table: Table) -> None:
    slack = SLACK if size > GOALS_FOR else 1
    for question in questions:
        taken = measure(client, question)
        print(f"{size:,}: {question.name}: {taken:.1f} ms", file=sys.stderr, flush=True)
        goal = question.goal
        missed = goal is not None and taken > goal * slack
        table.add(question.name, "" if goal is None else f"{goal}", _marked(f"{taken:.1f}", missed))


def _ingest(ingestion: Ingestion, table: Table) -> None:
    table.add("events/s, this database", "", f"{ingestion.full:,.0f}")
    table.add("events/s, an empty one", "", f"{ingestion.empty:,.0f}")
    table.add("slowest 1 % of these answers", "", f"{ingestion.p99:.0f}")
    cell = _marked(f"{ingestion.ratio:.2f}", ingestion.ratio < LEAST_RATIO)
    table.add("the one of the other, median of the turns", f"{LEAST_RATIO}", cell)


# --- the command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000], metavar="N")
    options = parser.parse_args()
    if min(options.sizes) < 20_000:
        parser.error("with less than 20,000 messages there is nothing to measure")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=processes.ROOT) as created:
        try:
            report(Path(created), sorted(options.sizes))
        except Wrong as wrong:
            print(f"\nWRONG: {wrong}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
