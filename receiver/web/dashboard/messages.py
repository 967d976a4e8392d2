"""What became of each SMS: a list that can be searched and filtered, one message, and CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from flask import Response, abort, request

from receiver import ids, mirror, phone, status, times
from receiver.event import clean_id, key_of
from receiver.mirror import Search
from receiver.parts import parts
from receiver.sheets import MARK, csv_line
from receiver.store import Place, Selection
from receiver.web.dashboard.filters import Wrong, given, moment_of
from receiver.web.dashboard.pages import asked_id, blueprint, here, link, page

#: Messages of a page, and of a file: it must be read within 10 s.
_OF_A_PAGE, _OF_A_FILE = 50, 5_000
#: Events of a message that are shown.
_EVENTS = 200
#: The shortest text that is searched for: shorter ones no index knows.
_SHORTEST = 3
#: The parameters of a list, but for metadata and its page.
FILTERS = ("q", "to", "status", "error", "device", "provider", "since", "until")
_METADATA = "metadata."

_COLUMNS = (
    *("message_id", "provider", "status", "to", "error_code", "error_message", "device_id"),
    *(f"{state}_at" for state in status.STATES),
    *("message", "metadata", "test"),
)


@blueprint.get("/messages")
def messages() -> Response:
    """A page of those that match, newest first."""
    wrong, found = None, []
    try:
        found = parts().store.listed(_search(), _after(), _OF_A_PAGE + 1)
    except Wrong as error:
        wrong = str(error)
    shown, more = found[:_OF_A_PAGE], found[_OF_A_PAGE:]
    return page(
        "messages.html",
        200 if wrong is None else 400,
        rows=[(message_id, at, _view(row)) for (at, message_id), row in shown],
        wrong=wrong,
        older=here(after=_written(shown[-1][0])) if more else None,
        newest=here(after=None) if request.args.get("after") else None,
        csv=f"{link('messages_csv')}?{urlencode(list(request.args.items(multi=True)))}",
        of_a_file=_OF_A_FILE,
        filters={name: request.args.get(name, "").strip() for name in FILTERS},
        metadata=_metadata(),
        without_country=phone.needs_country(
            request.args.get("to", ""), parts().config.default_country
        ),
        filtered=any(name != "after" and value for name, value in request.args.items()),
        states=status.STATES,
    )


@blueprint.get("/messages.csv")
def messages_csv() -> Response:
    """The same as CSV: so many of them; the last line's place, if there are more, in a header."""
    try:
        found = parts().store.listed(_search(), _after(), _OF_A_FILE)
    except Wrong:
        abort(400)
    lines = [MARK + csv_line(_COLUMNS)]
    for (_, message_id), row in found:
        view = _view(row)
        told = view | {
            "message_id": ids.written(message_id),
            "provider": ids.provider(message_id),
            "error_code": view["code"],
            "error_message": (view["error"] or {}).get("message"),
        }
        lines.append(csv_line(_cell(name, told[name]) for name in _COLUMNS))
    headers = {"Content-Disposition": 'attachment; filename="messages.csv"'}
    if len(found) == _OF_A_FILE:
        further = here(after=_written(found[-1][0]))
        headers["Link"] = f'<{further}>; rel="next"'
    return Response(
        "".join(lines).encode("utf-8", "replace"),
        headers=headers,
        content_type="text/csv; charset=utf-8",
    )


@blueprint.get("/messages/<anytext:key>")
def message(key: str) -> Response:
    """One message, and what it was learnt from."""
    store = parts().store
    message_id = key_of(asked_id(key))
    evidence = store.evidence(message_id, 0)
    if evidence is None:
        abort(404)
    row, count, _ = evidence
    return page(
        "message.html",
        message_id=message_id,
        provider=ids.provider(message_id),
        view=_view(row),
        events=list(_timeline(message_id)),
        events_in_all=count,
        states=status.STATES,
    )


def _timeline(message_id: str) -> Iterator[dict[str, Any]]:
    """Its events as they came in, each with what became of its work."""
    for number, event in enumerate(parts().store.events(Selection(message_id=message_id))):
        if number == _EVENTS:
            return
        yield event | {
            "occurred_at": times.parse(event["occurred_at"]),
            "received_at": times.parse(event["received_at"]),
            "state": status.STATE_OF_TYPE.get(event["type"], ""),
        }


def _view(row: status.Row) -> dict[str, Any]:
    view = status.describe(row)
    view["code"] = (view["error"] or {}).get("code")
    return view


def _cell(name: str, value: object) -> object:
    return times.iso(value) if name.endswith("_at") and isinstance(value, int) else value


# --- the filter


def _search() -> Search:
    """
    :raises Wrong: if a filter cannot be understood.
    """
    receiver = parts()
    state, to, text = given("status"), given("to"), given("q")
    if state is not None and state not in status.STATES:
        raise Wrong("messages.wrong.status")
    numbers = () if to is None else phone.forms(to, receiver.config.default_country)
    folded = None if text is None else mirror.fold(text)
    if folded is not None and len(folded) < _SHORTEST:
        raise Wrong("messages.short_text")
    device, code = given("device"), given("error")
    return Search(
        status=state,
        device_id=None if device is None else clean_id(device),
        numbers=numbers,
        since=moment_of("since", last=False),
        until=moment_of("until", last=True),
        text=folded,
        code=None if code is None else clean_id(code),
        provider=given("provider"),
        metadata=tuple(_metadata().items()),
    )


def _metadata() -> dict[str, str]:
    """`metadata.KEY=VALUE`, or a key and a value of the form."""
    found = {
        mirror.storable(name.removeprefix(_METADATA)): mirror.storable(value)
        for name, value in request.args.items()
        if name.startswith(_METADATA) and name != _METADATA and value
    }
    key, value = given("key"), given("value")
    return found | ({mirror.storable(key): mirror.storable(value)} if key and value else {})


def _after() -> Place | None:
    at, _, message_id = request.args.get("after", "").partition(".")
    return (int(at), message_id) if re.fullmatch(r"-?[0-9]{1,18}", at) else None


def _written(place: Place) -> str:
    return f"{place[0]}.{place[1]}"
