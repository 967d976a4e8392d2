"""`flask messages` and `flask stats`, and the rows of `flask events list`."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from flask.testing import FlaskCliRunner

from app import create_app
from receiver.parts import Receiver
from receiver.service import close
from receiver.sheets import csv_line
from receiver.store import Want
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from tests.commands.test_commands import listed, run
from tests.conftest import Clock, Provider
from tests.payloads import body_of

pytestmark = pytest.mark.each_engine


def report(
    provider: Provider, state: str, message_id: str, at: int, code: str = "", **data: Any
) -> None:
    fields = {"message_id": message_id, "to": "+33612345678", f"{state}_at": iso(at)} | data
    if code:
        fields["error"] = {"code": code, "message": "no"}
    test = {"test": True} if message_id.startswith("try") else {}
    body = body_of(f"sms.{state}", fields, timestamp=iso(at), event_id=f"{message_id}.{state}")
    body = json.dumps(json.loads(body) | test).encode()
    assert provider.post(body).status_code == 200


@pytest.fixture
def known(provider: Provider, clock: Clock) -> int:
    now = clock.time // DAY * DAY + 12 * HOUR
    clock.time = now
    report(provider, "delivered", "m1", now - DAY, metadata={"order": "CMD-1"}, device_id="d1")
    report(provider, "failed", "m2", now - DAY + HOUR, "NO_CREDIT", device_id="d1")
    report(provider, "failed", "m3", now - DAY + HOUR, "NO_CREDIT", device_id="d2")
    report(provider, "failed", "m4", now - MINUTE, "BLOCKED_NUMBER", to="+4915100000")
    report(provider, "failed", "try1", now - MINUTE, "BLOCKED_NUMBER")
    return now


def ids(runner: FlaskCliRunner, *arguments: str) -> list[str]:
    lines = run(runner, "messages", "--format", "jsonl", *arguments).splitlines()
    return [json.loads(line)["message_id"] for line in lines]


@pytest.mark.usefixtures("known")
def test_messages_newest_first_by_each_filter(
    runner: FlaskCliRunner, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in ("sqlite.listing", "postgres.mirror"):  # so that there are several pages
        monkeypatch.setattr(f"receiver.store.{where}._LISTED_AT_ONCE", 2)
    assert ids(runner) == ["m4", "try1", "m2", "m3", "m1"]
    assert ids(runner, "--status", "failed", "--error", "NO_CREDIT") == ["m2", "m3"]
    assert ids(runner, "--to", "+49 (0)151 00 000") == ["m4"]
    assert ids(runner, "--metadata", "order=CMD-1") == ["m1"]
    assert ids(runner, "--metadata", "order=CMD-1", "--metadata", "shop=1") == []
    assert ids(runner, "--since", iso(known - HOUR)) == ["m4", "try1"]
    assert ids(runner, "--until", iso(known - DAY)) == ["m1"]
    run(runner, "messages", "--metadata", "order", status=2)
    run(runner, "messages", "--to", " ", status=2)
    table = run(runner, "messages").splitlines()
    assert table[1].split() == [
        *(iso(known - MINUTE), "failed", "+4915100000", "BLOCKED_NUMBER", "m4")
    ]
    assert table[2].split()[-1] == "test"


@pytest.mark.usefixtures("known")
def test_one_message_with_its_timeline(runner: FlaskCliRunner, provider: Provider) -> None:
    shown = json.loads(run(runner, "messages", "show", "m2"))
    assert (shown["message_id"], shown["status"], shown["error_code"], shown["test"]) == (
        *("m2", "failed", "NO_CREDIT"),
        False,
    )
    assert shown["events_total"] == 1
    (event,) = shown["events"]
    assert (event["event_id"], event["error_code"]) == ("m2.failed", "NO_CREDIT")
    assert [work["state"] for work in event["deliveries"]] == ["pending", "pending"]
    assert "flask messages" in run(runner, "messages", "show", "nobody", status=1)


def test_how_many_failed_and_why(runner: FlaskCliRunner, known: int) -> None:
    def told(*arguments: str) -> list[dict[str, Any]]:
        lines = run(runner, "stats", "--format", "jsonl", *arguments).splitlines()
        return [json.loads(line) for line in lines]

    yesterday = ("--since", iso(known - DAY), "--until", iso(known - DAY))
    named = ("--since", "yesterday", "--until", "yesterday")
    assert told("--by", "error", *named) == told("--by", "error", *yesterday)
    assert told("--by", "error", *yesterday) == [{"error": "NO_CREDIT", "failed": 2}]
    assert [row["day"] for row in told()] == [iso(known - DAY)[:10], iso(known)[:10]]
    assert told(*yesterday) == [
        {
            "day": iso(known - DAY)[:10],
            "sent": 3,
            "delivered": 1,
            "failed": 2,
            "pending": 0,
            "cancelled": 0,
            "delivery_rate": 33.33,
        }
    ]
    assert [(row["device"], row["sent"]) for row in told("--by", "device")] == [
        *((None, 1), ("d1", 2), ("d2", 1))
    ]
    assert [(row["provider"], row["failed"]) for row in told("--by", "provider")] == [
        ("zimsend", 3)
    ]
    assert run(runner, "stats").splitlines()[0].startswith("DAY (UTC)")
    assert run(runner, "stats", "--by", "error").splitlines()[1].split() == ["NO_CREDIT", "2"]


def test_csv_is_for_spreadsheets(runner: FlaskCliRunner, provider: Provider, clock: Clock) -> None:
    report(provider, "sent", "m1", clock.time, message="=1+1\n\ud800", metadata={"a": "é"})
    result = runner.invoke(args=["messages", "--format", "csv"])
    assert result.exit_code == 0
    text = result.stdout_bytes.decode()
    assert text.startswith("\ufeff")
    (row,) = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    assert row["message"] == "'=1+1\n?"
    assert row["to"] == "+33612345678"
    assert json.loads(row["metadata"]) == {"a": "é"}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("=SUM(A1)", "'=SUM(A1)"),
        ("+1", "'+1"),
        ("+33612345678", "+33612345678"),
        ("+123456", "+123456"),
        ("+1234567890123456", "'+1234567890123456"),
        ("+33612345678\n", '"\'+33612345678\n"'),
        ("-2", "'-2"),
        ("@a", "'@a"),
        ("\tx", "'\tx"),
        ("\rx", '"\'\rx"'),
        ("a=1", "a=1"),
        (-2, "-2"),
        (None, ""),
        ('say "no"', '"say ""no"""'),
    ],
)
def test_no_cell_is_a_formula(cell: object, expected: str) -> None:
    assert csv_line([cell, "x"]) == f"{expected},x\r\n"


@pytest.mark.usefixtures("known")
def test_events_by_number_newest_first_and_no_more_than_asked(
    runner: FlaskCliRunner, receiver: Receiver, provider: Provider, clock: Clock
) -> None:
    def events(*arguments: str) -> list[str]:
        return [event["event_id"] for event in listed(runner, *arguments)]

    everything = events()
    assert events("--newest") == everything[::-1]
    assert events("--newest", "--limit", "2") == everything[:-3:-1]
    assert events("--limit", "9" * 20) == everything
    assert events("--to", "004915100000") == ["m4.failed"]
    assert [event["test"] for event in listed(runner)] == [False] * 4 + [True]
    receiver.store.work(clock.time, [], [Want("first", 1, 30 * SECOND, 12)], 5)
    work = [event["deliveries"][0] for event in listed(runner)]
    assert sum(one["next_attempt_at"] is None for one in work) == 1  # it runs


@pytest.mark.usefixtures("known")
def test_a_number_without_its_country_is_refused_unless_that_is_set(
    runner: FlaskCliRunner, environ: dict[str, str]
) -> None:
    def refusal(*arguments: str) -> str:
        return run(runner, *arguments, status=2).splitlines()[-1].partition(": this ")[2]

    searches = [("messages", "--to"), ("events", "list", "--to"), ("export", "--to")]
    told = {refusal(*search, "0612345678") for search in [*searches, ("forget",)]}
    assert len(told) == 1  # all say the same
    assert "set DEFAULT_COUNTRY" in told.pop()
    in_france = create_app({**environ, "DEFAULT_COUNTRY": "FR"})
    there = FlaskCliRunner(in_france)
    assert ids(there, "--to", "06 12 34 56 78") == ["try1", "m2", "m3", "m1"]
    assert len(listed(there, "--to", "0612345678")) == 4
    assert len(run(there, "export", "--to", "0612345678").splitlines()) == 5
    close(in_france)


def test_a_long_body_is_read_by_itself(
    runner: FlaskCliRunner, provider: Provider, clock: Clock
) -> None:
    report(provider, "failed", "m1", clock.time, "BLOCKED", message="x" * 20_000)
    assert [event["error_code"] for event in listed(runner)] == ["BLOCKED"]
