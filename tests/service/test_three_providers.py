"""Three providers at once in one service, as real processes, in a bad world."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import httpx
import pytest

from receiver import ids, status, times
from receiver.mirror import Search
from receiver.store import Selection, Store, open_store
from receiver.times import MINUTE, iso
from tests.server import Server, eventually, free_port, simulating

KEY = "key_of_v1"
SETTINGS = {
    "ZIMSEND_API_KEY": "zs_test_1",
    "ZIMSEND_CLIENT_ID": "client_1",
    "SMSCX_WEBHOOK_TOKEN": "token_0123456789_0123456789",
    "SMSCX_API_KEY": "smscx_1",
    "SMSCX_FROM": "Boutique",
    "SIPGATE_TOKEN_ID": "token-ABC123",
    "SIPGATE_TOKEN": "secret",
    "V1_API_KEY": KEY,
    "HANDLERS": "tests.hurried",
}
API = {"zimsend": "ZIMSEND_API_URL", "smscx": "SMSCX_API_URL", "sipgate": "SIPGATE_API_URL"}
BASE = {"zimsend": "/v1", "smscx": "", "sipgate": ""}
#: Seconds of the simulated world in one of ours.
SPEED = 900
#: When each wave of so many SMS begins. While the third is sent, and long after it, nothing
#: arrives: a machine that is busy may send it late.
WAVES = tuple(minute * MINUTE for minute in (0, 6, 16, 105, 110))
SIZE = 100
OUTAGE = "--outage", f"{12 * 60}..{102 * 60}"
BAD = ("--duplicates", "0.2", "--reorder", "0.2", "--lost-answers", "0.02")
MORE = {
    "zimsend": ("--devices", "20", "--failed", "0.05", "--drop", "0.05"),
    "smscx": ("--failed", "0.05", "--drop", "0.05"),
    "sipgate": ("--drop", "0.01"),
}
#: What each state of ours is at SMS.CX.
STATUS = {"DELIVERED": "delivered", "FAILED": "failed"}

Fact = tuple[str, str, str]


class World(NamedTuple):
    """A simulated provider, and what was asked of it."""

    name: str
    url: str
    began: int

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=30, trust_env=False).json()

    @property
    def now(self) -> int:
        return times.parse(self.get("/clock")["now"]) or 0


@contextmanager
def worlds(server: Server, ports: Mapping[str, int]) -> Iterator[list[World]]:
    """The simulated providers, each a process."""
    common = ("--speed", str(SPEED), "--seed", "7", "--keep", *BAD, *OUTAGE)

    def start(name: str) -> World:
        options = ("--provider", name, *common, *MORE[name])
        ran = stack.enter_context(simulating(server, *options, port=ports[name]))
        world = World(name, ran.url, 0)
        return world._replace(began=world.now)

    with ExitStack() as stack, ThreadPoolExecutor(len(ports)) as pool:
        yield list(pool.map(start, ports))


def campaign(world: World, client: httpx.Client) -> dict[str, str]:
    """Send all that is to be sent, as a careful program does it: again only what was surely not
    sent. Returns the numbers by the ids that were answered."""
    found: dict[str, str] = {}
    for wave, begins in enumerate(WAVES):
        eventually(lambda begins=begins: world.now >= world.began + begins)
        left = [f"+4915{wave}{number:07}" for number in range(SIZE)]
        while left:
            answer = client.post(
                "/v1/sms/send-bulk",
                json={"message": f"Guten Tag {wave}", "recipients": left},
                headers={"X-API-Key": KEY, "X-Provider": world.name},
            )
            rows = answer.json().get("messages", ())
            left = [to for to in left if to not in {row["to"] for row in rows}]
            for row in rows:
                if row["status"] == "failed":
                    left.append(row["to"])
                else:
                    found[row["message_id"]] = row["to"]
            if left:  # sipgate does not answer
                assert world.name == "sipgate", answer.text
                time.sleep(0.1)
    return found


class Told(NamedTuple):
    """What the service tells of a provider.

    :param rows: its messages, by its own ids.
    :param came: the events that it sent, by their own ids, and the facts in them.
    :param brought: those facts that were news.
    :param missed: what was fetched, and was news.
    """

    rows: dict[str, dict[str, Any]]
    came: dict[str, Fact]
    brought: list[Fact]
    missed: list[Fact]

    def check(self, facts: set[Fact]) -> None:
        """Every fact was news once. Missed are those that never came; and on a machine that stood
        still, for which minutes went by, those that came after all."""
        assert sorted(self.brought + self.missed) == sorted(facts)
        assert facts - set(self.came.values()) <= set(self.missed)
        assert set(self.brought) <= set(self.came.values())


def told_by(store: Store, name: str) -> Told:
    rows = {
        ids.split(key)[1]: status.describe(row)
        for key, row in store.messages(Search(provider=name))
    }
    told = Told(rows, {}, [], [])
    for event in store.events(Selection(event_type="sms.*")):
        provider, message_id = ids.split(event["message_id"])
        if provider != name:
            continue
        fact = (name, message_id, event["type"])
        if event["source"] == "webhook":
            told.came[ids.split(event["event_id"])[1]] = fact
        news = {"webhook": told.brought, "reconciliation": told.missed}.get(event["source"])
        if news is not None and not event["repeat"]:
            news.append(fact)
    return told


def check_zimsend(truth: Any, told: Told) -> set[Fact]:
    """Returns the facts that must have been handled."""
    facts = set[Fact]()
    for message in truth["messages"]:
        row = told.rows[message["message_id"]]
        for each in ("status", "to", "message"):
            assert row[each] == message[each]
        for each in ("sent_at", "delivered_at"):
            assert (row[each] and iso(row[each])) == message[each]
        kinds = {"delivered": ("sent", "delivered"), "failed": ("failed",)}[message["status"]]
        facts |= {("zimsend", message["message_id"], f"sms.{kind}") for kind in kinds}
    assert {e["event_id"] for e in truth["events"] if e["arrived"]} <= told.came.keys()
    told.check(facts)
    return facts


def check_smscx(truth: Any, told: Told) -> set[Fact]:
    """A report tells the last state alone, so that it was sent is known where its report came."""
    facts = set(told.came.values())
    for message in truth["messages"]:
        row = told.rows[message["msgId"]]
        assert (row["status"], row["to"]) == (STATUS[message["status"]], message["to"])
        code = message["errorCode"]
        assert (row["error"] and row["error"]["code"]) == (None if code is None else str(code))
        facts.add(("smscx", message["msgId"], f"sms.{STATUS[message['status']]}"))
    arrived = {
        ("smscx", item["msgId"], f"sms.{STATUS.get(item['status'], 'sent')}")
        for event in truth["events"]
        if event["arrived"]
        for item in event["items"]
    }
    assert arrived <= facts
    told.check(facts)
    return facts


def check_sipgate(truth: Any, told: Told) -> set[Fact]:
    """It tells no more than that an SMS went; those that were lost on the way stay queued."""
    by_number = {row["to"]: own_id for own_id, row in told.rows.items()}
    assert len(by_number) == len(told.rows)
    facts = set[Fact]()
    for message in truth["messages"]:
        own_id = by_number.pop(message["to"])
        row = told.rows[own_id]
        assert (row["status"], row["message"]) == ("sent", message["text"])
        assert iso(row["sent_at"])[:19] == message["sent_at"][:19]
        facts.add(("sipgate", own_id, "sms.sent"))
    assert {told.rows[own_id]["status"] for own_id in by_number.values()} == {"queued"}
    assert (told.came, told.missed) == ({}, [])  # what is found is no loss
    return facts


@pytest.fixture
def in_memory(engine: str) -> Iterator[dict[str, str]]:
    """SQLite's file where there is no disk: minutes go by while one syncs."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        url = f"sqlite:///{folder}/receiver.db"
        yield {"DATABASE_URL": url} if engine == "sqlite" else {}


def check_v1(server: Server, name: str, told: Told) -> None:
    """What programs are told of it."""

    def get(path: str) -> Any:
        return server.client.get(path, headers={"X-API-Key": KEY}).json()

    states = Counter(row["status"] for row in told.rows.values())
    stats = get(f"/v1/sms/stats?provider={name}")["stats"]
    assert (stats["delivered"], stats["failed"]) == (states["delivered"], states["failed"])
    assert stats["pending"] == 0
    assert (stats["delivery_rate"] is None) is (name == "sipgate")
    about = get("/v1/reconciliation")
    if name == "sipgate":
        waiting = about["polling"]["last_pass"]["waiting"]
        assert (waiting, name in about["providers"]) == (states["queued"], False)
    else:
        assert about["providers"][name]["missed"]["reports"] == len(told.missed) > SIZE
    total = get(f"/v1/sms/history?provider={name}&limit=1")["pagination"]["total"]
    assert total == len(told.rows)


CHECKS = {"zimsend": check_zimsend, "smscx": check_smscx, "sipgate": check_sipgate}


def known(store: Store, truth: Mapping[str, Any]) -> set[Fact]:
    """All facts, once the service tells the truth of each provider."""

    def facts() -> set[Fact]:
        return set().union(*(CHECKS[name](truth[name], told_by(store, name)) for name in truth))

    def so_far() -> set[Fact] | None:
        try:
            return facts()
        except (AssertionError, KeyError):
            return None

    try:
        return set(eventually(so_far, 180))
    except AssertionError:
        return facts()  # says what is wrong


@pytest.mark.each_engine
def test_all_three_at_once(
    in_memory: dict[str, str], serve: Callable[..., Server], tmp_path: Path
) -> None:
    """500 SMS through each, in a world with duplicates, disorder, lost answers and an outage: the
    mirror tells the truth as far as the provider does, every fact is handled once, and what was
    missed is what was dropped."""
    ports = {name: free_port() for name in API}
    urls = {API[n]: f"http://127.0.0.1:{port}{BASE[n]}" for n, port in ports.items()}
    server = serve(**SETTINGS, **urls, **in_memory, SEEN=str(tmp_path))
    server.client.timeout = httpx.Timeout(60)
    store = open_store(server.environ["DATABASE_URL"])
    with worlds(server, ports) as there:
        with ThreadPoolExecutor(3) as pool:
            sent = dict(
                zip(ports, pool.map(lambda w: campaign(w, server.client), there), strict=True)
            )
        for world in there:
            eventually(lambda world=world: world.get("/truth")["at_rest"])
        truth = {world.name: world.get("/truth") for world in there}
        facts = known(store, truth)
    for name, numbers in sent.items():
        assert len(numbers) == len(set(numbers.values())) == SIZE * len(WAVES)
        told = told_by(store, name)
        rows = told.rows
        facts |= {(name, own_id, "sms.queued") for own_id in rows}
        assert {ids.written(ids.key(name, own_id)) for own_id in rows} == numbers.keys()
        there_to = Counter(message["to"] for message in truth[name]["messages"])
        assert set(there_to.values()) == {1}  # nobody got one twice
        check_v1(server, name, told)
    eventually(lambda: store.next_due("all", 0) is None)
    handled = [json.loads(line)[:3] for line in (tmp_path / "all").read_text().splitlines()]
    assert Counter(map(tuple, handled)) == dict.fromkeys(facts, 1)
    assert all(t["api"]["limited"] == 0 for t in truth.values())
    store.close()
