"""How errors are answered: as problem documents, and under `/v1` as ZimSend's clients want it."""

from __future__ import annotations

import json
import logging

from flask import Flask, Response
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from receiver.errors import Refused, StoreUnavailable
from receiver.web.v1 import RETRY_AFTER, ApiError, api_problem, authenticate, in_api

log = logging.getLogger(__name__)

#: Of errors outside `/v1`.
PROBLEM_TYPE = "application/problem+json"


def problem_document(status: int, detail: str) -> str:
    """An error as RFC 9457 wants it."""
    title = HTTP_STATUS_CODES.get(status, "Error")
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail})


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as a problem document; under `/v1`, as ZimSend's clients want it."""
    if in_api():
        code = HTTP_STATUS_CODES.get(status, "Error").upper().replace(" ", "_")
        return api_problem(status, code, detail, headers)
    document = problem_document(status, detail)
    return Response(document, status, headers=headers, content_type=PROBLEM_TYPE)


def http_problem(error: HTTPException) -> Response:
    """What the framework refused."""
    answer = problem(error.code or 500, error.description or "")
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer


def register_errors(app: Flask) -> None:
    """Every error leaves as a problem document, and none with what is inside it."""

    app.register_error_handler(HTTPException, http_problem)

    @app.errorhandler(404)
    @app.errorhandler(405)
    def unknown_call(error: HTTPException) -> Response:
        """Under `/v1`, only who is let in is told that there is no such call."""
        if in_api():
            try:
                authenticate()
            except ApiError as refusal:
                return api_problem(refusal.status, refusal.code, refusal.message)
        return http_problem(error)

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        return api_problem(error.status, error.code, error.message, error.headers)

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return problem(*refusal(error))


def refusal(error: Exception) -> tuple[int, str, dict[str, str]]:
    """What a request is answered that ends with this error: status, detail, headers."""
    if isinstance(error, Refused):
        return error.status, error.detail, error.headers
    if isinstance(error, StoreUnavailable):
        detail = "the store cannot be used at this moment; try again"
        return 503, detail, {"Retry-After": str(RETRY_AFTER)}
    log.error("a request failed by a defect of this program", exc_info=error)
    return 500, "a defect of this program; its log says more", {}
