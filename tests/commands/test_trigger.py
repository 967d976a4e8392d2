"""`flask trigger`: what its options make an event say. That it is taken: `test_commands.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient, FlaskCliRunner

from app import create_app
from receiver.parts import Receiver
from tests.canned import Canned, ok

TOKEN = "0123456789abcdef0123456789abcdef"
Trigger = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def runner(environ: dict[str, str]) -> Iterator[FlaskCliRunner]:
    app = create_app({**environ, "SMSCX_WEBHOOK_TOKEN": TOKEN})
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    yield app.test_cli_runner()
    receiver.counting.stop()
    receiver.store.close()


@pytest.fixture
def trigger(runner: FlaskCliRunner, fresh_canned: Canned) -> Trigger:
    """Run the command, and return the bodies that it sent."""

    def run(*arguments: str) -> list[dict[str, Any]]:
        fresh_canned.answers(ok({}))
        url = f"{fresh_canned.url}/webhooks/zimsend"
        result = runner.invoke(args=["trigger", *arguments, "--url", url])
        assert result.exit_code == 0, result.output
        return [json.loads(request.body) for request in fresh_canned.seen]

    return run


def test_an_error(trigger: Trigger) -> None:
    (body,) = trigger("sms.failed", "--error", "NO_CREDIT")
    assert body["data"]["error"] == {"code": "NO_CREDIT"}
    (body,) = trigger("failed", "--error", "NO_CREDIT: Plus de crédit: rechargez")
    assert body["data"]["error"] == {"code": "NO_CREDIT", "message": "Plus de crédit: rechargez"}
    (body,) = trigger("sms.expired", "--error", "EXPIRED")
    assert body["event"] == "sms.expired"


def test_text_metadata_and_device_of_several(trigger: Trigger) -> None:
    options = ["--text", "Bonjour 👋", "--device", "d1", "--metadata", "order=CMD-1=2"]
    bodies = trigger("sms.sent", *options, "--metadata", '{"n": 1, "deep": [null]}', "--count", "2")
    assert len(bodies) == 2
    for body in bodies:
        assert body["data"]["message"] == "Bonjour 👋"
        assert body["data"]["device_id"] == "d1"
        assert body["data"]["metadata"] == {"order": "CMD-1=2", "n": 1, "deep": [None]}
    assert bodies[0]["event_id"] != bodies[1]["event_id"]
    (body,) = trigger("device.connected", "--device", "d1")
    assert body["data"]["device_id"] == "d1"


def test_what_no_utf_8_holds_is_sent_as_javascript_does(
    trigger: Trigger, fresh_canned: Canned
) -> None:
    (body,) = trigger("sms.sent", "--metadata", r'{"half": "\ud83d"}')
    assert body["data"]["metadata"] == {"half": "\ud83d"}
    assert rb"\ud83d" in fresh_canned.last.body


def test_smscx_has_numbers_of_errors(trigger: Trigger) -> None:
    (body,) = trigger("sms.failed", "--provider", "smscx", "--error", "12")
    assert body["data"][0]["errorCode"] == 12
    (body,) = trigger("smscx.receive_sms", "--provider", "smscx", "--text", "STOP")
    assert body["data"][0]["text"] == "STOP"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sms.sent", "--error", "NO_CREDIT"], "sms.sent has no error"),
        (["delivered", "--error", "NO_CREDIT"], "sms.delivered has no error"),
        (["sms.expired", "--error", "NO_CREDIT"], "always EXPIRED"),
        (["sms.failed", "--error", ""], "CODE or CODE:message"),
        (["sms.failed", "--error", ":words"], "CODE or CODE:message"),
        (["sms.failed", "--error", "NO_CREDIT:"], "CODE or CODE:message"),
        (["sms.sent", "--metadata", "order"], "'order' is neither K=V nor a JSON object"),
        (["sms.sent", "--metadata", "=1"], "neither K=V nor a JSON object"),
        (["sms.sent", "--metadata", '{"a": NaN}'], "is no JSON object"),
        (["sms.sent", "--metadata", '{"a": 1'], "is no JSON object"),
        (["sms.sent", "--metadata", '{"a": 1e999}'], "a number that is too large"),
        (["sms.sent", "--metadata", '{"a": [{"b": -1e999}]}'], "a number that is too large"),
        (["sms.sent", "--metadata", f'{{"a": {"9" * 5_000}}}'], "a number that is too large"),
        (["device.connected", "--text", "x"], "device.connected has no text"),
        (["otp.sent", "--device", "d1"], "otp.sent has no device_id"),
        (["sms.sent", "--provider", "smscx", "--text", "x"], "SMS.CX's sms.sent has no text"),
        (
            ["sms.sent", "--provider", "smscx", "--error", "1"],
            "SMS.CX's sms.sent has no error_code",
        ),
        (["sms.failed", "--provider", "smscx", "--error", "X"], "numbers, like 27, not 'X'"),
        (["sms.failed", "--provider", "smscx", "--error", "1:x"], "has no error_message"),
    ],
)
def test_wrong_usage(runner: FlaskCliRunner, arguments: list[str], told: str) -> None:
    """Nothing is sent then: nobody listens at this address."""
    result = runner.invoke(args=["trigger", *arguments, "--url", "http://127.0.0.1:9/webhooks/x"])
    assert result.exit_code == 2, result.output
    assert told in result.output.splitlines()[-1]


def test_what_it_sends_is_taken(
    trigger: Trigger, fresh_canned: Canned, client: FlaskClient
) -> None:
    """Signed as it stands, whatever it says."""
    trigger("sms.failed", "--error", "X:é", "--text", "👋", "--metadata", "a=\u2028")
    sent = fresh_canned.last
    taken = client.post(sent.path, data=sent.body, headers=dict(sent.headers))
    assert taken.status_code == 200
