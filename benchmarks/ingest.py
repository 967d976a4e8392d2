"""How many signed events a second come in, and how long each waits for its 200.

    .venv/bin/python benchmarks/ingest.py [--rounds N] [--seconds S] [--only NAME ...]
        [--database postgres] ...

The applications get the same load, in turns:

- `gunicorn`: a WSGI application that does nothing, the most that gunicorn's threads give on this
  machine;
- `empty`: a Flask route that does nothing;
- `insert`: verify, one INSERT, and a commit of its own for each request: what one writes first;
- `celery`: the provider's recommendation, Flask + Celery + Redis, with a worker that runs;
- `fastify`: verify, one INSERT, and a commit of its own for each request, by hand in JavaScript:
  what one writes first elsewhere;
- `receiver`: this project, with two handlers that want every event and its embedded worker, on
  SQLite;
- `postgres`: the same on a PostgreSQL of its own, with the settings that PostgreSQL comes with
  (`--database postgres`, or `--only`).

The first four are served by gunicorn's own `gthread` with `--threads` threads, as one would serve
them; this project by its event loop; both with its `gunicorn.conf.py`. `fastify` has
Node's event loop, and Node's `cluster` where there are several processes.

Rates depend on the machine and on what else it does at the time, so what counts is the **ratio
within one round**, and the median of it over the rounds. The load comes from `wrk` on the same
machine: distinct signed events over kept-alive connections to 127.0.0.1, each sent as soon as the
one before it is answered. A run that is not clean (an answer other than 200, a broken connection,
fewer events stored than acknowledged) makes the exit status 1; a missed goal is only reported.

Then the receiver gets half the rate that it reached, and its backlog is read once a second: it
must not grow. At last the steps of one event are timed one by one (`steps.py`), to see where the
time goes.

`celery` needs `redis-server`, and an interpreter that has `benchmarks/requirements.txt` beside
`requirements.txt`. `fastify` needs `node` and `npm`, which installs it for this run; before Node 22
that compiles SQLite, and takes a minute. Without them they are left out, and the report says so.
The databases are made beside the project, on the disk that it is on: a RAM disk would make every
commit free.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import handlers, load, processes, steps
from receiver import times
from receiver.store import open_store

#: More than any of the applications reaches, so that the prepared requests last.
MOST_PER_SECOND = 15_000
WARM_UP = 2  # seconds


@dataclass(frozen=True)
class Target:
    """One of the applications.

    :param app: for gunicorn; a script ends in `.js`, and is for Node.
    :param table: where each acknowledged event must be found.
    """

    app: str
    table: str | None = None
    environ: dict[str, str] = field(default_factory=dict)


TARGETS = {
    "gunicorn": Target("benchmarks.apps.nothing:app"),
    "empty": Target("benchmarks.apps.empty:app"),
    "insert": Target("benchmarks.apps.insert:app", "received"),
    "celery": Target("benchmarks.apps.celery_redis:app"),
    "fastify": Target("server.js", "received"),
    "receiver": Target(
        "wsgi:app", "events", {"EMBEDDED_WORKER": "1", "HANDLERS": "benchmarks.handlers"}
    ),
    "postgres": Target(
        "wsgi:app", "events", {"EMBEDDED_WORKER": "1", "HANDLERS": "benchmarks.handlers"}
    ),
}
#: Those that are this project.
OURS = ("receiver", "postgres")

#: Who is compared with whom, by how many processes: what it must reach, and the aim.
GOALS = {
    ("receiver", "empty", 1): (1.6, 2.0),
    ("receiver", "empty", 2): (0.75, 0.9),
    ("postgres", "empty", 1): (1.2, 1.5),
    ("receiver", "celery", 1): (3.5, 4.0),
    ("receiver", "fastify", 1): (1.15, 1.4),
}
P99_GOAL = 40.0  # milliseconds


@dataclass(frozen=True)
class Run:
    """An application under full load. Latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    problems: tuple[str, ...]


class Bench:
    """Runs the applications one at a time, each in a new folder with a new database.

    :param folder: is filled with requests, and with what the applications store.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._options = options
        self._warm_up = load.write_requests(folder / "warm-up", "warm", WARM_UP * MOST_PER_SECOND)
        self._measured = load.write_requests(
            folder / "measured", "run", options.seconds * MOST_PER_SECOND
        )

    def full_load(self, name: str, workers: int) -> Run:
        """As much as the application takes."""
        connections = self._options.connections
        with self._serving(name, workers) as (url, database):
            warm_up = load.send(url, self._warm_up, seconds=WARM_UP, connections=connections)
            run = load.send(
                url, self._measured, seconds=self._options.seconds, connections=connections
            )
            problems = [*warm_up.problems, *run.problems]
            problems += _lost(database, TARGETS[name].table, warm_up.accepted + run.accepted)
        return Run(run.accepted / run.seconds, run.p50, run.p99, tuple(problems))

    def backlogs(self, name: str, workers: int, rate: float) -> tuple[float, list[int]]:
        """Give the receiver so many events a second.

        :returns: how many a second came in, and the work items that waited, second by second.
        """
        waiting = []
        with (
            self._serving(name, workers) as (url, database),
            closing(open_store(database)) as store,
            ThreadPoolExecutor() as executor,
        ):
            sender = executor.submit(
                load.send,
                url,
                self._measured,
                seconds=self._options.seconds,
                connections=self._options.connections,
                rate=rate,
            )
            while wait([sender], timeout=1).not_done:
                waiting.append(store.backlog(times.now(), handlers.NAMES)[0])
            sent = sender.result()
        if sent.problems:
            raise SystemExit(f"at half rate: {', '.join(sent.problems)}")
        return sent.accepted / sent.seconds, waiting

    @contextmanager
    def _serving(self, name: str, workers: int) -> Iterator[tuple[str, str]]:
        """Start an application; gives its URL, and that of its database."""
        target = TARGETS[name]
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        environ = {
            "ZIMSEND_WEBHOOK_SECRET": load.SECRET,
            "DATABASE_URL": f"sqlite:///{folder / 'receiver.db'}",
            "WEB_CONCURRENCY": str(workers),
            "LOG_LEVEL": "warning",
            # The other applications have no worker that gunicorn's hooks could start.
            "EMBEDDED_WORKER": "0",
            **target.environ,
        }
        with ExitStack() as stack:
            if name == "celery":
                environ["BROKER_URL"] = stack.enter_context(processes.redis_server(folder))
                celery_app = target.app.replace(":app", ":celery")
                stack.enter_context(processes.celery_worker(celery_app, folder, environ))
            if name == "postgres":
                environ["DATABASE_URL"] = stack.enter_context(processes.postgres())
            if target.app.endswith(".js"):
                script = self._folder / name / target.app
                serving = processes.node(script, folder, environ)
            else:
                options = ["--worker-class", "gthread", "--keep-alive", "5"]
                options += ["--threads", str(self._options.threads)]
                serving = processes.gunicorn(
                    target.app, folder, environ, () if name in OURS else options
                )
            url = stack.enter_context(serving)
            yield url, environ["DATABASE_URL"]
        shutil.rmtree(folder)


def _lost(database: str, table: str | None, acknowledged: int) -> list[str]:
    """What is wrong if fewer events are stored than were acknowledged."""
    if table is None:
        return []
    path = database.removeprefix("sqlite:///")
    connected = psycopg.connect(database) if path == database else sqlite3.connect(path, timeout=10)
    with closing(connected) as connection:
        (stored,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return [f"{acknowledged} acknowledged, {stored} stored"] if stored < acknowledged else []


# --- the report


class Results:
    """The runs of all rounds, by application and number of processes."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, int], list[Run]] = {}

    def add(self, name: str, workers: int, run: Run) -> None:
        self.runs.setdefault((name, workers), []).append(run)

    def rate(self, name: str, workers: int) -> float | None:
        runs = self.runs.get((name, workers))
        return median(run.rate for run in runs) if runs else None

    def ratio(self, name: str, base: str, workers: int) -> float | None:
        """The median over the rounds; `None` if one of the two was not measured."""
        runs, base_runs = self.runs.get((name, workers)), self.runs.get((base, workers))
        if not runs or not base_runs:
            return None
        return median(a.rate / b.rate for a, b in zip(runs, base_runs, strict=True))

    @property
    def clean(self) -> bool:
        return not any(run.problems for runs in self.runs.values() for run in runs)


def report_rates(results: Results) -> None:
    print("\n| processes | application | events/s | of the empty route | p50 ms | p99 ms |")
    print("|--:|---|--:|--:|--:|--:|")
    for (name, workers), runs in results.runs.items():
        rate, p50, p99 = (
            median(getattr(run, key) for run in runs) for key in ("rate", "p50", "p99")
        )
        ratio = _or_blank(results.ratio(name, "empty", workers))
        print(f"| {workers} | {name} | {rate:,.0f} | {ratio} | {p50:.1f} | {p99:.1f} |")


def report_goals(results: Results) -> None:
    print("\nGoals:\n")
    for (ours, base, workers), (least, aim) in GOALS.items():
        ratio = results.ratio(ours, base, workers)
        if ratio is not None:
            verdict = "MISSED" if ratio < least else "reached" if ratio < aim else "aim reached"
            print(
                f"- {verdict}: {ours} is {ratio:.2f} of {base} with {_processes(workers)}"
                f" (must: {least:.2f}, aim: {aim:.2f})"
            )
    for (name, workers), runs in results.runs.items():
        if name in OURS:
            p99 = median(run.p99 for run in runs)
            verdict = "reached" if p99 < P99_GOAL else "MISSED"
            print(
                f"- {verdict}: {name}, p99 {p99:.1f} ms with {_processes(workers)}"
                f" (under {P99_GOAL:.0f})"
            )


def report_backlogs(bench: Bench, results: Results) -> None:
    print("\nWork items that wait at half that rate, second by second:\n")
    for name, workers in results.runs:
        if name in OURS:
            rate, waiting = bench.backlogs(name, workers, (results.rate(name, workers) or 0) / 2)
            print(f"- {name}, {_processes(workers)}, {rate:,.0f} events/s:", *waiting)


def report_steps(results: Results, measured: Sequence[steps.Step]) -> None:
    """Where the time of one event goes, in one process under full load."""
    whole = results.rate("receiver", 1)
    rows = list(measured)
    if whole:
        rest = 1e6 / whole - sum(step.processor for step in rows if step.counts)
        rows.append(steps.Step("the rest: reading, answering, threads in turns", rest, rest))
        rows.append(steps.Step("one event under full load", 1e6 / whole, 1e6 / whole))
    print(
        "\nWhere the time goes, in microseconds for one event, with 1 process. The whole comes from"
        "\nthe rates above; the rest is what the steps leave of the whole, and other programs on"
        "\nthis machine are in it as well.\n"
    )
    print("| step | on the clock | on the processor | share |")
    print("|---|--:|--:|--:|")
    for step in rows:
        share = f"{step.processor * whole / 1e4:.0f} %" if whole and step.counts else ""
        print(f"| {step.name} | {step.clock:,.0f} | {step.processor:,.0f} | {share} |")


def _or_blank(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _processes(workers: int) -> str:
    return "1 process" if workers == 1 else f"{workers} processes"


# --- the command


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is ended
    names = options.only or [n for n in TARGETS if n != "postgres" or options.database == n]
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=processes.ROOT) as created:
        folder = Path(created)
        (folder / ".gitignore").write_text("*\n")
        names = [name for name in names if _possible(name, folder)]
        bench = Bench(folder, options)
        results = run_rounds(bench, names, options)
        report_rates(results)
        report_goals(results)
        report_backlogs(bench, results)
        report_steps(results, steps.measure(folder))
    return 0 if results.clean else 1


def run_rounds(bench: Bench, names: Sequence[str], options: argparse.Namespace) -> Results:
    results = Results()
    for number in range(1, options.rounds + 1):
        for workers in options.processes:
            for name in names:
                run = bench.full_load(name, workers)
                results.add(name, workers, run)
                line = f"round {number}/{options.rounds}, {_processes(workers)}, {name}:"
                line += f" {run.rate:,.0f}/s, p50 {run.p50:.1f} ms, p99 {run.p99:.1f} ms"
                line += "".join(f", WORTHLESS: {problem}" for problem in run.problems)
                print(line, file=sys.stderr, flush=True)
    return results


def _possible(name: str, folder: Path) -> bool:
    """Whether this machine has what an application needs; what can be installed is, there."""
    why = None
    if name == "celery":
        missing = [module for module in ("celery", "redis") if not importlib.util.find_spec(module)]
        missing += [] if shutil.which("redis-server") else ["redis-server"]
        why = f"there is no {' and no '.join(missing)} here" if missing else None
    if name == "fastify":
        why = processes.install_fastify(folder / name)
    if why is not None:
        print(f"NOT COMPARED WITH {name}: {why}\n")
    return why is None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="of each run")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--threads", type=int, default=32, help="of each process under gthread")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--only", choices=TARGETS, nargs="+", help="measure these alone")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        parser.error("wrk is not installed (Debian: apt install wrk)")
    return options


if __name__ == "__main__":
    sys.exit(main())
