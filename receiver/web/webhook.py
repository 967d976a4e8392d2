"""Requests that bring events as ordinary Flask routes: for every WSGI server, and for tests.

Under gunicorn the event loop answers them (`receiver/web/front/`), from the same description.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from flask import Blueprint, Response, abort, request
from werkzeug.exceptions import MethodNotAllowed

from receiver.errors import Refused
from receiver.ingest import deadline_for
from receiver.metrics import ACKNOWLEDGED
from receiver.parts import parts
from receiver.providers import Provider
from receiver.receiving import Visit, blocking
from receiver.web.answers import json_answer
from receiver.web.bodies import read_body
from receiver.web.problems import response

_ALL = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def routes(providers: Iterable[Provider]) -> Blueprint:
    """A route for each door, with a word for whoever looks before it is registered."""
    blueprint = Blueprint("webhook", __name__)
    for provider in providers:
        door = provider.door
        if door is None:
            continue
        # Where the path holds a secret, whoever does not know it is told by no method that there is
        # such a path.
        blueprint.add_url_rule(
            door.path if door.header is not None else f"{door.path}/<secret>",
            endpoint=provider.name,
            view_func=_answer,
            methods=("GET", *door.methods) if door.header is not None else _ALL,
            provide_automatic_options=False,
        )
    return blueprint


def _answer(secret: str | None = None) -> Response:
    found = parts().receiving.find(request.path)
    if found is None:
        abort(404)
    if found.accepts(request.method):
        return _receive(found)
    methods = found.door.methods
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(["GET", "HEAD", *methods])
    return Response(
        f"The webhooks of {found.provider.title} are received here, by {' or '.join(methods)}.\n",
        content_type="text/plain; charset=utf-8",
    )


def _receive(found: Visit) -> Response:
    """Acknowledge nothing that is not on the disk. No handler runs in here."""
    began = time.monotonic()
    receiver = parts()
    claimed = found.claimed
    if found.door.header is not None:
        claimed = request.headers.get(found.door.header)
    try:
        body = read_body(request.environ, receiver.receiving.largest_body)
    except Refused as error:
        if error.status == 413:
            receiver.receiving.refusals.size()
        else:
            receiver.receiving.cut_short()
        raise
    ended = time.monotonic()
    deadline = deadline_for(began, ended)
    steps = receiver.receiving.receive(found.provider, body, claimed)
    try:
        text = blocking(steps, lambda items: receiver.ingest.submit_all(items, deadline))
    except Refused as error:
        if error.status == 401:
            headers = {name.lower(): value for name, value in request.headers.items()}
            receiver.receiving.refused(found, body, headers)
        raise
    receiver.counting.observe(ACKNOWLEDGED, time.monotonic() - ended)
    return response(json_answer(200, text))
