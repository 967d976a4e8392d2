"""From one database into another: everything, also after interruptions, and nothing else."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask.testing import FlaskCliRunner

from app import create_app
from receiver import event, times
from receiver.environment import Environment
from receiver.errors import CopyRefused
from receiver.event import Incoming
from receiver.parts import parts
from receiver.providers.zimsend.webhook import parse
from receiver.store import Selection, Settlement, Store, Want, copying, open_store
from receiver.times import DAY, HOUR, SECOND, iso
from tests.payloads import body_of
from tests.postgres import OURS, Databases
from tests.server import ROOT

NOW = times.now() // SECOND * SECOND
RETENTION = 90 * DAY
ENVIRON = {
    "ZIMSEND_WEBHOOK_SECRET": "whsec_0123456789abcdef0123456789abcdef",
    "ZIMSEND_API_KEY": "zs_test_key",
    "ZIMSEND_CLIENT_ID": "client_1",
    "ZIMSEND_API_URL": "http://127.0.0.1:9",  # nobody is there
    "HANDLERS": "",
}
ASKED = (
    "/v1/sms/stats",
    "/v1/sms/history?limit=100",
    "/v1/sms/history?limit=7&page=3",
    "/v1/sms/history?status=failed",
    "/v1/sms/history?device_id=dev_1",
    "/v1/sms/history?search=%C3%A9t%C3%A9",
    "/v1/sms/history?to=%2B33600000003",
    *(f"/v1/sms/status/m{number}" for number in range(40)),
)

#: Schemas; PostgreSQL's own one is none of ours.
NAMED = ("own", "other", "public")
Pair = tuple[str, str]


@pytest.fixture(params=["sqlite to postgres", "postgres to sqlite", "sqlite to sqlite"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """The URLs of two databases."""
    urls = []
    databases: Databases = request.getfixturevalue("databases")
    for number, engine in enumerate(request.param.split(" to ")):
        if engine == "sqlite":
            urls.append(f"sqlite:///{tmp_path / f'{number}.db'}")
        else:
            urls.append(databases.create(empty=True))
    yield urls[0], urls[1]
    for url in urls:
        if not url.startswith("sqlite"):
            databases.drop(url)


def incoming(body: bytes, received_at: int) -> Incoming:
    return parse(body, received_at=received_at, retention=RETENTION)


def fill(store: Store, messages: int = 40) -> None:
    """Something of everything that a store can hold."""
    chance = random.Random(1)
    for number in range(messages):
        at = NOW - chance.randrange(40) * DAY
        data = {
            "message_id": f"m{number}",
            "to": f"+3360000000{number % 10}",
            "message": chance.choice(["L’été \0 est là", "\ud800 half", "Rendez-vous à 10 h 📅"]),
            "device_id": f"dev_{number % 3}",
            "metadata": {"n": number, "deep": ["é", None, 1e300]},
        }
        states = chance.choice([["sent"], ["sent", "delivered"], ["sent", "failed"], ["queued"]])
        for step, state in enumerate(states):
            moment = at + step * SECOND
            more = {f"{state}_at": iso(moment)}
            if state == "failed":
                more["error"] = {"code": "NO_CREDIT", "message": "Plus de crédit\0"}
            body = body_of(
                f"sms.{state}", data | more, timestamp=iso(moment), event_id=f"e{number}.{state}"
            )
            store.ingest([incoming(body, moment)], lambda _: ("h", "other"), 5)
            if number % 7 == 0:  # the same thing under another id, and one id again
                again = body_of(
                    f"sms.{state}",
                    data | more,
                    timestamp=iso(moment),
                    event_id=f"r{number}.{state}",
                )
                store.ingest([incoming(again, moment)], lambda _: ("h",), 5)
                store.ingest([incoming(again, moment + HOUR)], lambda _: ("h",), 5)
    store.ingest(
        [incoming(body_of("device.connected", {}, event_id="d"), NOW)], lambda _: ("h",), 5
    )
    loose = body_of("otp.sent", {"message_id": "m1"}, timestamp=iso(NOW), event_id="o")
    store.ingest([incoming(loose, NOW)], lambda _: ("h",), 5)
    store.ingest([event.reject(b"\xff\0", "not UTF-8", received_at=NOW)], lambda _: (), 5)
    # Many are delivered, some fail, and three stay leased.
    store.work(
        NOW,
        [
            Settlement(c, "done", NOW)
            for c in store.work(
                NOW, [], [Want("h", 30, 30 * SECOND, 12), Want("other", 60, SECOND, 12)], 5
            )
        ],
        [],
        5,
    )
    claims = store.work(NOW, [], [Want("h", 9, 30 * SECOND, 12)], 5)
    states: tuple[Any, ...] = ("done", "dead", "pending")
    ended = [
        Settlement(c, states[n % 3], NOW + HOUR, "no\0 luck") for n, c in enumerate(claims[:6])
    ]
    store.work(NOW, ended, [], 5)
    store.expire(NOW - 30 * DAY, 5)
    store.write_note("a note", "été")


def all_of(store: Store) -> Any:
    events = list(store.events(Selection()))
    return (
        events,
        [store.body(e["event_id"]) for e in events],
        list(store.quarantined()),
        sorted(cell for cell in store.statistics(None, None, None) if cell[2]),
        store.note("a note"),
    )


def answers(url: str) -> list[bytes]:
    app = create_app({**ENVIRON, "DATABASE_URL": url}, lambda: NOW)
    headers = {"X-API-Key": "zs_test_key", "X-Client-ID": "client_1"}
    found = [app.test_client().get(path, headers=headers) for path in ASKED]
    app.extensions["receiver"].store.close()
    assert {answer.status_code for answer in found} <= {200, 404}
    assert json.loads(found[1].data)["pagination"]["total"] > 10
    return [answer.data for answer in found]


def opened(pair: Pair) -> tuple[Store, Store]:
    stores = open_store(pair[0]), open_store(pair[1])
    for store in stores:
        store.migrate()
    return stores


def quiet(what: str, done: int) -> None:
    pass


def test_everything_arrives_also_after_interruptions(pair: Pair) -> None:
    source, target = opened(pair)
    fill(source)
    expected, answered = all_of(source), answers(pair[0])

    class Interrupted(Exception):
        pass

    for table in ("events", "quarantine"):

        def interrupt(what: str, done: int, table: str = table) -> None:
            if what == table:
                raise Interrupted

        with pytest.raises(Interrupted):
            copying.copy(source, target, interrupt)
    counts = copying.copy(source, target, quiet)

    assert all_of(target) == expected == all_of(source)
    assert answers(pair[1]) == answered == answers(pair[0])
    assert counts["events"] == len(expected[0])
    # The other side goes on where this one stopped.
    (known, *_) = (e for e in expected[0] if e["type"] == "sms.sent")
    body = target.body(known["event_id"])
    assert body is not None
    assert target.ingest([incoming(body, NOW)], lambda _: ("h",), 5) == ["duplicate"]
    new = json.loads(body) | {"event_id": "new"}
    repeat = incoming(json.dumps(new).encode(), NOW)
    assert target.ingest([repeat], lambda _: ("h",), 5) == ["accepted"]
    *_, last = target.events(Selection())
    assert (last["event_id"], last["repeat"]) == ("new", True)
    assert len(target.work(NOW, [], [Want("other", 100, SECOND, 12)], 5)) > 9
    assert target.expire(NOW, 5) == source.expire(NOW, 5) != (0, 0, 0)
    source.close()
    target.close()


def test_what_is_written_meanwhile_is_noticed(pair: Pair) -> None:
    source, target = opened(pair)
    fill(source)

    def write(what: str, done: int) -> None:
        if what == "notes":
            body = body_of("device.connected", {}, event_id="meanwhile")
            source.ingest([incoming(body, NOW)], lambda _: (), 5)

    with pytest.raises(CopyRefused, match="differ in events"):
        copying.copy(source, target, write)
    copying.copy(source, target, quiet)  # and mended by the next one
    assert all_of(target) == all_of(source)
    source.close()
    target.close()


def test_a_database_that_holds_something_else_is_not_touched(pair: Pair) -> None:
    source, target = opened(pair)
    fill(source, 3)
    body = body_of("device.connected", {}, event_id="theirs")
    target.ingest([incoming(body, NOW)], lambda _: (), 5)
    before = all_of(target)
    with pytest.raises(CopyRefused, match="not empty"):
        copying.copy(source, target, quiet)
    with pytest.raises(CopyRefused, match="the same database"):
        copying.copy(source, source, quiet)
    assert all_of(target) == before
    source.close()
    target.close()


def test_a_target_that_has_served_since_the_copy_was_begun_is_not_overwritten(pair: Pair) -> None:
    source, target = opened(pair)
    fill(source, 3)

    def interrupt(what: str, done: int) -> None:
        if what == "messages":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copying.copy(source, target, interrupt)
    body = body_of("device.connected", {}, event_id="theirs")
    assert target.ingest([incoming(body, NOW)], lambda _: (), 5) == ["accepted"]
    with pytest.raises(CopyRefused, match="events of its own"):
        copying.copy(source, target, quiet)
    assert target.body("theirs") == body
    source.close()
    target.close()


def test_a_whole_copy_is_not_overwritten_by_a_second_one(pair: Pair) -> None:
    source, target = opened(pair)
    fill(source, 3)
    assert copying.copy(source, target, quiet) == copying.copy(source, target, quiet)
    body = body_of("device.connected", {}, event_id="since then")
    target.ingest([incoming(body, NOW)], lambda _: (), 5)
    before = all_of(target)
    with pytest.raises(CopyRefused, match="differ in events"):
        copying.copy(source, target, quiet)
    assert all_of(target) == before
    source.close()
    target.close()


def command(pair: Pair) -> list[str]:
    return [sys.executable, "-m", "flask", "copy", "--from", pair[0], "--to", pair[1]]


def test_killed_and_called_again(pair: Pair, tmp_path: Path) -> None:
    with closing(open_store(pair[0])) as source:
        source.migrate()
        fill(source, 400)
    environ = {**ENVIRON, "PATH": "", "FLASK_SKIP_DOTENV": "1", "DATABASE_URL": pair[0]}
    for seconds in (0.5, 0.8):
        process = subprocess.Popen(
            command(pair), cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        time.sleep(seconds)
        process.kill()
        process.communicate()
    done = subprocess.run(command(pair), cwd=ROOT, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.startswith("copied ")
    assert "both sides agree" in done.stdout
    assert answers(pair[1]) == answers(pair[0])


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    pair = f"sqlite:///{tmp_path / 'none.db'}", f"sqlite:///{tmp_path / 'other.db'}"
    environ = {**ENVIRON, "PATH": "", "FLASK_SKIP_DOTENV": "1"}
    done = subprocess.run(command(pair), cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no file" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--from", "--to"])
@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("nonsense", 2),
        ("sqlite:///", 2),
        ("postgres://user@host:port/database", 2),
        ("sqlite:////", 1),  # a folder
        ("postgres://user@127.0.0.1:1/database?connect_timeout=1", 1),
    ],
)
def test_the_option_is_named_whose_database_is_none(
    runner: FlaskCliRunner, tmp_path: Path, option: str, url: str, status: int
) -> None:
    urls = {}
    for number, name in enumerate(("--from", "--to")):
        path = tmp_path / f"{number}.db"
        path.touch()
        urls[name] = f"sqlite:///{path}"
    urls[option] = url
    ran = runner.invoke(args=["copy", *(word for pair in urls.items() for word in pair)])
    *_, last = ran.output.splitlines()
    assert ran.exit_code == status, ran.output
    assert last.startswith("Error: ")
    assert option in last
    assert "DATABASE_URL" not in last


def copied(environment: Environment, source: str, target: str) -> Result:
    app = create_app(environment)
    ran = app.test_cli_runner().invoke(args=["copy", "--from", source, "--to", target])
    parts(app).store.close()
    return ran


def test_what_the_settings_say_of_a_url_goes_for_these_as_well(
    tmp_path: Path, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a path begins, in which schema tables are, and what counts of a text in quotes."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    bare = databases.create(empty=True).removesuffix(OURS)
    own, other, none = (f"{bare}{'&' if '?' in bare else '?'}schema={n}" for n in NAMED)
    with closing(open_store(f"sqlite:///{there}/receiver.db")) as store:
        store.migrate()
        fill(store, 2)
        expected = all_of(store)
    environment = Environment(
        {**ENVIRON, "DATABASE_URL": bare, "DATABASE_SCHEMA": "own"}, folder=there
    )
    for source, target in (
        ("'sqlite:///receiver.db'", f' "{bare}"'),
        (bare, other),
        (other, none),
    ):
        ran = copied(environment, source, target)
        assert ran.exit_code == 0, ran.output
    for url in (own, other, none):
        with closing(open_store(url)) as store:
            assert all_of(store) == expected
    (here / "receiver.db").touch()  # it was meant, or the other one
    ran = copied(environment, "sqlite:///receiver.db", other)
    assert ran.exit_code == 2
    assert f"set --from=sqlite:///{here}/receiver.db" in ran.output.replace("\n", "")
