"""All pages of the dashboard: what each must keep to is tried for every one of them."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from tests.web.dashboard.world import HOSTILE

#: What the dead work of `world` has died of.
GROUP = {"handler": "second", "cause": "ConnectionError at /srv/shop/sheets.py:17"}

#: With the store of `filled` in conftest, or of `world`.
PAGES = (
    "/",
    "/?days=90",
    "/settings",
    "/messages",
    "/messages?status=failed&error=NO_CREDIT&q=bonjour",
    "/messages/m1",
    "/events",
    "/events?state=dead&handler=first&type=sms.*&since=7d&until=today",
    "/failures",
    "/failures/group?handler=first&cause=KeyError",
    "/live",
    "/live?from=0",
    "/losses",
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
    "/events",
    f"/events/{quote(f'evt_failed_{HOSTILE[1]}', safe='')}?body=all",
    "/failures",
    f"/failures/group?{urlencode(GROUP)}",
    "/live",
    "/losses",
)

#: Pages that are asked for what strangers wrote, in whichever parameter.
HOSTILE_PAGES = tuple(
    f"/{page}?{urlencode({name: HOSTILE[0]} | more)}"
    for page, names, more in (
        ("messages", ("q", "error", "device", "provider", "metadata.<b>", "after"), {}),
        ("events", ("type", "handler", "before", "cause"), {"state": "dead"}),
        ("failures/group", ("handler", "cause"), {}),
        ("live", ("from",), {}),
    )
    for name in names
)
