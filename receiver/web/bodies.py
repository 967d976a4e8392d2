"""The body of a request, whole and bounded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from receiver.errors import Refused

log = logging.getLogger(__name__)

#: Bytes of a body that goes on to ZimSend: what its documents allow, whatever MAX_BODY_BYTES is.
LARGEST_PASSED_ON = 2 * 1024 * 1024
#: What is read and thrown away of a body over the limit, so that its sender gets to read the 413
#: instead of a connection reset in the middle of its sending.
_THROWN_AWAY = 4 * 1024 * 1024


def read_body(environ: Mapping[str, Any], limit: int) -> bytes:
    """The whole body, exactly as sent.

    The framework's own limit would cut a chunked body silently, and a body that ends early
    would look complete; so both are checked here.

    :param limit: bytes.
    :raises Refused: 413 over the limit, 400 if it is shorter than declared or unreadable.
    """
    declared = _declared_length(environ)
    stream = environ["wsgi.input"]
    try:
        body: bytes = stream.read(limit + 1 if declared is None else min(declared, limit + 1))
        if len(body) > limit:
            remaining = _THROWN_AWAY
            while remaining > 0 and (thrown := stream.read(min(remaining, 65_536))):
                remaining -= len(thrown)
    except Exception as error:
        # The server reads lazily: a broken chunk, a reset and a time-out all come up here.
        log.debug("a body could not be read: %s", type(error).__name__)
        if (declared or 0) > limit:
            raise too_large(limit) from error
        raise Refused(400, "the body could not be read whole") from error
    if len(body) > limit or (declared or 0) > limit:
        raise too_large(limit)
    if declared is not None and len(body) < declared:
        raise Refused(400, f"the body ends after {len(body)} of {declared} bytes")
    return body


def too_large(limit: int) -> Refused:
    return Refused(413, f"the body is larger than {limit} bytes")


def _declared_length(environ: Mapping[str, Any]) -> int | None:
    declared = environ.get("CONTENT_LENGTH")
    if not declared or environ.get("HTTP_TRANSFER_ENCODING"):
        return None
    try:
        return int(declared)
    except ValueError:
        raise Refused(400, "Content-Length is not a number") from None
