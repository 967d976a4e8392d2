"""What an application has started ends with it: a thread that is left over would write into the
database that is at that address by then."""

from __future__ import annotations

import threading

import pytest

from app import create_app
from receiver.parts import parts
from receiver.service import close
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms

pytestmark = pytest.mark.each_engine


def test_closing_ends_each_thread(environ: dict[str, str], clock: Clock) -> None:
    before = set(threading.enumerate())
    app = create_app(environ, clock)
    parts(app).store.migrate()
    client = app.test_client()
    assert Provider(client).post(envelope("sms.sent", sms("sent", "m"))).status_code == 200
    assert client.post("/webhooks/nobody/x", data=b"{}").status_code == 404
    assert client.get("/metrics").status_code == 200
    begun = {thread.name for thread in set(threading.enumerate()) - before}
    assert {"committer", "counting", "figures", "refusals"} <= begun
    close(app)
    assert not {thread.name for thread in set(threading.enumerate()) - before}
