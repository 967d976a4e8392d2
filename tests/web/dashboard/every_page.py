"""All pages of the dashboard: what each must keep to is tried for every one of them."""

from __future__ import annotations

#: Addresses; what stands in braces is an id of the store that `filled` in conftest makes.
PAGES = (
    "/",
    "/?days=90",
    "/settings",
    "/messages",
    "/messages?status=failed&error=NO_CREDIT&q=bonjour",
    "/messages/m1",
)
