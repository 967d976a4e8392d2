"""What one writes first: verify, one INSERT, and a commit of its own for each request.

As durable as the receiver (WAL, `synchronous = FULL`), but there is no mirror and no queue.
"""

import json
import os
import sqlite3
import threading

from flask import Flask, abort, request

from receiver.providers.zimsend.webhook import verify

SECRET = os.environ["ZIMSEND_WEBHOOK_SECRET"].encode()
DATABASE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")

app = Flask(__name__)
_local = threading.local()


@app.post("/webhooks/zimsend")
def receive() -> str:
    body = request.get_data()
    if not verify([SECRET], body, request.headers.get("X-Webhook-Signature")):
        abort(401)
    values = json.loads(body)["event_id"], body
    connection().execute("INSERT INTO received (id, body) VALUES (?, ?)", values)
    return ""


def connection() -> sqlite3.Connection:
    """One for each thread, in autocommit: the statement is the transaction."""
    if not hasattr(_local, "connection"):
        opened = sqlite3.connect(DATABASE, timeout=10, isolation_level=None)
        opened.execute("PRAGMA journal_mode = WAL")
        opened.execute("PRAGMA synchronous = FULL")
        opened.execute("CREATE TABLE IF NOT EXISTS received (id TEXT PRIMARY KEY, body BLOB)")
        _local.connection = opened
    return _local.connection
