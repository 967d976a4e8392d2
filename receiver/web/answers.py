"""Answers as plain values, for the event loop and for Flask alike: errors, and their shapes.

Outside of `/v1` an error is a problem document (RFC 9457), under `/v1` it is ZimSend's object.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import NamedTuple

from werkzeug.http import HTTP_STATUS_CODES

from receiver.errors import Refused, StoreUnavailable

log = logging.getLogger(__name__)

#: Seconds after which a sender that can choose should come back. ZimSend keeps to its own plan.
RETRY_AFTER = 5

#: Of every error: it is JSON, whatever a browser sees in it, and no page.
_CLOSED = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Answer(NamedTuple):
    """
    :param headers: all but those that belong to the connection.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def json_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer whose body is a JSON text."""
    told = {"Content-Type": "application/json", **(headers or {})}
    return Answer(status, list(told.items()), text.encode())


def in_api(path: str) -> bool:
    """Whether a path is under `/v1`, known or not."""
    return path == "/v1" or path.startswith("/v1/")


def api_error(
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
) -> Answer:
    """An error as ZimSend's API tells it.

    :param more: what is told beside it.
    """
    body = {"success": False, "error": {"code": code, "message": message}, **(more or {})}
    return json_answer(status, json.dumps(body), {**_CLOSED, **(headers or {})})


def error_answer(
    path: str, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Answer:
    """An error in the shape that belongs to the path of its request."""
    title = HTTP_STATUS_CODES.get(status, "Error")
    if in_api(path):
        return api_error(status, title.upper().replace(" ", "_"), detail, headers)
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    told = {"Content-Type": "application/problem+json", **_CLOSED, **(headers or {})}
    return Answer(status, list(told.items()), json.dumps(document).encode())


def refusal(path: str, error: Exception) -> Answer:
    """What a request is answered that ends with this error. Tells nothing of what is inside."""
    if isinstance(error, Refused):
        return error_answer(path, error.status, error.detail, error.headers)
    if isinstance(error, StoreUnavailable):
        detail = "the store cannot be used at this moment; try again"
        return error_answer(path, 503, detail, {"Retry-After": str(RETRY_AFTER)})
    log.error("a request failed by a defect of this program", exc_info=error)
    return error_answer(path, 500, "a defect of this program; its log says more")
