"""Every call that the client of sipgate's API can make."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from receiver.providers.sipgate.api import Sipgate

TOKEN_ID = "token-ABC123"
TOKEN = "0d9c7f5e-1f7a-4f0e-9a53-2f7f5a3f9d11"
NUMBER = "+4915799000002"
WHEN = datetime(2026, 11, 20, 9, 15, 42, tzinfo=timezone(timedelta(hours=1)))

ENTRY: dict[str, Any] = {
    "id": "5005443120",
    "type": "SMS",
    "direction": "OUTGOING",
    "incoming": False,
    "source": "+4915799000001",
    "target": NUMBER,
    "created": "2026-11-20T08:15:42Z",
    "lastModified": "2026-11-20T08:15:42Z",
    "status": "PICKUP",
    "connectionIds": ["s0"],
    "archived": False,
    "smsContent": "Hello",
    "scheduled": None,
}
PAGE: dict[str, Any] = {"items": [ENTRY], "totalCount": 1}

#: How it is made, its method and target, its body, its answer; whether it is repeated.
CALLS: dict[str, tuple[Callable[[Sipgate], Any], str, str, Any, Any, bool]] = {
    "send": (
        lambda s: s.send(NUMBER, "Hello"),
        "POST",
        "/sessions/sms",
        {"smsId": "s0", "recipient": NUMBER, "message": "Hello"},
        None,
        False,
    ),
    "send later": (
        lambda s: s.send(NUMBER, "Hello", sms_id="s1", send_at=1_795_162_542),
        "POST",
        "/sessions/sms",
        {"smsId": "s1", "recipient": NUMBER, "message": "Hello", "sendAt": 1_795_162_542},
        None,
        False,
    ),
    "userinfo": (
        lambda s: s.userinfo(),
        "GET",
        "/authorization/userinfo",
        None,
        {"sub": "w0", "domain": "sipgate.de"},
        True,
    ),
    "extensions": (
        lambda s: s.extensions("w/0"),
        "GET",
        "/w%2F0/sms",
        None,
        {"items": [{"id": "s0", "alias": "SMS", "callerId": "sipgate"}]},
        True,
    ),
    "caller ids": (
        lambda s: s.caller_ids("w0", "s0"),
        "GET",
        "/w0/sms/s0/callerids",
        None,
        {"items": [{"id": 7, "phonenumber": NUMBER, "verified": True, "defaultNumber": False}]},
        True,
    ),
    "account": (
        lambda s: s.account(),
        "GET",
        "/account",
        None,
        {"historyLifeTime": "THIRTY_DAYS"},
        True,
    ),
    "history": (
        lambda s: s.history(
            since=WHEN, connection_ids=("s0", "s1"), archived=True, offset=980, limit=1000
        ),
        "GET",
        "/history?types=SMS&directions=OUTGOING&connectionIds=s0&connectionIds=s1&archived=true"
        "&from=2026-11-20T08%3A15%3A42Z&offset=980&limit=1000",
        None,
        PAGE,
        True,
    ),
    "entry": (lambda s: s.entry("a/b"), "GET", "/history/a%2Fb", None, ENTRY, True),
}
