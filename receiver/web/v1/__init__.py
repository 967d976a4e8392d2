"""`/v1`: what ZimSend's own API answers, from here. Who is let in, and how errors are told."""

from __future__ import annotations

import hmac

from flask import request

from receiver.parts import parts


class ApiError(Exception):
    """An answer under `/v1`, in ZimSend's error shape.

    :param more: what it tells beside the error.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: dict[str, str] | None = None,
        more: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers
        self.more = more


def authenticate() -> None:
    """The headers of ZimSend's API, with the values that the settings give, by default ZimSend's.

    The key that reads opens calls by GET and HEAD, without a client id.

    :raises ApiError: also where no key is set: nothing here is ever open to everybody.
    """
    config = parts().config
    api_key, client_id = config.v1_api_key, config.v1_client_id
    if api_key is None and config.client_id is not None:
        api_key, client_id = config.api_key, client_id or config.client_id
    if api_key is None and config.v1_read_key is None:
        raise ApiError(
            503,
            "NOT_CONFIGURED",
            "This API is closed: set V1_API_KEY, or ZIMSEND_API_KEY and ZIMSEND_CLIENT_ID, where "
            "it runs.",
        )
    key, client = request.headers.get("X-API-Key"), request.headers.get("X-Client-ID")
    # All are compared, so that the time taken does not tell which one was wrong.
    reads = _matches(key, config.v1_read_key)
    key_matches = _matches(key, api_key)
    client_matches = client_id is None or _matches(client, client_id)
    if not key or (not client and client_id is not None and not reads):
        needed = "X-API-Key is" if client_id is None else "X-API-Key and X-Client-ID are"
        raise ApiError(400, "MISSING_AUTH_HEADERS", f"{needed} required.")
    if not key_matches and not reads:
        raise ApiError(401, "INVALID_API_KEY", "The API key is not valid.")
    if not client_matches and not reads:
        raise ApiError(401, "INVALID_CLIENT_ID", "The client id is not valid.")
    if not (key_matches and client_matches) and request.method not in ("GET", "HEAD"):
        raise ApiError(
            403, "READ_ONLY_KEY", "This API key only reads: use the one of V1_API_KEY to send."
        )
    known = request.environ.get("receiver.known")
    if known is not None:  # the event loop is patient with those who are let in
        known()


def _matches(given: str | None, expected: bytes | None) -> bool:
    """In constant time. What is not set matches nothing."""
    return hmac.compare_digest((given or "").encode(), expected or b"") and expected is not None


def ignored(*known: str, prefix: str = ".") -> list[str]:
    """The parameters that a call does not know; its answer names them, so that a slip shows.

    :param known: those that it knows, beside all that begin with the prefix and go on.
    """
    return [
        name
        for name in request.args
        if name not in known and (name == prefix or not name.startswith(prefix))
    ]
