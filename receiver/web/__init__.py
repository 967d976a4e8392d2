"""What the service answers over HTTP: thin blueprints over the parts in `app.extensions`."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, cast

from flask import Flask, Response, current_app, request
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


class ApiError(Exception):
    """An answer under `/v1`, in ZimSend's error shape."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def api_problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    """An error as ZimSend's API tells it."""
    body = {"success": False, "error": {"code": code, "message": message}}
    return Response(json.dumps(body), status, headers=headers, content_type="application/json")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as RFC 9457 wants it; under `/v1`, as ZimSend's clients want it."""
    title = HTTP_STATUS_CODES.get(status, "Error")
    if in_api():
        return api_problem(status, title.upper().replace(" ", "_"), detail, headers)
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(
        json.dumps(body), status, headers=headers, content_type="application/problem+json"
    )


def http_problem(error: HTTPException) -> Response:
    """What the framework refused."""
    answer = problem(error.code or 500, error.description or "")
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer


def in_api() -> bool:
    """Whether the request is for `/v1`, known path or not."""
    return request.path == "/v1" or request.path.startswith("/v1/")


def register_errors(app: Flask) -> None:
    """Every error leaves as a problem document, and none with what is inside it."""

    app.register_error_handler(HTTPException, http_problem)

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        return api_problem(error.status, error.code, error.message)

    @app.errorhandler(BodyError)
    def body_error(error: BodyError) -> Response:
        return problem(error.status, error.detail)

    @app.errorhandler(StoreUnavailable)
    def unavailable(error: StoreUnavailable) -> Response:
        return problem(
            503,
            "the store cannot be used at this moment; try again",
            {"Retry-After": str(RETRY_AFTER)},
        )

    @app.errorhandler(Exception)
    def defect(error: Exception) -> Response:
        log.error("a request failed by a defect of this program", exc_info=error)
        return problem(500, "a defect of this program; its log says more")
