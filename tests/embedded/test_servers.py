"""A Flask host under a real server that loads it once and forks, and its handlers beside it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import SECRET
from tests.payloads import envelope, sms
from tests.server import Server, eventually

HOST = """\
import os
import sqlite3
from flask import Flask, current_app
from receiver.flask import ZimSendReceiver

app = Flask("shop", root_path=os.getcwd())
app.config["ORDERS"] = "shop.db"
receiver = ZimSendReceiver(app, embedded_worker={embedded_worker})
@receiver.on("sms.*", name="note")
def note(event):
    orders = sqlite3.connect(current_app.config["ORDERS"], timeout=10, isolation_level=None)
    orders.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (event.id, os.getpid()))
    orders.close()
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Server]:
    with sqlite3.connect(tmp_path / "shop.db") as orders:
        orders.execute("CREATE TABLE told (event TEXT PRIMARY KEY, pid INTEGER)")
    orders.close()
    server = Server({"ZIMSEND_WEBHOOK_SECRET": SECRET, "FLASK_APP": "host"}, tmp_path, SECRET)
    server.client.close()
    server.client = httpx.Client(base_url=f"{server.url}/sms", timeout=10)
    yield server
    server.close()


def serve(shop: Server, *, embedded_worker: bool) -> None:
    host = HOST.format(embedded_worker=embedded_worker)
    (shop.folder / "host.py").write_text(host)
    told = zimsend(shop, "migrate")
    assert told.returncode == 0, told.stderr
    place = f"127.0.0.1:{shop.port}"
    options = ["--preload", "-w", "2", "--threads", "4", "--no-control-socket", "-b", place]
    shop.spawn(["-m", "gunicorn", *options, "host:app"])
    eventually(lambda: listens(shop))


def listens(shop: Server) -> bool:
    try:
        return shop.client.get("/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def zimsend(shop: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", "zimsend", *arguments],
        cwd=shop.folder,
        env=shop.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def told(shop: Server) -> dict[str, int]:
    orders = sqlite3.connect(shop.folder / "shop.db", timeout=10)
    found = dict(orders.execute("SELECT event, pid FROM told"))
    orders.close()
    return found


def send(shop: Server, count: int) -> set[str]:
    """Each on a connection of its own, so that both processes get some."""
    sent = set()
    for _ in range(count):
        event = envelope("sms.sent", sms("sent"))
        answer = shop.post(event, tries=3, Connection="close")
        assert answer.status_code == 200, answer.text
        sent.add(event["event_id"])
    return sent


def test_processes_that_were_forked_receive_and_a_command_handles(shop: Server) -> None:
    serve(shop, embedded_worker=False)
    sent = send(shop, 20)
    assert told(shop) == {}
    shop_process = shop.process
    shop.spawn(["-m", "flask", "zimsend", "work"])
    worker, shop.process = shop.process, shop_process
    assert worker is not None
    eventually(lambda: told(shop).keys() == sent)
    assert set(told(shop).values()) == {worker.pid}
    eventually(lambda: shop.client.get("/readyz").status_code == 200)
    shop.client.close()  # or gunicorn waits for it
    worker.terminate()
    assert worker.wait(20) == 0
    assert shop.terminate() == 0


def test_handlers_run_in_processes_that_were_forked(shop: Server) -> None:
    serve(shop, embedded_worker=True)
    sent = send(shop, 40)
    eventually(lambda: told(shop).keys() == sent)
    assert set(told(shop).values()) <= set(shop.processes())
    assert shop.terminate(within=20) == 0
    assert "Traceback" not in shop.log.read_text()
