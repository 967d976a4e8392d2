"""What the service answers over HTTP: thin blueprints over the parts in `app.extensions`."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, cast

from flask import Flask, Response, current_app
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from receiver.errors import BodyError, StoreUnavailable

if TYPE_CHECKING:
    from app import Receiver

log = logging.getLogger(__name__)

#: Seconds after which a sender that can choose should come back. ZimSend keeps to its own plan.
RETRY_AFTER = 5


def parts() -> Receiver:
    """The parts that `app.py` put together."""
    return cast("Receiver", current_app.extensions["receiver"])


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as RFC 9457 wants it."""
    body = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES.get(status, "Error"),
        "status": status,
        "detail": detail,
    }
    return Response(
        json.dumps(body), status, headers=headers, content_type="application/problem+json"
    )


def register_errors(app: Flask) -> None:
    """Every error leaves as a problem document, and none with what is inside it."""

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        answer = problem(error.code or 500, error.description or "")
        for name, value in error.get_headers():
            if name == "Allow":
                answer.headers[name] = value
        return answer

    @app.errorhandler(BodyError)
    def body_error(error: BodyError) -> Response:
        return problem(error.status, error.detail)

    @app.errorhandler(StoreUnavailable)
    def unavailable(error: StoreUnavailable) -> Response:
        return problem(
            503,
            "the store cannot be written at this moment; send it again",
            {"Retry-After": str(RETRY_AFTER)},
        )

    @app.errorhandler(Exception)
    def defect(error: Exception) -> Response:
        log.error("a request failed by a defect of this program", exc_info=error)
        return problem(500, "a defect of this program; its log says more")
