"""The `flask` commands, and what STORE_TEXT leaves for them to show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import event
from receiver.commands.common import echo_json
from receiver.parts import Receiver
from receiver.providers.zimsend.samples import SAMPLES
from receiver.reconciliation.passes import Pass, Reconciliation
from receiver.store import Outcome, Report
from receiver.times import DAY, HOUR, iso
from tests.canned import Canned, status
from tests.conftest import SECRET, Clock, Provider
from tests.payloads import body_of, envelope, sms
from tests.server import ROOT, Server


def run(runner: FlaskCliRunner, *arguments: str, status: int = 0) -> str:
    result = runner.invoke(args=list(arguments))
    assert result.exit_code == status, result.output
    return result.output


def listed(runner: FlaskCliRunner, *arguments: str) -> list[dict[str, Any]]:
    lines = run(runner, "events", "list", "--format", "jsonl", *arguments).splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.each_engine
def test_events_list_and_show(runner: FlaskCliRunner, provider: Provider, clock: Clock) -> None:
    assert listed(runner) == []
    event = envelope("sms.sent", sms("sent", "m1"), event_id="e1")
    provider.post(event)
    provider.post(event)
    clock.time += HOUR
    provider.post(envelope("device.connected", {}, event_id="e2", timestamp=None))
    first, second = listed(runner)
    assert first == {
        "event_id": "e1",
        "type": "sms.sent",
        "message_id": "m1",
        "to": event["data"]["to"],
        "error_code": None,
        "test": False,
        "occurred_at": event["data"]["sent_at"],
        "received_at": iso(clock.time - HOUR),
        "source": "webhook",
        "provider": "zimsend",
        "late": False,
        "repeat": False,
        "receipts": 2,
        "deliveries": [
            {
                "handler": name,
                "state": "pending",
                "attempts": 0,
                "last_error": None,
                "next_attempt_at": iso(clock.time - HOUR),
            }
            for name in ("first", "second")
        ],
    }
    assert second["occurred_at"] == second["received_at"] == iso(clock.time)
    table = run(runner, "events", "list").splitlines()
    assert [row.split()[1:5] for row in table] == [
        ["TYPE", "NUMBER", "ERROR", "EVENT"],
        ["sms.sent", event["data"]["to"], "-", "e1"],
        ["device.connected", "-", "-", "e2"],
    ]
    assert "received 2 times" in table[1]
    shown = json.loads(run(runner, "events", "show", "e1"))
    assert shown["body"] == event
    assert "no event 'nothing'" in run(runner, "events", "show", "nothing", status=1)

    assert [e["event_id"] for e in listed(runner, "--type", "sent")] == ["e1"]
    assert [e["event_id"] for e in listed(runner, "--message-id", "m1")] == ["e1"]
    assert [e["event_id"] for e in listed(runner, "--since", "30m")] == ["e2"]
    assert [e["event_id"] for e in listed(runner, "--until", "30m")] == ["e1"]
    assert [e["event_id"] for e in listed(runner, "--since", iso(clock.time))] == ["e2"]
    assert listed(runner, "--state", "dead") == []
    assert listed(runner, "--state", "retrying") == []
    assert [e["event_id"] for e in listed(runner, "--handler", "second")] == ["e1"]
    assert listed(runner, "--handler", "gone") == []
    for none in ("soon", "20261120", "1795162542", "1795101512345", "2026-11-20-0815"):
        assert "is no time" in run(runner, "events", "list", "--since", none, status=2)
    for far in ("999999999d", "999999d", "0001-01-01T00:00:00+23:59"):
        output = run(runner, "events", "list", "--until", far, status=2)
        assert "years 1 to 9999" in output.splitlines()[-1]


@pytest.mark.each_engine
@pytest.mark.parametrize("odd", ["x" * 201, "two\nlines"])
def test_ids_that_are_stored_as_their_digest(
    runner: FlaskCliRunner, provider: Provider, odd: str
) -> None:
    provider.post(envelope("sms.sent", sms("sent", odd), event_id=f"e{odd}"))
    (stored,) = listed(runner, "--message-id", odd)
    assert stored["message_id"].startswith("sha256:")
    for typed in (f"e{odd}", stored["event_id"]):
        assert json.loads(run(runner, "events", "show", typed))["event_id"] == stored["event_id"]
        assert run(runner, "replay", typed).startswith("2 work items are")


@pytest.mark.parametrize(
    "command",
    [
        "trigger sms.sent --to",
        "events list --type",
        "events show",
        "replay",
        "replay --handler",
        "quarantine retry",
    ],
)
def test_arguments_that_are_not_utf_8(runner: FlaskCliRunner, command: str) -> None:
    output = run(runner, *command.split(), "\udcff", status=2)
    assert output.splitlines()[-1] == r"Error: '\udcff' is not UTF-8"


def test_output_that_cannot_be_written(environ: dict[str, str], tmp_path: Path) -> None:
    server = Server(environ, tmp_path, SECRET)
    assert server.command("migrate").exit_code == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "events", "list"],
            cwd=ROOT,
            env={**server.environ, "FLASK_SKIP_DOTENV": "1"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    server.close()
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: the output cannot be written: ")
    assert "No space left" in line


def test_json_is_one_line_however_its_reader_splits_it(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "été \x85 \u2028 \u2029 \x9b \x7f \x0b \r\n 📅"}
    echo_json(value)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == value
    assert "été" in line
    assert r"\u2028" in line


def test_on_a_terminal_progress_is_gone_before_the_result(
    runner: FlaskCliRunner,
    provider: Provider,
    receiver: Receiver,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    provider.post(envelope("device.connected", {}, event_id="e1"))
    replayed = runner.invoke(args=["replay", "e1", "--dry-run"], color=True).output
    result = "1 work item would be given to handlers again\n"
    assert replayed == f"\r1 work items\x1b[K\r\x1b[K{result}"
    clock.time += 100 * DAY
    receiver.store.bury(clock.time, [], 0)  # work that is owed does not expire
    shown, _, result = runner.invoke(args=["expire"], color=True).output.rpartition("\r\x1b[K")
    assert shown == "\r0 messages, 1 events, 0 bodies in quarantine\x1b[K"
    assert result == "deleted 0 messages, 1 events, 0 bodies in quarantine\n"


@pytest.mark.each_engine
def test_quarantine(runner: FlaskCliRunner, provider: Provider, clock: Clock) -> None:
    old = envelope("sms.sent", sms("sent", "m1"), timestamp=iso(clock.time - 100 * DAY))
    assert provider.post(b"nonsense").status_code == 400
    assert provider.post(old).status_code == 400
    entries = [
        json.loads(line)
        for line in run(runner, "quarantine", "list", "--format", "jsonl").splitlines()
    ]
    assert {e["length"] for e in entries} == {8, len(json.dumps(old))}
    nonsense, too_old = sorted(entries, key=lambda e: e["length"])
    table = run(runner, "quarantine", "list")
    assert nonsense["id"][:12] in table
    assert json.loads(run(runner, "quarantine", "show", nonsense["id"][:12]))["body"] == "nonsense"
    assert "none begins" in run(runner, "quarantine", "show", "zzz", status=1)
    output = run(runner, "quarantine", "retry", status=1)
    assert output.count("still not usable") == 2
    assert output.splitlines()[-1].endswith("2 could not be used and stay in quarantine")
    # After the setting was changed it comes in by the usual door.
    longer = create_app(
        {**runner_environ(runner), "RETENTION_DAYS": "200"}, clock
    ).test_cli_runner()
    output = run(longer, "quarantine", "retry", too_old["id"])
    assert f"accepted as {old['event_id']}" in output
    assert [e["event_id"] for e in listed(runner)] == [old["event_id"]]
    assert "none begins" in run(runner, "quarantine", "show", too_old["id"], status=1)


def test_retry_goes_on_after_a_body_that_raises(
    runner: FlaskCliRunner, receiver: Receiver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        body = body_of("device.connected", {}, event_id=f"e{number}")
        rejected = event.reject(body, "a defect", received_at=clock.time + number)
        receiver.store.ingest([rejected], lambda _: (), 5)
    ingest = receiver.store.ingest

    def with_a_defect(items: list[event.Incoming], *arguments: Any) -> list[Outcome]:
        if items[0].id == "e0":
            raise OverflowError("Python int too large to convert to SQLite INTEGER")
        return ingest(items, *arguments)

    monkeypatch.setattr(receiver.store, "ingest", with_a_defect)
    *lines, last = run(runner, "quarantine", "retry", status=1).splitlines()
    outcomes = [line.partition(": ")[2] for line in lines]
    assert outcomes == ["still not usable", "accepted as e1", "accepted as e2"]
    assert last == "Error: 1 could not be used and stay in quarantine"
    assert [e["event_id"] for e in listed(runner)] == ["e1", "e2"]
    assert len(list(receiver.store.quarantined())) == 1


def test_retry_of_what_an_earlier_release_could_not_read(
    runner: FlaskCliRunner, receiver: Receiver, provider: Provider, clock: Clock
) -> None:
    """Also where its id is another event's by now, or its `timestamp` is impossible."""
    bodies = [
        body_of("sms.sent", {"message_id": "m1", "message": "W"}, event_id="e1"),
        body_of("sms.sent", {"message_id": "m2"}, event_id=2, timestamp="0001-01-01T00:00:00Z"),
    ]
    bodies[0] = bodies[0].replace(b"W", b"\xe9")
    for body in bodies:
        rejected = event.reject(body, "the body is not UTF-8", received_at=clock.time)
        receiver.store.ingest([rejected], lambda _: (), 5)
    assert provider.post(envelope("sms.delivered", {}, event_id="e1")).status_code == 200
    lines = run(runner, "quarantine", "retry").splitlines()
    outcomes = {line.partition(": ")[2] for line in lines}
    assert outcomes == {f"accepted as {event.own_id(bodies[0])}", "accepted as 2"}
    assert not list(receiver.store.quarantined())


def test_retry_after_a_clock_that_was_ahead(
    runner: FlaskCliRunner, provider: Provider, clock: Clock
) -> None:
    data = sms("sent", "m1")
    clock.time += 100 * DAY
    assert provider.post(envelope("sms.sent", data, event_id="e1")).status_code == 400
    assert "still not usable" in run(runner, "quarantine", "retry", status=1)
    clock.time -= 100 * DAY
    assert run(runner, "quarantine", "retry").endswith(": accepted as e1\n")
    (stored,) = listed(runner)
    assert stored["received_at"] == iso(clock.time)


def runner_environ(runner: FlaskCliRunner) -> dict[str, str]:
    receiver: Receiver = runner.app.extensions["receiver"]
    return {
        "ZIMSEND_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": receiver.config.database_url,
        "HANDLERS": "tests.handlers",
    }


@pytest.mark.each_engine
def test_replay(
    runner: FlaskCliRunner, provider: Provider, receiver: Receiver, clock: Clock
) -> None:
    for number in range(3):
        data = sms("sent", f"m{number}")
        provider.post(envelope("sms.sent", data, event_id=f"e{number}"))
    provider.post(envelope("device.connected", {}, event_id="d"))
    before = listed(runner)
    assert "say which" in run(runner, "replay", status=2)
    assert "say which" in run(runner, "replay", "--dry-run", status=2)
    assert "no handler 'third'" in run(runner, "replay", "--handler", "third", status=2)
    assert "no event none" in run(runner, "replay", "e1", "none", status=1)
    assert run(runner, "replay", "--failed") == "0 work items are given to handlers again\n"
    hint = "'sms.faild' is no documented type of event: is 'sms.failed' meant?"
    assert hint in run(runner, "replay", "--type", "sms.faild")
    assert hint in run(runner, "events", "list", "--type", "sms.faild")
    for known in ("sms.failed", "failed", "device.*", "*"):
        assert "documented" not in run(runner, "events", "list", "--type", known)
    dry = run(runner, "replay", "--type", "sms.*", "--dry-run")
    assert dry == "6 work items would be given to handlers again\n"
    assert listed(runner) == before
    assert run(runner, "replay", "e1").startswith("2 work items are")
    assert run(runner, "replay", "--handler", "first").startswith("4 work items are")
    assert run(runner, "replay", "--since", "1h", "--handler", "second").startswith("3 ")
    # Work that was done is work again.
    receiver.worker.start()
    from tests.server import eventually

    try:
        eventually(lambda: not listed(runner, "--state", "pending"))
    finally:
        receiver.worker.drain(5)
    assert all(d["state"] == "done" for e in listed(runner) for d in e["deliveries"])
    run(runner, "replay", "e0", "--handler", "second")
    (event,) = listed(runner, "--state", "pending")
    states = {d["handler"]: (d["state"], d["attempts"]) for d in event["deliveries"]}
    assert states == {"first": ("done", 1), "second": ("pending", 0)}


@pytest.mark.each_engine
def test_migrate_says_what_it_did(empty_database_url: str) -> None:
    app = create_app({"ZIMSEND_WEBHOOK_SECRET": SECRET, "DATABASE_URL": empty_database_url})
    runner = app.test_cli_runner()
    assert "flask migrate" in run(runner, "events", "list", status=1).splitlines()[-1]
    assert run(runner, "migrate").startswith("migrated: ")
    assert run(runner, "migrate") == "the schema is up to date\n"
    app.extensions["receiver"].store.close()


def test_reconcile_says_nothing_of_what_it_could_not_ask(
    environ: dict[str, str], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Pass(clock.time - HOUR, problem="ConnectError")
    monkeypatch.setattr(Reconciliation, "run", lambda *_, **__: made)
    account = {"ZIMSEND_API_KEY": "zs_test_key", "ZIMSEND_CLIENT_ID": "client_1"}
    app = create_app(environ | account, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    runner = app.test_cli_runner()
    ran = runner.invoke(args=["reconcile"])
    assert (ran.exit_code, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert "ConnectError" in line
    assert f"ZIMSEND_API_URL is {environ['ZIMSEND_API_URL']}" in line
    made.learnt.append(("m1", Report("sms.sent", clock.time, False, "reconciliation")))
    ran = runner.invoke(args=["reconcile"])
    assert ran.exit_code == 1
    assert ": 1 report of 1 message (1 sent) had not arrived" in ran.stdout
    output = run(runner, "reconcile", "--since", iso(clock.time + HOUR), status=2)
    assert "in the future" in output.splitlines()[-1]
    receiver.store.close()


@pytest.mark.parametrize("mode", ["masked", "none"])
def test_without_the_text_no_digit_of_it_is_stored_anywhere(
    environ: dict[str, str], clock: Clock, tmp_path: Path, mode: str
) -> None:
    app = create_app({**environ, "STORE_TEXT": mode}, clock)
    receiver: Receiver = app.extensions["receiver"]
    receiver.store.migrate()
    provider, runner = Provider(app.test_client()), app.test_cli_runner()
    data = sms("sent", "m1", message="Your code: 773914")
    assert provider.post(envelope("sms.sent", data, event_id="e1")).status_code == 200
    assert provider.post(b'{"message": "Your code: 773914"}').status_code == 400
    shown = json.loads(run(runner, "events", "show", "e1"))
    text = shown["body"]["data"]["message"]
    assert text == ("Your code: ******" if mode == "masked" else None)
    (entry,) = run(runner, "quarantine", "list", "--format", "jsonl").splitlines()
    assert json.loads(entry)["length"] == 32
    assert json.loads(run(runner, "quarantine", "show", json.loads(entry)["id"]))["body"] is None
    receiver.store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("receiver.db*"))
    assert b"773914" not in stored


def test_trigger_every_documented_type_and_see_the_answers(
    serve: Callable[..., Server], runner: FlaskCliRunner
) -> None:
    server = serve()
    for kind in [*SAMPLES, "sent", "delivered", "failed"]:
        output = run(runner, "trigger", kind, "--url", f"{server.url}/webhooks/zimsend")
        assert '200 {"status": "accepted"' in output
    twice = server.command("trigger", "sms.sent", "--event-id", "e1", "--count", "2")
    assert [line.partition('"status": ')[2][:11] for line in twice.stdout.splitlines()] == [
        '"accepted",',
        '"duplicate"',
    ]
    options = ["--message-id", "m1", "--to", "+33700000000"]
    # To this machine itself there is no way through a proxy.
    chosen = server.flask("trigger", "sms.failed", *options, HTTP_PROXY="http://127.0.0.1:1")
    assert "m1" in chosen.stdout
    (event,) = [event for event in server.events() if event["message_id"] == "m1"]
    assert event["type"] == "sms.failed"
    wrong_secret = {"ZIMSEND_WEBHOOK_SECRET": "some-other-secret-entirely"}
    refused = server.command("trigger", "sms.sent", **wrong_secret)
    assert refused.exit_code == 1
    assert "401" in refused.stdout
    assert "not accepted" in refused.stderr.splitlines()[-1]
    nobody = server.command("trigger", "sms.sent", "--url", "http://127.0.0.1:1/webhooks/zimsend")
    assert nobody.exit_code == 1
    assert "is the receiver running?" in nobody.stderr.splitlines()[-1]
    assert server.command("trigger", "sms.unheard").exit_code == 2


def test_trigger_to_what_is_no_url(runner: FlaskCliRunner) -> None:
    output = run(runner, "trigger", "sms.sent", "--url", "http://127.0.0.1:port", status=2)
    assert "--url" in output.splitlines()[-1]


ODD = "\u202e\u200b\u3164"


@pytest.mark.each_engine
def test_no_terminal_obeys_what_an_id_holds(runner: FlaskCliRunner, provider: Provider) -> None:
    odd = body_of(f"sms.{ODD}", {"message_id": f"m{ODD}", "message": ODD}, event_id=f"e{ODD}")
    assert provider.post(odd).status_code == 200
    told = [
        run(runner, "events", "list"),
        run(runner, "events", "list", "--format", "jsonl"),
        run(runner, "events", "show", f"e{ODD}"),
        run(runner, "replay", "other", f"nothing{ODD}", status=1),
        run(runner, "events", "show", f"nothing{ODD}", status=1),
    ]
    for output in told:
        assert not set(ODD) & set(output)
        assert "\\u202e" in output
    assert json.loads(told[1])["event_id"] == f"e{ODD}"
    assert json.loads(told[2])["body"]["data"]["message"] == ODD


def test_no_terminal_obeys_a_remote_answer(runner: FlaskCliRunner, canned: Canned) -> None:
    canned.answers(status(500, b"\x1b]0;mine\x07\xc2\x9b2J\r\nno " + b"x" * 100_000))
    url = f"{canned.url}/webhooks/zimsend"
    output = run(runner, "trigger", "sms.sent", "--url", url, status=1)
    assert ": 500 \\x1b]0;mine\\x07\\x9b2J\\r\\nno xxx" in output
    assert len(output) < 3_000


def test_every_command_prints_by_the_one_function() -> None:
    for path in (ROOT / "receiver" / "commands").glob("*.py"):
        if path.name != "common.py":
            assert not re.search(r"click\.s?echo|\bprint\(|sys\.stdout", path.read_text()), path


def test_no_command_is_read_before_somebody_asks_for_it(app: Flask) -> None:
    """Most processes serve, or run one command."""
    code = (
        "import sys; from app import create_app; app = create_app();"
        " read = lambda: [m for m in sys.modules if m.startswith('receiver.commands.')];"
        " assert 'work' in app.cli.commands; assert not read(), read();"
        " app.cli.commands['work']; assert 'receiver.commands.simulate' not in read(), read()"
    )
    environ = {"ZIMSEND_WEBHOOK_SECRET": SECRET, "DATABASE_URL": "sqlite:///none.db"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, check=True)
    assert {name: command.name for name, command in app.cli.commands.items()} == {
        name: name for name in app.cli.commands
    }
