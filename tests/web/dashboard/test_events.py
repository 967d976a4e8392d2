"""`/events`: what came in, what became of it, its body, and giving it to its handlers again."""

from __future__ import annotations

import json
import re

import pytest

from receiver.parts import Receiver
from receiver.store import Settlement, Want
from receiver.times import HOUR, SECOND
from receiver.web.dashboard.hiding import HIDDEN, hidden
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms
from tests.web.dashboard.conftest import Visitor
from tests.web.dashboard.work import die

TEXT, NUMBER = "Bonjour Zoé, votre code est 482913", "+33612345678"


def listed(admin: Visitor, query: str = "") -> list[str]:
    """The ids on a page."""
    text = admin.get(f"/events?{query}").text
    return re.findall(r'href="/events/(e[^"]+)"', text)


@pytest.fixture
def four(provider: Provider, receiver: Receiver, clock: Clock) -> None:
    """Events e0 to e3: retrying, done, dead, and one of a device, which one handler wants."""
    for number in range(3):
        data = sms("failed", f"m{number}", to=NUMBER, message=TEXT)
        provider.post(envelope("sms.failed", data, event_id=f"e{number}"))
        clock.time += SECOND
    provider.post(envelope("device.connected", {"device_id": "d1"}, event_id="e3"))
    claims = receiver.store.work(clock(), [], [Want("second", 9, HOUR, 9)], 5)
    states = {
        "e0": ("pending", clock() + HOUR, "OSError: the shop is away"),
        "e1": ("done", clock(), None),
        "e2": ("dead", clock(), "ValueError: no"),
    }
    ends = [Settlement(claim, *states[claim.event_id]) for claim in claims]  # type: ignore[arg-type]
    receiver.store.work(clock(), ends, [], 5)


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", "e3 e2 e1 e0"),
        ("state=retrying", "e0"),
        ("state=dead", "e2"),
        ("state=done", "e1"),
        ("state=pending&handler=second", "e0"),
        ("handler=second", "e2 e1 e0"),
        ("type=device.*", "e3"),
        ("type=failed", "e2 e1 e0"),
        ("state=dead&handler=second&cause=ValueError", "e2"),
        ("state=dead&cause=KeyError", ""),
        ("since=1h", "e3 e2 e1 e0"),
        ("until=2020-01-01", ""),
        ("since=today&until=today&type=device.*", "e3"),
    ],
)
def test_filters_stay_in_the_address(admin: Visitor, query: str, ids: str) -> None:
    assert listed(admin, query) == ids.split()


@pytest.mark.parametrize("query", ["state=lost", "since=x", "until=20261120", "since=9999999999d"])
def test_a_filter_that_means_nothing_is_told(admin: Visitor, query: str) -> None:
    answer = admin.get(f"/events?{query}")
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


def test_pages_go_by_number(admin: Visitor, provider: Provider) -> None:
    for number in range(60):
        provider.post(envelope("device.connected", {}, event_id=f"e{number:02}"))
    first = admin.get("/events?type=device.*").text
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
    assert "type=device.%2A" in older
    second = admin.get(older.replace("&amp;", "&")).text
    ids = [re.findall(r'href="/events/(e[^"]+)"', text) for text in (first, second)]
    assert ids == [
        [f"e{n:02}" for n in range(59, 9, -1)],
        [f"e{n:02}" for n in range(9, -1, -1)],
    ]
    assert 'rel="next"' not in second
    assert "data-poll" in first
    assert "data-poll" not in second  # what is read does not move
    assert len(listed(admin, "before=x")) == 50


@pytest.mark.usefixtures("four")
def test_an_event_is_told_without_numbers_and_texts(admin: Visitor) -> None:
    text = admin.get("/events/e0").text
    assert "OSError: the shop is away" in text
    assert "tried again" in text
    assert "1 attempt" in text
    assert "{\n  &#34;event&#34;: &#34;sms.failed&#34;,\n" in text
    for secret in (TEXT, NUMBER, "482913", "Zoé"):
        assert secret not in text
    everything = admin.get("/events/e0?body=all").text
    assert "482913" in everything
    assert NUMBER in everything


def test_what_is_no_json_is_shown_only_if_it_is_asked_for(
    admin: Visitor, provider: Provider
) -> None:
    body = json.dumps(envelope("device.connected", {"to": NUMBER}, event_id="e1")).encode()
    provider.post(body.replace(b'"e1"', b'"e1", "x": "\xff\xfe"'))
    assert NUMBER not in admin.get("/events/e1").text
    assert "\\xff\\xfe" in admin.get("/events/e1?body=all").text


def test_what_is_hidden_of_a_body() -> None:
    body = {
        "event": "sms.failed",
        "timestamp": "2026-11-20T08:15:42Z",
        "anything": "x",
        "event_id": "e" * 101,
        "+33612345678": "x",
        "data": {
            "status": "failed",
            "to": NUMBER,
            "message": TEXT,
            "metadata": {"status": "482913"},
            "error": {"code": "NO_CREDIT", "message": TEXT},
            "sent_at": {"nested": TEXT},
            "message_id": None,
        },
    }
    shown = json.loads(hidden(json.dumps(body).encode()) or "")
    assert shown == {
        "event": "sms.failed",
        "timestamp": "2026-11-20T08:15:42Z",
        "anything": HIDDEN,
        "event_id": HIDDEN,
        HIDDEN: HIDDEN,
        "data": {
            "status": "failed",
            "to": HIDDEN,
            "message": HIDDEN,
            "metadata": HIDDEN,
            "error": {"code": "NO_CREDIT", "message": HIDDEN},
            "sent_at": HIDDEN,
            "message_id": None,
        },
    }
    assert [hidden(body) for body in (b"[1]", b'"x"', b"no")] == [f'"{HIDDEN}"'] * 2 + [None]


@pytest.mark.usefixtures("four")
def test_an_event_is_given_again_to_all_or_to_one(
    admin: Visitor, receiver: Receiver, clock: Clock
) -> None:
    page = "/events/e2"
    answer = admin.post("/events/replay", {"id": "e2", "handler": "second", "back": page})
    assert (answer.status_code, answer.location) == (303, page)
    assert "Given to 1 handler again" in admin.get(page).text
    assert listed(admin, "state=dead") == []
    answer = admin.post("/events/replay", {"id": "e2", "back": "/events?state=dead"})
    assert answer.location == "/events?state=dead"
    assert "Given to 2 handlers again" in admin.get(page).text
    die(receiver, clock())
    assert "Given" not in admin.get(page).text


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize("fields", [{"id": "none"}, {"id": "e2", "handler": "gone"}])
def test_what_nobody_wants_is_given_to_nobody(admin: Visitor, fields: dict[str, str]) -> None:
    answer = admin.post("/events/replay", fields)
    assert "Nothing was given again" in admin.get(answer.location).text


def test_no_event(admin: Visitor) -> None:
    assert admin.get("/events/none").status_code == 404
    assert admin.post("/events/replay", {}).status_code == 400


@pytest.mark.parametrize(
    "nasty", ["<script>alert(1)</script>", "..", ".", "a/b//c?d#e", "\u202egnp.exe", "%2e%2e"]
)
def test_strange_ids_have_pages(admin: Visitor, provider: Provider, nasty: str) -> None:
    provider.post(envelope(f"sms.{nasty}", {"message_id": nasty}, event_id=nasty))
    text = admin.get("/events").text
    assert "<script>alert" not in text
    (address,) = re.findall(r'<a class="id" href="(/events/[^"]*)"', text)
    page = admin.get(address.replace("&amp;", "&"))
    assert page.status_code == 200
    assert "<script>alert" not in page.text
    assert "\u202e" not in re.sub(r'<input type="hidden"[^>]*>', "", page.text)


@pytest.mark.usefixtures("four")
def test_a_reader_in_french(admin: Visitor) -> None:
    text = admin.get("/events/e0", **{"Accept-Language": "fr"}).text
    assert "Travail des gestionnaires" in text
    assert "retenté" in text
