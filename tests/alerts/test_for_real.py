"""Each rule, opened and closed by what makes it so, on both engines; and targets of all kinds."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import ConfigError, ids
from receiver.alerts import habits, sending
from receiver.alerts.looking import Looking
from receiver.alerts.rules import RULES
from receiver.alerts.sending import Parcel
from receiver.alerts.watching import Alerts
from receiver.event import Incoming
from receiver.parts import Receiver, parts
from receiver.providers.zimsend.webhook import parse
from receiver.reconciliation.planning import State
from receiver.store import Selection, Settlement, Store, Want
from receiver.times import DAY, HOUR, MINUTE, SECOND, iso
from receiver.worker.notes import StuckNote
from tests.canned import Canned, ok, status
from tests.conftest import Clock, Provider
from tests.payloads import body_of, envelope, sms
from tests.server import ROOT

TITLES = {f"zimsend-receiver: {rule.title[0].upper()}{rule.title[1:]}" for rule in RULES}
TOKEN = "s3cret-t0ken"


def sent(message_id: str, at: int, device_id: str | None = None) -> Incoming:
    data: dict[str, Any] = {"message_id": message_id, "sent_at": iso(at), "to": "+33612345678"}
    if device_id is not None:
        data["device_id"] = device_id
    return parse(body_of("sms.sent", data, timestamp=iso(at)), received_at=at, retention=90 * DAY)


def settle(store: Store, handler: str, state: Any, now: int) -> None:
    claims = store.work(now, [], [Want(handler, 10, HOUR, max_attempts=3)], 5)
    assert claims
    store.work(now, [Settlement(claim, state, now) for claim in claims], [], 5)


@pytest.fixture
def target(canned: Canned) -> Canned:
    canned.answers(ok({}))
    return canned


def url(target: Canned, path: str = TOKEN) -> str:
    return f"json://{target.url.removeprefix('http://')}/{path}"


@pytest.fixture
def environ(environ: dict[str, str], target: Canned) -> dict[str, str]:
    account = {"ZIMSEND_API_KEY": "zs_test_0123456789", "ZIMSEND_CLIENT_ID": "client_0123456789"}
    return {
        **environ,
        **account,
        "ALERT_URLS": url(target),
        "PUBLIC_URL": "https://sms.example.com",
    }


class Post:
    """Takes messages as they are sent, where no process is needed for it."""

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []
        self.problem: str | None = None

    def __call__(self, targets: Any, parcels: Any) -> list[str | None]:
        self.parcels += parcels
        return [self.problem for _ in parcels]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk that has room until a test says otherwise."""
    disk = SimpleNamespace(f_bavail=50, f_blocks=100)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    return disk


@pytest.mark.each_engine
def test_each_rule_opens_and_ends_once(
    receiver: Receiver,
    provider: Provider,
    clock: Clock,
    target: Canned,
    engine: str,
    quiet: SimpleNamespace,
) -> None:
    store, alerts = receiver.store, receiver.alerts
    assert alerts is not None
    if engine == "postgres":  # the way through a process is tried with the other one
        post = Post()
        looking = Looking(store, receiver.reconciliations, receiver.polling)
        alerts = Alerts(["json://x"], looking, store, clock, send=post)

    def told() -> list[tuple[str, str]]:
        if engine == "postgres":
            found = [(p.title, p.text) for p in post.parcels]
            post.parcels.clear()
        else:
            found = [(m["title"], m["message"]) for m in (json.loads(s.body) for s in target.seen)]
            target.seen.clear()
        return found

    # What goes wrong: asking for half an hour, and then all else at once.
    last = clock.time - 31 * MINUTE
    habit = [
        sent(f"h{day}_{n}", last - day * DAY + HOUR, "dev_1")
        for day in range(1, 8)
        for n in range(5)
    ]
    store.ingest([*habit, sent("last", last, "dev_1")], lambda _: (), 5)
    name = ids.of("zimsend", "reconciliation")
    asking = State(0, 0, 0, problem="ZimSend refused +33612345678", failures=1)
    store.write_note(name, json.dumps(dataclasses.asdict(asking)))
    for _ in range(6):
        alerts.step()
        clock.time += 5 * MINUTE
    assert told() == []

    late = clock.time - 16 * MINUTE
    store.ingest([sent("due", late)], lambda _: ("waits", "dies"), 5)
    settle(store, "dies", "dead", clock.time)
    back = sent("missed", clock.time)._replace(source="reconciliation")
    store.ingest([back], lambda _: (), 5)
    StuckNote(store).tell(clock.time, ["slow"])
    for _ in range(10):
        assert provider.post(envelope("sms.sent", sms("sent")), secret="x" * 20).status_code == 401
    assert receiver.counting.flush()
    quiet.f_bavail = 9
    alerts.step()
    alerts.step()  # it is not its turn yet
    opened = told()
    expected = set(TITLES)
    if engine == "postgres":
        expected -= {"zimsend-receiver: The disk is nearly full"}
    assert sorted(title for title, _ in opened) == sorted(expected)
    for _, text in opened:
        assert "+33612345678" not in text
        assert text.endswith(")")
    assert ("https://sms.example.com" in opened[0][1]) == (engine == "sqlite")

    # It is mended.
    quiet.f_bavail = 50
    store.write_note(name, json.dumps(dataclasses.asdict(State(0, 0, 0))))
    settle(store, "waits", "done", clock.time)
    store.replay(
        Selection(state="dead"), wanting=lambda _: ("dies",), now=clock.time, dry_run=False,
        progress=lambda _: None,
    )  # fmt: skip
    settle(store, "dies", "done", clock.time)
    clock.time += 31 * MINUTE
    store.ingest([sent("again", clock.time - MINUTE, "dev_1")], lambda _: (), 5)
    alerts.step()
    ended = {title.replace("Over: ", "") for title, _ in told()}
    assert len(ended) == len(opened)
    clock.time += HOUR - MINUTE
    alerts.step()
    assert told() == []


@pytest.mark.each_engine
def test_what_the_store_tells_of_phones_and_dead_work(store: Store) -> None:
    now = 20_780 * DAY
    assert store.last_heard() == {}
    assert store.heard([], 5) == []
    assert store.dead_of_handlers() == []
    items = [sent(f"a{n}", now + n * SECOND, "a") for n in range(9)]
    queued = parse(
        body_of("sms.queued", {"message_id": "q", "device_id": "a", "queued_at": iso(now + DAY)}),
        received_at=now + DAY,
        retention=90 * DAY,
    )
    store.ingest([*items, sent("b", now, "b'\""), queued, sent("nobody", now)], lambda _: ("h",), 5)
    assert store.last_heard() == {"a": now + 8 * SECOND, "b'\"": now}
    spans = [
        ("b'\"", now - 1, now),
        ("a", now, now + 3 * SECOND),
        ("a", 0, now + DAY),
        ("a", now + 8 * SECOND, now + 2 * DAY),
        ("c", 0, now + DAY),
    ]
    assert store.heard(spans, 5) == [1, 3, 5, 0, 0]
    store.work(now + 3 * DAY, [], [Want("h", 3, HOUR, max_attempts=3)], 5)
    claims = store.work(now + 3 * DAY, [], [Want("h", 3, HOUR, max_attempts=3)], 5)
    store.work(now, [Settlement(claim, "dead", now) for claim in claims], [], 5)
    assert store.dead_of_handlers() == [("h", 3)]


def test_habits() -> None:
    last, now = 20_780 * DAY, 20_780 * DAY + 3 * HOUR
    spans = habits.spans("d", last, now)
    assert spans[0] == ("d", last - DAY, now - DAY)
    assert [(last - after) // DAY for _, after, _ in spans] == [1, 2, 3, 4, 5, 6, 7, 14, 21, 28]
    daily, weekly = [5] * 7 + [0] * 3, [0] * 6 + [5] * 4
    assert habits.is_too_long(daily)
    assert habits.is_too_long(weekly)
    for pattern in (daily, weekly):
        for number, count in enumerate(pattern):
            if count:
                assert not habits.is_too_long([*pattern[:number], 4, *pattern[number + 1 :]])
    judged = [now - last for last in (now - HOUR + 1, now - HOUR, now - 28 * DAY, now - 29 * DAY)]
    assert [habits.is_to_judge(0, silence) for silence in judged] == [False, True, True, False]


# --- targets


@pytest.fixture
def hanging() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"json://127.0.0.1:{server.getsockname()[1]}/{TOKEN}"


def test_each_target_has_its_own_end(target: Canned, hanging: str) -> None:
    """One process for all of them: who hangs holds nobody up, and nothing secret is told."""
    target.answers(status(404), ok({}))
    targets = [url(target), hanging, "nonsense://x", "json://127.0.0.1:9"]
    ends = sending.send(targets, [Parcel(n, "t", "x", True) for n in range(4)], within=3.0)
    assert ends == [
        "it answered 404",
        "it did not answer within 3 s",
        "apprise does not understand its address",
        "it could not be reached, or refused",
    ]
    assert sending.name_of(targets, 1) == "target 2 of ALERT_URLS (json)"


def test_a_message_that_fails_is_tried_again_for_its_target_alone(
    receiver: Receiver, clock: Clock, quiet: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[tuple[int, int]] = []

    def send(targets: Any, parcels: Any) -> list[str | None]:
        tries.extend((parcel.target, clock.time) for parcel in parcels)
        return ["it hangs" if parcel.target else None for parcel in parcels]

    targets = [f"json://a/{TOKEN}", f"json://b/{TOKEN}"]
    looking = Looking(receiver.store, {}, None)

    def anew() -> Alerts:  # each look is of another process
        return Alerts(targets, looking, receiver.store, clock, send=send)

    quiet.f_bavail = 9
    began = clock.time
    caplog.set_level(logging.INFO)
    for _ in range(20):
        anew().step()
        clock.time += MINUTE
    assert [target for target, _ in tries] == [0, 1, 1, 1, 1, 1]
    assert [(at - began) // MINUTE for _, at in tries] == [0, 0, 1, 3, 7, 15]
    lines = [line for line in caplog.messages if "target" in line]
    assert len(lines) == 2
    assert "given up" in lines[1]
    assert TOKEN not in caplog.text


def test_one_process_of_all_sends(receiver: Receiver, clock: Clock, quiet: SimpleNamespace) -> None:
    quiet.f_bavail = 9
    post = Post()
    looking = Looking(receiver.store, {}, None)
    many = [Alerts(["json://x"], looking, receiver.store, clock, send=post) for _ in range(4)]
    for _ in range(10):
        for alerts in many:
            alerts.step()
        clock.time += 5 * SECOND
    assert len(post.parcels) == 1


@pytest.mark.parametrize("wrong", [20 * MINUTE, 2 * HOUR, 3 * DAY])
def test_a_clock_that_was_ahead_keeps_nobody_from_telling(
    receiver: Receiver, clock: Clock, quiet: SimpleNamespace, wrong: int
) -> None:
    post = Post()
    alerts = Alerts(
        ["json://x"], Looking(receiver.store, {}, None), receiver.store, clock, send=post
    )
    clock.time += wrong
    alerts.step()
    clock.time -= wrong
    quiet.f_bavail = 9
    alerts.step()
    assert len(post.parcels) == 1


def test_who_is_killed_before_sending_leaves_it_to_the_next(
    receiver: Receiver, clock: Clock, quiet: SimpleNamespace
) -> None:
    quiet.f_bavail = 9

    def dies(targets: Any, parcels: Any) -> list[str | None]:
        raise KeyboardInterrupt

    post = Post()
    looking = Looking(receiver.store, {}, None)
    with pytest.raises(KeyboardInterrupt):
        Alerts(["json://x"], looking, receiver.store, clock, send=dies).step()
    clock.time += MINUTE
    Alerts(["json://x"], looking, receiver.store, clock, send=post).step()
    assert [parcel.title for parcel in post.parcels] == [
        "zimsend-receiver: The disk is nearly full"
    ]


def test_without_apprise_the_start_says_what_to_install(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^ALERT_URLS: .*requirements-alerts.txt") as caught:
        create_app(environ)
    assert TOKEN not in str(caught.value)
    unset = create_app({**environ, "ALERT_URLS": ""})
    assert parts(unset).alerts is None
    assert (ROOT / "requirements-alerts.txt").exists()


def test_the_targets_are_in_no_environment_and_no_argument(
    target: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others on the machine see the arguments, and a library may tell its environment."""
    started: list[Any] = []

    def run(arguments: list[str], **options: Any) -> Any:
        started.append((arguments, options["env"]))
        raise OSError

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("ALERT_URLS", url(target))
    monkeypatch.setenv("ZIMSEND_WEBHOOK_SECRET", "whsec_hunter2hunter2")
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    (end,) = sending.send([url(target)], [Parcel(0, "t", "x", True)])
    assert end == "no process could be started (OSError)"
    assert TOKEN not in str(started)
    assert "hunter2" not in str(started)
    assert started[0][1]["https_proxy"] == "http://proxy:3128"


@pytest.mark.parametrize("in_front", [False, True])
def test_no_file_of_the_current_folder_stands_in_for_a_library(
    target: Canned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_front: bool
) -> None:
    """`manage.py` and the `flask` command put its folder in front of all others."""
    for name in ("email", "markdown", "requests", "smtplib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not meant')\n")
    monkeypatch.chdir(tmp_path)
    if in_front:
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert sending.send([url(target)], [Parcel(0, "t", "x", True)]) == [None]


def test_the_command_tries_each_target(
    app: Flask, runner: FlaskCliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = Post()
    monkeypatch.setattr(sending, "send", post)
    done = runner.invoke(args=["alerts", "test"])
    assert (done.exit_code, done.output) == (0, "target 1 of ALERT_URLS (json): sent\n")
    post.problem = "it answered 404"
    done = runner.invoke(args=["alerts", "test"])
    assert done.exit_code == 1
    assert "1 of 1 targets did not take it" in done.output
    assert TOKEN not in done.output
