"""Sudden death under load: whatever was acknowledged is stored, and reaches every handler.

`make torture` (TORTURE=1) kills 1,000 times instead of 12 (6 on PostgreSQL).
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from receiver.providers.zimsend.webhook import sign
from receiver.store import Selection, open_store
from tests.conftest import SECRET
from tests.handlers import seen
from tests.payloads import envelope, sms
from tests.server import Server, eventually

KILLS = {"sqlite": 12, "postgres": 6}
if os.environ.get("TORTURE"):
    KILLS = dict.fromkeys(KILLS, 1_000)
SENDERS = 8


class Senders:
    """Threads that send events as fast as they are answered, and write down what was promised.

    As the provider does, they send an event again whose answer they did not get.

    :param pause: seconds between an answer and the next event of the same thread.
    """

    def __init__(self, *urls: str, pause: float = 0.0) -> None:
        self.urls = [f"{url}/webhooks/zimsend" for url in urls]
        self.pause = pause
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(number,)) for number in range(SENDERS)
        ]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _send(self, number: int) -> None:
        chance = random.Random(number)
        unanswered: bytes | None = None
        url = self.urls[number % len(self.urls)]
        with httpx.Client(timeout=5) as client:
            while not self._stopping.wait(self.pause):
                body = unanswered
                if body is None:
                    state = chance.choice(["sent", "delivered", "failed"])
                    data = sms(state, message_id=f"msg_{chance.randrange(1_000_000)}")
                    body = json.dumps(envelope(f"sms.{state}", data)).encode()
                headers = {"X-Webhook-Signature": sign(SECRET.encode(), body)}
                try:
                    answer = client.post(url, content=body, headers=headers)
                except httpx.HTTPError:
                    unanswered = body
                    self._stopping.wait(0.1)  # to be refused costs more than to be answered
                    continue
                unanswered = None
                if answer.status_code == 200:
                    self.acknowledged.append(answer.json()["event_id"])
                else:
                    self.refused.append(f"{answer.status_code} {answer.text}")


def oldest_backlog(server: Server) -> float:
    """Seconds. Lives of a second are too short for all that comes in; what has died with 15 of
    them without a word is given up, and that is another promise than the one that is tried here.
    """
    seconds: float = server.client.get("/readyz").json()["backlog"]["oldest_seconds"]
    return seconds


@pytest.mark.each_engine
def test_nothing_acknowledged_is_lost_by_kill_9(
    serve: Callable[..., Server], tmp_path: Path, engine: str
) -> None:
    chance = random.Random(20_261_121)
    server = serve(SEEN=str(tmp_path))
    # One with two processes would mostly have one that writes, on SQLite.
    another = serve(SEEN=str(tmp_path), EMBEDDED_WORKER="0")
    with Senders(server.url, another.url) as senders:
        for number in range(1, KILLS[engine] + 1):
            before = len(senders.acknowledged)
            eventually(lambda before=before: len(senders.acknowledged) > before)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.25))
            server.kill()
            another.kill()
            server.start()
            another.start()
            if number % 50 == 0:
                senders.pause = 0.1
                eventually(lambda: oldest_backlog(server) < 1)
                senders.pause = 0.0
    # A 503 is honest (the store was busy with its recovery); nothing else is.
    assert [r for r in senders.refused if not r.startswith("503")] == []
    assert len(senders.acknowledged) > KILLS[engine] * SENDERS

    store = open_store(server.environ["DATABASE_URL"])
    # Leases of the dead run out 11 s after they were taken: the handlers' time-out is 1 s.
    eventually(lambda: not next(store.events(Selection(state="pending")), None))
    events = {event["event_id"]: event for event in store.events(Selection())}
    store.close()
    acknowledged = set(senders.acknowledged)
    assert acknowledged - events.keys() == set()
    for handler in ("first", "second"):
        ran = {line["id"] for line in seen(tmp_path, handler)}
        dispatched = {i for i in acknowledged if not events[i]["repeat"]}
        assert dispatched - ran == set()
        assert all(d["state"] == "done" for e in events.values() for d in e["deliveries"])
