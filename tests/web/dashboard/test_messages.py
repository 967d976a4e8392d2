"""The list of messages with its filters, pages and CSV; one message with its timeline."""

from __future__ import annotations

import csv
import io
import re
from html import unescape

import pytest

from receiver.parts import Receiver
from receiver.times import DAY, HOUR, MINUTE, iso
from tests.conftest import Clock, Provider
from tests.payloads import envelope
from tests.web.dashboard.conftest import Visitor

pytestmark = pytest.mark.each_engine


@pytest.fixture
def known(provider: Provider, clock: Clock, engine: str) -> int:
    """`m1` to `m9`, the last one newest, an hour apart."""
    now = clock.time - clock.time % MINUTE
    for number in range(1, 10):
        failed = number % 3 == 0
        state, at = ("failed" if failed else "delivered"), iso(now - (10 - number) * HOUR)
        data = {
            "message_id": f"m{number}",
            "to": "+33612345678" if number < 5 else "+4915100000",
            "message": f"Commande n° {number} prête" if number != 4 else "=SUM(A1)",
            "device_id": f"phone-{number % 2}",
            "metadata": {"order": f"CMD-{number}"},
            f"{state}_at": at,
        }
        if failed:
            data["error"] = {"code": "NO_CREDIT", "message": "no credit is left"}
        body = envelope(f"sms.{state}", data, timestamp=at, event_id=f"e{number}")
        assert provider.post(body).status_code == 200
    return now


def listed(admin: Visitor, query: str = "") -> list[str]:
    answer = admin.get(f"/messages{query}")
    assert answer.status_code == 200, answer.text
    return re.findall(r'<a class="id" href="/messages/([^"]*)"', answer.text)


def test_every_filter_stands_in_the_address(admin: Visitor, known: int) -> None:
    assert listed(admin) == [f"m{n}" for n in range(9, 0, -1)]
    assert listed(admin, "?status=failed") == ["m9", "m6", "m3"]
    assert listed(admin, "?error=NO_CREDIT&to=0033%206%2012%2034%2056%2078") == ["m3"]
    assert listed(admin, "?to=%2B33612345678&device=phone-1") == ["m3", "m1"]
    assert listed(admin, "?q=COMMANDE+N%C2%B0+7") == ["m7"]
    assert listed(admin, "?q=prete&status=failed") == ["m9", "m6", "m3"]
    assert listed(admin, "?metadata.order=CMD-2") == ["m2"]
    assert listed(admin, "?key=order&value=CMD-2") == ["m2"]
    assert listed(admin, "?provider=smscx") == []
    assert listed(admin, f"?since={iso(known - 2 * HOUR)}") == ["m9", "m8"]
    assert listed(admin, "?since=90m&until=") == ["m9"]
    assert listed(admin, f"?until={iso(known - 9 * HOUR)}") == ["m1"]
    assert listed(admin, "?unknown=1&status=") == [f"m{n}" for n in range(9, 0, -1)]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("status=lost", "no such status"),
        ("q=ab", "three letters"),
        ("since=20261120", "first time cannot be read"),
        ("until=9999-12-31", "last time cannot be read"),
    ],
)
def test_a_filter_that_cannot_be_read_says_so(admin: Visitor, query: str, told: str) -> None:
    answer = admin.get(f"/messages?{query}")
    assert answer.status_code == 400
    assert told in answer.text
    assert admin.get(f"/messages.csv?{query}").status_code == 400


@pytest.mark.parametrize(
    ("language", "told"), [("en", "This number has no country"), ("fr", "Ce numéro n’a pas")]
)
def test_a_number_without_its_country_says_why_nothing_is_found(
    admin: Visitor, known: int, language: str, told: str
) -> None:
    def page(to: str) -> str:
        return admin.get(f"/messages?to={to}", **{"Accept-Language": language}).text

    assert told in page("0612345678")
    assert told not in page("%2B33600000000")
    assert told not in page("33612345678")  # it is found


def test_from_page_to_page(admin: Visitor, known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.web.dashboard.messages._OF_A_PAGE", 2)
    seen: list[str] = []
    address: str | None = "?status=delivered"
    while address is not None:
        page = admin.get(f"/messages{address}").text
        assert ('data-poll="5"' in page) == (not seen)  # a later page has no reason to move
        seen += re.findall(r'<a class="id" href="/messages/([^"]*)"', page)
        further = re.search(r'rel="next" href="/messages(\?[^"]*)"', page)
        address = unescape(further[1]) if further else None
        assert address is None or "status=delivered" in address
    assert seen == ["m8", "m7", "m5", "m4", "m2", "m1"]


def test_csv_of_the_filter(admin: Visitor, known: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = admin.get("/messages.csv?to=%2B33612345678")
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="messages.csv"'
    assert answer.data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert [row["message_id"] for row in rows] == ["m4", "m3", "m2", "m1"]
    assert rows[0]["message"] == "'=SUM(A1)"
    assert (rows[1]["error_code"], rows[1]["failed_at"]) == ("NO_CREDIT", iso(known - 7 * HOUR))
    assert rows[1]["to"] == "+33612345678"
    assert "Link" not in answer.headers
    monkeypatch.setattr("receiver.web.dashboard.messages._OF_A_FILE", 3)
    first = admin.get("/messages.csv?to=%2B33612345678")
    address, rel = first.headers["Link"].split("; ")
    assert rel == 'rel="next"'
    rest = admin.get(address.strip("<>"))
    parts = [list(csv.reader(io.StringIO(a.data.decode("utf-8-sig")))) for a in (first, rest)]
    assert [row[0] for part in parts for row in part[1:]] == ["m4", "m3", "m2", "m1"]


def test_nothing_yet_and_nothing_that_matches(admin: Visitor, engine: str) -> None:
    page = admin.get("/messages").text
    assert "Nothing has come in yet" in page
    assert "flask trigger sms.delivered" in page
    assert "No message matches" in admin.get("/messages?status=failed").text


def test_one_message_with_its_timeline(admin: Visitor, known: int, provider: Provider) -> None:
    late = envelope("sms.sent", {"message_id": "m3"}, timestamp=iso(known - 8 * HOUR))
    for _ in range(2):
        provider.post(late)
    page = unescape(admin.get("/messages/m3").text)
    assert page.index("sms.failed") < page.index("sms.sent")
    for told in ("no credit is left", "Commande n° 3 prête", "CMD-3", "came 2 times", ">late<"):
        assert told in page
    assert page.count("by webhook") == 2
    assert re.search(r"<code>first</code> <span class=\"badge calm\">waits</span>", page)
    assert admin.get("/messages/m99").status_code == 404


def test_the_provider_of_an_id_is_read_from_it(admin: Visitor, engine: str) -> None:
    for path in ("/messages/smscx:m1", "/messages/x?id=..", "/messages/%0A"):
        assert admin.get(path).status_code == 404


def test_times_are_those_of_the_zone(
    another: object, environ: dict[str, str], known: int, receiver: Receiver
) -> None:
    visitor: Visitor = another(TIMEZONE="Pacific/Kiritimati")  # type: ignore[operator]
    assert visitor.sign_in().status_code == 303
    assert "Times are those of Pacific/Kiritimati." in visitor.get("/").text
    day = iso(known - HOUR + 14 * HOUR)[:10]
    assert listed(visitor, f"?since={day}")[0] == "m9"
    tomorrow = iso(known + 13 * HOUR + DAY)[:10]
    assert listed(visitor, f"?since={tomorrow}") == []
