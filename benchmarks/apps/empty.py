"""A route that does nothing, so all that is left is gunicorn and Flask."""

from flask import Flask

app = Flask(__name__)


@app.post("/webhooks/zimsend")
def receive() -> str:
    return ""
