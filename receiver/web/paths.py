"""Which path is meant: slashes at its end, or doubled between its fixed parts, are none. Pure.

Never a redirect: those who send webhooks do not follow one, or follow it with a GET.
"""

from __future__ import annotations

import re

HEALTH = "/healthz"
READINESS = "/readyz"
METRICS = "/metrics"

#: Paths that hold no id.
_FIXED = {
    *(HEALTH, READINESS, METRICS, "/", "/v1/reconciliation"),
    *("/v1/sms/history", "/v1/sms/stats", "/v1/sms/verify-otp", "/v1/sms/send-otp"),
    *("/v1/sms/send", "/v1/sms/send-bulk", "/v1/sms/send-bulk-personalized"),
    *("/messages", "/events", "/failures", "/live", "/losses", "/quarantine", "/settings"),
    *("/sign-in", "/sign-out"),
}
_SLASHES = re.compile(r"/+")
#: What stands before an id, the one slash in front of it included.
_BEFORE_AN_ID = re.compile(r"/+v1/+sms(?:/+status)?/")
_RESENT = re.compile(r"/resend/+\Z")


def meant(path: str) -> str:
    """A decoded path as the routes have it. What stands in the place of an id stays as it is."""
    if "//" not in path and not path.endswith("/"):
        return path
    single = _SLASHES.sub("/", path)
    without = single.rstrip("/") or "/"
    if without in _FIXED or without.startswith("/webhooks/"):
        return without
    before = _BEFORE_AN_ID.match(path)
    if before is None:  # under /v1 an error has another shape
        return single if single.startswith("/v1/") else path
    told = _SLASHES.sub("/", before[0]) + path[before.end() :]
    return _RESENT.sub("/resend", told) if before[0].endswith("sms/") else told
