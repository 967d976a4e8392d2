"""The service inside another program, without any framework around it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from werkzeug.test import Client

from receiver import ConfigError, Event
from receiver.store import Selection
from tests.embedded.conftest import SETTINGS, Embed, client_of, parts_of, report
from tests.forks import in_a_fork
from tests.postgres import Databases
from tests.server import eventually
from tests.shortage import threads_allowed


def test_to_make_one_opens_nothing_and_starts_nothing(embed: Embed, tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    embedded = embed(migrate=False, embedded_worker=True)
    embedded.on("sms.failed")(lambda event: None)
    assert set(threading.enumerate()) <= threads  # one of another test may have ended meanwhile
    assert not list(tmp_path.iterdir())


def test_nothing_of_the_process_is_changed(embed: Embed) -> None:
    def seen() -> object:
        root = logging.getLogger()
        return (
            sys.getswitchinterval(),
            gc.get_threshold(),
            gc.get_freeze_count(),
            os.getpriority(os.PRIO_PROCESS, 0),
            [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)],
            dict(os.environ),
            root.level,
            list(root.handlers),
            logging.getLogger("receiver").level,
            warnings.filters[:],
        )

    before = seen()
    embedded = embed(embedded_worker=True)
    assert report(client_of(embedded), "sent", "m1", at="/sms/webhooks/zimsend").status_code == 200
    assert client_of(embedded).get("/sms/").status_code == 200
    assert seen() == before


def test_the_hosts_debug_mode_is_the_hosts(embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert not embed(migrate=False).application.debug


def test_a_wrong_setting_is_one_line_that_names_it(embed: Embed) -> None:
    with pytest.raises(ConfigError, match="RETENTION_DAYS: must be a whole number") as caught:
        embed(SETTINGS | {"RETENTION_DAYS": "long"}, migrate=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="HANDLERS: cannot import no_such_module"):
        embed(SETTINGS | {"HANDLERS": ["no_such_module"]}, migrate=False)


def test_it_receives_under_a_prefix_and_handlers_run_in_a_process_beside_it(embed: Embed) -> None:
    embedded = embed()
    calls: list[str] = []
    embedded.on("sms.failed", name="note")(lambda event: calls.append(event.id))
    assert (
        report(client_of(embedded), "failed", "m1", at="/sms/webhooks/zimsend").status_code == 200
    )
    (event,) = parts_of(embedded).store.events(Selection())
    assert [one["handler"] for one in event["deliveries"]] == ["note"]
    assert not [t for t in threading.enumerate() if t.name in ("worker", "upkeep")]
    assert calls == []


def test_handlers_may_come_after_the_first_request_and_run_inside_the_hosts_context(
    embed: Embed,
) -> None:
    inside: list[str] = []

    @contextmanager
    def context() -> Iterator[None]:
        inside.append("in")
        yield
        inside.append("out")

    embedded = embed(embedded_worker=True, inside=context)
    client = client_of(embedded)
    assert client.get("/sms/readyz").status_code == 200
    early: list[Event] = []
    embedded.on("sms.failed", name="early")(early.append)
    report(client, "failed", "m1", at="/sms/webhooks/zimsend")
    eventually(lambda: early)
    report(client, "delivered", "m2", at="/sms/webhooks/zimsend")  # which nobody wants yet
    late: list[list[str]] = []
    embedded.on("sms.delivered", name="late")(lambda event: late.append(list(inside)))
    report(client, "delivered", "m3", at="/sms/webhooks/zimsend")
    eventually(lambda: late)
    assert late == [["in", "out", "in"]]


def test_a_fork_uses_nothing_that_was_opened_before_it(embed: Embed, databases: Databases) -> None:
    """As under a server that loads the program, is asked once, and then forks its workers."""
    embedded = embed(SETTINGS | {"DATABASE_URL": databases.create(empty=True)})
    client = client_of(embedded)
    assert report(client, "sent", "m1", at="/sms/webhooks/zimsend").status_code == 200

    def check() -> bool:
        answer = report(client, "sent", "m2", at="/sms/webhooks/zimsend")
        embedded.close()
        return answer.status_code == 200

    assert in_a_fork(check)
    assert report(client, "sent", "m3", at="/sms/webhooks/zimsend").status_code == 200
    stored = [e["message_id"] for e in parts_of(embedded).store.events(Selection())]
    assert stored == ["m1", "m2", "m3"]


def test_what_has_not_been_used_may_be_forked(embed: Embed, tmp_path: Path) -> None:
    embed().close()  # the tables are there
    embedded = embed(migrate=False, embedded_worker=True)
    calls: list[str | None] = []
    embedded.on("*", name="note")(lambda event: calls.append(event.message_id))

    def check() -> bool:
        answer = report(client_of(embedded), "sent", "m1", at="/sms/webhooks/zimsend")
        eventually(lambda: calls == ["m1"], 10)
        embedded.close()
        return answer.status_code == 200

    assert in_a_fork(check)
    assert calls == []
    assert client_of(embedded).get("/sms/readyz").status_code == 200


def test_a_fork_waits_for_no_thread_that_has_not_come_along(
    embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the server forks while its first request makes the application."""
    embedded = embed()
    embedded.close()
    make, here = embedded._make, os.getpid()
    makes, goes_on = threading.Event(), threading.Event()

    def slowly() -> Flask:
        if os.getpid() == here:
            makes.set()
            assert goes_on.wait(30)
        return make()

    monkeypatch.setattr(embedded, "_make", slowly)

    def check() -> bool:
        answer = report(client_of(embedded), "sent", "m1", at="/sms/webhooks/zimsend")
        embedded.close()
        return answer.status_code == 200

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(lambda: embedded.application)
        try:
            assert makes.wait(10)
            assert in_a_fork(check)
        finally:
            goes_on.set()
        assert made.result(10) is embedded.application


def test_a_file_of_sqlite_is_not_used_by_a_fork_of_who_has_used_it(
    embed: Embed, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite keeps its locks in memory: a write that went on at the fork would never end there,
    and the log of the one would be removed by the other."""
    embedded = embed()
    client = client_of(embedded)
    assert report(client, "sent", "m1", at="/sms/webhooks/zimsend").status_code == 200

    def check() -> bool:
        answers = [report(client, "sent", "m2", at="/sms/webhooks/zimsend") for _ in range(2)]
        ran = CliRunner().invoke(embedded.group, ["events", "list"])
        embedded.close()
        return (
            [answer.status_code for answer in answers] == [503, 503]
            and "Retry-After" in answers[0].headers
            and answers[0].content_type == "application/problem+json"
            and ran.exit_code == 1
            and "is a fork" in ran.output
            and len([r for r in caplog.records if r.levelname == "CRITICAL"]) == 1
        )

    assert in_a_fork(check)
    assert report(client, "sent", "m3", at="/sms/webhooks/zimsend").status_code == 200
    stored = [e["message_id"] for e in parts_of(embedded).store.events(Selection())]
    assert stored == ["m1", "m3"]


def test_of_many_first_requests_one_begins_the_work(embed: Embed) -> None:
    embedded = embed(embedded_worker=True)
    before = threading.enumerate()
    start = threading.Barrier(16)
    seen: list[str | None] = []
    embedded.on("*", name="note")(lambda event: seen.append(event.message_id))

    def first(number: int) -> int:
        start.wait()
        client = client_of(embedded)
        return report(client, "sent", f"m{number}", at="/sms/webhooks/zimsend").status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(first, range(16))) == {200}
    names = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [names.count(name) for name in ("worker", "upkeep", "committer")] == [1, 1, 1]
    eventually(lambda: len(seen) >= 16)
    assert sorted(seen) == sorted(f"m{number}" for number in range(16))


@pytest.mark.parametrize("name", ["worker", "upkeep", "reconciliation"])
def test_what_cannot_start_for_a_while_starts_with_a_later_request(
    embed: Embed, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    before = threading.enumerate()
    account = SETTINGS | {"ZIMSEND_API_KEY": "key", "ZIMSEND_CLIENT_ID": "client"}
    embedded = embed(account, embedded_worker=True)
    client = client_of(embedded)
    called: list[Event] = []
    embedded.on("*", name="note")(called.append)
    with threads_allowed(name, 0) as allowed:
        for number in range(2):  # webhooks are stored all the same
            message_id = f"m{number}"
            answer = report(client, "sent", message_id, at="/sms/webhooks/zimsend")
            assert answer.status_code == 200
        assert allowed.refused == 2
    told = [r for r in caplog.records if "cannot start yet" in r.message]
    assert len(told) == 1
    assert client.get("/sms/healthz").status_code == 200
    eventually(lambda: len(called) == 2)
    names = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [names.count(each) for each in ("worker", "upkeep", "reconciliation")] == [1, 1, 1]


def test_one_that_could_start_nothing_can_be_closed(embed: Embed) -> None:
    embedded = embed(embedded_worker=True)
    with threads_allowed("worker", 0):
        report(client_of(embedded), "sent", "m1", at="/sms/webhooks/zimsend")
        embedded.close()
    called: list[Event] = []
    embedded.on("*", name="note")(called.append)
    report(client_of(embedded), "sent", "m2", at="/sms/webhooks/zimsend")
    eventually(lambda: called)


def test_two_in_one_process_know_nothing_of_each_other(embed: Embed) -> None:
    one = embed(SETTINGS | {"DATABASE_URL": "sqlite:///one.db", "V1_API_KEY": "first"})
    other = embed(
        SETTINGS | {"DATABASE_URL": "sqlite:///other.db", "V1_API_KEY": "second"},
        authorize=lambda: True,
        called="other",
    )
    one.on("*", name="of the one")(lambda event: None)
    report(client_of(one), "failed", "m1", at="/sms/webhooks/zimsend")
    answers = [
        client_of(each).get("/sms/v1/sms/history", headers={"X-API-Key": "first"})
        for each in (one, other)
    ]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert [client_of(each).get("/sms/").text[:9] for each in (one, other)] == [
        "zimsend-r",
        "<!doctype",
    ]
    assert client_of(other).get("/sms/messages/m1").status_code == 404
    assert len(other.registry) == 0
    assert len(list(parts_of(other).store.events(Selection()))) == 0


def test_commands_are_those_of_the_service(embed: Embed) -> None:
    embedded = embed()
    embedded.on("sms.failed", name="note")(lambda event: None)
    report(client_of(embedded), "failed", "m1", at="/sms/webhooks/zimsend")

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(embedded.group, list(arguments))
        return result.exit_code, result.output

    assert run("migrate") == (0, "the schema is up to date\n")
    status, told = run("events", "list", "--since", "today", "--format", "jsonl")
    assert status == 0
    assert '"m1"' in told
    assert "note" in run("handlers")[1]
    assert run("events", "show", "nobody")[0] == 1
    assert run("replay")[0] == 2
    status, told = run("config")
    assert "settings" in told
    assert "whsec" not in told


def test_after_its_end_it_begins_anew(embed: Embed) -> None:
    before = set(threading.enumerate())
    embedded = embed(embedded_worker=True)
    client = client_of(embedded)
    called: list[Event] = []
    embedded.on("*", name="note")(called.append)
    report(client, "sent", "m1", at="/sms/webhooks/zimsend")
    eventually(lambda: called)
    began = time.monotonic()
    embedded.close()
    assert time.monotonic() - began < 4.5  # less than it waits for handlers
    eventually(lambda: not set(threading.enumerate()) - before)
    assert report(client, "sent", "m2", at="/sms/webhooks/zimsend").status_code == 200
    assert len(list(parts_of(embedded).store.events(Selection()))) == 2


def test_the_bare_prefix_leads_below_it(embed: Embed) -> None:
    answer = client_of(embed(migrate=False)).get("/sms?lang=fr")
    assert (answer.status_code, answer.headers["Location"]) == (308, "/sms/?lang=fr")


@pytest.mark.parametrize("path", ["", "/", "/messages"])
def test_no_prefix_leads_to_another_host(embed: Embed, path: str) -> None:
    """As where a host has a pattern in it that takes any path: `<path:shop>/sms/`."""
    embedded = embed(SETTINGS | {"ADMIN_PASSWORD": "horse", "SECRET_KEY": "k" * 32})
    at = {"SCRIPT_NAME": "//evil.example/sms", "PATH_INFO": path}
    answer = Client(embedded).get("/", environ_overrides=at)
    assert answer.headers["Location"].startswith("/evil.example/sms/")
