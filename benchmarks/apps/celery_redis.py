"""The provider's recommendation: verify, put a task into Redis through Celery, answer 200.

Favourable to Celery where there is a choice: one task an event, which calls both handlers; no
result is kept; every thread of the web server finds a broker connection in the pool. What it
promises is less than what the receiver does: Redis syncs once a second, an event that comes twice
is handled twice, and a task that a worker has taken is forgotten if that worker dies.
"""

import json
import os
from typing import Any

from celery import Celery
from flask import Flask, abort, request

from receiver.providers.zimsend.webhook import verify

SECRET = os.environ["ZIMSEND_WEBHOOK_SECRET"].encode()

app = Flask(__name__)
celery = Celery(__name__, broker=os.environ["BROKER_URL"])
celery.conf.update(task_ignore_result=True, broker_pool_limit=64)


@app.post("/webhooks/zimsend")
def receive() -> str:
    body = request.get_data()
    if not verify([SECRET], body, request.headers.get("X-Webhook-Signature")):
        abort(401)
    handle.delay(json.loads(body))
    return ""


@celery.task(name="handle")
def handle(payload: dict[str, Any]) -> None:
    for handler in (nothing, nothing):
        handler(payload)


def nothing(payload: dict[str, Any]) -> None:
    pass
