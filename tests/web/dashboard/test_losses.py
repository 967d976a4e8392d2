"""`/losses`: what the providers' reports did not bring."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest

from receiver import times
from receiver.parts import Receiver
from receiver.polling import NOTE, Went
from receiver.providers.zimsend.webhook import parse
from receiver.reconciliation.planning import State
from receiver.times import DAY, HOUR, MINUTE
from tests.conftest import Clock
from tests.payloads import envelope, sms
from tests.web.dashboard.conftest import Visitor


def learn(receiver: Receiver, now: int, *reports: tuple[str, str, int]) -> None:
    """Reports of kinds and messages that happened so long ago, and had not arrived."""
    items = []
    for kind, message_id, ago in reports:
        data = sms(kind, message_id, **{f"{kind}_at": times.iso(now - ago)})
        body = json.dumps(envelope(f"sms.{kind}", data)).encode()
        items.append(parse(body, received_at=now, retention=90 * DAY, source="reconciliation"))
    receiver.store.ingest(items, lambda _: (), 5)


def test_gaps_are_told_by_kind_and_time(admin: Visitor, receiver: Receiver, clock: Clock) -> None:
    now = clock()
    learn(
        receiver,
        now,
        ("sent", "m1", 5 * HOUR),
        ("delivered", "m1", 5 * HOUR),
        ("failed", "m2", HOUR),
    )
    text = admin.get("/losses").text
    assert "3 reports had not arrived" in text
    assert "They are of 2 messages" in text
    assert text.count('<th scope="row"') == 2
    french = admin.get("/losses", **{"Accept-Language": "fr"}).text
    assert "3 accusés n’étaient pas arrivés" in french


def test_where_nobody_can_be_asked_it_says_what_to_do(admin: Visitor) -> None:
    text = admin.get("/losses").text
    assert "Nobody is asked" in text
    assert "Nothing is known to be missing" not in text
    assert "<code>ZIMSEND_API_KEY</code>" in text


class TestWithAnAccount:
    @pytest.fixture
    def environ(self, environ: dict[str, str]) -> dict[str, str]:
        return environ | {"ZIMSEND_API_KEY": "zs_test_1", "ZIMSEND_CLIENT_ID": "client_1"}

    def test_the_last_pass_and_the_next(
        self, admin: Visitor, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = admin.get("/losses").text
        assert "never" in text
        assert "within seconds" in text
        assert "Nobody is asked" not in text
        assert "Nothing is known to be missing" in text
        passes = receiver.reconciliations["zimsend"]
        state = State(
            0, 0, next_at=clock() + 5 * MINUTE, tried_at=clock() - 1, problem="<b>gone</b>"
        )
        monkeypatch.setattr(passes, "state", lambda: state)
        text = admin.get("/losses").text
        assert "ended early" in text
        assert "&lt;b&gt;gone&lt;/b&gt;" in text
        assert "within seconds" not in text
        answer = admin.post("/losses/now", {"back": "/losses"})
        assert answer.location == "/losses"
        assert "is being asked" in admin.get("/losses").text
        assert passes.is_wanted()


class TestWithTwoAccounts:
    @pytest.fixture
    def environ(self, environ: dict[str, str]) -> dict[str, str]:
        return environ | {
            "ZIMSEND_API_KEY": "zs_test_1",
            "ZIMSEND_CLIENT_ID": "client_1",
            "SMSCX_WEBHOOK_TOKEN": "0123456789abcdef01234567",
            "SMSCX_API_KEY": "key",
        }

    def test_each_is_told_and_each_is_asked(
        self, admin: Visitor, receiver: Receiver, clock: Clock
    ) -> None:
        learn(receiver, clock(), ("sent", "m1", HOUR), ("sent", "m2", HOUR))
        text = admin.get("/losses").text
        assert text.count("<dt>Last asked</dt>") == 2
        (zimsend, smscx) = re.findall(r"<dt>Had not arrived</dt><dd>(\d+)</dd>", text)
        assert (zimsend, smscx) == ("2", "0")
        admin.post("/losses/now", {})
        assert all(passes.is_wanted() for passes in receiver.reconciliations.values())


class TestWithSipgate:
    @pytest.fixture
    def environ(self, environ: dict[str, str]) -> dict[str, str]:
        return environ | {"SIPGATE_TOKEN_ID": "token-ABC123", "SIPGATE_TOKEN": "secret"}

    def test_how_its_history_was_read_is_told_and_that_it_could_not_be(
        self, admin: Visitor, receiver: Receiver, clock: Clock
    ) -> None:
        text = admin.get("/losses").text
        assert "sipgate reports nothing by itself" in text
        assert "Nobody is asked" not in text
        assert "Ask now" not in text
        went = Went(clock() + MINUTE, clock() - 1, clock() - 2 * HOUR)
        receiver.store.write_note(NOTE, json.dumps(asdict(went)))
        overview = admin.get("/").text
        assert "<dt>Provider last asked</dt><dd>2 hours ago</dd>" in overview
        assert "could not be read" not in overview
        went.problem = "<b>gone</b>"
        receiver.store.write_note(NOTE, json.dumps(asdict(went)))
        text = admin.get("/losses").text
        assert "ended early" in text
        assert "within seconds" not in text
        for page in (text, admin.get("/").text):
            assert "&lt;b&gt;gone&lt;/b&gt;" in page
        assert "sipgate’s history could not be read" in admin.get("/").text
