"""Many machines on one PostgreSQL: processes that share nothing but the database.

`make torture` sends 20,000 events instead of 2,000.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from receiver.store import Selection, open_store
from receiver.times import iso, now
from tests.conftest import SECRET
from tests.handlers import seen
from tests.payloads import body_of
from tests.postgres import PostgresServer
from tests.server import ROOT, Server, eventually
from tests.service.test_crash import Senders

EVENTS = 20_000 if os.environ.get("TORTURE") else 2_000
#: What a lease lasts: the time-out of `tests.handlers`, and 10 s.
LEASE = 11.0

Machine = Callable[..., Server]


@pytest.fixture
def machine(environ: dict[str, str], tmp_path: Path) -> Iterator[Machine]:
    """A server on a machine of its own: `machine("a", EMBEDDED_WORKER="0")`. Not started."""
    with ExitStack() as stack:

        def make(name: str, **settings: str) -> Server:
            folder = tmp_path / name
            folder.mkdir()
            server = Server({**environ, "SEEN": str(tmp_path), **settings}, folder, SECRET)
            stack.callback(server.close)
            return server

        yield make


def report(number: int) -> bytes:
    state = ("sent", "delivered")[number % 2]
    data = {"message_id": f"m{number // 2}", "to": "+33600000001", f"{state}_at": iso(now())}
    return body_of(f"sms.{state}", data, event_id=f"e{number}")


@pytest.mark.parametrize("engine", ["postgres"], scope="module")
def test_four_web_processes_and_two_workers_one_killed_every_second(
    machine: Machine, tmp_path: Path, engine: str
) -> None:
    chance = random.Random(1)
    webs = [machine(f"web{n}", EMBEDDED_WORKER="0", LOG_LEVEL="error") for n in range(4)]
    workers = [machine(f"worker{n}") for n in range(2)]
    numbers = [*range(EVENTS), *(chance.randrange(EVENTS) for _ in range(EVENTS // 4))]
    chance.shuffle(numbers)
    with ThreadPoolExecutor(16) as executor:
        list(executor.map(Server.start, webs))
        for worker in workers:
            worker.spawn(["-m", "flask", "work"])
        answered = executor.map(
            lambda number: webs[number % 4].post(report(number), tries=3).json()["status"], numbers
        )
        sending = threading.Thread(target=lambda: outcomes.update(answered))
        outcomes: Counter[str] = Counter()
        sending.start()
        kills = 0
        while sending.is_alive() or kills < 4:
            time.sleep(1)
            worker = workers[kills % 2]
            worker.kill()
            worker.spawn(["-m", "flask", "work"])
            kills += 1
        sending.join()
    assert outcomes == {"accepted": EVENTS, "duplicate": len(numbers) - EVENTS}

    store = open_store(webs[0].environ["DATABASE_URL"])
    eventually(lambda: not next(store.events(Selection(state="pending")), None), within=60)
    events = {event["event_id"]: event for event in store.events(Selection())}
    store.close()
    assert events.keys() == {f"e{number}" for number in range(EVENTS)}
    # On a machine that stands still a call may pass its time-out of 1 s: it is due again at once.
    told = "".join(worker.log.read_text() for worker in workers)
    slow = set(re.findall(r"failed at event (\S+),", told))
    for handler, sort in (("first", "*"), ("second", "sms.*")):
        ran: dict[str, list[float]] = {}
        for line in seen(tmp_path, handler):
            ran.setdefault(str(line["id"]), []).append(float(str(line["at"])))
        assert ran.keys() == events.keys(), (handler, sort)
        # Nobody runs what another has within its lease; what was done when its worker was killed
        # may be run once more, after it.
        again = [
            b - a for name, times in ran.items() if name not in slow for a, b in pairwise(times)
        ]
        # A lease counts from the claim, up to 5 s before the call.
        assert all(apart > LEASE - 6 for apart in again)
    assert {d["state"] for event in events.values() for d in event["deliveries"]} == {"done"}


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that may be stopped."""
    server = PostgresServer(durable=True)
    server.start()
    yield server
    server.remove()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
def test_the_database_is_gone_for_five_seconds(
    own_postgres: PostgresServer, machine: Machine, tmp_path: Path, how: signal.Signals
) -> None:
    server = machine("web", DATABASE_URL=own_postgres.url, WEB_CONCURRENCY="2")
    server.start()
    refused = 0

    def outage(senders: Senders) -> float:
        """Five seconds long; returns the seconds from the database's return to the service's."""
        nonlocal refused
        own_postgres.stop(how)
        time.sleep(5)
        refused = len(senders.refused)
        own_postgres.start()
        back = time.monotonic()
        before = len(senders.acknowledged)
        eventually(lambda: len(senders.acknowledged) > before + 10)
        return time.monotonic() - back

    with Senders(server.url, pause=0.05) as senders:
        eventually(lambda: len(senders.acknowledged) > 100)
        took = outage(senders)
        if took >= 2:  # the machine may have stood still just then
            took = outage(senders)
        time.sleep(0.5)
    assert took < 2
    assert refused > 0
    assert {answer[:3] for answer in senders.refused} == {"503"}
    eventually(server.ready)

    store = open_store(own_postgres.url)
    eventually(lambda: not next(store.events(Selection(state="pending")), None), within=60)
    stored = {event["event_id"] for event in store.events(Selection())}
    store.close()
    assert set(senders.acknowledged) <= stored
    assert {str(line["id"]) for line in seen(tmp_path, "first")} >= set(senders.acknowledged)


@pytest.mark.parametrize("engine", ["postgres"], scope="module")
def test_a_rolling_change_of_release_loses_and_refuses_nothing(
    machine: Machine, tmp_path: Path, engine: str
) -> None:
    """A host's router sends to the new release from when it is ready, and then stops the old."""
    old, new = machine("old", WEB_CONCURRENCY="2"), machine("new", WEB_CONCURRENCY="2")
    old.start()
    routed = old
    answers: list[httpx.Response] = []
    stopping = threading.Event()

    sent = [0] * 6

    def send(sender: int) -> None:
        while not stopping.wait(0.02):
            event = report(sender * 1_000_000 + sent[sender])
            answers.append(routed.post(event))
            sent[sender] += 1

    def more_answers() -> None:
        count = len(answers)
        eventually(lambda: len(answers) > count + 100)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(6)]
    for thread in threads:
        thread.start()
    try:
        more_answers()
        migrated = new.flask("--app", "tests.next_release:app", "migrate")
        assert migrated.stdout == "migrated: add_a_table\n", migrated.stderr
        more_answers()
        new.spawn(
            ["-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "tests.next_release:app"]
        )
        eventually(new.ready)
        more_answers()
        eventually(old.ready)  # it works on, under a schema that is newer than its own
        routed = new
        # What was on its way to the old one is answered.
        before = list(sent)
        eventually(lambda: all(n > b for n, b in zip(sent, before, strict=True)))
        assert old.terminate() == 0
        more_answers()
    finally:
        stopping.set()
        for thread in threads:
            thread.join(20)
    assert {answer.status_code for answer in answers} == {200}

    store = open_store(new.environ["DATABASE_URL"])
    eventually(lambda: not next(store.events(Selection(state="pending")), None))
    stored = {event["event_id"] for event in store.events(Selection())}
    store.close()
    acknowledged = {json.loads(answer.content)["event_id"] for answer in answers}
    assert stored == acknowledged
    for handler in ("first", "second"):
        assert {str(line["id"]) for line in seen(tmp_path, handler)} == acknowledged
