"""The link that `make run` prints."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest

from receiver import welcome
from receiver.parts import Receiver
from tests.core.settings import read
from tests.server import ROOT
from tests.web.dashboard.conftest import Visitor, field_of


def test_the_link_signs_in(
    visitor: Visitor, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.times.now", receiver.now)
    told = welcome.dashboard(receiver.config, "http://localhost:3000", terminal=True)
    (link,) = re.findall(r"http://localhost:3000/sign-in\?link=\S+", told)
    shown = visitor.get(link.removeprefix("http://localhost:3000"))
    assert urlsplit(link).path == "/sign-in"
    token = field_of(shown.text, "link")
    assert visitor.post("/sign-in/link", {"link": token}).status_code == 303
    assert visitor.get("/").status_code == 200
    assert "corr" not in told  # the password is in .env alone


def test_no_log_gets_a_link(receiver: Receiver) -> None:
    told = welcome.dashboard(receiver.config, "http://localhost:3000", terminal=False)
    assert told.split() == ["dashboard", "http://localhost:3000"]


def test_without_a_password_it_says_what_to_do() -> None:
    assert "put ADMIN_PASSWORD and SECRET_KEY" in welcome.dashboard(read(), "", terminal=True)


def test_make_writes_what_the_dashboard_needs() -> None:
    rule = (ROOT / "Makefile").read_text().partition("\n.env:")[2].partition("\n\n")[0]
    assert "-m receiver.first_steps" in rule
