"""`/v1`: what ZimSend's own API answers, from here. Who is let in, and how errors are told."""

from __future__ import annotations

import hmac

from flask import request

from receiver.parts import parts


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
    known = request.environ.get("receiver.known")
    if known is not None:  # the event loop is patient with those who are let in
        known()
