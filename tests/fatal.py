"""A receiver in which a visitor can break parts that nobody reaches from outside, for tests."""

from __future__ import annotations

import asyncio
import json
import time
from typing import NoReturn

from flask import current_app

from receiver.ingest import Ticket
from receiver.parts import parts
from receiver.providers.zimsend.webhook import parse
from receiver.times import DAY, now
from receiver.web.front.front import Front
from tests.payloads import envelope, sms
from wsgi import app

really = Front.connect


def end_the_committer() -> None:
    """As a defect in C might end it: with what no `except Exception` stops."""

    def tell(_: list[Ticket]) -> NoReturn:
        raise SystemExit

    body = json.dumps(envelope("sms.sent", sms("sent"))).encode()
    event = parse(body, received_at=now(), retention=90 * DAY)
    parts(current_app).ingest.put(Ticket([event], time.monotonic() + 30, tell))


@app.get("/fatal/committer")
def committer() -> str:
    end_the_committer()
    return "it ends"


@app.get("/fatal/connection")
def connection() -> str:
    """The next one finds no memory."""

    def connect(front: Front) -> asyncio.Protocol:
        Front.connect = really  # type: ignore[method-assign]
        raise MemoryError

    Front.connect = connect  # type: ignore[assignment,method-assign]
    return "one"


@app.get("/fatal/hang")
def hang() -> str:
    print("it hangs", flush=True)
    time.sleep(25)
    return "at last"
