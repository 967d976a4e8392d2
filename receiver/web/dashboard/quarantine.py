"""Signed bodies that could not be used: what they are, and trying them again."""

from __future__ import annotations

from itertools import islice
from typing import Any

from flask import Response, abort, request

from receiver import ids
from receiver.parts import parts
from receiver.quarantine import retry
from receiver.web.dashboard.pages import asked_id, blueprint, done, page

#: Bodies on a page; so many are tried again at once.
_SHOWN = 50
#: Characters of a body that are shown.
_LONGEST = 20_000


@blueprint.get("/quarantine")
def quarantine() -> Response:
    """The oldest of them."""
    found = list(islice(parts().store.quarantined(), _SHOWN + 1))
    return page("quarantine.html", entries=found[:_SHOWN], more=len(found) > _SHOWN)


@blueprint.get("/quarantine/<anytext:key>")
def quarantined(key: str) -> Response:
    """One of them; its body, if it is asked for."""
    entry = _find(asked_id(key))
    body = None
    if "body" in request.args and entry["body"] is not None:
        body = entry["body"].decode("utf-8", "backslashreplace")[:_LONGEST]
    return page("quarantined.html", entry=entry, body=body, cut=_LONGEST)


@blueprint.post("/quarantine/retry")
def try_again() -> Response:
    """Try those again that the form names."""
    receiver = parts()
    used = still = 0
    for written in request.form.getlist("id")[:_SHOWN]:
        entry = next(receiver.store.quarantined(ids.read(written)), None) if written else None
        if entry is not None:
            ends = retry(entry, receiver.store, receiver.ingest, receiver.config, receiver.now())
            used += bool(ends)
            still += not ends
    if used or not still:
        return done("quarantine.used", n=used)
    return done("quarantine.still", n=still)


def _find(written: str) -> dict[str, Any]:
    entry = next(parts().store.quarantined(ids.read(written)), None)
    if entry is None or ids.written(entry["digest"]) != written:
        abort(404)
    return entry
