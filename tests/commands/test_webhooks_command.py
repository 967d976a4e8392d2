"""`flask webhooks`: beside the simulator, and beside answers that it does not give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from click.testing import Result
from flask.testing import FlaskCliRunner

from app import create_app
from receiver.commands import webhooks
from tests.canned import Canned, Step, ok, status
from tests.conftest import SECRET
from tests.server import Server, eventually, free_port, simulating

KEYS = {"ZIMSEND_API_KEY": "zs_test_real", "ZIMSEND_CLIENT_ID": "client_real"}
PUBLIC = "https://sms.example.com"
HOOK = f"{PUBLIC}/webhooks/zimsend"


Flask = Callable[..., Result]


@pytest.fixture
def flask(environ: dict[str, str], canned: Canned) -> Iterator[Flask]:
    """`flask webhooks …`, beside a ZimSend that answers as a test says."""
    canned.answers(ok({"webhooks": []}))
    apps = []

    def run(*arguments: str, **settings: str) -> Result:
        account = {"ZIMSEND_API_URL": f"{canned.url}/v1", "PUBLIC_URL": PUBLIC, **KEYS}
        app = create_app({**environ, **account, **settings})
        apps.append(app)
        app.extensions["receiver"].store.migrate()
        return FlaskCliRunner(app).invoke(args=["webhooks", *arguments])

    yield run
    for app in apps:
        parts = app.extensions["receiver"]
        parts.store.close()
        if parts.zimsend is not None:
            parts.zimsend.close()


def last_line(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    return result.output.splitlines()[-1]


MADE = {"webhook_id": "wh_7", "url": HOOK, "events": [], "status": "active"}
LISTED = ok({"webhooks": [{**MADE, "url": "https://example.com"}, {**MADE, "webhook_id": "wh_9"}]})


# --- register


def test_it_registers_with_the_secret_that_is_there(flask: Flask, canned: Canned) -> None:
    canned.answers(LISTED, ok(MADE))
    assert flask("register", PUBLIC_URL="https://other.example.com").exit_code == 0
    canned.answers(ok({"webhooks": []}), ok(MADE | {"secret": SECRET}))
    result = flask("register", ZIMSEND_WEBHOOK_SECRET=f"{SECRET},another-secret-of-mine")
    assert result.exit_code == 0
    assert f"wh_7 reports to {HOOK}" in result.output
    assert SECRET not in result.output
    asked = json.loads(canned.last.body)
    assert (asked["url"], asked["secret"]) == (HOOK, SECRET)
    assert set(asked["events"]) == set(webhooks.EVENTS)


@pytest.mark.parametrize("options", [["--new-secret"], []])
def test_a_secret_of_zimsends_is_shown_once(
    flask: Flask, canned: Canned, options: list[str]
) -> None:
    canned.answers(ok({"webhooks": []}), ok(MADE | {"secret": "whsec_of_zimsends"}))
    result = flask("register", *options)
    assert result.exit_code == 0
    assert result.output.count("whsec_of_zimsends") == 1
    assert "ZIMSEND_WEBHOOK_SECRET" in result.output
    assert ("secret" in json.loads(canned.last.body)) == (not options)


def test_a_secret_that_is_not_shown(flask: Flask, canned: Canned) -> None:
    canned.answers(ok({"webhooks": []}), ok(MADE))
    assert "delete wh_7" in last_line(flask("register", "--new-secret"), 1)
    canned.answers(ok({"webhooks": []}), ok(MADE))
    assert flask("register").exit_code == 0


def test_it_registers_once(flask: Flask, canned: Canned) -> None:
    canned.answers(LISTED)
    assert last_line(flask("register"), 0) == f"wh_9 reports to {HOOK} already"
    assert "delete wh_9" in last_line(flask("register", "--new-secret"), 1)
    assert {seen.method for seen in canned.seen} == {"GET"}


def test_a_secret_that_is_no_text(flask: Flask) -> None:
    result = flask("register", ZIMSEND_WEBHOOK_SECRET="\udcff" * 16)
    assert "--new-secret" in last_line(result, 1)


@pytest.mark.parametrize("command", ["register", "list", "delete wh_1", "test"])
def test_what_is_not_set_is_named(flask: Flask, canned: Canned, command: str) -> None:
    line = last_line(flask(*command.split(), ZIMSEND_API_KEY="", ZIMSEND_CLIENT_ID=""), 1)
    assert line.startswith("Error: ZIMSEND_API_KEY: not set")
    if command in ("register", "test"):
        line = last_line(flask(command, PUBLIC_URL=""), 1)
        assert line.startswith("Error: PUBLIC_URL: not set")
    canned.answers(ok({"error": {"code": "INVALID_API_KEY", "message": "no"}}, 401))
    line = last_line(flask(*command.split()), 1)
    assert "INVALID_API_KEY" in line
    assert KEYS["ZIMSEND_API_KEY"] not in line


@pytest.mark.parametrize("command", ["", "delete", "register x", "test a b", "nothing"])
def test_wrong_usage(flask: Flask, command: str) -> None:
    assert flask(*command.split()).exit_code == 2


@pytest.mark.parametrize("command", ["delete", "test"])
@pytest.mark.parametrize("no_id", ["", ".", ".."])
def test_what_is_no_id(flask: Flask, canned: Canned, command: str, no_id: str) -> None:
    assert "is no id" in last_line(flask(command, no_id), 2)
    assert not canned.seen


# --- list, delete


def test_it_lists(flask: Flask, canned: Canned) -> None:
    canned.answers(ok([{**MADE, "secret": "x" * 16, "events": ["sms.sent", "sms.failed"]}]))
    head, line = flask("list").output.splitlines()
    assert re.split(" {2,}", head) == ["WEBHOOK", "STATUS", "URL", "EVENTS"]
    assert re.split(" {2,}", line) == ["wh_7", "active", HOOK, "sms.sent sms.failed"]
    told = json.loads(flask("list", "--format", "jsonl").output)
    assert told == MADE | {"events": ["sms.sent", "sms.failed"]}


def test_it_deletes(flask: Flask, canned: Canned) -> None:
    canned.answers(status(204))
    assert last_line(flask("delete", "wh/7"), 0) == "wh/7 is deleted"
    assert (canned.last.method, canned.last.path) == ("DELETE", "/v1/webhooks/wh%2F7")
    canned.answers(ok({"error": {"code": "WEBHOOK_NOT_FOUND", "message": "no"}}, 404))
    for command in ("delete", "test"):
        line = last_line(flask(command, "wh_7"), 1)
        assert "no webhook 'wh_7' (WEBHOOK_NOT_FOUND)" in line
        assert "flask webhooks list" in line
        assert "90 days" not in line


# --- test


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (ok({"response_status": 401}), "ZIMSEND_WEBHOOK_SECRET"),
        (ok({"response_status": 404}), "PUBLIC_URL"),
        (ok({"response_status": 503}), "/readyz"),
        (ok({"response_status": 418}), "418"),
        (ok({"response_status": 200}), "DATABASE_URL"),
        (ok({"response_status": None}), "runs"),
    ],
)
def test_it_says_what_to_check(
    flask: Flask, canned: Canned, monkeypatch: pytest.MonkeyPatch, step: Step, told: str
) -> None:
    monkeypatch.setattr(webhooks, "ARRIVES_WITHIN", 0.1)
    canned.answers(LISTED, step)
    assert told in last_line(flask("test"), 1)
    assert canned.last.path == "/v1/webhooks/wh_9/test"
    canned.answers(step)
    assert told in last_line(flask("test", "wh_1"), 1)
    assert canned.last.path == "/v1/webhooks/wh_1/test"


def test_there_is_none_to_test(flask: Flask) -> None:
    assert "register" in last_line(flask("test"), 1)


def is_there(url: str) -> bool:
    try:
        return httpx.get(f"{url}/truth").is_success
    except httpx.HTTPError:
        return False


def test_beside_the_simulator(environ: dict[str, str], serve: Callable[..., Server]) -> None:
    port = free_port()
    server = serve(**KEYS, ZIMSEND_API_URL=f"http://127.0.0.1:{port}/v1")
    server.environ["PUBLIC_URL"] = server.url
    with simulating(server, port=port) as ran:
        eventually(lambda: is_there(ran.url))

        def flask(*arguments: str, code: int = 0, **settings: str) -> str:
            ended = server.command("webhooks", *arguments, **settings)
            assert ended.exit_code == code, ended.output
            return ended.output

        assert "wh_1 reports to" in flask("register")
        assert "wh_1 is deleted" in flask("delete", "wh_1")
        assert f"wh_2 reports to {server.url}/webhooks/zimsend" in flask("register")
        assert "arrived: sms.sent evt_test_" in flask("test")
        assert "wh_2 is deleted" in flask("delete", "wh_2")
        made = flask("register", "--new-secret")
        assert re.search(r"^  whsec_[0-9a-f]{32}$", made, re.MULTILINE)
        assert "ZIMSEND_WEBHOOK_SECRET" in flask("test", "wh_3", code=1)  # it was not put there
        assert "wh_3" in flask("list")
    assert [event["type"] for event in server.events()] == ["sms.sent"]
