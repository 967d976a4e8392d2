"""What comes in, as it comes, from any process: short requests, each from where the last ended."""

from __future__ import annotations

import re

from flask import Response, request

from receiver.parts import parts
from receiver.store import Position
from receiver.times import SECOND
from receiver.web.dashboard.events import shown
from receiver.web.dashboard.pages import blueprint, link, page

#: Events of one answer; and of the first one.
_MOST, _FIRST = 100, 50
_FORM = re.compile(r"([0-9]{1,18})((?:_[0-9]{1,18}\.[0-9]{1,18}\.[0-9]{1,12}){0,200})")


@blueprint.get("/live")
def live() -> Response:
    """What has come in since a position; by default the newest.

    With `skip` it may be the newest as well: a page that people look at shows not all where more
    comes in than can be read.
    """
    store, now = parts().store, parts().now()
    asked = read(request.args.get("from", ""))
    found, position = store.arrivals(asked or store.position(_FIRST), now, _MOST)
    skips, skipped = asked is None or "skip" in request.args, False
    if asked is not None and skips and len(found) == _MOST:
        newest = store.position(_MOST)
        if newest.seq > position.seq:
            found, position = store.arrivals(newest, now, _MOST)
            skipped = True
    return page(
        "live.html",
        rows=[(seq, shown(event)) for seq, event in found],
        next=link("live", **{"from": written(position)}),
        poll=link("live", **{"from": written(position)} | ({"skip": "1"} if skips else {})),
        skipped=skipped,
        asked=asked is not None,
        full=len(found) == _MOST,
    )


def written(position: Position) -> str:
    """As it stands in an address: numbers that are missing as distances, times in seconds."""
    missing = (
        f"_{position.seq - first}.{position.seq - last}.{until // SECOND}"
        for first, last, until in position.missing
    )
    return f"{position.seq}{''.join(missing)}"


def read(text: str) -> Position | None:
    """A position, or just the number of an event."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    seq = int(found[1])
    missing = []
    for one in found[2].split("_")[1:]:
        first, last, until = map(int, one.split("."))
        if last <= first <= seq:
            missing.append((seq - first, seq - last, until * SECOND))
    return Position(seq, tuple(missing))
