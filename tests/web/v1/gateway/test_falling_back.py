"""Whom a request goes to, and when to the next one: only where surely nothing was sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app import create_app
from receiver import ConfigError
from receiver.config import NAMES
from receiver.providers import SENDING as SENDING_WITH
from tests.canned import Canned, Step, ok, raw, reset, silent, status
from tests.conftest import SECRET, Clock
from tests.server import free_port
from tests.web.v1.gateway.asking import (
    CALLS,
    HTML,
    KEYS,
    NUMBER,
    SMSCX,
    TEXT,
    Gateway,
    problem,
    sent,
)

SENDING = {
    "send": {"to": NUMBER, "message": TEXT},
    "send-bulk": {"recipients": [NUMBER], "message": TEXT},
    "send-bulk-personalized": {"messages": [{"to": NUMBER, "message": TEXT}]},
    "send-otp": {"to": NUMBER},
}
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def second() -> Iterator[Canned]:
    canned = Canned()
    yield canned
    canned.released.set()
    canned.close()


@pytest.fixture
def smscx(second: Canned) -> Iterator[Canned]:
    """An SMS.CX that answers as a test says."""
    second.released.clear()
    second.answers(taken())
    yield second
    second.released.set()


def refused(code: str, http_status: int) -> Step:
    return ok({"success": False, "error": {"code": code, "message": "no"}}, http_status)


def error(kind: str, code: int | None, http_status: int) -> Step:
    return ok({"error": {"type": kind, "code": code, "message": "no"}}, http_status)


def taken(named: str = "ACCEPTED", **more: Any) -> Step:
    row = {"msgId": "9b1e", "status": named, "to": NUMBER, "text": TEXT, "errorCode": None}
    return ok({"info": {}, "data": [row | more], "otpId": "o1"})


@pytest.fixture(scope="module")
def either(
    canned: Canned, second: Canned, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Gateway]]:
    """A receiver for each order, by the one that is asked first; neither waits for long."""
    found = {}
    for order in ("zimsend,smscx", "smscx,zimsend"):
        first, _ = order.split(",")
        environ = {
            "ZIMSEND_WEBHOOK_SECRET": SECRET,
            "DATABASE_URL": f"sqlite:///{tmp_path_factory.mktemp(first) / 'receiver.db'}",
            "HANDLERS": "tests.handlers",
            "ZIMSEND_API_URL": canned.url,
            "SMSCX_API_URL": second.url,
            "SEND_WITH": order,
        }
        found[first] = Gateway({**environ, **KEYS, **SMSCX}, Clock())
        sender = found[first].parts.senders[first]
        sender.client = sender.client.within(timeout=1)
    yield found
    for here in found.values():
        here.close()


def both(start: Callable[..., Gateway], smscx: Canned, order: str, **more: str) -> Gateway:
    return start(**{**SMSCX, "SMSCX_API_URL": smscx.url, "SEND_WITH": order, **more})


#: Each way that ZimSend can fail, and whether surely nothing was sent.
OF_ZIMSEND: dict[str, tuple[Step, bool]] = {
    "no device online": (refused("NO_DEVICE_AVAILABLE", 503), True),
    "the device is offline": (refused("DEVICE_OFFLINE", 503), True),
    "no credit": (refused("NO_CREDIT", 402), True),
    "too many requests": (refused("RATE_LIMIT_EXCEEDED", 429), True),
    "no quota": (refused("QUOTA_EXCEEDED", 429), True),
    "our key": (refused("INVALID_API_KEY", 401), True),
    "a number": (refused("INVALID_PHONE_NUMBER", 400), True),
    "unknown, of the caller": (refused("SOMETHING", 422), True),
    "success that is none": (refused("NO_DEVICE_AVAILABLE", 200), True),
    "a proxy's page": (status(403, HTML), True),
    "a redirect": (status(301, HTML), True),
    # The recipient does not want it, by whatever way.
    "opted out": (refused("BLOCKED_NUMBER", 403), False),
    "the phone did not answer": (refused("SMS_SEND_TIMEOUT", 504), False),
    "the network": (refused("NETWORK_ERROR", 500), False),
    "unknown, of theirs": (refused("SOMETHING", 500), False),
    "unknown, later": (refused("SOMETHING", 503), False),
    "no code": (ok({"success": False}, 503), False),
    "a message all the same": (
        ok({"success": False, "message_id": "m", "error": {"code": "DEVICE_OFFLINE"}}, 503),
        False,
    ),
    "a batch all the same": (ok({"success": False, "code": "NO_CREDIT", "messages": []}), False),
    "a proxy's failure": (status(502, HTML), False),
    "a page for a success": (status(200, HTML), False),
    "no JSON": (status(200, b"[]"), False),
    "nothing": (raw(b""), False),
    "reset": (reset, False),
    "half an answer": (raw(b"HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\n{"), False),
    "silence": (silent, False),
    "success": (sent(), False),
    "success of few words": (status(204), False),
}
#: The same of SMS.CX.
OF_SMSCX: dict[str, tuple[Step, bool]] = {
    "no credit": (error("insufficient_credit", 1113, 400), True),
    "too many requests": (error("rate_limit", None, 429), True),
    "our key": (error("invalid_api_key", None, 401), True),
    "a number": (error("invalid_param", 1104, 400), True),
    "our sender": (error("invalid_param", 1105, 400), True),
    "no coverage": (error("no_coverage", 1119, 403), True),
    "not reached": (taken("NO COVERAGE"), True),
    "failed at once": (taken("FAILED", errorCode=5), True),
    "a proxy's page": (status(403, HTML), True),
    "opted out": (taken("REJECTED"), False),
    "theirs": (error("server_error", None, 500), False),
    "a proxy's failure": (status(503, HTML), False),
    "a page for a success": (status(200, HTML), False),
    "another message": (ok({"info": {}, "data": []}), False),
    "nothing": (raw(b""), False),
    "reset": (reset, False),
    "half an answer": (raw(b"HTTP/1.1 429 X\r\nContent-Length: 100\r\n\r\n{"), False),
    "silence": (silent, False),
    "success": (taken(), False),
}


def calls(case: str, known: list[str]) -> list[str]:
    """One and, of the others, another for each case: they share the way on which it is decided."""
    first, *others = known
    place = [*OF_ZIMSEND, *OF_SMSCX].index(case)
    return [first] if case == "silence" else [first, others[place % len(others)]]


@pytest.mark.parametrize("case", OF_ZIMSEND)
def test_after_zimsend(
    either: dict[str, Gateway], zimsend: Canned, smscx: Canned, case: str
) -> None:
    step, surely_not = OF_ZIMSEND[case]
    here = either["zimsend"]
    for call in calls(case, list(SENDING)):
        zimsend.answers(step)
        smscx.answers(taken())
        answer = here.call("POST", f"/sms/{call}", json=SENDING[call])
        assert len(zimsend.seen) == 1
        assert len(smscx.seen) == surely_not, call
        if surely_not:
            assert answer.get_json()["provider"] == "smscx"
            assert answer.get_json()["success"]
        else:
            assert "smscx" not in answer.text


@pytest.mark.parametrize("case", OF_SMSCX)
def test_after_smscx(either: dict[str, Gateway], zimsend: Canned, smscx: Canned, case: str) -> None:
    step, surely_not = OF_SMSCX[case]
    here = either["smscx"]
    for call in calls(case, [call for call in SENDING if call != "send-otp"]):
        zimsend.answers(sent())
        smscx.answers(step)
        answer = here.call("POST", f"/sms/{call}", json=SENDING[call])
        assert len(smscx.seen) == 1
        assert len(zimsend.seen) == surely_not, call
        if surely_not:
            assert answer.get_json()["provider"] == "zimsend"
            assert answer.get_json()["message_id"] == "msg_1"


@pytest.mark.parametrize("order", ["zimsend,smscx", "smscx,zimsend"])
def test_nobody_listens(
    start: Callable[..., Gateway], zimsend: Canned, smscx: Canned, order: str
) -> None:
    first, _ = order.split(",")
    url = f"http://127.0.0.1:{free_port()}"
    here = both(start, smscx, order, **{f"{first.upper()}_API_URL": url})
    zimsend.answers(sent())
    assert here.send().get_json()["provider"] != first


def test_the_first_one_says_why_if_nobody_takes_it(
    start: Callable[..., Gateway], zimsend: Canned, smscx: Canned
) -> None:
    here = both(start, smscx, "zimsend,smscx")
    zimsend.answers(refused("NO_DEVICE_AVAILABLE", 503))
    smscx.answers(error("insufficient_credit", 1113, 400))
    problem(here.send(), 503, "NO_DEVICE_AVAILABLE")
    # But what may have been sent is told, whoever it was.
    smscx.answers(error("server_error", None, 500))
    assert "may have been" in problem(here.send(), 502, "NETWORK_ERROR")


def test_what_one_cannot_do_is_asked_of_the_next(
    start: Callable[..., Gateway], zimsend: Canned, smscx: Canned
) -> None:
    here = both(start, smscx, "smscx,zimsend")
    zimsend.answers(ok({"success": True, "message_id": "m"}, 202))
    text = {"to": NUMBER, "message": "Until {{date}}"}  # SMS.CX would replace it
    assert here.call("POST", "/sms/send", json=text).get_json()["provider"] == "zimsend"
    assert smscx.seen == []


def test_in_bulk_nothing_falls_back_after_the_first_that_may_have_gone(
    start: Callable[..., Gateway], zimsend: Canned, smscx: Canned
) -> None:
    here = both(start, smscx, "smscx,zimsend")
    smscx.answers(taken(), error("insufficient_credit", 1113, 400))
    texts = [{"to": NUMBER, "message": text} for text in ("a", "b", "c")]
    answer = here.call("POST", "/sms/send-bulk-personalized", json={"messages": texts})
    told = [(row["status"], row.get("error", {}).get("code")) for row in answer.json["messages"]]
    assert told == [("queued", None), ("failed", "NO_CREDIT"), ("failed", "NO_CREDIT")]
    assert len(smscx.seen) == 2
    assert zimsend.seen == []


# --- who is meant


def test_a_request_names_its_provider(
    start: Callable[..., Gateway], zimsend: Canned, smscx: Canned
) -> None:
    here = start(**SMSCX, SMSCX_API_URL=smscx.url)
    zimsend.answers(sent())
    assert "provider" not in here.send().get_json()  # as ZimSend has answered
    for name in ("smscx", " SMSCX "):
        answer = here.call("POST", "/sms/send", json=SENDING["send"], headers={"X-Provider": name})
        assert answer.get_json()["provider"] == "smscx"
    assert len(zimsend.seen) == 1
    # Who names one gets no other.
    smscx.answers(error("insufficient_credit", 1113, 400))
    named = {"X-Provider": "smscx"}
    problem(here.call("POST", "/sms/send", json=SENDING["send"], headers=named), 402, "NO_CREDIT")
    assert len(zimsend.seen) == 1


def test_zimsend_s_answer_says_so_where_others_could_have_taken_it(
    start: Callable[..., Gateway], zimsend: Canned, smscx: Canned
) -> None:
    zimsend.answers(status(202, b'{ "message_id":"m", "n":1.10 }', JSON))
    answer = both(start, smscx, "zimsend,smscx").send()
    assert (answer.status_code, answer.data) == (
        202,
        b'{"provider": "zimsend",  "message_id":"m", "n":1.10 }',
    )
    named = start().call(
        "POST", "/sms/send", json=SENDING["send"], headers={"X-Provider": "ZimSend"}
    )
    assert named.get_json()["provider"] == "zimsend"


def test_without_zimsend_the_first_that_can(
    start: Callable[..., Gateway], zimsend: Canned, smscx: Canned
) -> None:
    own = {"ZIMSEND_API_KEY": "", "ZIMSEND_CLIENT_ID": "", "V1_API_KEY": "zs_test_real"}
    here = start(**SMSCX, SMSCX_API_URL=smscx.url, **own)
    assert here.send().get_json()["provider"] == "smscx"
    named = {"X-Provider": "zimsend"}
    answer = here.call("POST", "/sms/send", json={}, headers=named)
    assert "ZIMSEND_API_KEY and ZIMSEND_CLIENT_ID" in problem(answer, 503, "NOT_CONFIGURED")
    problem(here.call("POST", "/sms/msg_1/resend"), 503, "NOT_CONFIGURED")
    assert zimsend.seen == []


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("twilio,zimsend", r"'twilio' is none of zimsend, smscx"),
        ("smscx", "nothing can be sent with smscx: set SMSCX_API_KEY and SMSCX_FROM"),
        ("zimsend", "nothing can be sent with zimsend: set ZIMSEND_API_KEY and ZIMSEND_CLIENT_ID"),
    ],
)
def test_the_start_is_refused_where_one_could_not_send(
    environ: dict[str, str], order: str, said: str
) -> None:
    token = {"SMSCX_WEBHOOK_TOKEN": SMSCX["SMSCX_WEBHOOK_TOKEN"], "SMSCX_API_KEY": "x"}
    with pytest.raises(ConfigError, match=f"^SEND_WITH: {said}"):
        create_app({**environ, **token, "SEND_WITH": order})


def test_no_waiting_place_is_left(
    start: Callable[..., Gateway], zimsend: Canned, smscx: Canned
) -> None:
    here = both(start, smscx, "zimsend,smscx")
    while here.parts.waiting.acquire(blocking=False):
        pass
    answer = here.send()
    assert "Nothing was sent" in problem(answer, 503, "SERVICE_UNAVAILABLE")
    assert zimsend.seen == smscx.seen == []
    assert json.loads(answer.text)["error"]


def test_what_each_can_do_is_said_in_known_words(either: dict[str, Gateway]) -> None:
    assert {name for each in SENDING_WITH.values() for name in each.settings} <= set(NAMES)
    for sender in either["zimsend"].parts.senders.values():
        assert SENDING.keys() <= sender.calls.keys() <= CALLS.keys()
