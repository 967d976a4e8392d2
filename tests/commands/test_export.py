"""`flask export`: whole, provably, in constant memory; and harmless to a spreadsheet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import resource
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskCliRunner

from receiver.commands import export
from receiver.parts import Receiver
from tests.conftest import Provider
from tests.payloads import envelope, sms

NAMES = ("m1", "=cmd|' /C calc'!A0", "m3")


@pytest.fixture
def filled(app: Flask, provider: Provider) -> FlaskCliRunner:
    """Three messages, of which one has an id that spreadsheets run."""
    for number, name in enumerate(NAMES):
        data = sms("sent", name) | {
            "to": f"+3361234567{number}",
            "message": f"été 👋 \ud800 {number}",
        }
        response = provider.post(envelope("sms.sent", data, event_id=f"e{number}"))
        assert response.status_code == 200
    return FlaskCliRunner(app)


def run(runner: FlaskCliRunner, *arguments: str, status: int = 0) -> Result:
    result = runner.invoke(args=["export", *arguments])
    assert result.exit_code == status, result.output
    return result


def rows_of(output: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a stream, which its last line proves whole."""
    *lines, last = output.splitlines(keepends=True)
    told = json.loads(last)
    assert told["count"] == len(lines)
    assert told["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
    return [json.loads(line) for line in lines], told


@pytest.mark.each_engine
def test_a_stream_of_messages_and_of_events(filled: FlaskCliRunner) -> None:
    messages, told = rows_of(run(filled).stdout_bytes)
    assert told["export"] == "messages"
    assert {row["message_id"] for row in messages} == set(NAMES)
    assert "été 👋" in messages[0]["message"]
    events, _ = rows_of(run(filled, "--what", "events").stdout_bytes)
    assert [row["event_id"] for row in events] == ["e0", "e1", "e2"]
    assert events[1]["body"]["data"]["message_id"] == NAMES[1]
    assert events[1]["to"] == "+33612345671"
    assert [d["handler"] for d in events[0]["deliveries"]]


@pytest.mark.each_engine
def test_what_is_chosen(filled: FlaskCliRunner) -> None:
    for what in ("messages", "events"):
        rows, _ = rows_of(run(filled, "--what", what, "--to", "0033612345671").stdout_bytes)
        assert [row["message_id"] for row in rows] == [NAMES[1]]
        rows, _ = rows_of(run(filled, "--what", what, "--until", "2d").stdout_bytes)
        assert rows == []
        rows, _ = rows_of(run(filled, "--what", what, "--since", "400d").stdout_bytes)
        assert len(rows) == 3


def test_a_number_without_its_country_makes_no_empty_file(
    filled: FlaskCliRunner, tmp_path: Path
) -> None:
    file = tmp_path / "hers.csv"
    for what, to in (("messages", "0612345671"), ("events", "06 12 34 56 71"), ("messages", "")):
        refused = run(filled, "--what", what, "--to", to, "--out", str(file), status=2)
        assert "+33612345678, or set DEFAULT_COUNTRY" in refused.output
    assert not file.exists()


def test_a_csv_for_a_spreadsheet(filled: FlaskCliRunner) -> None:
    for what, number in (("messages", "+33612345671"), ("events", "+33612345671")):
        output = run(filled, "--format", "csv", "--what", what).stdout_bytes
        assert output.startswith(b"\xef\xbb\xbf")
        table = list(csv.reader(io.StringIO(output.decode("utf-8-sig"), newline="")))
        assert len({len(row) for row in table[:-1]}) == 1
        cells = {cell for row in table for cell in row}
        assert number in cells  # a number is whole, and none is run
        assert f"'{NAMES[1]}" in cells
        assert not [c for c in cells if c[:1] in set("=+-@\t\r") and not c[1:].isdigit()]
        body = b"".join(output.splitlines(keepends=True)[:-1])
        assert table[-1] == [
            f"# export: {what}, count: 3, sha256: {hashlib.sha256(body).hexdigest()}"
        ]


def test_a_file_is_whole_private_and_proves_it(filled: FlaskCliRunner, tmp_path: Path) -> None:
    file = tmp_path / "all of it.ndjson"
    file.write_text("the one before")
    result = run(filled, "--out", str(file))
    assert result.output.splitlines()[-1].startswith(f"{file} holds 3 messages")
    assert len(file.read_text().splitlines()) == 3
    digest = tmp_path / "all of it.ndjson.sha256"
    assert digest.read_text().splitlines()[0] == "# 3 messages"
    subprocess.run(["sha256sum", "-c", digest.name], cwd=tmp_path, check=True, capture_output=True)
    assert {stat.S_IMODE(os.stat(f).st_mode) for f in (file, digest)} == {0o600}
    run(filled, "--out", str(file), "--format", "csv")
    assert digest.read_text().splitlines()[0] == "# 3 messages"
    assert not list(tmp_path.glob(".*"))


def test_an_export_that_fails_leaves_the_file_before(
    filled: FlaskCliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out"
    run(filled, "--out", str(file))
    before = file.read_bytes(), (tmp_path / "out.sha256").read_bytes()

    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_json", full)
    assert "No space left" in run(filled, "--out", str(file), status=1).output
    monkeypatch.setattr(export, "_json", lambda row: (_ for _ in ()).throw(KeyboardInterrupt))
    assert filled.invoke(args=["export", "--out", str(file)]).exit_code == 1
    assert (file.read_bytes(), (tmp_path / "out.sha256").read_bytes()) == before
    assert not list(tmp_path.glob(".*.partial"))
    nowhere = tmp_path / "none" / "out"
    assert "cannot be written" in run(filled, "--out", str(nowhere), status=1).output


def test_memory_does_not_grow_with_the_rows() -> None:
    """What is written is not held."""
    sink = open(os.devnull, "wb")  # noqa: SIM115
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with sink:
        count, _ = export._write(sink, (b"x" * 200 for _ in range(200_000)), lambda _: None)
    assert count == 200_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000


def test_neither_the_database_nor_a_device_is_replaced(
    filled: FlaskCliRunner, receiver: Receiver, tmp_path: Path
) -> None:
    database = Path(receiver.config.database_url.removeprefix("sqlite:///"))
    before = database.stat().st_ino
    link = tmp_path / "link"
    link.symlink_to(database)
    for name in (database, Path(f"{database}-wal"), link):
        assert "the database itself" in run(filled, "--out", str(name), status=2).stderr
    assert database.stat().st_ino == before
    assert not Path(f"{database}.sha256").exists()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for command in (["export", "--out", str(pipe)], ["backup", str(pipe)]):
        result = filled.invoke(args=command)
        assert (result.exit_code, "is no file" in result.stderr) == (2, True)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
