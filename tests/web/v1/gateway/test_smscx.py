"""Sending through SMS.CX, beside a simulated one: what is asked, answered, and in the mirror."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.test import TestResponse

from receiver.errors import StoreUnavailable
from receiver.providers.smscx import reports
from receiver.providers.smscx.simulator import running
from receiver.providers.smscx.simulator.api import serve
from receiver.providers.smscx.simulator.running import Simulator
from receiver.providers.smscx.simulator.world import SimulatedMessage, World
from receiver.times import HOUR, SECOND, iso, now
from tests.canned import Canned, ok, reset, silent, status
from tests.conftest import SECRET, Clock, new_database
from tests.server import free_port
from tests.web.v1.gateway.asking import (
    KEYS,
    NUMBER,
    SMSCX,
    TEXT,
    TOKEN,
    Gateway,
    problem,
)

BOTH = pytest.mark.each_engine
OTHER, OPTED_OUT, UNCOVERED = "+33612345679", "+33600000001", "+99123456789"
#: Nobody is there, so that no callback goes anywhere.
PUBLIC = "http://127.0.0.1:9"


class Theirs:
    """A simulated SMS.CX whose time stands still, as far as anything happens in it."""

    def __init__(self) -> None:
        self.world = World(began=now())
        self.simulator = Simulator(self.world, speed=0.001, api_key=SMSCX["SMSCX_API_KEY"])
        self.port = free_port()
        self.close = serve(self.simulator, "127.0.0.1", self.port)

    @property
    def last(self) -> SimulatedMessage:
        return list(self.world.messages.values())[-1]


@pytest.fixture(scope="module")
def simulated() -> Iterator[Theirs]:
    found = Theirs()
    yield found
    found.close()


@pytest.fixture(scope="module")
def shared(
    engine: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    simulated: Theirs,
) -> Iterator[Gateway]:
    """One receiver for the tests of an engine."""
    with new_database(engine, request, tmp_path_factory.mktemp("shared")) as url:
        settings = {
            "ZIMSEND_WEBHOOK_SECRET": SECRET,
            "DATABASE_URL": url,
            "HANDLERS": "tests.handlers",
            "ZIMSEND_API_URL": "http://127.0.0.1:9/v1",
            "SMSCX_API_URL": f"http://127.0.0.1:{simulated.port}",
            "SEND_WITH": "smscx",
            "PUBLIC_URL": PUBLIC,
        }
        here = Gateway({**settings, **KEYS, **SMSCX}, Clock())
        yield here
        here.close()


@pytest.fixture
def theirs(simulated: Theirs) -> Theirs:
    simulated.world.credit = None
    return simulated


@pytest.fixture
def here(shared: Gateway) -> Gateway:
    shared.clock.time = now()
    return shared


def ask(here: Gateway, call: str, **body: Any) -> TestResponse:
    return here.call("POST", f"/sms/{call}", json=body)


@BOTH
def test_one_from_the_request_to_its_report(here: Gateway, theirs: Theirs) -> None:
    answer = here.send(metadata={"order": 17}, priority=1).get_json()
    sms = theirs.last
    assert answer == {
        "success": True,
        "message_id": f"smscx:{sms.id}",
        "status": "queued",
        "to": NUMBER,
        "queued_at": answer["queued_at"],
        "provider": "smscx",
    }
    assert (sms.to, sms.text, sms.sender) == (NUMBER, TEXT, "Boutique")
    assert sms.callback_url == f"{PUBLIC}/webhooks/smscx/{TOKEN}"
    assert uuid.UUID(sms.track_data or "").version == 4
    known = here.message(answer["message_id"])
    assert (known["status"], known["to"], known["message"]) == ("queued", NUMBER, TEXT)
    assert known["metadata"] == {"order": 17}
    assert [event["source"] for event in known["events"]] == ["gateway"]

    item = {"msgId": sms.id, "status": "DELIVERED", "errorCode": None}
    report = {"event": "dlr_update", "data": [item | {"datetime": iso(now() + SECOND)}]}
    assert here.client.post(f"/webhooks/smscx/{TOKEN}", json=report).status_code == 200
    known = here.message(answer["message_id"])
    assert (known["status"], known["message"]) == ("delivered", TEXT)
    assert known["metadata"] == {"order": 17}


@BOTH
def test_what_is_refused_is_a_failed_message(here: Gateway, theirs: Theirs) -> None:
    for to, code, stored in (
        (OPTED_OUT, "BLOCKED_NUMBER", "REJECTED"),
        (UNCOVERED, "NO_COVERAGE", "NO_COVERAGE"),
    ):
        answer = here.send(to=to)
        assert (answer.status_code, answer.json["error"]["code"]) == (403, code)
        known = here.message(answer.json["message_id"])
        assert (known["status"], known["error"]["code"]) == ("failed", stored)
        assert (known["to"], answer.json["message_id"]) == (to, f"smscx:{theirs.last.id}")


@BOTH
def test_each_of_many_has_its_own_result(here: Gateway, theirs: Theirs) -> None:
    before = len(theirs.world.messages)
    numbers = [NUMBER, "06", OTHER, OPTED_OUT, NUMBER, UNCOVERED]
    answer = ask(here, "send-bulk", recipients=numbers, message=TEXT, metadata={"n": 1})
    assert answer.status_code == 200
    assert (answer.json["success"], answer.json["provider"]) == (True, "smscx")
    assert (answer.json["queued_messages"], answer.json["failed_messages"]) == (3, 3)
    rows = answer.json["messages"]
    assert [row["to"] for row in rows] == numbers
    assert [row.get("error", {}).get("code") for row in rows] == [
        *(None, "INVALID_PHONE_NUMBER", None),
        *("BLOCKED_NUMBER", None, "NO_COVERAGE"),
    ]
    known = [row["message_id"] for row in rows if "message_id" in row]
    assert len(set(known)) == len(theirs.world.messages) - before == 5
    assert {here.message(each)["status"] for each in known} == {"queued", "failed"}
    assert all(here.message(each)["metadata"] == {"n": 1} for each in known)


def test_many_texts(here: Gateway, theirs: Theirs) -> None:
    texts = [
        {"to": NUMBER, "message": "a", "metadata": {"n": 1}},
        {"to": OTHER, "message": "Until {{date}}"},
        {"to": OTHER, "message": "b"},
        "nothing",
    ]
    answer = ask(here, "send-bulk-personalized", messages=texts)
    first, braces, third, nothing = answer.json["messages"]
    assert braces["error"]["code"] == "INVALID_REQUEST"
    assert nothing["error"]["code"] == "INVALID_PHONE_NUMBER"
    assert here.message(first["message_id"])["message"] == "a"
    assert here.message(first["message_id"])["metadata"] == {"n": 1}
    assert here.message(third["message_id"])["message"] == "b"


def test_nobody_of_many_is_sent_to(here: Gateway, theirs: Theirs) -> None:
    """One reason for all is told as it is for one."""
    before = len(here.events)
    theirs.world.credit = 0
    problem(ask(here, "send-bulk", recipients=[NUMBER, OTHER], message=TEXT), 402, "NO_CREDIT")
    texts = [{"to": NUMBER, "message": text} for text in "ab"]
    problem(ask(here, "send-bulk-personalized", messages=texts), 402, "NO_CREDIT")
    assert len(here.events) == before


def test_a_code_from_its_sending_to_its_end(here: Gateway, theirs: Theirs) -> None:
    sent = ask(here, "send-otp", to=NUMBER, length=4, expiry=60, template="Code {{code}}").json
    assert (sent["success"], sent["provider"], sent["message_id"]) == (True, "smscx", None)
    otp = theirs.world.codes[sent["otp_id"].removeprefix("smscx:")]
    assert (otp.to, len(otp.pin), otp.ttl) == (NUMBER, 4, 60)
    assert otp.callback_url == f"{PUBLIC}/webhooks/smscx/{TOKEN}"
    wrong = ask(here, "verify-otp", otp_id=sent["otp_id"], code="x").json
    assert (wrong["success"], wrong["valid"], wrong["attempts_remaining"]) == (True, False, 2)
    right = ask(here, "verify-otp", otp_id=sent["otp_id"], code=otp.pin).json
    assert (right["valid"], right["provider"]) == (True, "smscx")
    problem(ask(here, "verify-otp", otp_id=sent["otp_id"], code=otp.pin), 400, "OTP_EXPIRED")
    problem(ask(here, "verify-otp", otp_id="smscx:none", code="1"), 404, "OTP_NOT_FOUND")
    problem(ask(here, "verify-otp", otp_id="smscx:", code="1"), 400, "INVALID_REQUEST")
    problem(ask(here, "verify-otp", otp_id=sent["otp_id"]), 400, "INVALID_REQUEST")
    assert TEXT not in json.dumps(sent)


@BOTH
def test_what_is_scheduled_can_be_taken_back(here: Gateway, theirs: Theirs) -> None:
    later = here.send(scheduled_at=iso(theirs.world.now + 24 * HOUR)).json
    assert later["scheduled_at"]
    answer = here.call("DELETE", f"/sms/{later['message_id']}")
    assert answer.get_json() == {
        "success": True,
        "message": "Message cancelled",
        "message_id": later["message_id"],
        "status": "cancelled",
        "provider": "smscx",
    }
    assert here.message(later["message_id"])["status"] == "cancelled"
    problem(here.call("DELETE", f"/sms/{later['message_id']}"), 404, "MESSAGE_NOT_FOUND")
    at_once = here.send().json["message_id"]
    problem(here.call("DELETE", f"/sms/{at_once}"), 400, "CANNOT_CANCEL_MESSAGE")
    assert here.message(at_once)["status"] == "queued"
    problem(here.call("POST", f"/sms/{at_once}/resend"), 501, "NOT_SUPPORTED")
    problem(here.call("DELETE", "/sms/smscx:.."), 400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": "0612345678"}, "INVALID_PHONE_NUMBER"),
        ({"message": ""}, "INVALID_REQUEST"),
        ({"message": "x" * 1531}, "MESSAGE_TOO_LONG"),
        ({"message": "{{today}}"}, "INVALID_REQUEST"),
        ({"scheduled_at": "2020-01-01T00:00:00Z"}, "INVALID_SCHEDULED_DATE"),
        ({"metadata": "x"}, "INVALID_REQUEST"),
    ],
)
def test_what_cannot_be_sent(
    here: Gateway, theirs: Theirs, changes: dict[str, Any], code: str
) -> None:
    before = len(theirs.world.messages)
    problem(here.send(**changes), 400, code)
    assert len(theirs.world.messages) == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\x1f\x8b"])
def test_what_is_no_request(here: Gateway, body: bytes) -> None:
    for call in ("send", "send-bulk", "send-bulk-personalized", "send-otp"):
        problem(here.call("POST", f"/sms/{call}", data=body), 400, "INVALID_REQUEST")


def test_too_many_requests(
    start: Callable[..., Gateway], theirs: Theirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = start(**SMSCX, SMSCX_API_URL=f"http://127.0.0.1:{theirs.port}", SEND_WITH="smscx")
    monkeypatch.setattr(running, "RATE_LIMIT", 0)
    asked = theirs.simulator.requests
    for _ in range(2):  # the second one is not even asked for
        answer = here.send()
        problem(answer, 429, "RATE_LIMIT_EXCEEDED")
        assert int(answer.headers["Retry-After"]) > 0
    assert theirs.simulator.requests == asked + 1


def test_nobody_waits_for_a_limit_to_pass(
    start: Callable[..., Gateway], zimsend: Canned, clock: Clock
) -> None:
    here = start(**SMSCX, SMSCX_API_URL=zimsend.url, SEND_WITH="smscx")
    body = b'{"error": {"type": "rate_limit", "message": "no"}}'
    zimsend.answers(status(429, body, f"X-Rate-Limit-Reset: {clock.time // SECOND + 2}"))
    for _ in range(2):
        answer = here.send()
        problem(answer, 429, "RATE_LIMIT_EXCEEDED")
        assert answer.headers["Retry-After"] in ("1", "2")
    assert len(zimsend.seen) == 1


def test_our_key_is_refused(start: Callable[..., Gateway], theirs: Theirs) -> None:
    url = f"http://127.0.0.1:{theirs.port}"
    here = start(**{**SMSCX, "SMSCX_API_KEY": "wrong"}, SMSCX_API_URL=url, SEND_WITH="smscx")
    told = problem(here.send(), 502, "PROVIDER_REFUSED_US")
    assert "wrong" not in told


# --- a store that is away, and answers that are lost


@BOTH
def test_it_is_stored_before_it_is_answered(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    real, stored = here.parts.store.ingest, []

    def slow(*arguments: Any) -> Any:
        outcome = real(*arguments)
        stored.append(outcome)
        return outcome

    monkeypatch.setattr(here.parts.store, "ingest", slow)
    for call in (
        lambda: here.send(),
        lambda: here.send(to=OPTED_OUT),
        lambda: ask(here, "send-bulk", recipients=[NUMBER, OTHER], message=TEXT),
    ):
        before = len(stored)
        call()
        assert len(stored) == before + 1


def test_what_was_sent_is_answered_also_while_the_store_is_away(
    here: Gateway, theirs: Theirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(here.parts.store, "ingest", refuse)
    assert here.send().get_json()["message_id"] == f"smscx:{theirs.last.id}"


def test_a_lost_answer_is_told_and_never_asked_for_again(
    start: Callable[..., Gateway], zimsend: Canned
) -> None:
    here = start(**SMSCX, SMSCX_API_URL=zimsend.url, SEND_WITH="smscx")
    sender = here.parts.senders["smscx"]
    sender.client = sender.client.within(timeout=1)
    for step, code in ((silent, 504), (reset, 502)):
        zimsend.answers(step)
        assert "may have been" in problem(here.send(), code, "NETWORK_ERROR")
        assert len(zimsend.seen) == 1
    # Of two requests the second one is not made.
    texts = [{"to": NUMBER, "message": text} for text in "ab"]
    problem(ask(here, "send-bulk-personalized", messages=texts), 502, "NETWORK_ERROR")
    assert len(zimsend.seen) == 2


@BOTH
def test_a_message_that_nobody_knows_is_asked_of_its_provider(
    here: Gateway, theirs: Theirs
) -> None:
    (sms,) = theirs.world.send([NUMBER], TEXT, sender="Boutique")
    here.clock.time += reports.QUIET + HOUR
    known = here.message(f"smscx:{sms.id}")
    assert (known["status"], known["to"], known["message"]) == ("queued", NUMBER, TEXT)
    asked = theirs.simulator.requests
    for _ in range(2):
        problem(here.call("GET", "/sms/status/smscx:none"), 404, "MESSAGE_NOT_FOUND")
    assert theirs.simulator.requests == asked + 1


def test_a_report_of_another_message_teaches_nothing(
    start: Callable[..., Gateway], zimsend: Canned
) -> None:
    here = start(**SMSCX, SMSCX_API_URL=zimsend.url, SEND_WITH="smscx")
    zimsend.answers(ok({"data": {"msgId": "another", "status": "SENT"}}))
    problem(here.call("GET", "/sms/status/smscx:m1"), 404, "MESSAGE_NOT_FOUND")
    assert here.events == []
