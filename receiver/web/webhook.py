"""Requests that bring events as ordinary Flask routes: for every WSGI server, and for tests.

Under gunicorn the event loop answers them (`receiver/web/front/`), from the same description.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from flask import Blueprint, Response, abort, request

from receiver.ingest import deadline_for
from receiver.parts import parts
from receiver.providers import Door
from receiver.receiving import blocking
from receiver.web.answers import json_answer
from receiver.web.bodies import read_body
from receiver.web.problems import response


def routes(doors: Iterable[Door]) -> Blueprint:
    """A route for each door."""
    blueprint = Blueprint("webhook", __name__)
    for door in doors:
        blueprint.add_url_rule(
            door.path if door.header is not None else f"{door.path}/<secret>",
            endpoint=door.path.rpartition("/")[2],
            view_func=_receive,
            methods=door.methods,
            provide_automatic_options=False,
        )
    return blueprint


def _receive(secret: str | None = None) -> Response:
    """Acknowledge nothing that is not on the disk. No handler runs in here."""
    began = time.monotonic()
    receiver = parts()
    found = receiver.receiving.find(request.path)
    if found is None:
        abort(404)
    claimed = found.claimed
    if found.door.header is not None:
        claimed = request.headers.get(found.door.header)
    body = read_body(request.environ, receiver.receiving.largest_body)
    deadline = deadline_for(began, time.monotonic())
    steps = receiver.receiving.receive(found.provider, body, claimed)
    text = blocking(steps, lambda items: receiver.ingest.submit_all(items, deadline))
    return response(json_answer(200, text))
