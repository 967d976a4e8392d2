"""What people and programs see of what was missed."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from flask.testing import FlaskClient, FlaskCliRunner

from app import create_app
from receiver import status
from receiver.errors import StoreUnavailable
from receiver.logs import Sparingly
from receiver.parts import Receiver
from receiver.providers.zimsend.facts import QUIET
from receiver.providers.zimsend.simulator.world import Weather
from receiver.store import Selection
from receiver.times import MINUTE, SECOND, iso
from tests.conftest import Clock, Provider, row_of
from tests.payloads import envelope, sms
from tests.providers.zimsend.reports import NUMBER, at
from tests.reconciliation.life import HEADERS, KEYS, Life, quiet_hours, raising, refused_with
from tests.server import ROOT

API = schemathesis.openapi.from_path(
    ROOT / "docs/reference/openapi.yaml", config=schemathesis.Config()
)


@pytest.fixture
def at_work(live: Callable[..., Life], environ: dict[str, str]) -> Life:
    """A life with three messages, nothing of which has arrived."""
    environ |= KEYS
    life = live(weather=Weather(failed=0.5), seed=4)
    life.look(MINUTE)
    life.up = False
    for number in range(3):
        life.world.send(NUMBER, "Bonjour", metadata={"n": number})
    life.wait(20 * MINUTE)
    return life


def flask(life: Life, *arguments: str) -> Any:
    """A command of the application, with its wire to the simulated ZimSend."""
    app = life.apps[-1]
    parts = dataclasses.replace(life.receiver, reconciliations={"zimsend": life.reconciliation})
    app.extensions["receiver"] = parts
    return app.test_cli_runner().invoke(args=["reconcile", *arguments])


def test_the_command_tells_what_was_missing(at_work: Life) -> None:
    states = Counter(message.status for message in at_work.world.messages.values())
    assert states == {"delivered": 1, "failed": 2}
    ran = flask(at_work, "--dry-run")
    assert ran.exit_code == 0
    head, gap, whole, waiting = ran.stdout.splitlines()
    assert head.split() == ["FROM", "TO", "MESSAGES", "SENT", "DELIVERED", "FAILED"]
    assert gap.split()[2:] == ["1", "1", "1", "0"]
    reports = "2 reports of 1 message (1 sent, 1 delivered)"
    assert whole == f"since {at(-15 * 60)}: {reports} would be learnt"
    assert waiting.startswith("2 more changed so lately")
    assert at_work.missed() is None

    ran = flask(at_work)
    assert ran.stdout.splitlines()[2].endswith(f"{reports} had not arrived, and are learnt now")
    at_work.wait(QUIET)
    ran = flask(at_work)
    assert ran.stdout.splitlines()[1].split()[2:] == ["2", "0", "0", "2"]
    ran = flask(at_work)
    assert ran.stdout == f"since {at(-15 * 60)}: nothing is missing\n"
    assert ran.stderr == ""  # no progress in a pipe


def test_the_command_fails_if_zimsend_cannot_be_asked(at_work: Life) -> None:
    at_work.wire.fault = raising(httpx.ConnectError)
    for arguments in ([], ["--dry-run"], ["--since", "90d"]):
        ran = flask(at_work, *arguments)
        assert ran.exit_code == 1
        *_, last = ran.stderr.splitlines()
        assert last.startswith("Error: not all of it could be asked for: ConnectError")


def test_the_command_needs_an_account(runner: FlaskCliRunner) -> None:
    ran = runner.invoke(args=["reconcile"])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Error: ZIMSEND_API_KEY: not set")


def test_the_api_tells_what_was_missing(at_work: Life) -> None:
    flask(at_work, "--dry-run")  # wires it
    client = at_work.apps[-1].test_client()
    refused = client.get("/v1/reconciliation")
    assert (refused.status_code, refused.json["error"]["code"]) == (400, "MISSING_AUTH_HEADERS")
    before = get(client)
    assert (before["missed"], before["gaps"], before["gaps_total"]) == (None, [], 0)
    at_work.look(25 * MINUTE)
    told = get(client)
    assert told["last_pass"]["complete"]
    assert told["last_pass"]["budget"]["used"] >= 1
    assert told["last_complete_at"] == told["last_pass"]["ended_at"]
    assert told["last_complete_at"] < iso(at_work.clock.time) <= told["next_pass_at"]
    counts = {"messages": 3, "reports": 4, "sent": 1, "delivered": 1, "failed": 2}
    assert counts.items() <= told["missed"].items()
    assert told["gaps"] == [told["missed"]]
    at_work.wire.fault = refused_with(503)
    at_work.look(15 * MINUTE)
    told = get(client)
    assert told["last_pass"]["problem"].startswith("the answer gives no reason (HTTP 503)")
    assert told["last_complete_at"] < told["last_pass"]["ended_at"]


def get(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/v1/reconciliation", headers=HEADERS)
    assert answer.status_code == 200
    API["/v1/reconciliation"]["GET"].validate_response(answer)
    told: dict[str, Any] = answer.get_json()
    return told


def test_nobody_was_asked_yet(environ: dict[str, str], clock: Clock) -> None:
    app = create_app(environ | KEYS, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    told = get(app.test_client())
    assert (told["last_pass"], told["missed"]) == (None, None)
    receiver.store.close()


def test_the_text_of_what_is_learnt_is_hidden_where_that_is_wanted(
    live: Callable[..., Life], environ: dict[str, str]
) -> None:
    environ["STORE_TEXT"] = "masked"
    life = live()
    life.look(MINUTE)
    message = life.world.send(NUMBER, "Code 123456", metadata={"n": 1})
    quiet_hours(life, 30 * MINUTE)
    assert status.describe(row_of(life.store, message.id))["message"] == "Code ******"
    bodies = [life.store.body(e["event_id"]) for e in life.store.events(Selection())]
    assert len(bodies) == 2
    assert not any(b"123456" in body.replace(NUMBER.encode(), b"") for body in bodies)


def test_the_store_was_stuck(live: Callable[..., Life], monkeypatch: pytest.MonkeyPatch) -> None:
    """Then ZimSend may have given up meanwhile."""
    life = live()
    life.look(MINUTE)
    app = create_app(life.environ | KEYS, life.clock)
    receiver: Receiver = app.extensions["receiver"]
    assert receiver.reconciliations
    life.apps.append(app)
    noticed: list[bool] = []
    monkeypatch.setattr(receiver.ingest, "on_recovery", lambda: noticed.append(True))
    ingest = receiver.store.ingest

    def stuck(*_: Any) -> Any:
        raise StoreUnavailable("locked")

    monkeypatch.setattr(receiver.store, "ingest", stuck)
    life.client = app.test_client()
    life.world.send(NUMBER, "Bonjour")
    life.wait(30 * SECOND)
    monkeypatch.setattr(receiver.store, "ingest", ingest)
    assert not noticed
    life.wait(2 * MINUTE)
    assert noticed == [True]


def test_it_is_wired_to_the_store(environ: dict[str, str], clock: Clock) -> None:
    app = create_app(environ | KEYS, clock)
    receiver: Receiver = app.extensions["receiver"]
    assert receiver.reconciliations.keys() == {"zimsend"}
    assert receiver.ingest.on_recovery == receiver.notice_gap
    receiver.store.close()
    app = create_app(environ, clock)
    assert not app.extensions["receiver"].reconciliations
    app.extensions["receiver"].store.close()


def test_events_that_come_again_are_a_warning_but_not_each(
    provider: Provider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZimSend gives up after its third try, so who has to try again is close to it."""
    again = envelope("sms.sent", sms("sent"))
    for _ in range(5):
        provider.post(again)
    [line] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert line == (
        f"event {again['event_id']} is stored, and came again: its first answer was late or lost; "
        "ZimSend drops an event after 3 such tries"
    )
    later = time.monotonic() + Sparingly.EVERY
    monkeypatch.setattr(time, "monotonic", lambda: later)
    provider.post(again)
    assert caplog.messages[-1].endswith("(3 more came again since the last such line)")
