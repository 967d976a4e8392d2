"""The package takes over the database of the release before it, which was a clone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database

from receiver.store.sqlite.schema import migrations
from tests.package.conftest import Shop
from tests.server import eventually

SECRET = "whsec_0123456789abcdef"
WRITTEN = Path(__file__).with_name("before_1_0.sql")
NEW_STEPS = "dead_work_is_found_by_its_cause"


@pytest.fixture
def shop(installed: Path, tmp_path: Path) -> Iterator[Shop]:
    """Its folder has what was moved out of the clone: `.env`, and the database."""
    (tmp_path / ".env").write_text(
        f"ZIMSEND_WEBHOOK_SECRET={SECRET}\nHANDLERS=handlers.log\nRETENTION_DAYS=3650\n"
    )
    file = tmp_path / "receiver.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        migrations.apply(Database(connection), stop_before=NEW_STEPS)
        connection.executescript(WRITTEN.read_text())
    shop = Shop(installed, tmp_path, SECRET)
    yield shop
    shop.close()


def asked(shop: Shop, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(shop.folder / "receiver.db")) as connection:
        return connection.execute(sql).fetchall()


def test_all_is_there_and_work_goes_on(shop: Shop) -> None:
    before = shop.run("upgrade-check")
    assert before.returncode == 1
    assert f"step to take: {NEW_STEPS}\n" in before.stdout
    assert before.stdout.splitlines()[-1].endswith("`zimsend-receiver backup FILE`")

    shop.spawn(["serve"])
    eventually(shop.ready)
    assert f"migrated the database: {NEW_STEPS}" in shop.log.read_text()
    # The work that was owed is found under the name that it was written down with.
    eventually(lambda: asked(shop, OWED) == [("log", "done", 5)])
    assert "event=sms.failed" in shop.log.read_text()

    ((body,),) = asked(shop, "SELECT body FROM events WHERE id = 'evt_3_sent'")
    assert shop.post(body).json()["status"] == "duplicate"
    delivered = {"event": "sms.delivered", "data": {"message_id": "msg_3", "status": "delivered"}}
    assert shop.post(delivered).json()["status"] == "accepted"
    told = shop.run("messages", "--format", "jsonl").stdout.splitlines()
    assert {row["message_id"]: row["status"] for row in map(json.loads, told)} == {
        "msg_1": "delivered",
        "msg_2": "failed",
        "msg_3": "delivered",
    }
    assert asked(shop, "SELECT reason FROM quarantine") == [("the object has no string `event`",)]


OWED = "SELECT handler, state, count(*) FROM deliveries GROUP BY handler, state"
