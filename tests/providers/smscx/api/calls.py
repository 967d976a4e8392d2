"""Every call that the client of SMS.CX's API can make."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any

from receiver.providers.smscx.api import SmsCx

KEY = "key_0123456789"
NUMBER = "+33612345678"
UUID = "1c9f2a4e-9d1b-4c35-8e6f-0a7b1c2d3e4f"
WHEN = datetime(2026, 11, 20, 9, 15, 42, 500, tzinfo=timezone(timedelta(hours=1)))

ROW: dict[str, Any] = {
    "msgId": "9b1e",
    "status": "FAILED",
    "statusCode": 5,
    "errorCode": 27,
    "createdAt": "2026-11-20 08:15:40",
    "updatedAt": "2026-11-20 08:15:42",
    "cost": 0.05,
    "to": NUMBER,
    "countryIso": "FR",
    "from": "Shop",
    "text": "x",
}
SENT: dict[str, Any] = {
    "info": {"campaignId": "c1", "dlrCallbackUrl": "https://example.org/h", "invalid": ["0", 17]},
    "data": [ROW | {"status": "ACCEPTED", "errorCode": None, "trackData": UUID}, {"status": "?"}],
}
PAGE: dict[str, Any] = {"info": {}, "data": [ROW], "paging": {"next": None, "previous": None}}
OTP: dict[str, Any] = {
    "otpId": "o1",
    "trackId": None,
    "phoneNumber": NUMBER,
    "status": "PENDING",
    "attempts": 0,
    "maxAttempts": 3,
    "dateCreated": "2026-11-20 08:15:42",
    "dateExpires": "2026-11-20 08:20:42",
}

#: How it is made, its method and target, its body, its answer; whether it is repeated.
CALLS: dict[str, tuple[Callable[[SmsCx], Any], str, str, Any, Any, bool]] = {
    "send": (
        lambda s: s.send(
            NUMBER,
            "x",
            sender="Shop",
            scheduled_at=WHEN,
            dlr_callback_url="https://example.org/h",
            track_data=UUID,
            idempotency_id=UUID,
        ),
        "POST",
        "/sms",
        {
            "to": NUMBER,
            "text": "x",
            "from": "Shop",
            "scheduledDate": "2026-11-20 08:15:42",
            "dlrCallbackUrl": "https://example.org/h",
            "trackData": UUID,
            "idempotencyId": UUID,
        },
        SENT,
        False,
    ),
    "send to many": (
        lambda s: s.send((NUMBER, "0612345679"), "x", country_iso="FR", allow_invalid=True),
        "POST",
        "/sms",
        {
            "to": [NUMBER, "0612345679"],
            "text": "x",
            "from": "Default",
            "countryIso": "FR",
            "allowInvalid": True,
        },
        SENT,
        False,
    ),
    "campaign": (
        lambda s: s.send_campaign([1, 2], "x", scheduled_at="2026-11-20 08:15:42"),
        "POST",
        "/sms/campaign",
        {
            "groups": [1, 2],
            "text": "x",
            "from": "Default",
            "scheduledDate": "2026-11-20 08:15:42",
        },
        SENT,
        False,
    ),
    "delete": (
        lambda s: s.delete_scheduled("a/b"),
        "DELETE",
        "/sms/scheduled/a%2Fb",
        None,
        {"info": {"msgId": "a/b"}},
        False,
    ),
    "delete campaign": (
        lambda s: s.delete_scheduled_campaign("c"),
        "DELETE",
        "/sms/scheduled/campaign/c",
        None,
        {"info": {}},
        False,
    ),
    "new otp": (
        lambda s: s.new_otp(
            NUMBER, template="Code {{pin}}", ttl=300, pin_type="numbers", pin_length=6
        ),
        "POST",
        "/otp",
        {
            "phoneNumber": NUMBER,
            "from": "Default",
            "template": "Code {{pin}}",
            "ttl": 300,
            "pinType": "numbers",
            "pinLength": 6,
        },
        OTP,
        False,
    ),
    "verify": (
        lambda s: s.verify_otp("o1", "4829"),
        "POST",
        "/otp/o1",
        {"pin": "4829"},
        {"status": "VERIFIED"},
        False,
    ),
    "otp": (lambda s: s.otp("o1"), "GET", "/otp/o1", None, OTP, True),
    "cancel otp": (
        lambda s: s.cancel_otp("o1"),
        "DELETE",
        "/otp/o1",
        None,
        {"info": {"id": "o1"}},
        False,
    ),
    "report": (
        lambda s: s.report("9b1e"),
        "GET",
        "/reports/single/9b1e",
        None,
        {"data": ROW},
        True,
    ),
    "reports": (
        lambda s: s.reports(
            start_date=date(2026, 11, 20), end_date="2026-11-21", delivery_report="failed"
        ),
        "GET",
        "/reports?start_date=2026-11-20&end_date=2026-11-21&delivery_report=failed&limit=500",
        None,
        PAGE,
        True,
    ),
    "campaign reports": (
        lambda s: s.campaign_reports("c", cursor="a b", limit=10),
        "GET",
        "/reports/campaigns/c?limit=10&next=a+b",
        None,
        PAGE,
        True,
    ),
}
