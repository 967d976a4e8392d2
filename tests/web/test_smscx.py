"""SMS.CX's callbacks over HTTP, to the store, the handlers and `/v1`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient, FlaskCliRunner

from app import create_app
from receiver import ConfigError
from receiver.parts import Receiver, parts
from receiver.store import Selection, Settlement, Want
from receiver.times import DAY, iso
from receiver.worker import event_of
from tests.conftest import Clock, Provider
from tests.payloads import envelope, sms

TOKEN = "token_0123456789_0123456789"
PATH = f"/webhooks/smscx/{TOKEN}"
KEYS = {"X-API-Key": "zs_test_1", "X-Client-ID": "client_1"}
ID = "9b1e4c8e-4b53-4a53-9d5c-4f2a7d1f0a11"

pytestmark = pytest.mark.each_engine


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "SMSCX_WEBHOOK_TOKEN": TOKEN,
        "V1_API_KEY": KEYS["X-API-Key"],
        "V1_CLIENT_ID": KEYS["X-Client-ID"],
    }


@pytest.fixture
def here(client: FlaskClient) -> FlaskClient:
    return client


def item(clock: Clock, **changes: Any) -> dict[str, Any]:
    at = iso(clock.time).rstrip("Z").replace("T", " ")
    return {"msgId": ID, "status": "DELIVERED", "errorCode": None, "datetime": at} | changes


def body(*items: Any) -> bytes:
    return json.dumps({"event": "dlr_update", "data": items}).encode()


def test_a_callback_is_stored_once(here: FlaskClient, clock: Clock) -> None:
    first = here.post(PATH, data=body(item(clock), item(clock, status="SENT"), 5))
    assert (first.status_code, first.json) == (
        200,
        {"status": "accepted", "accepted": 2, "duplicates": 0, "quarantined": 1},
    )
    again = here.put(PATH, data=body(item(clock, status="SENT")))
    assert again.json == {"status": "accepted", "accepted": 0, "duplicates": 1, "quarantined": 0}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("wrong", ["x", TOKEN + "x", TOKEN[:-1], TOKEN.upper(), "%00", "é"])
def test_a_wrong_token_is_any_unknown_path(here: FlaskClient, method: str, wrong: str) -> None:
    answer = here.open(f"/webhooks/smscx/{wrong}", method=method, data=b"{}")
    unknown = here.open("/webhooks/nobody/x", method=method, data=b"{}")
    assert answer.status_code == unknown.status_code == 404
    assert answer.data == unknown.data
    assert answer.headers == unknown.headers


def test_the_token_alone_opens(here: FlaskClient) -> None:
    assert here.get(PATH).status_code == 200
    assert here.delete(PATH).status_code == 405
    assert here.get("/webhooks/smscx").status_code == 404


def test_ids_of_two_providers_never_meet(
    here: FlaskClient, provider: Provider, clock: Clock
) -> None:
    here.post(PATH, data=body(item(clock, msgId="m1")))
    provider.post(envelope("sms.failed", sms("failed", "m1")))
    provider.post(envelope("sms.sent", sms("sent", "smscx:m1")))
    told = {
        written: here.get(f"/v1/sms/status/{written}", headers=KEYS).json
        for written in ("m1", "smscx:m1", "zimsend:smscx:m1", "zimsend:m1")
    }
    assert {written: (a["message_id"], a["status"]) for written, a in told.items()} == {
        "m1": ("m1", "failed"),
        "smscx:m1": ("smscx:m1", "delivered"),
        "zimsend:smscx:m1": ("zimsend:smscx:m1", "sent"),
        "zimsend:m1": ("m1", "failed"),
    }
    history = here.get("/v1/sms/history?provider=smscx", headers=KEYS).json
    assert [row["message_id"] for row in history["data"]] == ["smscx:m1"]
    stats = here.get("/v1/sms/stats?provider=smscx", headers=KEYS).json["stats"]
    assert (stats["delivered"], stats["total_sent"]) == (1, 1)


def test_a_handler_sees_the_item(here: FlaskClient, receiver: Receiver, clock: Clock) -> None:
    sent = item(clock, status="FAILED", errorCode=17)
    here.post(PATH, data=body(sent))
    (stored,) = receiver.store.events(Selection())
    claim = receiver.store.unclaimed(stored["event_id"], "anybody")
    assert claim is not None
    event = event_of(claim)
    assert (event.provider, event.type, event.message_id) == ("smscx", "sms.failed", ID)
    assert event.id.startswith("smscx:sha256:")
    assert event.data == sent
    assert event.raw == json.dumps(sent, sort_keys=True, separators=(",", ":")).encode()
    assert (event.error_code, event.status) == ("17", "failed")


def test_commands_write_and_read_its_ids(
    here: FlaskClient, runner: FlaskCliRunner, clock: Clock
) -> None:
    here.post(PATH, data=body(item(clock, status="FAILED", errorCode=17), "no object"))
    told = json.loads(runner.invoke(args=["events", "list", "--format", "jsonl"]).output)
    assert told["message_id"] == f"smscx:{ID}"
    assert (told["error_code"], told["provider"]) == ("17", "smscx")
    shown = json.loads(runner.invoke(args=["events", "show", told["event_id"]]).output)
    assert shown["event_id"] == told["event_id"]
    message = json.loads(runner.invoke(args=["messages", "show", f"smscx:{ID}"]).output)
    assert (message["message_id"], message["status"]) == (f"smscx:{ID}", "failed")
    kept = json.loads(runner.invoke(args=["quarantine", "list", "--format", "jsonl"]).output)
    assert kept["id"].startswith("smscx:")
    assert runner.invoke(args=["quarantine", "show", kept["id"]]).exit_code == 0
    assert runner.invoke(args=["quarantine", "show", kept["id"][:12]]).exit_code == 0
    retried = runner.invoke(args=["quarantine", "retry"])
    assert "still not usable" in retried.output


def test_one_s_expiry_refuses_nothing_of_the_other(
    here: FlaskClient, receiver: Receiver, provider: Provider, clock: Clock
) -> None:
    first = envelope("sms.sent", sms("sent", "m1"))
    provider.post(first)
    wants = [Want(handler.name, 9, DAY, 9) for handler in receiver.registry]
    claims = receiver.store.work(clock.time, [], wants, 1.0)
    done = [Settlement(claim, "done", clock.time) for claim in claims]
    receiver.store.work(clock.time, done, [], 1.0)
    old = item(clock, msgId="late")
    clock.time += 91 * DAY
    while any(receiver.store.expire(clock.time - 90 * DAY, 1.0)):
        pass
    clock.time -= 2 * DAY
    assert here.post(PATH, data=body(old)).json["accepted"] == 1
    replayed = envelope("sms.sent", sms("sent", "m2"), timestamp=first["timestamp"])
    assert provider.post(replayed).status_code == 400


def test_its_address_is_told(environ: dict[str, str]) -> None:
    settings = {"SMSCX_WEBHOOK_TOKEN": TOKEN, "PUBLIC_URL": "https://sms.example.com"}
    environ.pop("ZIMSEND_WEBHOOK_SECRET")
    app = create_app({**environ, **settings})
    told = app.test_cli_runner().invoke(args=["webhooks", "url", "smscx"])
    assert told.output == f"https://sms.example.com{PATH}\n"
    assert app.test_cli_runner().invoke(args=["webhooks", "url", "zimsend"]).exit_code == 1
    assert app.test_client().post("/webhooks/zimsend", data=b"{}").status_code == 404


def test_what_speaks_as_zimsend_says_so_where_it_is_not_set_up(environ: dict[str, str]) -> None:
    environ.pop("ZIMSEND_WEBHOOK_SECRET")
    app = create_app(environ)
    with pytest.raises(ConfigError, match="ZIMSEND_WEBHOOK_SECRET: not set"):
        parts(app).config.webhook_secret  # noqa: B018 - which `flask webhooks register` asks for
    told = app.test_cli_runner().invoke(args=["simulate", "--count", "1"])
    assert told.exit_code == 1
    assert "ZIMSEND_WEBHOOK_SECRET: not set" in told.output
    assert (
        app.test_cli_runner()
        .invoke(args=["trigger", "sms.sent", "--provider", "zimsend"])
        .exit_code
        == 1
    )
