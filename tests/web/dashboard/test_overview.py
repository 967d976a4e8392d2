"""The overview's numbers: days, phones, providers, errors; and what was missed."""

from __future__ import annotations

import re
from html import unescape

import pytest

from receiver import times
from receiver.parts import Receiver
from receiver.providers import sipgate
from receiver.store.views import OfPhone
from receiver.times import DAY, HOUR, MINUTE, iso
from receiver.web.dashboard.phones import phones_of
from tests.conftest import Clock, Provider
from tests.payloads import body_of, envelope
from tests.web.dashboard.conftest import Visitor

pytestmark = pytest.mark.each_engine


def tell(provider: Provider, state: str, message_id: str, at: int, **data: object) -> None:
    told = {"message_id": message_id, "to": "+33612345678", f"{state}_at": iso(at), **data}
    answer = provider.post(envelope(f"sms.{state}", told, timestamp=iso(at)))
    assert answer.status_code == 200


def words(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_what_became_of_the_last_days(
    visitor: Visitor, provider: Provider, clock: Clock, engine: str
) -> None:
    clock.time += DAY - clock.time % DAY + 12 * HOUR  # noon
    now, admin = clock.time, visitor
    assert admin.sign_in().status_code == 303
    no_credit = {"code": "NO_CREDIT", "message": "x"}
    for number in range(3):
        tell(provider, "delivered", f"d{number}", now - HOUR, device_id="phone-1")
    tell(provider, "failed", "f1", now - HOUR, device_id="phone-2", error=no_credit)
    tell(provider, "failed", "f2", now - 2 * DAY, error=no_credit)
    tell(provider, "failed", "f3", now - 20 * DAY, error={"code": "<b>"})
    tell(provider, "sent", "s1", now - HOUR)
    tell(provider, "sent", "msg_test_1", now - HOUR)  # a test is in no statistics
    page = words(admin.get("/").text)
    assert "Sent 5 Delivered 3 Failed 2 Delivery rate 60.0% Still on their way 1" in page
    assert "NO_CREDIT the account has no credit 2" in page
    assert "phone-1 3 3 0 100%" in page
    assert "phone-2 1 0 1 0%" in page
    today = words(admin.get("/?days=1").text)
    assert "Sent 4 Delivered 3 Failed 1 Delivery rate 75.0%" in today
    month = admin.get("/?days=30").text
    assert "Sent 6 Delivered 3 Failed 3 Delivery rate 50.0%" in words(month)
    assert "&lt;b&gt;" in month
    assert month.count('<th scope="row" data-label="Day">') == 30
    french = words(admin.get("/?days=30", **{"Accept-Language": "fr"}).text)
    assert "Taux de remise 50,0 %" in french
    for wrong in ("0", "8", "x", "-1", "٧"):
        assert words(admin.get(f"/?days={wrong}").text) == page


def test_the_number_of_a_day_leads_to_its_messages(
    admin: Visitor, provider: Provider, clock: Clock, engine: str
) -> None:
    tell(provider, "failed", "f1", clock.time - MINUTE)
    page = admin.get("/?days=1").text
    (leads,) = re.findall(r'href="(/messages\?since=[^"]*status=failed)"', page)
    assert "/messages/f1" in admin.get(unescape(leads)).text


def test_phones_are_told_by_what_they_and_their_messages_tell(
    admin: Visitor, provider: Provider, clock: Clock, engine: str
) -> None:
    now = clock.time - clock.time % times.SECOND
    for kind, phone, at in (
        ("connected", "phone-1", now - 5 * HOUR),
        ("disconnected", "phone-1", now - 4 * HOUR),
        ("connected", "phone-2", now - 3 * HOUR),
    ):
        told = {"device_id": phone, f"{kind}_at": iso(at), "device_name": f"<{phone}>"}
        told["reason"] = "BATTERY_SAVER"
        assert provider.post(envelope(f"device.{kind}", told, timestamp=iso(at))).status_code == 200
    assert "<phone-1> 4 hours ago disconnected BATTERY_SAVER" in words(admin.get("/").text)
    tell(provider, "sent", "m1", now - HOUR, device_id="phone-3")
    tell(provider, "delivered", "m2", now - 2 * HOUR, device_id="phone-3")
    tell(provider, "delivered", "m3", now - HOUR // 2, device_id="phone-1")
    page = words(admin.get("/").text)
    assert "<phone-1> 30 minutes ago heard of since it left" in page
    assert "<phone-2> 3 hours ago connected" in page
    # On a narrow page each is a row of its own, by its label: the state is not pushed out of sight.
    assert admin.get("/").text.count('<td data-label="Connection">') == 3
    assert "phone-3 60 minutes ago not told" in page


def test_the_latest_word_of_a_phone_counts_in_whatever_order_it_came(
    receiver: Receiver, engine: str
) -> None:
    def told(kind: str, at: int, **data: object) -> OfPhone:
        return OfPhone(f"e{at}", f"device.{kind}", at, body_of(f"device.{kind}", data))

    found = phones_of(
        [
            told("disconnected", 1, device_id="p", reason="OFF"),
            told("connected", 3, device_id="p"),
            told("disconnected", 2, device_id="p", reason="OFF"),
            told("disconnected", 5, device_id=7, reason=["?"]),
            told("renamed", 9, device_id="p"),
            told("connected", 9),
            told("connected", 9, device_id={}),
        ]
    )
    assert {n: (p.connected, p.since, p.reason) for n, p in found.items()} == {
        "p": (True, 3, None),
        "7": (False, 5, None),
    }


def test_the_reports_that_had_not_come(
    admin: Visitor, receiver: Receiver, clock: Clock, engine: str
) -> None:
    from receiver.providers.zimsend.webhook import parse

    body = body_of("sms.delivered", {"message_id": "m1", "delivered_at": iso(clock.time)})
    item = parse(body, received_at=clock.time, retention=90 * DAY, source="reconciliation")
    receiver.store.ingest([item], lambda _: (), 5)
    assert "Reports that had not come 1 report" in words(admin.get("/").text)


def test_nothing_yet(admin: Visitor, engine: str) -> None:
    page = words(admin.get("/").text)
    assert "Nothing has come in yet" in page
    assert ".venv/bin/flask trigger sms.delivered" in page
    assert "No message was delivered or failed in this time." in page
    assert "Oldest waiting work none waits" in page


def test_what_is_never_reported_is_neither_on_its_way_nor_in_the_rate(
    admin: Visitor, receiver: Receiver, provider: Provider, clock: Clock, engine: str
) -> None:
    tell(provider, "sent", "m1", clock.time - HOUR)
    silent = sipgate.PROVIDER
    for state in silent.samples:
        body = silent.sample(state, event_id=state, message_id=state, to="+491579", now=clock.time)
        receiver.ingest.submit_all(silent.parse(body, received_at=clock.time, retention=90 * DAY))
    number = len(silent.samples)
    page = words(admin.get("/?days=90").text)
    assert f"Delivery rate – Still on their way 1 Sent, delivery not reported {number}" in page
    assert f"sipgate 0 0 0 – {number}" in page
    assert "zimsend 0 0 0 – 0" in page
    tell(provider, "delivered", "m1", clock.time - MINUTE)
    assert "Delivery rate 100% Still on their way 0 Sent" in words(admin.get("/?days=90").text)


def test_tests_alone_are_not_counted_and_it_says_where_they_are(
    admin: Visitor, provider: Provider, clock: Clock, engine: str
) -> None:
    hint = "tests stand among the messages"
    assert hint not in words(admin.get("/").text)
    tell(provider, "delivered", "msg_test_1", clock.time - HOUR)
    assert hint in words(admin.get("/").text)
    tell(provider, "delivered", "m1", clock.time - HOUR)
    assert hint not in words(admin.get("/").text)
