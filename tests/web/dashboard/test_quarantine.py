"""Bodies in quarantine, and trying them again; a pass that is wanted; what can be wrong."""

from __future__ import annotations

import re
from html import unescape

import pytest
from flask import Flask

from receiver.event import reject
from receiver.parts import Receiver
from receiver.refusals import last_noted
from receiver.times import HOUR, MINUTE
from tests.conftest import Clock, Provider
from tests.payloads import body_of, sms
from tests.server import eventually
from tests.web.dashboard.conftest import Another, Visitor


def put(receiver: Receiver, body: bytes, reason: str = "it has no event") -> None:
    item = reject(body, reason, received_at=receiver.now())
    receiver.store.ingest([item], lambda _: (), 5)


def test_what_can_be_used_now_becomes_an_event(admin: Visitor, receiver: Receiver) -> None:
    put(receiver, body_of("sms.delivered", sms("delivered", "m1")))
    put(receiver, b"<b>hello</b>", "it is <i>not</i> JSON")
    page = admin.get("/quarantine").text
    assert "it is &lt;i&gt;not&lt;/i&gt; JSON" in page
    assert "Try these 2 again" in page
    ids = re.findall(r'name="id" value="([^"]*)"', page)
    fields = {"id": ids, "back": "/quarantine"}
    answer = admin.post("/quarantine/retry", fields)  # type: ignore[arg-type]
    assert (answer.status_code, answer.location) == (303, "/quarantine")
    page = admin.get("/quarantine").text
    assert "1 body has become an event." in page
    assert "Try this one again" in page
    assert "has become" not in admin.get("/quarantine").text  # it is told once
    assert admin.get("/messages/m1").status_code == 200


def test_a_body_is_shown_when_it_is_asked_for(admin: Visitor, receiver: Receiver) -> None:
    put(receiver, b"<b>0612345678</b>\xff")
    (path,) = set(re.findall(r'href="(/quarantine/[^"]+)"', admin.get("/quarantine").text))
    assert "0612345678" not in admin.get(path).text
    assert "&lt;b&gt;0612345678&lt;/b&gt;\\xff" in admin.get(f"{path}?body=1").text
    assert admin.get("/quarantine/0000").status_code == 404
    assert admin.get(path[:-1]).status_code == 404


def test_a_pass_is_wanted_and_nobody_waits_for_it(another: Another) -> None:
    visitor = another(ZIMSEND_API_KEY="zs_test", ZIMSEND_CLIENT_ID="client_1")
    visitor.sign_in()
    answer = visitor.post("/losses/now", {"back": "/settings"})
    assert (answer.status_code, answer.location) == (303, "/settings")
    assert "The provider is being asked" in visitor.get("/settings").text
    assert visitor.client.application.extensions["receiver"].reconciliations["zimsend"].is_wanted()


def test_without_an_account_nobody_can_be_asked(admin: Visitor) -> None:
    assert admin.post("/losses/now", {}).status_code == 404


# --- what can be wrong


def troubles(admin: Visitor) -> list[str]:
    return re.findall(r'<section class="trouble \w+">\s*<h2>([^<]*)</h2>', admin.get("/").text)


def test_what_is_wrong_is_told_with_what_to_do(
    admin: Visitor, receiver: Receiver, provider: Provider, app: Flask, clock: Clock
) -> None:
    receiver.store.write_note("heartbeat", str(clock.time))
    assert troubles(admin) == []
    provider.post(body_of("sms.sent", sms("sent", "m1")))
    put(receiver, b"hello")
    provider.post(b"{}", secret="another secret of thirty-two bytes")
    told = eventually(lambda: last_noted(receiver.store, clock.time))[1]
    assert "1 for their signature" in told
    assert unescape(admin.get("/settings").text).count(told) == 1
    clock.time += 14 * MINUTE
    assert "Webhooks are refused" in troubles(admin)
    clock.time += HOUR
    assert troubles(admin) == [
        "Nothing runs the handlers",
        "Work waits too long",
        "Signed bodies could not be used",
    ]
    receiver.store.write_note("heartbeat", str(clock.time - MINUTE // 2))
    assert troubles(admin)[0] == "Work waits too long"
    page = admin.get("/").text
    assert "The oldest has been due for 74 minutes." in page


def test_where_handlers_run_elsewhere_it_says_how_to_start_them(another: Another) -> None:
    visitor = another(EMBEDDED_WORKER="0")
    visitor.sign_in()
    page = visitor.get("/").text
    assert "<pre><code>flask work</code></pre>" in page


def test_a_page_cannot_be_read_while_the_store_cannot(
    admin: Visitor, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from receiver.errors import StoreUnavailable

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("postgres://user:secret@host is away")

    for name in ("statistics", "listed", "quarantined"):
        monkeypatch.setattr(receiver.store, name, away)
    for path in ("/", "/messages", "/quarantine"):
        answer = admin.get(path)
        assert (answer.status_code, answer.mimetype) == (503, "text/html")
        assert answer.headers["Retry-After"] == "5"
        assert "The database cannot be used at this moment" in answer.text
        assert "secret@host" not in answer.text
    monkeypatch.setattr(receiver.store, "note", away)
    settings = admin.get("/settings")  # may say why
    assert settings.status_code == 200
    assert "The database cannot be used at this moment" in settings.text
    assert "RETENTION_DAYS" in settings.text
    assert "secret@host" not in settings.text
