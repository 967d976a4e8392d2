"""`/v1`: what became of each message, in the shapes of ZimSend's own API."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Any

from flask import Blueprint, Response, request
from werkzeug.routing import BaseConverter

from receiver import ids, mirror, phone, status, times
from receiver.event import clean_id, key_of
from receiver.mirror import Search
from receiver.parts import parts
from receiver.providers import by_report
from receiver.web.v1 import ApiError, authenticate, gateway, ignored

blueprint = Blueprint("messages", __name__, url_prefix="/v1")
blueprint.before_request(authenticate)

#: Events that a status answer shows at most; it tells how many there are.
MOST_EVENTS = 200
#: The parameters of both, and those of history alone; see `ignored`.
_OF_STATS = ("from_date", "to_date", "device_id", "provider")
_FILTERS = (*_OF_STATS, "page", "limit", "status", "to", "search", "error")
_METADATA = "metadata."
_USUAL_LIMIT, _LARGEST_LIMIT = 50, 100
#: A `+` that was not encoded in a URL arrives as a space.
_LOST_PLUS = re.compile(r"([T ]\S+) (?=\d\d:?\d\d$)", re.ASCII | re.IGNORECASE)


class AnyText(BaseConverter):
    """The rest of a path, whatever it holds: an id may begin with a slash, or hold a new line."""

    regex = "(?s:.+)"
    part_isolating = False


def _answer(body: dict[str, Any]) -> Response:
    text = json.dumps(body, ensure_ascii=False)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair in one SMS; strict readers would refuse the whole document.
        encoded = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
    return Response(encoded, content_type="application/json")


@blueprint.get("/sms/status/<anytext:message_id>", provide_automatic_options=False)
def sms_status(message_id: str) -> Response:
    """All that is known of one message, and from which events."""
    asked, message_id = message_id, key_of(message_id)
    store = parts().store
    evidence = store.evidence(message_id, MOST_EVENTS)
    if evidence is None and gateway.learn(asked):
        evidence = store.evidence(message_id, MOST_EVENTS)
    if evidence is None:
        raise ApiError(404, "MESSAGE_NOT_FOUND", "No message with this id is known here.")
    row, count, events = evidence
    shown = [
        {
            "event_id": ids.written(event["id"]),
            "type": event["type"],
            "occurred_at": times.iso(event["occurred_at"]),
            "received_at": times.iso(event["received_at"]),
            "source": event["source"],
            "late": bool(event["late"]),
            "repeat": bool(event["repeat"]),
            "receipts": event["receipts"],
        }
        for event in events
    ]
    return _answer(
        {
            "success": True,
            **_message(message_id, row),
            "events_total": count,
            "events": shown,
            "ignored": ignored(),
        }
    )


@blueprint.get("/sms/history", provide_automatic_options=False)
def sms_history() -> Response:
    """A page of messages, newest first; see `mirror.summarize` for the time that counts."""
    page = _number("page", 1)
    limit = min(_number("limit", _USUAL_LIMIT), _LARGEST_LIMIT)
    total, rows = parts().store.history(_search(), (page - 1) * limit, limit)
    pages = -(-total // limit)
    return _answer(
        {
            "success": True,
            "data": [_message(message_id, row) for message_id, row in rows],
            "pagination": {
                # One of the provider's documents, and the other.
                "current_page": page,
                "per_page": limit,
                "total_pages": pages,
                "total_items": total,
                "page": page,
                "limit": limit,
                "total": total,
                "pages": pages,
            },
            "ignored": ignored(*_FILTERS, prefix=_METADATA),
        }
    )


@blueprint.get("/sms/stats", provide_automatic_options=False)
def sms_stats() -> Response:
    """Numbers of messages by UTC day; those that have expired are still counted."""
    since, until = _period()
    counts = parts().store.statistics(
        None if since is None else since // times.DAY,
        None if until is None else until // times.DAY,
        _device(),
        _provider(),
        by=("day", "provider", "code"),
    )
    told = by_report(counts)
    stats = mirror.statistics(*([(day, *n) for day, _, _, *n in part] for part in told))
    stats["by_error"] = mirror.failures(
        (code, count) for _, _, code, state, count in counts if state == "failed"
    )
    asked = {"from": _argument("from_date"), "to": _argument("to_date")}
    return _answer(
        {"success": True, "period": asked, "stats": stats, "ignored": ignored(*_OF_STATS)}
    )


def _message(message_id: str, row: status.Row) -> dict[str, Any]:
    view = status.describe(row)
    view["created_at"] = view["queued_at"]
    return {"message_id": ids.written(message_id)} | {
        name: times.iso(value) if name.endswith("_at") and value is not None else value
        for name, value in view.items()
    }


# --- parameters


def _argument(name: str) -> str | None:
    """A parameter as it came; an empty one is none."""
    return request.args.get(name) or None


def _number(name: str, default: int) -> int:
    text = _argument(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < 1:
        raise ApiError(400, "INVALID_PARAMETER", f"{name} must be a whole number from 1 on.")
    return int(text)


def _search() -> Search:
    state = _argument("status")
    if state is not None and state not in status.STATES:
        raise ApiError(
            400, "INVALID_PARAMETER", f"status must be one of {', '.join(status.STATES)}."
        )
    to, text = _argument("to"), _argument("search")
    numbers = () if to is None else phone.forms(to, parts().config.default_country)
    if to is not None and not numbers:
        raise ApiError(400, "INVALID_PHONE_NUMBER", "to must be a number like +33612345678.")
    since, until = _period()
    return Search(
        status=state,
        device_id=_device(),
        numbers=numbers,
        since=since,
        until=until,
        text=None if text is None else mirror.fold(text),
        code=None if (code := _argument("error")) is None else clean_id(code),
        provider=_provider(),
        metadata=tuple(
            (mirror.storable(name.removeprefix(_METADATA)), mirror.storable(value))
            for name, value in request.args.items()
            if name.startswith(_METADATA) and name != _METADATA and value
        ),
    )


def _device() -> str | None:
    device = _argument("device_id")
    return None if device is None else clean_id(device)


def _provider() -> str | None:
    text = _argument("provider")
    name = None if text is None else text.strip().lower()
    if name is not None and name not in ids.NAMES:
        raise ApiError(
            400, "INVALID_PARAMETER", f"provider must be one of {', '.join(sorted(ids.NAMES))}."
        )
    return name


def _period() -> tuple[int | None, int | None]:
    """`from_date` and `to_date`; both belong to the period, and a bare date is a whole UTC day."""
    since, until = _moment("from_date"), _moment("to_date", end_of_day=True)
    if since is not None and until is not None and since > until:
        raise ApiError(400, "INVALID_PARAMETER", "from_date must not be later than to_date.")
    return since, until


def _moment(name: str, *, end_of_day: bool = False) -> int | None:
    text = _argument(name)
    if text is None:
        return None
    moment = times.parse(_LOST_PLUS.sub(r"\1+", text))
    if moment is None:
        raise ApiError(
            400,
            "INVALID_PARAMETER",
            f"{name} must be a date or a time in ISO 8601, like 2026-11-20 or "
            "2026-11-20T08:15:42Z.",
        )
    if end_of_day and _is_date(text):
        moment += times.DAY - 1
    return moment


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text.upper())
    except ValueError:
        return False
    return True
