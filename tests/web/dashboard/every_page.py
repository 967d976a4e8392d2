"""All pages of the dashboard: what each must keep to is tried for every one of them."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from tests.web.dashboard.world import HOSTILE

#: With the store of `filled` in conftest, or of `world`.
PAGES = (
    "/",
    "/?days=90",
    "/settings",
    "/messages",
    "/messages?status=failed&error=NO_CREDIT&q=bonjour",
    "/messages/m1",
    "/quarantine",
)

#: What is seen in a browser, each page once and as full as it can be; also for people's eyes.
SEEN = (
    "/",
    "/settings",
    "/messages",
    f"/messages/{quote(HOSTILE[1], safe='')}",
    "/messages?q=%21%21%21",
    "/quarantine",
)

#: Pages that are asked for what strangers wrote, in whichever parameter.
HOSTILE_PAGES = tuple(
    f"/messages?{urlencode({name: HOSTILE[0]})}"
    for name in ("q", "error", "device", "provider", "metadata.<b>", "after")
)
