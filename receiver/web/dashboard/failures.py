"""Work that was given up, in groups of what it died of, and giving a group to its handler again."""

from __future__ import annotations

import re

from flask import Response, request

from receiver import causes
from receiver.parts import parts
from receiver.store import MOST_COUNTED, Selection
from receiver.web.dashboard.events import shown
from receiver.web.dashboard.pages import blueprint, done, link, page

#: Events that a preview shows, and work items that one press of its button gives again at most.
_EXAMPLES, _AT_ONCE = 5, 10_000
#: Causes that are no exception's, and the keys of what is told of them.
_OURS = {causes.GIVEN_UP: "given_up", causes.NO_HANDLER: "no_handler", "": "unknown"}


@blueprint.get("/failures")
def failures() -> Response:
    """The groups, that of the last death first."""
    receiver = parts()
    return page(
        "failures.html",
        groups=[(group, *_told(group.cause)) for group in receiver.store.groups()],
        registered={handler.name for handler in receiver.registry},
        most=MOST_COUNTED,
    )


@blueprint.get("/failures/group")
def group() -> Response:
    """One group: how much a replay would be, with a few of its events."""
    receiver = parts()
    handler, cause = request.args.get("handler", ""), request.args.get("cause", "")
    number, until = receiver.store.dead(handler, cause)
    examples = receiver.store.page(
        Selection(state="dead", handler=handler, cause=cause), None, _EXAMPLES
    )
    kind, place = _told(cause)
    return page(
        "group.html",
        handler=handler,
        cause=cause,
        kind=kind,
        place=place,
        number_of=number,
        until=until,
        examples=[shown(event) for _, event in examples.events],
        more=examples.before is not None,
        is_registered=receiver.registry.get(handler) is not None,
    )


@blueprint.post("/failures/replay")
def replay_group() -> Response:
    """Give to the handler what the preview has shown, and nothing that died since."""
    receiver = parts()
    form = request.form
    handler, cause, until = form.get("handler", ""), form.get("cause", ""), form.get("until", "")
    to = link("failures")
    if receiver.registry.get(handler) is None or not re.fullmatch(r"[0-9]{1,18}", until):
        return done("failures.not_replayed", to)
    count = receiver.store.replay(
        Selection(state="dead", handler=handler, cause=cause, died_until=int(until)),
        # It is the handler's own work, whatever it wants today.
        wanting=lambda _: (handler,),
        now=receiver.now(),
        dry_run=False,
        progress=lambda _: None,
        most=_AT_ONCE,
    )
    if not count:
        return done("failures.not_replayed", to)
    if count < _AT_ONCE:
        return done("failures.replayed", to, n=count)
    return done("failures.replayed_some", link("group", handler=handler, cause=cause), n=count)


def _told(cause: str) -> tuple[str | None, str]:
    """The kind of error, and its place; without a kind, the name of what is told of it."""
    if cause in _OURS:
        return None, _OURS[cause]
    kind, _, place = cause.partition(" at ")
    return kind, place
