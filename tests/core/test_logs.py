"""Who logs never waits for who reads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import threading
import time
from collections.abc import Iterator

import pytest
from pythonjsonlogger.json import JsonFormatter

from receiver.logs import Patient, logging_config
from tests.server import eventually
from tests.shortage import threads_allowed


class Pipe:
    """A pipe that holds little, and its reader, who reads when told to."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(self.reader, fcntl.F_SETPIPE_SZ, 4_096)
        os.set_blocking(self.reader, False)
        self.stream = os.fdopen(writer, "w")
        self.read = ""

    def lines(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            self.read += os.read(self.reader, 1_000_000).decode()
        return self.read.splitlines()

    def close(self) -> None:
        os.close(self.reader)
        eventually(lambda: not any(thread.name == "log" for thread in threading.enumerate()))
        self.stream.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def handler(pipe: Pipe) -> Iterator[Patient]:
    handler = Patient(pipe.stream)
    yield handler
    handler.close()


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelname": "INFO", "name": "test"})


def test_a_line_holds_nothing_that_a_terminal_obeys(pipe: Pipe, handler: Patient) -> None:
    handler.emit(record("event \u202e\x1b[2J came\nTraceback: é"))
    handler.flush()
    assert pipe.lines() == ["event \\u202e\\x1b[2J came", "Traceback: é"]


def test_nobody_waits_and_what_was_dropped_is_counted(pipe: Pipe, handler: Patient) -> None:
    began = time.monotonic()
    for number in range(3_000):
        handler.handle(record(f"line {number} {'x' * 60}"))
    assert time.monotonic() - began < 10  # nobody reads yet: who waits would wait for ever
    told = eventually(lambda: [line for line in pipe.lines() if "were dropped" in line])
    written = [line for line in pipe.lines() if line.startswith("line")]
    assert int(told[0].split()[0]) == 3_000 - len(written)
    assert written == sorted(written, key=lambda line: int(line.split()[1]))
    assert len(written) >= Patient.MOST


def test_without_a_thread_a_line_is_written_at_once(pipe: Pipe, handler: Patient) -> None:
    with threads_allowed("log", 0):
        handler.handle(record("one"))
    handler.handle(record("two"))
    handler.flush()
    assert pipe.lines() == ["one", "two"]


def test_nor_does_one_wait_without_a_thread(pipe: Pipe, handler: Patient) -> None:
    with threads_allowed("log", 0):
        ends = threading.Thread(
            target=lambda: [handler.handle(record("x" * 100)) for _ in range(100)], daemon=True
        )
        ends.start()
        ends.join(5)
        assert not ends.is_alive()  # nobody reads, and the pipe is full
    assert pipe.lines()
    handler.handle(record("last"))
    handler.flush()
    assert pipe.lines()[-1] == "last"


def test_a_long_line_is_cut_without_a_thread(pipe: Pipe, handler: Patient) -> None:
    fcntl.fcntl(pipe.reader, fcntl.F_SETPIPE_SZ, 8_192)
    with threads_allowed("log", 0):
        ends = threading.Thread(target=handler.handle, args=(record("x" * 20_000),), daemon=True)
        ends.start()
        ends.join(5)
        assert not ends.is_alive()
    (line,) = pipe.lines()
    assert 1_000 < len(line) < select.PIPE_BUF


def test_a_flush_waits_for_who_reads_and_not_for_ever(pipe: Pipe, handler: Patient) -> None:
    handler.handle(record("a line"))
    handler.flush()
    assert pipe.lines() == ["a line"]
    for _ in range(100):
        handler.handle(record("x" * 100))
    began = time.monotonic()
    handler.flush()
    assert 0.9 < time.monotonic() - began < 15


def test_the_count_of_dropped_lines_is_json_where_the_lines_are(
    pipe: Pipe, handler: Patient
) -> None:
    settings = logging_config("json", "info")["formatters"]["json"]
    handler.setFormatter(JsonFormatter(settings["fmt"], rename_fields=settings["rename_fields"]))
    for _ in range(2_000):
        handler.handle(record("x" * 50))
    told = eventually(lambda: [line for line in pipe.lines() if "were dropped" in line])
    assert json.loads(told[0])["level"] == "WARNING"


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/smscx/{}",
        "//webhooks///smscx//{}",
        "/webhooks/smscx/{}?a=b",
        "/webhooks/smscx/{}/",
        "/webhooks%2Fsmscx%2f{}",
        "/Webhooks/smscx/{}",
    ],
)
@pytest.mark.parametrize("formatter", [logging.Formatter(), JsonFormatter()])
def test_a_secret_in_a_path_is_in_no_line(path: str, formatter: logging.Formatter) -> None:
    pipe = Pipe()
    handler = Patient(pipe.stream)
    handler.setFormatter(formatter)
    line = f'10.0.0.1 - - "POST {path.format("tok_1.~-")} HTTP/1.1" 200 17 "-" "agent"'
    for message in (line, f"at {path.format('tok_1.~-')}"):
        handler.emit(logging.makeLogRecord({"msg": message}))
    eventually(lambda: len(pipe.lines()) == 2)
    assert "tok_1" not in pipe.read
    assert "smscx" in pipe.read
    assert "200 17" in pipe.read
    handler.close()
    pipe.close()


@pytest.mark.parametrize(
    "path",
    [
        "/WEBHOOKS/smscx/{}",
        "/webhooks/{}",
        "/smscx/{}",
        "/webhooks/smscx/other,{}",
        "/webhooks/smscx/'{}'",
        "/{}longer/x",
    ],
)
def test_a_secret_is_in_no_line_of_a_path_that_is_nearly_right(pipe: Pipe, path: str) -> None:
    config = logging_config("text", "info", hidden=["tok_1.~-", "tok_1.~-longer"])
    told = config["handlers"]["stderr"]
    handler = Patient(pipe.stream, hidden=told["hidden"])
    handler.emit(record(f'"POST {path.format("tok_1.~-")} HTTP/1.1" 404 194'))
    handler.flush()
    assert pipe.lines() == [line for line in pipe.lines() if "404 194" in line]
    assert "tok_1" not in pipe.read
    assert "longer" not in pipe.read
    handler.close()
