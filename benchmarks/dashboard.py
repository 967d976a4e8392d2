"""How long the dashboard's pages take in the server, with a large mirror and much dead work.

    .venv/bin/python benchmarks/dashboard.py [--messages 1000000] [--dead 10000] [--database FILE]
                                             [--postgres]

One database is filled with messages of 90 days and their events, and with dead work of several
causes; with `--database` that file is taken as it is, and filled if it is not there. With
`--postgres` it is copied into a PostgreSQL of its own. Then each page is asked many times, and the
median inside the server is reported (Flask's answer without a network); the first answer does not
count. The goal is 100 ms for each. A missed goal is only reported; an answer other than 200 makes
the exit status 1.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).parent.parent))

from flask.testing import FlaskClient

from app import create_app
from benchmarks import filling
from benchmarks.filling import NAMES, OWN_NUMBER, WORD, Traffic
from benchmarks.load import SECRET
from receiver import times
from receiver.store import Settlement, Store, Want, open_store
from receiver.store.copying import copy
from tests.postgres import PostgresServer

GOAL = 100.0
REPETITIONS = 15


def make_dead_work(store: Store, count: int, now: int) -> None:
    """Replayed events whose handler then gives up, for one of several reasons."""
    from receiver.store import Selection

    newest = store.page(Selection(), None, 1).events[0][0]
    since = newest - count
    handlers = ("first", "second")
    made = 0
    while made < count:
        page = store.page(Selection(), since + made + 201, 200)
        ids = [event["event_id"] for _, event in page.events]
        store.replay(
            Selection(ids=ids),
            wanting=lambda _: handlers[:1],
            now=now,
            dry_run=False,
            progress=lambda _: None,
        )
        made += len(ids)
        while claims := store.work(now, [], [Want("first", 200, times.MINUTE, 12)], 5):
            ends = [
                Settlement(
                    claim, "dead", now, f"{_KINDS[claim.event_seq % 5]}: no {claim.event_id}",
                    False, f'  File "/srv/shop/handlers.py", line {claim.event_seq % 7}, in f\n',
                )
                for claim in claims
            ]  # fmt: skip
            store.work(now, ends, [], 5)


_KINDS = ("KeyError", "TimeoutError", "ConnectionError", "ValueError", "HandlerError")


def pages(client: FlaskClient) -> Iterator[str]:
    """What is asked, with the ids of a message and an event that are there."""
    yield from ("/", "/?days=1", "/?days=90")
    yield "/messages"
    for asked in (
        {"status": "failed"},
        {"status": "sent"},
        {"to": OWN_NUMBER},
        {"q": WORD},
        {"q": NAMES[0]},
        {"q": f"{NAMES[3]}, votre commande CMD-1234567"},
        {"q": "nowhere to be found"},
        {"error": "NO_CREDIT", "device": "dev_a15"},
        {"device": "nobody"},
        {"provider": "smscx"},
        {"provider": "zimsend", "status": "failed"},
        {"metadata.order_id": "CMD-1234567"},
        {"since": "60d", "until": "59d", "status": "failed"},
    ):
        yield f"/messages?{urlencode(asked)}"
    found = re.search(r'rel="next" href="([^"]*)"', client.get("/messages?until=30d").text)
    yield found[1].replace("&amp;", "&") if found else "/messages"
    for kind in ("messages", "events"):
        listed = client.get(f"/{kind}").text
        found = re.search(rf'href="(/{kind}/[^"?]+)"', listed)
        if found:
            yield found[1]
    yield from ("/events", "/events?state=dead", "/events?type=sms.failed", "/events?state=pending")
    yield from ("/failures", "/live", "/losses", "/settings", "/quarantine")


def measure(url: str) -> bool:
    client = signed_in(url)
    fine = True
    for path in dict.fromkeys(pages(client)):
        took = []
        for _ in range(REPETITIONS + 1):
            began = time.perf_counter()
            status = client.get(path).status_code
            took.append(1_000 * (time.perf_counter() - began))
        typical = median(took[1:])
        fine = fine and status == 200
        told = "" if typical < GOAL else f"   over {GOAL:.0f} ms"
        print(f"{typical:9.1f} ms  max {max(took[1:]):8.1f}  {status}  {path}{told}", flush=True)
    return fine


def signed_in(url: str) -> FlaskClient:
    environ = {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": url,
        "HANDLERS": "tests.handlers",
        "ADMIN_PASSWORD": "benchmark",
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    }
    app = create_app(environ)
    client = app.test_client()
    door = app.extensions["receiver.dashboard"]
    client.set_cookie("zimsend_session", door.tokens.session())
    return client


@contextmanager
def on_postgres(source: str) -> Iterator[str]:
    server = PostgresServer()
    try:
        server.start()
        target = open_store(server.url)
        target.migrate()
        with_source = open_store(source)
        copy(with_source, target, lambda *_: None)
        filling.index(target)
        with_source.close()
        target.close()
        yield server.url
    finally:
        server.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--dead", type=int, default=10_000)
    parser.add_argument("--database", type=Path)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = options.database or Path(folder) / "receiver.db"
        url, now = f"sqlite:///{database.absolute()}", times.now()
        if not database.exists():
            filling.fill(
                database,
                Traffic(),
                options.messages,
                since=now - 89 * times.DAY,
                until=now - times.MINUTE,
            )
        store = open_store(url)
        store.migrate()
        if not store.groups():
            make_dead_work(store, options.dead, now)
        store.close()
        if options.postgres:
            with on_postgres(url) as url:
                fine = measure(url)
        else:
            fine = measure(url)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
