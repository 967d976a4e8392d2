"""What the service answers over HTTP: the webhook, and thin blueprints over the parts in
`app.extensions`."""

from __future__ import annotations

import hmac
import json
import logging
from typing import TYPE_CHECKING, cast

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from receiver.errors import Refused, StoreUnavailable

if TYPE_CHECKING:
    from app import Receiver

log = logging.getLogger(__name__)

#: Seconds after which a sender that can choose should come back. ZimSend keeps to its own plan.
RETRY_AFTER = 5

#: Of errors outside `/v1`.
PROBLEM_TYPE = "application/problem+json"


def parts() -> Receiver:
    """The parts that `app.py` put together."""
    return cast("Receiver", current_app.extensions["receiver"])


class ApiError(Exception):
    """An answer under `/v1`, in ZimSend's error shape."""

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


def api_problem(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> Response:
    """An error as ZimSend's API tells it."""
    body = {"success": False, "error": {"code": code, "message": message}}
    return Response(json.dumps(body), status, headers=headers, content_type="application/json")


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


def in_api() -> bool:
    """Whether the request is for `/v1`, known path or not."""
    return request.path == "/v1" or request.path.startswith("/v1/")


def authenticate() -> None:
    """ZimSend's two headers, with the values that this service itself uses at ZimSend.

    :raises ApiError: also where none are set: nothing here is ever open to everybody.
    """
    config = parts().config
    if config.api_key is None or config.client_id is None:
        raise ApiError(
            503,
            "NOT_CONFIGURED",
            "This API is closed: set ZIMSEND_API_KEY and ZIMSEND_CLIENT_ID where it runs.",
        )
    key, client = request.headers.get("X-API-Key"), request.headers.get("X-Client-ID")
    if not key or not client:
        raise ApiError(400, "MISSING_AUTH_HEADERS", "X-API-Key and X-Client-ID are required.")
    # Both are compared, so that the time taken does not tell which one was wrong.
    key_matches = hmac.compare_digest(key.encode(), config.api_key)
    client_matches = hmac.compare_digest(client.encode(), config.client_id)
    if not key_matches:
        raise ApiError(401, "INVALID_API_KEY", "The API key is not valid.")
    if not client_matches:
        raise ApiError(401, "INVALID_CLIENT_ID", "The client id is not valid.")


def register_errors(app: Flask) -> None:
    """Every error leaves as a problem document, and none with what is inside it."""

    app.register_error_handler(HTTPException, http_problem)

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
