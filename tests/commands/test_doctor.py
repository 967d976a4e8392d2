"""`flask doctor`: what is wrong is said before it is, in time; and why a signature does not fit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import checks, times
from receiver.checks import here, look, network
from receiver.checks.found import Check, Finding
from receiver.errors import StoreUnavailable
from receiver.parts import Receiver
from receiver.providers.simulating.running import Running
from receiver.providers.sipgate.simulator import api as sipgate_api
from receiver.providers.sipgate.simulator import running as sipgate
from receiver.providers.sipgate.simulator.world import World as SipgateWorld
from receiver.providers.smscx.simulator import api as smscx_api
from receiver.providers.smscx.simulator import running as smscx
from receiver.providers.smscx.simulator.world import World as SmsCxWorld
from receiver.providers.zimsend.simulator import api as zimsend_api
from receiver.providers.zimsend.simulator import running as zimsend
from receiver.providers.zimsend.simulator.world import World as ZimSendWorld
from receiver.providers.zimsend.webhook import sign
from receiver.store.contract import Engine
from tests.canned import Canned, ok, silent, status
from tests.conftest import SECRET, Clock
from tests.server import free_port

BODY = b'{"event": "sms.sent"}'
KEYS = {"ZIMSEND_API_KEY": "zs_test_real", "ZIMSEND_CLIENT_ID": "client_real"}
HOOK = "https://sms.example.com/webhooks/zimsend"
HEALTHY = ok({"status": "ok"})

Make = Callable[..., Receiver]


@pytest.fixture
def make(environ: dict[str, str], canned: Canned, clock: Clock) -> Iterator[Make]:
    """A receiver with settings, whose database is migrated."""
    made: list[Receiver] = []

    def one(**settings: str) -> Receiver:
        app = create_app({**environ, "ZIMSEND_API_URL": f"{canned.url}/v1", **settings}, now=clock)
        receiver: Receiver = app.extensions["receiver"]
        receiver.store.migrate()
        made.append(receiver)
        return receiver

    yield one
    for receiver in made:
        receiver.store.close()
        for sender in receiver.senders.values():
            sender.client.close()
        for reconciliation in receiver.reconciliations.values():
            reconciliation.account.client.close()  # type: ignore[attr-defined]


def found(receiver: Receiver, check: Check, limit: float = 10) -> list[Finding]:
    return list(look(receiver, [("it", check)], limit))


def only(receiver: Receiver, check: Check) -> Finding:
    (finding,) = found(receiver, check)
    return finding


# --- the command


def run(environ: dict[str, str], *arguments: str) -> Result:
    app = create_app(environ)
    try:
        return FlaskCliRunner(app).invoke(args=["doctor", *arguments])
    finally:
        app.extensions["receiver"].store.close()


def test_a_signature_that_does_not_fit(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(BODY + b"\n")
    result = run(environ, str(file), "--signature", sign(SECRET.encode(), BODY))
    assert result.exit_code == 1
    assert "signature line-end" in result.output
    assert "a line's end" in result.output
    assert result.output.splitlines()[-1] == "Error: 1 problem"
    file.write_bytes(BODY)
    assert run(environ, str(file), "--signature", sign(SECRET.encode(), BODY)).exit_code == 0
    theirs = {**environ, "V1_API_KEY": "a-key-of-v1-0123456789"}
    signed = sign(b"a-key-of-v1-0123456789", BODY)
    result = run(theirs, str(file), "--signature", signed, "--format", "jsonl")
    assert json.loads(result.output.splitlines()[0])["check"] == "signature other-setting"
    assert "what V1_API_KEY holds" in result.output
    header = f"X-Hub-Signature-256: sha256={sign(SECRET.encode(), BODY)}"
    assert "signature other-header" in run(environ, str(file), "--header", header).output
    assert SECRET not in result.output


@pytest.mark.parametrize(
    "arguments", [["--signature", "aa"], [__file__], [__file__, "--header", "no header"]]
)
def test_wrong_usage(environ: dict[str, str], arguments: list[str]) -> None:
    assert run(environ, *arguments).exit_code == 2


@pytest.mark.each_engine
def test_what_is_wrong_is_said_and_ends_in_status_1(environ: dict[str, str]) -> None:
    create_app(environ).extensions["receiver"].store.migrate()
    result = run(environ, "--format", "jsonl")
    assert result.exit_code == 1
    *lines, last = result.output.splitlines()
    rows = [json.loads(line) for line in lines]
    states: dict[str, Any] = {row["check"]: row["state"] for row in rows}
    assert states["database"] == states["settings"] == states["refusals"] == "ok"
    assert states["public address"] == "warning"
    assert states["handlers"] == "wrong"
    assert last == "Error: 1 problem"
    assert all(row["advice"] for row in rows if row["state"] != "ok")
    told = run({**environ, "WEB_CONCURENCY": "2"}).output
    assert "WRONG    handlers" in told
    assert "is WEB_CONCURRENCY meant? Correct its name" in told


def test_a_database_that_is_not_there_is_not_made(environ: dict[str, str], tmp_path: Path) -> None:
    result = run({**environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'none.db'}"})
    assert "flask migrate" in result.output
    assert result.exit_code == 1
    assert not (tmp_path / "none.db").exists()
    assert result.output.count("flask migrate") == 1
    assert "not looked at: the database cannot be used. See above" in result.output
    assert result.output.endswith("Error: 1 problem\n")


def test_it_ends_in_time_whatever_hangs(make: Make) -> None:
    receiver = make()
    released = threading.Event()

    def hangs(_: Receiver) -> list[tuple[str, str]]:
        released.wait(30)
        return []

    begun = time.monotonic()
    three = [("first", hangs), ("second", lambda _: [("ok", "fine")]), ("third", hangs)]
    states = [(f.check, f.state) for f in look(receiver, three, 0.2)]
    assert states == [("first", "wrong"), ("second", "ok"), ("third", "wrong")]
    assert time.monotonic() - begun < 15
    released.set()


def test_a_check_that_fails_shows_no_value(make: Make) -> None:
    def fails(_: Receiver) -> Any:
        raise KeyError("+33612345678")

    def refuses(_: Receiver) -> Any:
        raise StoreUnavailable("the disk is gone")

    receiver = make()
    assert "+336" not in str(found(receiver, fails))
    assert only(receiver, refuses).told == "the disk is gone"


# --- each check


def test_settings(make: Make) -> None:
    finding = found(make(ZIMSEND_SPEED="1"), here.settings)[0]
    assert (finding.state, "ZIMSEND_SPEED" in finding.told) == ("warning", True)


@pytest.mark.parametrize(
    ("free", "state"), [(1 << 20, "wrong"), (100 << 20, "warning"), (1 << 40, "ok")]
)
def test_room(make: Make, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    usage = here.shutil._ntuple_diskusage(2 << 40, 0, free)  # type: ignore[attr-defined]
    monkeypatch.setattr(here.shutil, "disk_usage", lambda _: usage)
    assert only(make(), here.disk).state == state


@pytest.mark.parametrize(("ahead", "state"), [(0, "ok"), (-10, "warning"), (3_600, "wrong")])
def test_the_servers_clock(
    make: Make, monkeypatch: pytest.MonkeyPatch, clock: Clock, ahead: int, state: str
) -> None:
    receiver = make()
    engine = Engine("PostgreSQL", clock=clock() + ahead * times.SECOND)
    monkeypatch.setattr(receiver.store, "engine", lambda: engine)
    assert only(receiver, here.clock).state == state


def test_a_clock_before_this_release(make: Make, clock: Clock) -> None:
    clock.time = times.RELEASED - 1
    assert only(make(), here.clock).state == "wrong"


@pytest.mark.each_engine
def test_the_database_tells_its_own_time(make: Make, clock: Clock) -> None:
    clock.time = times.now()
    assert only(make(), here.clock).state == "ok"


@pytest.mark.parametrize(("ahead", "state"), [(0, "ok"), (30, "warning"), (-7_200, "wrong")])
def test_a_providers_clock(
    make: Make,
    canned: Canned,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    ahead: int,
    state: str,
) -> None:
    date = format_datetime(times.to_datetime(clock() + ahead * times.SECOND), usegmt=True)
    monkeypatch.setattr(network, "is_loopback", lambda _: False)
    canned.answers(status(404, b"", f"Date: {date}"))
    check = dict(checks.checks_of(make(**KEYS)))["clock of zimsend"]
    assert only(make(**KEYS), check).state == state


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (HEALTHY, "ok", "leads to this service"),
        (ok({"status": "up"}), "wrong", "not as this service"),
        (status(200, b"<html>"), "wrong", "not as this service"),
        (status(200, b"[" * 1_000), "wrong", "not as this service"),
        (status(404), "wrong", "answers 404"),
        (status(301, b"", "Location: /x"), "wrong", "redirect"),
    ],
)
def test_the_public_address(make: Make, canned: Canned, answer: Any, state: str, said: str) -> None:
    canned.answers(answer)
    receiver = make()
    receiver = replace(receiver, config=replace(receiver.config, public_url=canned.url))
    finding = only(receiver, network.public_address)
    assert (finding.state, said in finding.told) == (state, True)


def test_a_public_address_where_nobody_is_or_answers(
    make: Make, canned: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "REQUEST", 0.2)
    canned.answers(silent)
    receiver = make()
    for url in ("http://127.0.0.1:9", canned.url):
        receiver = replace(receiver, config=replace(receiver.config, public_url=url))
        finding = only(receiver, network.public_address)
        assert (finding.state, "cannot be reached" in finding.told) == ("wrong", True)
    canned.released.set()
    canned.released = threading.Event()


ACCOUNTS = {
    "zimsend": KEYS,
    "smscx": {
        "SMSCX_WEBHOOK_TOKEN": "t" * 32,
        "SMSCX_API_KEY": "key-of-smscx",
    },
    "sipgate": {"SIPGATE_TOKEN_ID": "token-ABC", "SIPGATE_TOKEN": "secret-of-sipgate"},
}


def simulator_of(name: str) -> Running[Any]:
    """A provider whose account is that of `ACCOUNTS`."""
    world: dict[str, Any] = {"began": times.now(), "seed": 1}
    if name == "zimsend":
        return zimsend.Simulator(ZimSendWorld(**world), credentials=(*KEYS.values(),))
    if name == "smscx":
        return smscx.Simulator(SmsCxWorld(**world), api_key=ACCOUNTS[name]["SMSCX_API_KEY"])
    token_id, token = ACCOUNTS[name].values()
    return sipgate.Simulator(SipgateWorld(**world), token_id=token_id, token=token)


@pytest.mark.parametrize(
    ("name", "more"),
    [*((name, {}) for name in ACCOUNTS), ("smscx", {"SMSCX_FROM": "Shop"})],
    ids=[*ACCOUNTS, "smscx that is sent through"],
)
def test_each_account(make: Make, canned: Canned, name: str, more: dict[str, str]) -> None:
    serve = {"zimsend": zimsend_api, "smscx": smscx_api, "sipgate": sipgate_api}[name].serve
    port = free_port()
    url = f"http://127.0.0.1:{port}{'/v1' if name == 'zimsend' else ''}"
    prefix = name.upper()
    receiver = make(**{**ACCOUNTS[name], **more, f"{prefix}_API_URL": url})
    check = dict(checks.checks_of(receiver))[f"account {name}"]
    close = serve(simulator_of(name), "127.0.0.1", port)
    assert only(receiver, check).state == "ok"
    close()
    refused = make(**{**ACCOUNTS[name], **more, f"{prefix}_API_URL": canned.url})
    canned.answers(ok({"message": "no"}, 401))
    told = only(refused, check)
    assert told.state == "wrong"
    assert told.advice
    assert all(secret not in str(told) for secret in ACCOUNTS[name].values())


MADE = {"webhook_id": "wh_1", "url": HOOK, "status": "active", "events": []}


@pytest.mark.parametrize(
    ("there", "state", "said"),
    [
        ([MADE], "ok", "wh_1 reports to"),
        ([], "wrong", "none reports"),
        ([{**MADE, "url": "https://example.com"}], "wrong", "none reports"),
        ([{**MADE, "status": "disabled"}], "wrong", "is disabled"),
        ([{**MADE, "events": ["sms.sent"]}], "warning", "sms.delivered, sms.failed"),
        ([MADE, {**MADE, "webhook_id": "wh_2"}], "warning", "several"),
    ],
)
def test_the_webhook(make: Make, canned: Canned, there: Any, state: str, said: str) -> None:
    canned.answers(ok({"webhooks": there}))
    receiver = make(PUBLIC_URL="https://sms.example.com", **KEYS)
    finding = found(receiver, network.webhook)[0]
    assert (finding.state, said in finding.told) == (state, True)


def test_the_handlers_and_the_last_refusals(make: Make, clock: Clock) -> None:
    receiver = make()
    receiver.worker.step(clock())
    assert found(receiver, here.handlers)[0].state == "ok"
    clock.time += times.MINUTE
    assert "since" in found(receiver, here.handlers)[0].told
    assert only(receiver, here.refusals).state == "ok"
    receiver.receiving.refusals.keep("webhooks were refused: 1 for their signature")
    assert "1 for their signature" in only(receiver, here.refusals).told
    clock.time += 2 * times.DAY
    assert only(receiver, here.refusals).state == "ok"
