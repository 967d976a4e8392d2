"""The webhook as an ordinary Flask route: for every WSGI server, and for tests.

Under gunicorn the event loop answers it (`receiver/web/front/`), from the same description.
"""

from __future__ import annotations

import time

from flask import Blueprint, Response, request

from receiver.errors import Refused
from receiver.ingest import deadline_for
from receiver.parts import parts
from receiver.providers.zimsend.webhook import SIGNATURE
from receiver.receiving import blocking
from receiver.web.answers import json_answer
from receiver.web.bodies import read_body
from receiver.web.paths import WEBHOOK
from receiver.web.problems import response

blueprint = Blueprint("webhook", __name__)


@blueprint.post(WEBHOOK, provide_automatic_options=False)
def zimsend() -> Response:
    """Acknowledge nothing that is not on the disk. No handler runs in here."""
    began = time.monotonic()
    receiver = parts()
    refusals = receiver.receiving.refusals
    try:
        body = read_body(request.environ, receiver.receiving.largest_body)
    except Refused as error:
        if error.status == 413:
            refusals.size()
        raise
    deadline = deadline_for(began, time.monotonic())
    steps = receiver.receiving.receive(body, request.headers.get(SIGNATURE))
    try:
        text = blocking(steps, lambda items: receiver.ingest.submit_all(items, deadline))
    except Refused as error:
        if error.status == 401:
            refusals.signature(body, {n.lower(): v for n, v in request.headers.items()})
        raise
    return response(json_answer(200, text))


@blueprint.get(WEBHOOK, provide_automatic_options=False)
def there() -> Response:
    """For who tries the address before it is registered."""
    return Response(
        "ZimSend's webhooks are received here, by POST.\n", content_type="text/plain; charset=utf-8"
    )
