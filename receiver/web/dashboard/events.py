"""What came in, what became of it, and giving it to its handlers again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args

from flask import Response, abort, request

from receiver import ids, times
from receiver.event import ALIASES, key_of
from receiver.parts import Receiver, parts
from receiver.store import Page, Selection, WantedState
from receiver.web.dashboard.filters import Wrong, given, moment_of
from receiver.web.dashboard.hiding import hidden
from receiver.web.dashboard.pages import asked_id, blueprint, done, here, page

#: Events of a page.
_OF_A_PAGE = 50
#: Characters of a body that are shown.
_LONGEST = 20_000
FILTERS = ("type", "state", "handler", "cause", "since", "until")
STATES = tuple(state for state in get_args(WantedState) if state != "any")


@blueprint.get("/events")
def events() -> Response:
    """A page of those that match, newest first."""
    receiver, wrong = parts(), None
    found = Page([], None, True)
    try:
        found = receiver.store.page(_selection(), _before(), _OF_A_PAGE)
    except Wrong as error:
        wrong = str(error)
    return page(
        "events.html",
        200 if wrong is None else 400,
        rows=[shown(event) for _, event in found.events],
        older=None if found.before is None else here(before=str(found.before)),
        whole=found.whole,
        newest=here(before=None) if request.args.get("before") else None,
        wrong=wrong,
        filters={name: request.args.get(name, "").strip() for name in FILTERS},
        filtered=any(name != "before" and value for name, value in request.args.items()),
        states=STATES,
        handlers=_names(receiver, given("handler")),
    )


@blueprint.get("/events/<anytext:key>")
def event(key: str) -> Response:
    """One of them, with its body: without numbers and texts, until they are asked for."""
    receiver = parts()
    event_id = key_of(asked_id(key))
    told = next(receiver.store.events(Selection(ids=[event_id])), None)
    if told is None:
        abort(404)
    raw = receiver.store.body(event_id) or b""
    everything = "body" in request.args
    body = raw.decode("utf-8", "backslashreplace") if everything else hidden(raw)
    return page(
        "event.html",
        event=shown(told),
        traces=receiver.store.tracebacks(event_id),
        body=body and body[:_LONGEST],
        is_cut=body is not None and len(body) > _LONGEST,
        longest=_LONGEST,
        length=len(raw),
        everything=everything,
        provider=ids.provider(event_id),
        wanting=receiver.registry.wanting(told["type"]),
    )


@blueprint.post("/events/replay")
def replay_event() -> Response:
    """Give one event to its handlers again, or to the one that is named."""
    receiver = parts()
    written = request.form.get("id")
    if not written:
        abort(400)
    count = receiver.store.replay(
        Selection(ids=[key_of(written)], handler=request.form.get("handler") or None),
        wanting=receiver.registry.wanting,
        now=receiver.now(),
        dry_run=False,
        progress=lambda _: None,
    )
    return done("events.replayed", n=count) if count else done("events.not_replayed")


def shown(event: dict[str, Any]) -> dict[str, Any]:
    """An event of the store's with its times as numbers, and work that is tried again as such."""
    return event | {
        "occurred_at": times.parse(event["occurred_at"]),
        "received_at": times.parse(event["received_at"]),
        "deliveries": [
            delivery
            | {
                "shown": "retrying"
                if delivery["state"] == "pending" and delivery["attempts"]
                else delivery["state"],
                "next_at": times.parse(delivery["next_attempt_at"] or ""),
            }
            for delivery in event["deliveries"]
        ],
    }


# --- the filter


def _selection() -> Selection:
    """
    :raises Wrong: if a filter cannot be understood.
    """
    kind, state, handler = given("type"), given("state"), given("handler")
    if state is not None and state not in STATES:
        raise Wrong("events.wrong.state")
    wanted: Any = state if state is not None or handler is None else "any"
    return Selection(
        event_type=None if kind is None else ALIASES.get(kind, kind),
        state=wanted,
        handler=handler,
        cause=request.args.get("cause") if state == "dead" else None,
        since=moment_of("since", last=False),
        until=moment_of("until", last=True),
    )


def _before() -> int | None:
    before = request.args.get("before", "")
    return int(before) if re.fullmatch(r"[0-9]{1,18}", before) else None


def _names(receiver: Receiver, *more: str | None) -> Iterable[str]:
    """The handlers' names, with what is asked for."""
    return sorted({*(handler.name for handler in receiver.registry), *filter(None, more)})
